//! Logs for people: structured, to standard error. Standard output belongs to data.

mod seldom;

use std::{
    error::Error,
    io::{self, IsTerminal},
};

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter,
    filter::ParseError,
    fmt::{self, writer::BoxMakeWriter},
};

pub(crate) use self::seldom::Seldom;

/// How many lines of the service may wait for who reads its log.
const WAITING_LINES: usize = 4096;

/// How lines get to standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// At once: of a command, that somebody waits for.
    Direct,
    /// By a thread of its own: a service must not stand still because nobody reads its log. Lines there is no room for are
    /// lost.
    Behind,
}

/// Writes what still waits when it is dropped, unless nobody reads it.
#[derive(Debug)]
pub struct Log {
    _writer: Option<WorkerGuard>,
}

/// Starts logging with a filter such as `info` or `enforcer=debug`. Must be called once.
///
/// Nobody has to read the log for the service to work: a closed standard error loses messages, and so does one that is
/// full.
pub fn start(filter: &str, way: Way) -> Result<Log, ParseError> {
    let filter = EnvFilter::builder().parse(filter)?;
    let (writer, guard) = match way {
        Way::Direct => (BoxMakeWriter::new(io::stderr), None),
        Way::Behind => {
            let lines = NonBlockingBuilder::default().buffered_lines_limit(WAITING_LINES);
            let (writer, guard) = lines.finish(io::stderr());
            (BoxMakeWriter::new(writer), Some(guard))
        }
    };
    fmt::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        // It would tell of a failed write by `eprintln!`, to the same standard error, and that panics.
        .log_internal_errors(false)
        .init();
    Ok(Log { _writer: guard })
}

/// An error and its causes, for libraries whose own text stops at "client error (Connect)".
#[must_use]
pub fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
