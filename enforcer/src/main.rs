//! The `enforcer` program: parse, log, do, exit.

use std::process::ExitCode;

use clap::Parser;
use enforcer::{
    cli::Cli,
    config::load::{environment, log_filter},
    telemetry, use_one_heap,
};

fn main() -> ExitCode {
    use_one_heap();
    let cli = Cli::parse();
    let _log = match telemetry::start(&log_filter(&environment), cli.log()) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("enforcer: ENFORCER_LOG: {error}");
            return ExitCode::FAILURE;
        }
    };
    match cli.execute() {
        Ok(code) => code,
        Err(error) => {
            // Errors here tell their causes themselves.
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
