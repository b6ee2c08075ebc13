//! `cargo xtask ci`: what a change must pass, the cheap checks first. Stops at the first failure.

use std::process::{ExitCode, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    cargo, matrix,
    setup::{self, Purpose},
    step, test,
};

/// What aya-build compiles the eBPF side with; lints must see the same code.
const BPF_RUSTFLAGS: &str = "--cfg bpf_target_arch=\"x86_64\" -Cdebuginfo=2 -Clink-arg=--btf";

/// The documentation is for those who work here: it shows private items, so links to them lead somewhere.
const DOC_FLAGS: &str = "-D warnings -A rustdoc::private_intra_doc_links";

/// Runs all checks, then all tests.
pub(crate) fn run() -> Result<ExitCode> {
    setup::ensure(Purpose::Ci)?;
    step::run(cargo::nightly().args(["fmt", "--all", "--check"]))?;
    check_dependencies()?;
    let user_side = ["--workspace", "--exclude", "enforcer-ebpf"];
    let deny_warnings = ["--", "-D", "warnings"];
    step::run(
        cargo::stable()
            .arg("clippy")
            .args(user_side)
            .arg("--all-targets")
            .args(deny_warnings),
    )?;
    let kernel_side = [
        "--package",
        "enforcer-ebpf",
        "--target",
        "bpfel-unknown-none",
        "-Z",
        "build-std=core",
    ];
    let mut clippy = cargo::nightly();
    clippy
        .arg("clippy")
        .args(kernel_side)
        .args(deny_warnings)
        .env("RUSTFLAGS", BPF_RUSTFLAGS);
    step::run(&mut clippy)?;
    let mut doc = cargo::stable();
    doc.arg("doc")
        .args(user_side)
        .args(["--no-deps", "--document-private-items"])
        .env("RUSTDOCFLAGS", DOC_FLAGS);
    step::run(&mut doc)?;
    let before = matrix::document();
    let outcome = test::run(&test::Args::default())?;
    // The tests have written it again.
    ensure!(
        matrix::agree(&before, &matrix::document()),
        "the tests say something else than {}: look at `git diff`, then commit it",
        matrix::DOCUMENT
    );
    Ok(outcome)
}

/// Licenses, duplicates and sources come from the lock file; advisories need their database from the network, and
/// a machine that cannot fetch it says so instead of failing.
fn check_dependencies() -> Result<()> {
    let deny = || {
        let mut command = cargo::stable();
        command.args(["deny", "check"]);
        command
    };
    step::run(deny().args(["bans", "licenses", "sources"]))?;
    step::announce("cargo deny check advisories");
    let output = deny()
        .arg("advisories")
        .stdin(Stdio::null())
        .output()
        .context("cannot start cargo-deny")?;
    let messages = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Ok(());
    }
    if messages.contains("failed to fetch advisory database") {
        eprintln!("warning: advisories NOT checked: their database could not be fetched from github.com");
        return Ok(());
    }
    bail!("a dependency has an advisory against it:\n{messages}")
}
