//! Loading: file, then environment, then flags; the later one wins. Nobody else reads the environment.

use std::{
    io,
    path::{Path, PathBuf},
};

pub use super::overlay::Variables;
use super::{Config, DEFAULT_FILE, InvalidConfig, UpstreamMode, overlay::overlay, raw::Raw, validate};
use crate::bpf::Mode;

/// What the command line can say about the configuration.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// Configuration file [default: /etc/enforcer/enforcer.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of the cgroup that hooks attach to
    #[arg(long, value_name = "DIR")]
    pub cgroup_root: Option<PathBuf>,
    /// Decide and record, but block nothing; a flag of `run` alone.
    #[arg(skip)]
    pub observe: bool,
    /// Who holds the credentials: embedded or ecs-agent
    #[arg(long, value_name = "MODE")]
    pub upstream: Option<UpstreamMode>,
    /// Where audit records go: a file, or - for standard output
    #[arg(long, value_name = "PATH")]
    pub audit_output: Option<PathBuf>,
}

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {file}: {source}")]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML, or has a key or a value it must not have.
    #[error("{file}, line {line}: {problem}")]
    Parse {
        /// The file.
        file: PathBuf,
        /// Where.
        line: usize,
        /// What is wrong; quotes keys, and values of known keys that are no secrets.
        problem: String,
    },
    /// An environment variable has a value it must not have.
    #[error("environment variable {variable}: {problem}")]
    Environment {
        /// Its name.
        variable: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// An environment variable nobody knows, probably misspelled.
    #[error("environment variable {variable}: there is no such setting; did you mean {nearest}?")]
    UnknownVariable {
        /// Its name.
        variable: String,
        /// The known one that is most like it.
        nearest: &'static str,
    },
    /// The values do not make sense, each by itself or together.
    #[error(transparent)]
    Invalid(#[from] InvalidConfig),
}

/// Tells the environment variables that are meant for the enforcer.
pub type Environment<'a> = &'a dyn Fn() -> Variables;

/// Sets the filter of log messages.
const LOG_VARIABLE: &str = "ENFORCER_LOG";

/// What the variables of tests begin with; they are none of the enforcer's business, but it inherits them.
const OF_TESTS: [&str; 2] = ["ENFORCER_TEST_", "ENFORCER_LAB_"];

/// The process's own environment.
#[must_use]
pub fn environment() -> Variables {
    #[expect(
        clippy::disallowed_methods,
        reason = "this file is the one reader of the environment"
    )]
    let variables = std::env::vars_os();
    let named = variables.map(|(name, value)| (name.to_string_lossy().into_owned(), value));
    named
        .filter(|(name, _)| name.starts_with("ENFORCER_") && !OF_TESTS.iter().any(|prefix| name.starts_with(prefix)))
        .collect()
}

/// The filter of log messages: `ENFORCER_LOG`, by default `info`.
#[must_use]
pub fn log_filter(environment: Environment<'_>) -> String {
    let filter = environment().remove(LOG_VARIABLE);
    filter.map_or_else(|| "info".to_owned(), |filter| filter.to_string_lossy().into_owned())
}

/// Loads and validates the configuration.
pub fn load(flags: &Flags, environment: Environment<'_>) -> Result<Config, ConfigError> {
    let mut raw = match &flags.config {
        Some(file) => from_file(file)?,
        None if Path::new(DEFAULT_FILE).exists() => from_file(Path::new(DEFAULT_FILE))?,
        None => Raw::default(),
    };
    let mut variables = environment();
    variables.remove(LOG_VARIABLE);
    overlay(&mut raw, variables)?;
    overlay_flags(&mut raw, flags);
    Ok(validate::validate(raw)?)
}

fn from_file(file: &Path) -> Result<Raw, ConfigError> {
    let text = std::fs::read_to_string(file).map_err(|source| ConfigError::Read {
        file: file.to_owned(),
        source,
    })?;
    // The error's own rendering quotes the line, which may hold a credential ID.
    toml::from_str(&text).map_err(|error: toml::de::Error| ConfigError::Parse {
        file: file.to_owned(),
        line: error.span().map_or(1, |span| line_of(&text, span.start)),
        problem: with_nearest_key(error.message()),
    })
}

fn overlay_flags(raw: &mut Raw, flags: &Flags) {
    let Flags {
        config: _,
        cgroup_root,
        observe,
        upstream,
        audit_output,
    } = flags.clone();
    if observe {
        raw.mode = Some(Mode::Observe);
    }
    raw.cgroups.root = cgroup_root.or(raw.cgroups.root.take());
    raw.endpoint.upstream = upstream.or(raw.endpoint.upstream);
    raw.audit.output = audit_output.or(raw.audit.output.take());
}

/// The line of a byte offset; the first one is 1.
fn line_of(text: &str, offset: usize) -> usize {
    let before = text.get(..offset).unwrap_or(text);
    before.matches('\n').count().saturating_add(1)
}

/// Adds the nearest known key to serde's message about an unknown one, which lists the known ones in backquotes.
///
/// An unknown key may be a credential ID in the wrong place, so one that does not look like a key is not quoted.
fn with_nearest_key(message: &str) -> String {
    if !message.starts_with("unknown field") {
        return message.to_owned();
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = quoted.next().unwrap_or_default();
    let known: Vec<_> = quoted.collect();
    if !looks_like_a_key(unknown) {
        return format!("unknown key; known here: {}", known.join(", "));
    }
    match nearest(unknown, known) {
        Some(nearest) => format!("unknown key `{unknown}`; did you mean `{nearest}`?"),
        None => format!("unknown key `{unknown}`"),
    }
}

fn looks_like_a_key(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'-'))
}

/// The known name that is most like an unknown one.
pub(super) fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |known: &&str| strsim::damerau_levenshtein(unknown, known);
    known.into_iter().min_by_key(distance)
}
