//! `cargo xtask bench`: what the enforcer costs, measured in the lab with a release build.

use anyhow::Result;

use crate::{
    build, cargo, preflight,
    setup::{self, Purpose},
    step,
};

/// Options of `bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Options of `lab bench`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    lab_arguments: Vec<String>,
}

/// Builds everything optimized and becomes the lab's benchmark.
pub(crate) fn run(args: &Args) -> Result<()> {
    preflight::require_kernel_access()?;
    setup::ensure(Purpose::Build)?;
    step::run(cargo::stable().args(["bench", "--quiet", "--package", "enforcer", "--bench", "attribution"]))?;
    let lab = build::build_lab(true)?;
    step::become_command(step::command(lab).arg("bench").args(&args.lab_arguments))
}
