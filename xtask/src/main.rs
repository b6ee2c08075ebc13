//! `cargo xtask`: everything one does with this repository, with nothing needed but cargo.

mod bench;
mod build;
mod cargo;
mod ci;
mod matrix;
mod preflight;
mod run;
mod setup;
mod step;
mod test;
#[cfg(test)]
mod tidy;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Prepare, build, run, test, measure and check the enforcer.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what is missing to build and test, or say what to type.
    Setup(setup::Args),
    /// Build the enforcer with its eBPF object.
    Build(build::Args),
    /// Show the enforcer at work in a throwaway lab; after `--`, run it on this host itself.
    Run(run::Args),
    /// Run all tests on this host's kernel and on Debian's 6.1 and 6.12 kernels.
    Test(test::Args),
    /// Measure hooks, connects and credential requests.
    Bench(bench::Args),
    /// Run what a change must pass: format, lints, dependencies, docs, then all tests.
    Ci,
}

fn main() -> ExitCode {
    let done = |()| ExitCode::SUCCESS;
    let result = match Cli::parse().command {
        Command::Setup(args) => setup::run(&args).map(done),
        Command::Build(args) => build::run(&args).map(done),
        Command::Run(args) => run::run(&args).map(done),
        Command::Test(args) => test::run(&args),
        Command::Bench(args) => bench::run(&args).map(done),
        Command::Ci => ci::run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
