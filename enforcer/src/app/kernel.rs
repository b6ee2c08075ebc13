//! What the configuration means for the kernel side: its address table, and whose cgroups are trusted.

use std::{net::IpAddr, path::Path};

use enforcer_common::address::{AddressRule, scope, target};
use glob::Pattern;

use crate::{
    bpf,
    config::{Config, Upstream},
    host::{cgroupfs::CgroupFs, classes::Rules},
};

/// What the kernel side needs to know.
pub(super) fn bpf_config(config: &Config, cgroups: &CgroupFs, own_cgroup: &Path) -> bpf::Config {
    let endpoint = &config.endpoint;
    let root = config.cgroups.root.as_deref();
    bpf::Config {
        pin_dir: config.pin_dir.clone(),
        cgroup_root: root.unwrap_or_else(|| cgroups.mount()).to_owned(),
        own_cgroup: cgroups.absolute(own_cgroup),
        endpoint_address: endpoint.address,
        endpoint_port: endpoint.port,
        steer_port: endpoint.steer_port,
        packet_steer_port: endpoint.packet_steer_port,
        addresses: addresses(config),
        mode: bpf::Mode::Enforce,
        raw_sockets_denied: false,
        denied_protocols: Vec::new(),
    }
}

/// Which cgroups are of which class.
pub(super) fn class_rules(config: &Config, own_cgroup: &Path) -> Rules {
    let mut host = config.cgroups.host.clone();
    // The enforcer asks the ECS agent, and nothing may refuse that.
    host.push(Pattern::escape(&own_cgroup.to_string_lossy()).into());
    Rules {
        host,
        guarded: config.cgroups.guarded.clone(),
    }
}

/// The address table.
fn addresses(config: &Config) -> Vec<(IpAddr, AddressRule)> {
    let everywhere = |target| AddressRule {
        target,
        scope: scope::EVERYWHERE,
        ports: [0; 4],
        protocols: 0,
        group: 0,
    };
    let metadata = config.metadata.iter();
    let mut addresses: Vec<_> = metadata.map(|address| (*address, everywhere(target::IMDS))).collect();
    addresses.push((IpAddr::V4(config.endpoint.address), everywhere(target::CREDENTIALS)));
    if let Upstream::EcsAgent(agent) = config.upstream {
        let rule = AddressRule {
            // A loopback address is the agent's only where the agent is; elsewhere it is the container's own.
            scope: if agent.ip().is_loopback() {
                scope::HOST_NETNS
            } else {
                scope::EVERYWHERE
            },
            ports: [agent.port(), 0, 0, 0],
            ..everywhere(target::AGENT)
        };
        addresses.push((agent.ip(), rule));
    }
    addresses
}
