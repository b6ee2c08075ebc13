//! What the distribution provides. Only Debian's and Ubuntu's packages are installed, and only by root.

use std::path::Path;

use anyhow::{Result, bail};

use crate::{preflight, step};

/// Installs `package` unless its `program` is on the path.
pub(super) fn ensure_program(program: &str, package: &str) -> Result<()> {
    ensure(
        step::succeeds(step::command(program).arg("--version")),
        program,
        package,
    )
}

/// The tests are linked statically, so that the same binaries run inside the virtual machines.
pub(super) fn ensure_static_libc() -> Result<()> {
    let found = step::output_of(step::command("cc").arg("-print-file-name=libc.a"))?;
    ensure(
        Path::new(found.trim()).is_absolute(),
        "the static C library (libc.a)",
        "libc6-dev",
    )
}

/// Installs `package` unless `what` it brings is `present`.
pub(super) fn ensure(present: bool, what: &str, package: &str) -> Result<()> {
    if present {
        return Ok(());
    }
    if !step::succeeds(step::command("apt-get").arg("--version")) {
        bail!(
            "{what} is missing, and this host has no apt-get to install it; install what your distribution has in place of Debian's `{package}`"
        );
    }
    if !preflight::is_root() {
        bail!(
            "{what} is missing; type:\n  sudo apt-get update\n  sudo apt-get install -y --no-install-recommends {package}"
        );
    }
    let install = || {
        let mut command = step::command("apt-get");
        command
            .args(["install", "-y", "--no-install-recommends", package])
            .env("DEBIAN_FRONTEND", "noninteractive");
        step::run_download(&mut command)
    };
    with_fresh_index(install)
}

/// Does `action`; if it fails, fetches the package lists (a fresh machine has none, old ones name what is gone) and
/// does it once more.
pub(crate) fn with_fresh_index<T>(action: impl Fn() -> Result<T>) -> Result<T> {
    action().or_else(|error| {
        step::announce(&format!("updating the package lists, because: {error:#}"));
        step::run_download(step::command("apt-get").arg("update"))?;
        action()
    })
}
