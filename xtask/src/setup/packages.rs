//! What the distribution provides. Only Debian's and Ubuntu's packages are installed, and only by root.

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context as _, Result, bail};

use crate::{preflight, step};

/// Installs `package` unless its `program` is on the path.
pub(super) fn ensure_program(program: &str, package: &str) -> Result<()> {
    ensure(is_there(program), program, package)
}

fn is_there(program: &str) -> bool {
    step::succeeds(step::command(program).arg("--version"))
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

/// The engines whose containers are tested, with their clients and iptables. The tests start them in scenes of their own;
/// the machine's own must not start for being installed.
pub(super) fn ensure_engines() -> Result<()> {
    // Docker's package brings iptables, containerd and runc, except that in newer distributions its client is on its own.
    let programs = [
        ("dockerd", "docker.io"),
        ("docker", "docker-cli"),
        ("iptables", "iptables"),
        ("containerd", "containerd"),
        ("runc", "runc"),
        ("crun", "crun"),
        ("podman", "podman"),
    ];
    if programs.iter().all(|(program, _)| is_there(program)) {
        return Ok(());
    }
    let _policy = ServicePolicy::keep_stopped(Path::new("/usr/sbin/policy-rc.d"))?;
    programs
        .iter()
        .try_for_each(|(program, package)| ensure_program(program, package))
}

/// The SDK for Python, which containers of the tests use: they have this machine's `/usr`, and the interpreter there.
pub(super) fn ensure_sdk() -> Result<()> {
    let present = step::succeeds(step::command("/usr/bin/python3").args(["-c", "import boto3"]));
    ensure(present, "the AWS SDK for Python", "python3-boto3")
}

/// Tells Debian's package scripts not to start services, while this lives.
struct ServicePolicy {
    file: Option<PathBuf>,
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

// === impl ServicePolicy ===

impl ServicePolicy {
    /// Does nothing where there is a policy already, or where nothing can be installed anyway.
    fn keep_stopped(file: &Path) -> Result<Self> {
        if !preflight::is_root() {
            return Ok(Self { file: None });
        }
        // If this process cannot remove the file, it denies nothing any more: it asks whether the process is there.
        let script = format!("#!/bin/sh\n[ -d /proc/{} ] && exit 101\nexit 0\n", process::id());
        let created = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(file);
        match created.and_then(|mut policy| io::Write::write_all(&mut policy, script.as_bytes())) {
            Ok(()) => Ok(Self {
                file: Some(file.to_owned()),
            }),
            Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {
                Ok(Self { file: None })
            }
            Err(error) => Err(error).with_context(|| format!("cannot write {}", file.display())),
        }
    }
}

impl Drop for ServicePolicy {
    fn drop(&mut self) {
        if let Some(file) = &self.file
            && let Err(error) = fs::remove_file(file)
        {
            eprintln!("warning: cannot remove {}: {error}", file.display());
        }
    }
}
