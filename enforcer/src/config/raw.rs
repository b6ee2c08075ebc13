//! The configuration as it is written: every key optional, unknown keys refused.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use serde::{Deserialize, Deserializer, de::Error};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Raw {
    #[serde(default)]
    pub(super) cgroups: Cgroups,
    #[serde(default)]
    pub(super) endpoint: Endpoint,
    #[serde(default)]
    pub(super) metadata: Metadata,
    #[serde(default)]
    pub(super) bpf: Bpf,
    #[serde(default)]
    pub(super) audit: Audit,
    #[serde(default, rename = "task")]
    pub(super) tasks: Vec<Task>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Cgroups {
    pub(super) root: Option<PathBuf>,
    pub(super) host: Option<Vec<PathBuf>>,
    pub(super) guarded: Option<Vec<PathBuf>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Endpoint {
    pub(super) address: Option<Ipv4Addr>,
    pub(super) port: Option<u16>,
    pub(super) steer_port: Option<u16>,
    pub(super) packet_steer_port: Option<u16>,
    pub(super) upstream: Option<UpstreamMode>,
    pub(super) agent: Option<SocketAddr>,
    pub(super) drain_seconds: Option<u32>,
}

/// `endpoint.upstream`: who holds the credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpstreamMode {
    /// The enforcer itself.
    Embedded,
    /// The ECS agent.
    EcsAgent,
}

/// A mode that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `embedded` or `ecs-agent`")]
pub struct UnknownUpstream;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Metadata {
    pub(super) addresses: Option<Vec<IpAddr>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Bpf {
    pub(super) pin_dir: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Audit {
    pub(super) output: Option<PathBuf>,
    pub(super) key_file: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Task {
    pub(super) name: String,
    pub(super) cgroups: Vec<PathBuf>,
    #[serde(default, deserialize_with = "secrets")]
    pub(super) credential_ids: Vec<Secret>,
    pub(super) role_arn: Option<String>,
    pub(super) credentials_file: Option<PathBuf>,
}

/// A text that no error message may quote.
pub(super) struct Secret(pub(super) String);

// === impl UpstreamMode ===

impl FromStr for UpstreamMode {
    type Err = UnknownUpstream;

    fn from_str(text: &str) -> Result<Self, UnknownUpstream> {
        match text {
            "embedded" => Ok(Self::Embedded),
            "ecs-agent" => Ok(Self::EcsAgent),
            _ => Err(UnknownUpstream),
        }
    }
}

// === impl Secret ===

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

/// A list of secrets. Goes through an untyped value, because serde's own message for a wrong type quotes what it found.
fn secrets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Secret>, D::Error> {
    let wrong = || D::Error::custom("credential-ids must be a list of strings");
    let toml::Value::Array(items) = toml::Value::deserialize(deserializer)? else {
        return Err(wrong());
    };
    let secret = |item| {
        if let toml::Value::String(text) = item {
            Ok(Secret(text))
        } else {
            Err(wrong())
        }
    };
    items.into_iter().map(secret).collect()
}
