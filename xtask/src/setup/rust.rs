//! Toolchains, their components, and the tools that cargo installs.

use anyhow::{Result, bail};

use super::Purpose;
use crate::{cargo, step};

/// What the eBPF side is built with, and what formats the code.
const NIGHTLY_COMPONENTS: [&str; 3] = ["rust-src", "rustfmt", "clippy"];

/// Nightly for the eBPF side; clippy for both sides where lints are checked.
pub(super) fn ensure_toolchains(purpose: Purpose) -> Result<()> {
    if !step::succeeds(step::command("rustup").arg("--version")) {
        bail!(
            "rustup is missing, and the eBPF side needs its nightly toolchain; type:\n  \
            curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
        );
    }
    let needed: &[&str] = if purpose >= Purpose::Ci {
        &NIGHTLY_COMPONENTS
    } else {
        &["rust-src"]
    };
    if !step::succeeds(step::command("rustup").args(["run", "nightly", "rustc", "--version"])) {
        let install = ["toolchain", "install", "nightly", "--profile", "minimal", "--component"];
        step::run_download(step::command("rustup").args(install).arg(needed.join(",")))?;
    }
    ensure_components(&["--toolchain", "nightly"], needed)?;
    if purpose >= Purpose::Ci {
        ensure_components(&[], &["clippy"])?;
    }
    Ok(())
}

/// `toolchain` selects one as rustup's options do; empty means the default one.
fn ensure_components(toolchain: &[&str], needed: &[&str]) -> Result<()> {
    let list = step::output_of(
        step::command("rustup")
            .args(["component", "list", "--installed"])
            .args(toolchain),
    )?;
    let missing: Vec<_> = needed
        .iter()
        .filter(|name| !list.lines().any(|line| names(line, name)))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    step::run_download(
        step::command("rustup")
            .args(["component", "add"])
            .args(missing)
            .args(toolchain),
    )
}

/// Whether a line of `rustup component list` is about `component`; some carry the target triple as a suffix.
fn names(line: &str, component: &str) -> bool {
    line.strip_prefix(component)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// The judge of licenses, duplicates and sources of what we depend on.
pub(super) fn ensure_cargo_deny() -> Result<()> {
    if step::succeeds(cargo::stable().args(["deny", "--version"])) {
        return Ok(());
    }
    step::run_download(cargo::stable().args(["install", "cargo-deny", "--locked"]))
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn a_component_is_found_with_and_without_its_triple() {
        assert!(names("rust-src", "rust-src"));
        assert!(names("clippy-x86_64-unknown-linux-gnu", "clippy"));
        assert!(!names("rustfmt-x86_64-unknown-linux-gnu", "rust-src"));
    }
}
