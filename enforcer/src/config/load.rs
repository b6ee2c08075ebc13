//! Loading: file, then environment, then flags; the later one wins. Nobody else reads the environment.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    str::FromStr,
};

use super::{
    Config, DEFAULT_FILE, UpstreamMode,
    raw::Raw,
    validate::{self, InvalidConfig},
};

/// What the command line can say about the configuration.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// Configuration file [default: /etc/enforcer/enforcer.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of the cgroup that hooks attach to
    #[arg(long, value_name = "DIR")]
    pub cgroup_root: Option<PathBuf>,
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
    /// The values do not make sense, each by itself or together.
    #[error(transparent)]
    Invalid(#[from] InvalidConfig),
}

/// Reads the value of an environment variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The process's own environment.
#[must_use]
pub fn environment(variable: &str) -> Option<OsString> {
    #[expect(
        clippy::disallowed_methods,
        reason = "this file is the one reader of the environment"
    )]
    std::env::var_os(variable)
}

/// The filter of log messages: `ENFORCER_LOG`, by default `info`.
#[must_use]
pub fn log_filter(environment: Environment<'_>) -> String {
    let filter = environment("ENFORCER_LOG").map(|filter| filter.to_string_lossy().into_owned());
    filter.unwrap_or_else(|| "info".to_owned())
}

/// Loads and validates the configuration.
pub fn load(flags: &Flags, environment: Environment<'_>) -> Result<Config, ConfigError> {
    let mut raw = match &flags.config {
        Some(file) => from_file(file)?,
        None if Path::new(DEFAULT_FILE).exists() => from_file(Path::new(DEFAULT_FILE))?,
        None => Raw::default(),
    };
    overlay_environment(&mut raw, environment)?;
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

fn overlay_environment(raw: &mut Raw, environment: Environment<'_>) -> Result<(), ConfigError> {
    let Raw {
        cgroups,
        endpoint,
        metadata: _,
        bpf,
        audit,
        tasks: _,
    } = raw;
    set(&mut cgroups.root, "ENFORCER_CGROUPS_ROOT", environment)?;
    set(&mut endpoint.address, "ENFORCER_ENDPOINT_ADDRESS", environment)?;
    set(&mut endpoint.port, "ENFORCER_ENDPOINT_PORT", environment)?;
    set(&mut endpoint.steer_port, "ENFORCER_ENDPOINT_STEER_PORT", environment)?;
    set(
        &mut endpoint.packet_steer_port,
        "ENFORCER_ENDPOINT_PACKET_STEER_PORT",
        environment,
    )?;
    set(&mut endpoint.upstream, "ENFORCER_ENDPOINT_UPSTREAM", environment)?;
    set(&mut endpoint.agent, "ENFORCER_ENDPOINT_AGENT", environment)?;
    set(
        &mut endpoint.drain_seconds,
        "ENFORCER_ENDPOINT_DRAIN_SECONDS",
        environment,
    )?;
    set(&mut bpf.pin_dir, "ENFORCER_BPF_PIN_DIR", environment)?;
    set(&mut audit.output, "ENFORCER_AUDIT_OUTPUT", environment)?;
    set(&mut audit.key_file, "ENFORCER_AUDIT_KEY_FILE", environment)
}

fn set<T>(value: &mut Option<T>, variable: &'static str, environment: Environment<'_>) -> Result<(), ConfigError>
where
    T: FromStr<Err: std::fmt::Display>,
{
    let failed = |problem| ConfigError::Environment { variable, problem };
    if let Some(text) = environment(variable) {
        let text = text.to_str().ok_or_else(|| failed("not valid UTF-8".to_owned()))?;
        *value = Some(
            text.parse()
                .map_err(|error: T::Err| failed(format!("{text:?}: {error}")))?,
        );
    }
    Ok(())
}

fn overlay_flags(raw: &mut Raw, flags: &Flags) {
    let Flags {
        config: _,
        cgroup_root,
        upstream,
        audit_output,
    } = flags.clone();
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
fn with_nearest_key(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = message.starts_with("unknown field").then(|| quoted.next()).flatten();
    let nearest = unknown.and_then(|unknown| quoted.min_by_key(|known| strsim::damerau_levenshtein(unknown, known)));
    match (unknown, nearest) {
        (Some(unknown), Some(nearest)) => format!("unknown key `{unknown}`; did you mean `{nearest}`?"),
        (_, _) => message.to_owned(),
    }
}
