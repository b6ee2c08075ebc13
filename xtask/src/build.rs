//! `cargo xtask build`: the enforcer with its eBPF object inside.

use anyhow::Result;

use crate::{
    cargo,
    setup::{self, Purpose},
    step,
};

/// Options of `build`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Build with optimizations.
    #[arg(long)]
    release: bool,
}

/// Builds and says where the binary lies.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure(Purpose::Build)?;
    let mut build = cargo::stable();
    build.args(["build", "--package", "enforcer", "--bins"]);
    if args.release {
        build.arg("--release");
    }
    let executables = cargo::build(&mut build)?;
    step::announce(&format!(
        "built {}",
        cargo::binary(&executables, "enforcer")?.path.display()
    ));
    Ok(())
}

/// Builds the enforcer and the lab that shows and measures it; returns the lab's path.
pub(crate) fn build_lab(release: bool) -> Result<std::path::PathBuf> {
    let mut build = cargo::stable();
    build.args([
        "build",
        "--package",
        "enforcer",
        "--package",
        "enforcer-tests",
        "--bins",
    ]);
    if release {
        build.arg("--release");
    }
    let executables = cargo::build(&mut build)?;
    Ok(cargo::binary(&executables, "lab")?.path.clone())
}
