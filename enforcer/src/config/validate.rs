//! From what was written to what is meant: defaults, and what must hold between values.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Component, Path, PathBuf},
    time::Duration,
};

use super::{
    Audit, AuditOutput, CgroupPattern, Cgroups, Config, Endpoint, Exception, Groups, InvalidConfig, Sockets, Upstream,
    UpstreamMode, consumers, protect, raw, sources, tasks,
};

/// Services and logins, and no slice: engines are told slices to make containers in.
const HOST_CGROUPS: [&str; 4] = [
    "/init.scope",
    "/system.slice/*.service",
    "/user.slice/*/session-*.scope",
    "/user.slice/*/user@*.service",
];
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
/// Sockets whose traffic no connect hook sees, and that containers hardly ever need.
const DENIED_PROTOCOLS: [u8; 3] = [132, 33, 136]; // SCTP, DCCP, UDP-Lite
const PIN_DIR: &str = "/sys/fs/bpf/enforcer";
const CONTROL_SOCKET: &str = "/run/enforcer/control.sock";
/// Not beside the socket: who is given the socket's directory must not be given this.
const REGISTRATIONS: &str = "/var/lib/enforcer/registrations.json";
const AUDIT_KEY_FILE: &str = "/var/lib/enforcer/audit.key";

/// Where the cgroup2 mount usually is; a path relative to the mount does not begin with it.
pub(super) const USUAL_MOUNT: &str = "/sys/fs/cgroup";

/// Validates everything.
pub(super) fn validate(raw: raw::Raw) -> Result<Config, InvalidConfig> {
    let endpoint = endpoint(&raw.endpoint)?;
    let protect = protect::groups(raw.protect, endpoint.address)?;
    let upstream = match raw.endpoint.upstream.unwrap_or(UpstreamMode::Embedded) {
        UpstreamMode::EcsAgent => {
            let written = raw.endpoint.agent.unwrap_or(AGENT);
            Upstream::EcsAgent {
                address: agent(written, endpoint.address, &protect)?,
                introspection_blocked: raw.endpoint.introspection.unwrap_or_default() == raw::Introspection::Block,
            }
        }
        UpstreamMode::Embedded => Upstream::Embedded(tasks::roles(&raw.tasks, raw.roles)?),
    };
    let tasks = tasks::tasks(raw.tasks, &protect)?;
    let registrations = raw.control.registrations.unwrap_or_else(|| REGISTRATIONS.into());
    let control_socket = raw.control.socket.unwrap_or_else(|| CONTROL_SOCKET.into());
    Ok(Config {
        mode: raw.mode.unwrap_or_default(),
        cgroups: cgroups(raw.cgroups, &protect)?,
        endpoint,
        upstream,
        protect,
        sockets: sockets(raw.sockets),
        pin_dir: absolute("bpf.pin-dir", raw.bpf.pin_dir.unwrap_or_else(|| PIN_DIR.into()))?,
        audit: audit(raw.audit)?,
        control_socket: absolute("control.socket", control_socket)?,
        registrations: absolute("control.registrations", registrations)?,
        sources: sources::sources(&raw.sources)?,
        consumers: consumers::consumers(raw.consumers)?,
        tasks,
    })
}

fn cgroups(raw: raw::Cgroups, groups: &Groups) -> Result<Cgroups, InvalidConfig> {
    const EXCEPTION: &str = "cgroups.exception";
    let exception = |written: raw::Exception| {
        Ok(Exception {
            cgroups: patterns("cgroups.exception.cgroups", Some(written.cgroups), &[])?,
            groups: groups.bits(&written.allow, EXCEPTION)?,
        })
    };
    Ok(Cgroups {
        root: raw.root.map(|root| absolute("cgroups.root", root)).transpose()?,
        host: patterns("cgroups.host", raw.host, &HOST_CGROUPS)?,
        guarded: patterns("cgroups.guarded", raw.guarded, &GUARDED_CGROUPS)?,
        observe: patterns("cgroups.observe", raw.observe, &[])?,
        exceptions: raw.exceptions.into_iter().map(exception).collect::<Result<_, _>>()?,
    })
}

fn patterns(
    key: &'static str,
    written: Option<Vec<PathBuf>>,
    default: &[&str],
) -> Result<Vec<CgroupPattern>, InvalidConfig> {
    let patterns = written.unwrap_or_else(|| default.iter().map(PathBuf::from).collect());
    let check = |pattern| {
        let pattern = in_mount(key, pattern)?;
        CgroupPattern::parse(pattern.clone()).map_err(|source| InvalidConfig::Pattern { key, pattern, source })
    };
    patterns.into_iter().map(check).collect()
}

fn sockets(raw: raw::Sockets) -> Sockets {
    let default = || DENIED_PROTOCOLS.map(raw::SocketKind::Protocol).into();
    let denied = raw.deny.unwrap_or_else(default);
    let protocol = |kind: &_| match kind {
        raw::SocketKind::Raw => None,
        raw::SocketKind::Protocol(number) => Some(*number),
    };
    Sockets {
        raw: denied.contains(&raw::SocketKind::Raw),
        protocols: denied.iter().filter_map(protocol).collect(),
    }
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
fn agent(agent: SocketAddr, endpoint: Ipv4Addr, protect: &Groups) -> Result<SocketAddr, InvalidConfig> {
    let address = agent.ip().to_canonical();
    let problem = if address.is_unspecified() || agent.port() == 0 {
        "is no address to connect to"
    } else if address == endpoint {
        "is at the endpoint's own address"
    } else if protect.contains(address) {
        "is at a protected address"
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

/// A path that is absolute within the cgroup2 mount.
pub(super) fn in_mount(key: &str, path: PathBuf) -> Result<PathBuf, InvalidConfig> {
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
pub(super) fn absolute(key: &str, path: PathBuf) -> Result<PathBuf, InvalidConfig> {
    let clean = |component| matches!(component, Component::RootDir | Component::Normal(_));
    if !path.is_absolute() || !path.components().all(clean) {
        return Err(InvalidConfig::Path {
            key: key.to_owned(),
            path,
        });
    }
    Ok(path.components().collect())
}
