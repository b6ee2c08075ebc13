//! The controller: owns what can change while the service runs, and changes it, as a whole or not at all.
//!
//! A reload is read and validated completely before anything is touched. Then the kernel side follows in an order that
//! neither protects less nor permits more meanwhile than before or after, and requests are decided by the new
//! configuration from one instant on.

use std::{collections::BTreeSet, net::SocketAddrV4, path::PathBuf, sync::Arc};

use jiff::Timestamp;
use tokio::{
    sync::watch,
    task::{JoinError, block_in_place, spawn_blocking},
};
use tracing::{error, info};

use super::{attribution::introspection, kernel};
use crate::{
    attribution::{Attributor, Cgroup, Entry, Places, Registrations, Registry, Source, SourceKind},
    audit::{By, Change, Recorder},
    bpf::{BpfError, Mode, Tables},
    config::{
        self, Config,
        load::{ConfigError, Flags, environment, load},
    },
    control::report::Report,
    endpoint::{Access, Endpoint},
    host::{HostError, cgroupfs::CgroupFs, classes::ClassControl, treatment::Rules},
    upstream::Upstream,
};

/// How many cgroups of unknown containers a report names.
const MAX_UNCLAIMED: usize = 32;

/// How many cgroups it names that something is said about. An answer has room for so many of the longest paths there are.
const MAX_CLASSIFIED: usize = 1024;

/// Why the configuration was not taken over.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReloadError {
    /// It is not valid.
    #[error("the configuration stays as it was: {0}")]
    Config(#[from] ConfigError),
    /// It changes what cannot be changed live.
    #[error("the configuration stays as it was: {} cannot change while the enforcer runs; restart it instead", .keys.join(", "))]
    NeedsRestart {
        /// The keys.
        keys: Vec<&'static str>,
    },
    /// It could not be read to its end.
    #[error("the configuration stays as it was: reading it failed: {0}")]
    Read(#[from] JoinError),
    /// The kernel side took only a part of it.
    #[error("not all of the configuration holds: {0}; reload again, or restart the enforcer")]
    Bpf(#[from] BpfError),
    /// The cgroup tree.
    #[error("not all of the configuration holds: {0}; reload again, or restart the enforcer")]
    Host(#[from] HostError),
}

/// Owns what can change.
#[derive(Debug)]
pub(super) struct Controller {
    pub(super) flags: Flags,
    pub(super) config: Config,
    pub(super) cgroups: CgroupFs,
    /// Relative to the cgroup2 mount.
    pub(super) own_cgroup: PathBuf,
    pub(super) tables: Tables,
    pub(super) classes: ClassControl,
    pub(super) access: watch::Sender<Arc<Access>>,
    /// That of `access`, for those who only attribute.
    pub(super) attributor: watch::Sender<Arc<Attributor>>,
    pub(super) recorder: Recorder,
    pub(super) registrations: Registrations,
    /// Who answers requests, for explaining what it would answer.
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) sources: Arc<[Source]>,
}

/// Who is who, who owns what, and who has it, by a configuration. Reads credentials files. What an earlier one remembers
/// is kept.
pub(super) fn access(config: &Config, rules: Arc<Rules>, earlier: &Earlier) -> Access {
    let places = Places {
        rules,
        mode: config.mode,
    };
    let (attributor, upstream) = match earlier {
        Earlier::None(cgroups, registry) => {
            let attributor = Attributor::new(cgroups.clone(), Arc::clone(registry), places);
            (attributor, None)
        }
        Earlier::Access(earlier) => (earlier.attributor.with(places), Some(&earlier.upstream)),
    };
    let attributor = Arc::new(attributor);
    let vouch = Arc::clone(&attributor);
    Access {
        upstream: Upstream::build(&config.upstream, upstream, vouch),
        attributor,
    }
}

/// What there was before.
pub(super) enum Earlier {
    /// Nothing.
    None(CgroupFs, Arc<Registry>),
    /// Another configuration.
    Access(Arc<Access>),
}

/// What the configuration says of tasks.
pub(super) fn entries(config: &Config) -> Vec<Entry> {
    let cgroup = |path: &PathBuf| Cgroup {
        path: path.as_path().into(),
        id: None,
    };
    let entry = |task: &config::Task| Entry {
        id: task.name.as_id(),
        task: task.name.clone(),
        cgroups: task.cgroups.iter().map(cgroup).collect(),
        created: Timestamp::UNIX_EPOCH,
        credential_ids: task.credential_ids.clone().into(),
        execution_ids: [].into(),
        role_arn: task.role_arn.clone(),
        facts: [].into(),
    };
    config.tasks.iter().map(entry).collect()
}

// === impl Controller ===

impl Controller {
    /// Reads the configuration again and goes by it.
    pub(super) async fn reload(&mut self, by: By) -> Result<(), ReloadError> {
        let flags = self.flags.clone();
        // Files may lie on a file system that hangs.
        let outcome = match spawn_blocking(move || load(&flags, &environment)).await {
            Ok(Ok(config)) => self.apply(config).await,
            Ok(Err(error)) => Err(error.into()),
            Err(error) => Err(error.into()),
        };
        match &outcome {
            Ok(()) => info!(
                mode = self.config.mode.name(),
                tasks = self.config.tasks.len(),
                "configuration reloaded"
            ),
            Err(error) => error!(%error, "cannot reload the configuration"),
        }
        self.record("reload", by, outcome.as_ref().err());
        outcome
    }

    /// Blocks, or only records, until the next reload or start.
    pub(super) async fn set_mode(&mut self, mode: Mode, by: By) -> Result<(), ReloadError> {
        let config = Config {
            mode,
            ..self.config.clone()
        };
        let outcome = self.apply(config).await;
        match &outcome {
            Ok(()) => info!(mode = mode.name(), "mode switched until the next reload or start"),
            Err(error) => error!(%error, "cannot switch the mode"),
        }
        self.record("mode", by, outcome.as_ref().err());
        outcome
    }

    /// Records a change, or that it failed.
    pub(super) fn record(&self, command: &'static str, by: By, error: Option<&ReloadError>) {
        self.recorder.control(Change {
            command,
            by,
            mode: self.config.mode.name(),
            task: None,
            error: error.map(ToString::to_string),
        });
    }

    /// How it goes.
    pub(super) fn report(&self) -> Report {
        let config = &self.config;
        let registry = self.registry();
        let tasks = registry.read();
        let names: BTreeSet<_> = tasks
            .said()
            .filter(|said| !said.is_over)
            .map(|said| said.task)
            .collect();
        let conflicts = tasks.claims().conflicts().count();
        drop(tasks);
        let root = config.cgroups.root.as_deref().unwrap_or_else(|| self.cgroups.mount());
        let below = self.cgroups.below(root);
        let unclaimed = self.attributor.borrow().unclaimed(below.into_iter());
        let mut cgroups = self.classes.classified();
        let classified = cgroups.len();
        cgroups.truncate(MAX_CLASSIFIED);
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            mode: config.mode.name().to_owned(),
            listening: [config.endpoint.steer_port, config.endpoint.packet_steer_port]
                .map(|port| SocketAddrV4::new(config.endpoint.address, port))
                .to_vec(),
            upstream: match config.upstream {
                crate::config::Upstream::Embedded(_) => "embedded".to_owned(),
                crate::config::Upstream::EcsAgent { address, .. } => format!("ecs-agent at {address}"),
            },
            host: config.cgroups.host.iter().map(ToString::to_string).collect(),
            guarded: config.cgroups.guarded.iter().map(ToString::to_string).collect(),
            observed: config.cgroups.observe.iter().map(ToString::to_string).collect(),
            protected: config.protect.iter().map(|group| group.name.clone()).collect(),
            sources: self.sources.iter().map(Source::status).collect(),
            consumers: config
                .consumers
                .iter()
                .map(|placed| placed.consumer.name.to_string())
                .collect(),
            tasks: names.len(),
            conflicts,
            unclaimed: unclaimed.len(),
            unclaimed_first: (unclaimed.iter().take(MAX_UNCLAIMED))
                .map(|path| path.to_string_lossy().into_owned())
                .collect(),
            classified,
            cgroups,
            audit: self.recorder.totals(),
        }
    }

    /// Goes by a configuration.
    async fn apply(&mut self, config: Config) -> Result<(), ReloadError> {
        let keys = fixed_keys(&self.config, &config);
        if !keys.is_empty() {
            return Err(ReloadError::NeedsRestart { keys });
        }
        let rules = Arc::new(kernel::rules(&config, &self.own_cgroup));
        let access = {
            let (config, rules) = (config.clone(), Arc::clone(&rules));
            let earlier = Earlier::Access(Arc::clone(&self.access.borrow()));
            spawn_blocking(move || access(&config, rules, &earlier)).await?
        };
        // A number must not stand for one group in the address table and for another in the classes, not for a moment.
        let common = config.protect.common_bits(&self.config.protect);
        let careful = Arc::unwrap_or_clone(Arc::clone(&rules)).with_exceptions_among(common);
        self.classes.apply(Arc::new(careful)).await?;
        let in_kernel = kernel::bpf_config(&config, &self.cgroups, &self.own_cgroup);
        block_in_place(|| self.tables.write(&in_kernel))?;
        self.classes.apply(rules).await?;
        let access = Arc::new(access);
        // Roles are known before who has them: a request in between gets the answer of before.
        let registry = Arc::clone(access.attributor.registry());
        self.attributor.send_replace(Arc::clone(&access.attributor));
        self.access.send_replace(access);
        registry.replace(SourceKind::Config, entries(&config));
        self.config = config;
        Ok(())
    }
}

/// Keys that differ and cannot change while the enforcer runs.
fn fixed_keys(old: &Config, new: &Config) -> Vec<&'static str> {
    let has_docker = old.sources.docker.is_some();
    let has_sources = has_docker || old.sources.oci.is_some();
    let [asked, to_be_asked] = [old, new].map(|config| introspection(&config.upstream));
    let differ = [
        ("cgroups.root", old.cgroups.root != new.cgroups.root),
        ("endpoint.address", old.endpoint.address != new.endpoint.address),
        ("endpoint.port", old.endpoint.port != new.endpoint.port),
        (
            "endpoint.steer-port",
            old.endpoint.steer_port != new.endpoint.steer_port,
        ),
        (
            "endpoint.packet-steer-port",
            old.endpoint.packet_steer_port != new.endpoint.packet_steer_port,
        ),
        // Sources believe labels as it was right at the start, and Docker's asks the agent of then.
        (
            "endpoint.upstream",
            has_sources && asked.is_some() != to_be_asked.is_some(),
        ),
        (
            "endpoint.agent",
            has_docker && asked.zip(to_be_asked).is_some_and(|(old, new)| old != new),
        ),
        ("bpf.pin-dir", old.pin_dir != new.pin_dir),
        ("audit.output", old.audit.output != new.audit.output),
        ("audit.key-file", old.audit.key_file != new.audit.key_file),
        ("control.socket", old.control_socket != new.control_socket),
        ("control.registrations", old.registrations != new.registrations),
        ("sources", old.sources != new.sources),
    ];
    let keys = differ.into_iter().filter(|(_, differs)| *differs);
    keys.map(|(key, _)| key).collect()
}

#[cfg(test)]
mod tests;
