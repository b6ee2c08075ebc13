//! What the configuration means for the kernel side: its address table, and how cgroups are treated.

use std::{net::IpAddr, path::Path};

use enforcer_common::{
    address::{AddressRule, scope, target},
    cgroup::CgroupClass,
};

use crate::{
    bpf,
    config::{CgroupPattern, Config, Upstream},
    host::{
        cgroupfs::CgroupFs,
        treatment::{Rules, Says},
    },
};

/// The ECS agent's introspection port, which tells the tasks' cgroups and containers to whoever asks.
pub(crate) const INTROSPECTION_PORT: u16 = 51678;

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
        introspection_port: introspection_port(&config.upstream),
        addresses: addresses(config),
        mode: config.mode,
        raw_sockets_denied: config.sockets.raw,
        denied_protocols: config.sockets.protocols.clone(),
    }
}

/// How cgroups are treated.
pub(super) fn rules(config: &Config, own_cgroup: &Path) -> Rules {
    let class = |class| Says {
        class: Some(class),
        ..Says::default()
    };
    let (host, guarded) = (class(CgroupClass::Host), class(CgroupClass::Guarded));
    let mut rules = Rules::default();
    config.cgroups.host.iter().for_each(|pattern| rules.add(pattern, host));
    // The enforcer asks the ECS agent, and nothing may refuse that.
    rules.add(&CgroupPattern::exactly(own_cgroup), host);
    config
        .cgroups
        .guarded
        .iter()
        .for_each(|pattern| rules.add(pattern, guarded));
    let observed = Says {
        observed: Some(true),
        ..Says::default()
    };
    config
        .cgroups
        .observe
        .iter()
        .for_each(|pattern| rules.add(pattern, observed));
    for exception in &config.cgroups.exceptions {
        let excepted = Says {
            exceptions: Some(exception.groups),
            ..Says::default()
        };
        exception
            .cgroups
            .iter()
            .for_each(|pattern| rules.add(pattern, excepted));
    }
    for placed in &config.consumers {
        let cgroups = placed.cgroups.iter();
        cgroups.for_each(|cgroup| rules.add_consumer(cgroup, std::sync::Arc::clone(&placed.consumer)));
    }
    for task in &config.tasks {
        // A task may live below a trusted cgroup; that does not make it trusted.
        let says = Says {
            observed: task.observe,
            exceptions: task.groups,
            ..guarded
        };
        let cgroups = task.cgroups.iter();
        cgroups.for_each(|cgroup| rules.add(&CgroupPattern::exactly(cgroup), says));
    }
    rules
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
    let protected = config.protect.iter().flat_map(|group| {
        let rule = AddressRule {
            ports: group.ports,
            protocols: group.protocols,
            group: group.number,
            ..everywhere(target::IMDS)
        };
        group.addresses.iter().map(move |address| (*address, rule))
    });
    let mut addresses: Vec<_> = protected.collect();
    addresses.push((IpAddr::V4(config.endpoint.address), everywhere(target::CREDENTIALS)));
    addresses.extend(agent(&config.upstream, everywhere(target::AGENT)));
    addresses
}

/// The ECS agent's own ports.
fn agent(upstream: &Upstream, everywhere: AddressRule) -> Vec<(IpAddr, AddressRule)> {
    let Upstream::EcsAgent { address: agent, .. } = *upstream else {
        return Vec::new();
    };
    let rule = AddressRule {
        // A loopback address is the agent's only where the agent is; elsewhere it is the container's own.
        scope: if agent.ip().is_loopback() {
            scope::HOST_NETNS
        } else {
            scope::EVERYWHERE
        },
        // Introspection listens on every address; what raw packets could do, they could do here.
        ports: [agent.port(), introspection_port(upstream).unwrap_or(0), 0, 0],
        ..everywhere
    };
    vec![(agent.ip(), rule)]
}

/// The introspection port, if containers may not use it.
const fn introspection_port(upstream: &Upstream) -> Option<u16> {
    match upstream {
        Upstream::EcsAgent {
            introspection_blocked: true,
            ..
        } => Some(INTROSPECTION_PORT),
        Upstream::EcsAgent { .. } | Upstream::Embedded(_) => None,
    }
}
