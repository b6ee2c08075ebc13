//! From what was written to what is meant: defaults, and what must hold between values.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Component, Path, PathBuf},
    time::Duration,
};

use glob::Pattern;

use super::{Audit, AuditOutput, Cgroups, Config, Endpoint, Role, Task, Upstream, UpstreamMode, raw};
use crate::{
    attribution::TaskName,
    policy::{CredentialId, InvalidCredentialId},
};

const HOST_CGROUPS: [&str; 3] = ["/init.scope", "/user.slice", "/system.slice/*.service"];
/// Where services and users keep containers of their own: Podman quadlets, and the rootless engines.
const GUARDED_CGROUPS: [&str; 4] = [
    "/system.slice/*/libpod-payload-*",
    "/system.slice/*/docker-*",
    "/user.slice/*/*/*/libpod-*",
    "/user.slice/*/*/*/docker-*",
];
const ENDPOINT_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 170, 2);
const ENDPOINT_PORT: u16 = 80;
/// The steer ports lie below the range the kernel itself picks ports from (32768 and up): `listen` without `bind` passes no
/// hook, and must not be handed one of them.
const STEER_PORT: u16 = 21680;
const PACKET_STEER_PORT: u16 = 21681;
const AGENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 51679);
const DRAIN_SECONDS: u32 = 5;
const METADATA_ADDRESSES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];
const PIN_DIR: &str = "/sys/fs/bpf/enforcer";
const AUDIT_KEY_FILE: &str = "/var/lib/enforcer/audit.key";

/// Where the cgroup2 mount usually is; a path relative to the mount does not begin with it.
const USUAL_MOUNT: &str = "/sys/fs/cgroup";

/// What does not make sense. Names the key, and never a credential ID.
#[derive(Debug, thiserror::Error)]
pub enum InvalidConfig {
    /// A path must be absolute and without `.`, `..`.
    #[error("{key}: {path:?} must be an absolute path without `..`")]
    Path {
        /// The key.
        key: String,
        /// Its value.
        path: PathBuf,
    },
    /// A path that begins at the wrong place.
    #[error("{key}: {path:?} must be relative to the cgroup2 mount, without {USUAL_MOUNT}")]
    NotRelative {
        /// The key.
        key: String,
        /// Its value.
        path: PathBuf,
    },
    /// A cgroup that cannot be a task's.
    #[error("task {task:?}: {cgroup:?} is no cgroup of a task: it must be below the root, and without any of `*?[]`")]
    TaskCgroup {
        /// The task.
        task: String,
        /// The cgroup.
        cgroup: PathBuf,
    },
    /// A cgroup pattern is none.
    #[error("{key}: {pattern:?} is not a pattern: {source}")]
    Pattern {
        /// The key.
        key: &'static str,
        /// Its value.
        pattern: PathBuf,
        /// What is wrong with it.
        source: glob::PatternError,
    },
    /// Ports must be different and not 0.
    #[error("endpoint.port, endpoint.steer-port and endpoint.packet-steer-port must be three different ports, not 0")]
    Ports,
    /// The endpoint's address cannot be an endpoint's.
    #[error("endpoint.address: {address} must be a unicast address that is neither loopback nor unspecified")]
    Address {
        /// The address.
        address: Ipv4Addr,
    },
    /// The ECS agent cannot be there.
    #[error("endpoint.agent: {agent} {problem}; it must be where the ECS agent listens")]
    Agent {
        /// The address.
        agent: SocketAddr,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An address cannot be blocked and be the endpoint.
    #[error("metadata.addresses: {address} is the endpoint's address too")]
    MetadataIsEndpoint {
        /// The address.
        address: IpAddr,
    },
    /// Two tasks of one name.
    #[error("task {task:?}: another task has this name")]
    DuplicateTask {
        /// The name.
        task: String,
    },
    /// A task without a name.
    #[error("a task has an empty name")]
    UnnamedTask,
    /// Two tasks of one cgroup.
    #[error("task {task:?}: its cgroup {cgroup:?} is task {other:?}'s too")]
    SharedCgroup {
        /// The task.
        task: String,
        /// The cgroup.
        cgroup: PathBuf,
        /// Who has it already.
        other: String,
    },
    /// A task without a cgroup.
    #[error("task {task:?}: it has no cgroups, so nothing could ever be attributed to it")]
    NoCgroups {
        /// The task.
        task: String,
    },
    /// A credential ID is none.
    #[error("task {task:?}: number {number} of its credential-ids: {source}")]
    CredentialId {
        /// The task.
        task: String,
        /// Which one, counted from 1.
        number: usize,
        /// What is wrong with it.
        source: InvalidCredentialId,
    },
    /// A credential ID that is claimed twice.
    #[error("task {task:?}: number {number} of its credential-ids belongs to task {other:?} already")]
    SharedCredentialId {
        /// The task.
        task: String,
        /// Which one, counted from 1.
        number: usize,
        /// Who has it already.
        other: String,
    },
    /// The embedded upstream needs to know where credentials come from.
    #[error("task {task:?}: with upstream = \"embedded\" it needs {key}, because it has credential-ids")]
    Missing {
        /// The task.
        task: String,
        /// The key.
        key: &'static str,
    },
}

/// Validates everything.
pub(super) fn validate(raw: raw::Raw) -> Result<Config, InvalidConfig> {
    let endpoint = endpoint(&raw.endpoint)?;
    let metadata = raw.metadata.addresses.unwrap_or_else(|| METADATA_ADDRESSES.to_vec());
    if let Some(address) = metadata
        .iter()
        .find(|address| address.to_canonical() == endpoint.address)
    {
        return Err(InvalidConfig::MetadataIsEndpoint { address: *address });
    }
    let upstream = match raw.endpoint.upstream.unwrap_or(UpstreamMode::Embedded) {
        UpstreamMode::EcsAgent => {
            let written = raw.endpoint.agent.unwrap_or(AGENT);
            Upstream::EcsAgent(agent(written, endpoint.address, &metadata)?)
        }
        UpstreamMode::Embedded => Upstream::Embedded(roles(&raw.tasks)?),
    };
    let tasks = tasks(raw.tasks)?;
    Ok(Config {
        cgroups: cgroups(raw.cgroups, &tasks)?,
        endpoint,
        upstream,
        metadata,
        pin_dir: absolute("bpf.pin-dir", raw.bpf.pin_dir.unwrap_or_else(|| PIN_DIR.into()))?,
        audit: audit(raw.audit)?,
        tasks,
    })
}

fn cgroups(raw: raw::Cgroups, tasks: &[Task]) -> Result<Cgroups, InvalidConfig> {
    let mut guarded = patterns("cgroups.guarded", raw.guarded, &GUARDED_CGROUPS)?;
    // A task may live below a trusted cgroup; that does not make it trusted.
    let own = tasks.iter().flat_map(|task| &task.cgroups);
    guarded.extend(own.cloned());
    Ok(Cgroups {
        root: raw.root.map(|root| absolute("cgroups.root", root)).transpose()?,
        host: patterns("cgroups.host", raw.host, &HOST_CGROUPS)?,
        guarded,
    })
}

fn patterns(key: &'static str, written: Option<Vec<PathBuf>>, default: &[&str]) -> Result<Vec<PathBuf>, InvalidConfig> {
    let patterns = written.unwrap_or_else(|| default.iter().map(PathBuf::from).collect());
    let check = |pattern| {
        let pattern = in_mount(key, pattern)?;
        match Pattern::new(&pattern.to_string_lossy()) {
            Ok(_) => Ok(pattern),
            Err(source) => Err(InvalidConfig::Pattern { key, pattern, source }),
        }
    };
    patterns.into_iter().map(check).collect()
}

fn endpoint(raw: &raw::Endpoint) -> Result<Endpoint, InvalidConfig> {
    let endpoint = Endpoint {
        address: raw.address.unwrap_or(ENDPOINT_ADDRESS),
        port: raw.port.unwrap_or(ENDPOINT_PORT),
        steer_port: raw.steer_port.unwrap_or(STEER_PORT),
        packet_steer_port: raw.packet_steer_port.unwrap_or(PACKET_STEER_PORT),
        drain: Duration::from_secs(raw.drain_seconds.unwrap_or(DRAIN_SECONDS).into()),
    };
    let ports = HashSet::from([0, endpoint.port, endpoint.steer_port, endpoint.packet_steer_port]);
    if ports.len() != 4 {
        return Err(InvalidConfig::Ports);
    }
    let address = endpoint.address;
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() || address.is_broadcast() {
        return Err(InvalidConfig::Address { address });
    }
    Ok(endpoint)
}

/// An address has one meaning in the kernel, so the agent's must not be one that is guarded for another reason.
fn agent(agent: SocketAddr, endpoint: Ipv4Addr, metadata: &[IpAddr]) -> Result<SocketAddr, InvalidConfig> {
    let address = agent.ip().to_canonical();
    let problem = if address.is_unspecified() || agent.port() == 0 {
        "is no address to connect to"
    } else if address == endpoint {
        "is at the endpoint's own address"
    } else if metadata.iter().any(|metadata| metadata.to_canonical() == address) {
        "is at one of metadata.addresses"
    } else {
        return Ok(agent);
    };
    Err(InvalidConfig::Agent { agent, problem })
}

fn audit(raw: raw::Audit) -> Result<Audit, InvalidConfig> {
    let output = match raw.output {
        None => AuditOutput::Stdout,
        Some(path) if path == Path::new("-") => AuditOutput::Stdout,
        Some(path) => AuditOutput::File(absolute("audit.output", path)?),
    };
    let key_file = raw.key_file.unwrap_or_else(|| AUDIT_KEY_FILE.into());
    Ok(Audit {
        output,
        key_file: absolute("audit.key-file", key_file)?,
    })
}

fn tasks(raw: Vec<raw::Task>) -> Result<Vec<Task>, InvalidConfig> {
    let mut names = HashSet::new();
    let mut cgroup_owners = HashMap::new();
    let mut id_owners = HashMap::new();
    let mut tasks = Vec::with_capacity(raw.len());
    for written in raw {
        let name = written.name;
        if name.is_empty() {
            return Err(InvalidConfig::UnnamedTask);
        }
        if !names.insert(name.clone()) {
            return Err(InvalidConfig::DuplicateTask { task: name });
        }
        if written.cgroups.is_empty() {
            return Err(InvalidConfig::NoCgroups { task: name });
        }
        let mut cgroups = Vec::with_capacity(written.cgroups.len());
        for cgroup in written.cgroups {
            let cgroup = in_mount(&format!("task {name:?}: cgroups"), cgroup)?;
            let text = cgroup.to_string_lossy();
            // A pattern would never match here, and the root is everybody's.
            if text == "/" || text.contains(['*', '?', '[', ']']) {
                return Err(InvalidConfig::TaskCgroup { task: name, cgroup });
            }
            if let Some(other) = cgroup_owners.insert(cgroup.clone(), name.clone()) {
                return Err(InvalidConfig::SharedCgroup {
                    task: name,
                    cgroup,
                    other,
                });
            }
            cgroups.push(cgroup);
        }
        tasks.push(Task {
            cgroups,
            credential_ids: credential_ids(&name, written.credential_ids, &mut id_owners)?,
            name: TaskName::new(&name),
        });
    }
    Ok(tasks)
}

fn credential_ids(
    task: &str,
    written: Vec<raw::Secret>,
    owners: &mut HashMap<CredentialId, String>,
) -> Result<Vec<CredentialId>, InvalidConfig> {
    let mut ids = Vec::with_capacity(written.len());
    for (raw::Secret(text), number) in written.into_iter().zip(1..) {
        let id = CredentialId::granted(&text).map_err(|source| InvalidConfig::CredentialId {
            task: task.to_owned(),
            number,
            source,
        })?;
        if let Some(other) = owners.insert(id.clone(), task.to_owned()) {
            return Err(InvalidConfig::SharedCredentialId {
                task: task.to_owned(),
                number,
                other,
            });
        }
        ids.push(id);
    }
    Ok(ids)
}

/// What the embedded upstream needs, of every task that owns a credential ID.
fn roles(tasks: &[raw::Task]) -> Result<Vec<Role>, InvalidConfig> {
    let owners = tasks.iter().filter(|task| !task.credential_ids.is_empty());
    let role = |task: &raw::Task| {
        let missing = |key| InvalidConfig::Missing {
            task: task.name.clone(),
            key,
        };
        let file = task
            .credentials_file
            .clone()
            .ok_or_else(|| missing("credentials-file"))?;
        Ok(Role {
            task: TaskName::new(&task.name),
            arn: task.role_arn.clone().ok_or_else(|| missing("role-arn"))?,
            credentials_file: absolute(&format!("task {:?}: credentials-file", task.name), file)?,
        })
    };
    owners.map(role).collect()
}

/// A path that is absolute within the cgroup2 mount.
fn in_mount(key: &str, path: PathBuf) -> Result<PathBuf, InvalidConfig> {
    let path = absolute(key, path)?;
    if path.starts_with(USUAL_MOUNT) {
        return Err(InvalidConfig::NotRelative {
            key: key.to_owned(),
            path,
        });
    }
    Ok(path)
}

/// An absolute path in its one spelling: without a final slash, `//` or `.`; `..` is refused.
fn absolute(key: &str, path: PathBuf) -> Result<PathBuf, InvalidConfig> {
    let clean = |component| matches!(component, Component::RootDir | Component::Normal(_));
    if !path.is_absolute() || !path.components().all(clean) {
        return Err(InvalidConfig::Path {
            key: key.to_owned(),
            path,
        });
    }
    Ok(path.components().collect())
}
