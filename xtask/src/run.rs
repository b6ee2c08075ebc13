//! `cargo xtask run`: the main job, in a throwaway lab or on this host.

use anyhow::Result;

use crate::{
    build, cargo, preflight,
    setup::{self, Purpose},
    step,
};

/// Options of `run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Exit after the table: 0 only if every line is as expected.
    #[arg(long, conflicts_with = "enforcer_arguments")]
    once: bool,
    /// Run the enforcer with these arguments on this host itself instead of in the lab.
    #[arg(last = true, value_name = "ENFORCER ARGUMENTS")]
    enforcer_arguments: Vec<String>,
}

/// Builds, then becomes the lab's demo or the enforcer.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.enforcer_arguments.is_empty() {
        return run_lab(args.once);
    }
    // No preflight: the enforcer says itself what it lacks, and `-- check` or `-- --help` needs nothing.
    setup::ensure(Purpose::Build)?;
    let executables = cargo::build(cargo::stable().args(["build", "--package", "enforcer", "--bins"]))?;
    let enforcer = cargo::binary(&executables, "enforcer")?;
    step::become_command(step::command(&enforcer.path).args(&args.enforcer_arguments))
}

fn run_lab(once: bool) -> Result<()> {
    preflight::require_kernel_access()?;
    setup::ensure(Purpose::Build)?;
    let lab = build::build_lab(false)?;
    let mut demo = step::command(lab);
    demo.arg("demo");
    if once {
        demo.arg("--once");
    }
    step::become_command(&mut demo)
}
