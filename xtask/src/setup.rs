//! `cargo xtask setup`: looks for each tool, installs what is missing when it may, else says what to type.
//!
//! Every other command calls [`ensure()`] with its own purpose, so it pays only for what it needs. A stable toolchain
//! that is too old needs no step here: cargo then refuses to build xtask itself and names the version.

mod linker;
pub(crate) mod packages;
mod rust;

use std::env::consts::ARCH;

use anyhow::{Result, ensure};

use crate::{preflight, step};

/// Options of `setup`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What the machine is to be made ready for; each includes the ones before it.
    #[arg(value_enum, default_value_t = Purpose::AllTests)]
    purpose: Purpose,
}

/// What the tools are for. The later ones include the earlier ones.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, clap::ValueEnum)]
pub(crate) enum Purpose {
    /// Building and running on this host's kernel.
    Build,
    /// Testing on this host's kernel.
    HostTests,
    /// Testing on other kernels, too, in QEMU.
    AllTests,
    /// All checks of `ci`.
    Ci,
}

/// Makes the machine ready and says so.
pub(crate) fn run(args: &Args) -> Result<()> {
    ensure(args.purpose)?;
    step::announce("everything needed is installed");
    Ok(())
}

/// Makes the machine ready for `purpose`. Silent and quick when nothing is missing.
pub(crate) fn ensure(purpose: Purpose) -> Result<()> {
    preflight::require_linux()?;
    ensure!(
        ["x86_64", "aarch64"].contains(&ARCH),
        "{ARCH} is not supported: use an x86_64 or aarch64 machine"
    );
    rust::ensure_toolchains(purpose)?;
    linker::ensure_bpf_linker()?;
    if purpose >= Purpose::HostTests {
        packages::ensure_static_libc()?;
        packages::ensure_engines()?;
        packages::ensure_sdk()?;
    }
    if purpose >= Purpose::AllTests {
        packages::ensure_program("qemu-system-x86_64", "qemu-system-x86")?;
        packages::ensure_program("xz", "xz-utils")?;
    }
    if purpose >= Purpose::Ci {
        rust::ensure_cargo_deny()?;
    }
    Ok(())
}
