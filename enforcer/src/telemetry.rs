//! Logs for people: structured, to standard error. Standard output belongs to data.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, filter::ParseError};

/// Starts logging with a filter such as `info` or `enforcer=debug`. Must be called once.
///
/// Nobody has to read the log for the service to work: a closed standard error loses messages, no more. One that is
/// open and never read blocks whoever logs once it is full, so it must be read, as a service manager does.
pub fn start(filter: &str) -> Result<(), ParseError> {
    let filter = EnvFilter::builder().parse(filter)?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        // It would tell of a failed write by `eprintln!`, to the same standard error, and that panics.
        .log_internal_errors(false)
        .init();
    Ok(())
}
