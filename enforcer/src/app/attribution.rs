//! What is known of tasks at the start, and where more is learned from.

use std::{
    net::{SocketAddr, SocketAddrV4},
    path::PathBuf,
    sync::Arc,
};

use super::{INTROSPECTION_PORT, controller, infallible};
use crate::{
    attribution::{
        Believed, DOCKER_STATES, Docker, DockerConfig, Lookups, Oci, OciConfig, RegistrationError, Registrations,
        Registry, Resolver, Source, SourceKind,
    },
    audit::Audit,
    config::{self, Config},
    drain::Watcher,
    host::cgroupfs::CgroupFs,
    supervisor::Supervisor,
};

/// What is known of tasks, and who finds out more.
pub(super) struct Attribution {
    pub(super) registry: Arc<Registry>,
    pub(super) sources: Arc<[Source]>,
    pub(super) registrations: Registrations,
    pub(super) resolver: Resolver,
    pub(super) lookups: Lookups,
}

// === impl Attribution ===

impl Attribution {
    pub(super) fn build(config: &Config, cgroups: &CgroupFs, audit: &Audit) -> Result<Self, RegistrationError> {
        let registry = Arc::new(Registry::with_listener(audit.recorder()));
        registry.replace(SourceKind::Config, controller::entries(config));
        let sources = sources(config, cgroups, &registry);
        let registrations = Registrations::open(
            &config.registrations,
            Arc::clone(&registry),
            cgroups.clone(),
            Arc::clone(&sources),
            config.sources.wait,
        )?;
        let (resolver, lookups) = Resolver::new(Arc::clone(&sources), Arc::clone(&registry), config.sources.wait);
        Ok(Self {
            registry,
            sources,
            registrations,
            resolver,
            lookups,
        })
    }
}

/// Has cgroups looked up that are asked for, and every source keep the registry up to date, until the drain.
pub(super) fn follow(lookups: Lookups, supervisor: &mut Supervisor, drain: &Watcher) {
    for source in lookups.sources() {
        let run = source.clone().run(Arc::clone(lookups.registry()), drain.clone());
        supervisor.spawn("source of tasks", infallible(run));
    }
    supervisor.spawn("container look-ups", infallible(lookups.run(drain.clone())));
}

/// Where Docker's source asks whose containers are, besides the engine.
pub(super) fn introspection(upstream: &config::Upstream) -> Option<SocketAddr> {
    match upstream {
        config::Upstream::Embedded(_) => None,
        config::Upstream::EcsAgent { address, .. } => Some((address.ip(), INTROSPECTION_PORT).into()),
    }
}

/// Where tasks are learned from besides the configuration.
fn sources(config: &Config, cgroups: &CgroupFs, registry: &Arc<Registry>) -> Arc<[Source]> {
    let endpoint = SocketAddrV4::new(config.endpoint.address, config.endpoint.port);
    // The agent knows no roles, so labels that name some have nothing to say.
    let asks_agent = introspection(&config.upstream).is_some();
    let docker = |docker: &config::DockerSource| {
        Source::Docker(Arc::new(Docker::new(DockerConfig {
            socket: docker.socket.clone(),
            states: DOCKER_STATES.map(PathBuf::from).to_vec(),
            cgroup_parent: docker.cgroup_parent.clone(),
            labels: docker.labels && !asks_agent,
            endpoint,
            introspection: introspection(&config.upstream),
        })))
    };
    let docker_has_its_own = config.sources.docker.is_some();
    let oci = |source: &config::OciSource| {
        let config = OciConfig {
            source,
            docker_has_its_own,
            believed: Believed {
                containers: !asks_agent,
                podman: !asks_agent && source.podman_annotations,
                pods: !asks_agent && source.pod_annotations,
            },
            endpoint,
        };
        Source::Oci(Oci::new(config, cgroups.clone(), Arc::clone(registry)))
    };
    let docker = config.sources.docker.iter().map(docker);
    docker.chain(config.sources.oci.iter().map(oci)).collect()
}
