//! The configuration as it is written: every key optional, unknown keys refused.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use serde::{Deserialize, Deserializer, de::Error};

use crate::bpf::Mode;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) mode: Option<Mode>,
    #[serde(default)]
    pub(super) cgroups: Cgroups,
    #[serde(default)]
    pub(super) endpoint: Endpoint,
    #[serde(default)]
    pub(super) protect: BTreeMap<String, Group>,
    #[serde(default)]
    pub(super) sockets: Sockets,
    #[serde(default)]
    pub(super) bpf: Bpf,
    #[serde(default)]
    pub(super) audit: Audit,
    #[serde(default)]
    pub(super) control: Control,
    #[serde(default)]
    pub(super) sources: Sources,
    #[serde(default, rename = "role")]
    pub(super) roles: Vec<Role>,
    #[serde(default, rename = "consumer")]
    pub(super) consumers: Vec<Consumer>,
    #[serde(default, rename = "task")]
    pub(super) tasks: Vec<Task>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Cgroups {
    pub(super) root: Option<PathBuf>,
    pub(super) host: Option<Vec<PathBuf>>,
    pub(super) guarded: Option<Vec<PathBuf>>,
    pub(super) observe: Option<Vec<PathBuf>>,
    #[serde(default, rename = "exception")]
    pub(super) exceptions: Vec<Exception>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Exception {
    pub(super) cgroups: Vec<PathBuf>,
    pub(super) allow: Vec<String>,
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
    pub(super) introspection: Option<Introspection>,
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

/// `endpoint.introspection`: what is done about the ECS agent's introspection port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Introspection {
    /// Guarded cgroups do not reach it.
    #[default]
    Block,
    /// It is none of the enforcer's business.
    Open,
}

/// Something else than `block` or `open`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `block` or `open`")]
pub(super) struct UnknownIntrospection;

/// `[protect.<name>]`
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Group {
    pub(super) enabled: Option<bool>,
    pub(super) addresses: Option<Vec<IpAddr>>,
    pub(super) ports: Option<Vec<u16>>,
    pub(super) protocols: Option<Vec<Protocol>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Protocol {
    Tcp,
    Udp,
    Other,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Sockets {
    pub(super) deny: Option<Vec<SocketKind>>,
}

/// Sockets that guarded cgroups do not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "NameOrNumber")]
pub(super) enum SocketKind {
    Raw,
    Protocol(u8),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NameOrNumber {
    Name(String),
    Number(u8),
}

/// A kind of sockets that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `raw`, `icmp`, `icmpv6`, `sctp`, `dccp`, `udplite` or an IANA protocol number")]
pub(super) struct UnknownSocketKind;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Control {
    pub(super) socket: Option<PathBuf>,
    pub(super) registrations: Option<PathBuf>,
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

/// `[sources]`
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Sources {
    pub(super) wait_milliseconds: Option<u32>,
    #[serde(default)]
    pub(super) docker: Docker,
    #[serde(default)]
    pub(super) oci: Oci,
}

/// `[sources.docker]`
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Docker {
    pub(super) enabled: Option<bool>,
    pub(super) socket: Option<PathBuf>,
    pub(super) cgroup_parent: Option<String>,
    pub(super) labels: Option<bool>,
}

/// `[sources.oci]`
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Oci {
    pub(super) enabled: Option<bool>,
    pub(super) roots: Option<Vec<PathBuf>>,
    pub(super) pod_annotations: Option<bool>,
    pub(super) podman_annotations: Option<bool>,
    pub(super) kubelet: Option<PathBuf>,
}

/// `[[consumer]]`: a trusted host service that fetches credentials which are not its own.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Consumer {
    pub(super) name: String,
    #[serde(default)]
    pub(super) cgroups: Vec<PathBuf>,
    #[serde(default)]
    pub(super) units: Vec<String>,
    pub(super) allow: Vec<Kind>,
}

/// Kinds of credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// Those of execution roles.
    Execution,
    /// Those of tasks.
    Task,
}

/// `[[role]]`: credentials for every task that has the role.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Role {
    pub(super) arn: String,
    pub(super) credentials_file: PathBuf,
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
    pub(super) allow: Option<Vec<String>>,
    pub(super) observe: Option<bool>,
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

// === impl Introspection ===

impl FromStr for Introspection {
    type Err = UnknownIntrospection;

    fn from_str(text: &str) -> Result<Self, UnknownIntrospection> {
        match text {
            "block" => Ok(Self::Block),
            "open" => Ok(Self::Open),
            _ => Err(UnknownIntrospection),
        }
    }
}

// === impl SocketKind ===

impl FromStr for SocketKind {
    type Err = UnknownSocketKind;

    fn from_str(text: &str) -> Result<Self, UnknownSocketKind> {
        Ok(Self::Protocol(match text {
            "raw" => return Ok(Self::Raw),
            "icmp" => 1,
            "icmpv6" => 58,
            "sctp" => 132,
            "dccp" => 33,
            "udplite" => 136,
            number => number.parse().map_err(|_not_a_number| UnknownSocketKind)?,
        }))
    }
}

impl TryFrom<NameOrNumber> for SocketKind {
    type Error = UnknownSocketKind;

    fn try_from(written: NameOrNumber) -> Result<Self, UnknownSocketKind> {
        match written {
            NameOrNumber::Name(name) => name.parse(),
            NameOrNumber::Number(number) => Ok(Self::Protocol(number)),
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
