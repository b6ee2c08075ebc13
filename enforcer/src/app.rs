//! The wiring: builds every component, spawns what runs, waits, stops. The one file that knows them all.
//!
//! Stopping has an order: stop accepting and finish requests until the deadline, then read the last kernel events, then
//! flush the audit trail. What is pinned stays, so enforcement goes on.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddrV4},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use enforcer_common::address::{AddressRule, scope, target};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tracing::{info, warn};

use crate::{
    attribution::Attributor,
    audit::{self, Audit, AuditError, kernel::Feed},
    bpf::{self, Bpf, BpfError},
    config::{self, Config},
    drain::{self, StillBusy, Trigger},
    endpoint::{Endpoint, Gate, ListenError, Listener},
    host::{
        HostError, address,
        cgroupfs::{CgroupError, CgroupFs},
        classes::{ClassWatch, Rules},
        links,
    },
    policy::Ownership,
    signal::{SignalError, Signals},
    supervisor::{Supervisor, TaskEnded},
    upstream::Upstream,
};

/// How long the last kernel events may take to be read.
const FEED_DEADLINE: Duration = Duration::from_secs(1);

/// How long the audit output may take for what is left.
const AUDIT_DEADLINE: Duration = Duration::from_secs(5);

/// Why the service did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Signals.
    #[error(transparent)]
    Signal(#[from] SignalError),
    /// The audit trail.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The cgroup tree.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The enforcer is not in a cgroup of its own.
    #[error(
        "the enforcer runs in the root cgroup; start it as a service, or in a cgroup made for it, so that its own \
         connections can be told from others"
    )]
    RootCgroup,
    /// The kernel side.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// The host's network.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The endpoint's ports.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A task without which there is no service.
    #[error(transparent)]
    TaskEnded(#[from] TaskEnded),
}

/// The service while it runs.
struct Running {
    supervisor: Supervisor,
    /// Ends the serving of requests.
    serving: Trigger,
    /// Ends the reading of kernel events.
    feeding: Trigger,
}

/// Runs the service until a signal or a failure ends it.
pub async fn run(config: &Config) -> Result<(), AppError> {
    let mut signals = Signals::listen()?;
    raise_open_files();
    let audit = Audit::start(&config.audit)?;
    let mut running = Running::start(config, &audit).await?;
    notify(NotifyState::Ready);
    let ended = tokio::select! {
        biased; // A failure must not hide behind a signal.
        ended = running.supervisor.first_end() => Err(AppError::from(ended)),
        signal = signals.next() => {
            info!(signal, "stopping; enforcement stays in place");
            Ok(())
        }
    };
    notify(NotifyState::Stopping);
    tokio::select! {
        () = running.stop(config.endpoint.drain) => {}
        signal = signals.next() => warn!(signal, "not waiting for requests any more"),
    }
    let audit::Totals {
        emitted,
        delivered,
        dropped,
        ring,
    } = audit.close(AUDIT_DEADLINE).await;
    info!(emitted, delivered, dropped, ring, "audit trail closed");
    ended
}

/// What the kernel side needs to know.
pub fn bpf_config(config: &Config, cgroups: &CgroupFs) -> Result<bpf::Config, AppError> {
    let endpoint = &config.endpoint;
    let everywhere = |target| AddressRule {
        target,
        scope: scope::EVERYWHERE,
        ports: [0; 4],
    };
    let metadata = config.metadata.iter();
    let mut addresses: Vec<_> = metadata.map(|address| (*address, everywhere(target::IMDS))).collect();
    addresses.push((IpAddr::V4(endpoint.address), everywhere(target::CREDENTIALS)));
    if let config::Upstream::EcsAgent(agent) = config.upstream {
        let rule = AddressRule {
            target: target::AGENT,
            scope: if agent.ip().is_loopback() {
                scope::HOST_NETNS
            } else {
                scope::EVERYWHERE
            },
            ports: [agent.port(), 0, 0, 0],
        };
        addresses.push((agent.ip(), rule));
    }
    Ok(bpf::Config {
        pin_dir: config.pin_dir.clone(),
        cgroup_root: config
            .cgroups
            .root
            .clone()
            .unwrap_or_else(|| cgroups.mount().to_owned()),
        own_cgroup: cgroups.absolute(&own_cgroup(cgroups)?),
        endpoint_address: endpoint.address,
        endpoint_port: endpoint.port,
        steer_port: endpoint.steer_port,
        packet_steer_port: endpoint.packet_steer_port,
        addresses,
    })
}

// === impl Running ===

impl Running {
    async fn start(config: &Config, audit: &Audit) -> Result<Self, AppError> {
        let cgroups = CgroupFs::find(config.cgroups.root.as_deref())?;
        let attributor = Arc::new(attributor(config, &cgroups));
        let bpf_config = bpf_config(config, &cgroups)?;
        let mut bpf = Bpf::start(&bpf_config)?;
        let classes = ClassWatch::start(cgroups.clone(), class_rules(config, &cgroups)?, bpf.take_classes()?)?;
        let gate = Gate::new(bpf.take_accepted()?, Arc::clone(&attributor), ownership(config));
        let feed = Feed {
            ring: bpf.take_events()?,
            counters: bpf.take_counters()?,
            attributor,
            recorder: audit.recorder(),
        };
        let mut log = bpf.take_log()?;
        let upstream = Upstream::build(&config.upstream);
        address::ensure(config.endpoint.address).await?;
        let listeners = listen(&config.endpoint).await?;
        announce(config, &bpf_config);

        let (serving, serving_watcher) = drain::channel();
        let (feeding, feeding_watcher) = drain::channel();
        let mut supervisor = Supervisor::default();
        supervisor.spawn("kernel event reader", feed.run(feeding_watcher));
        supervisor.spawn("kernel log reader", async move {
            loop {
                log.forward().await?;
            }
            #[expect(unreachable_code, reason = "names the error type of a loop that only an error ends")]
            Ok::<(), BpfError>(())
        });
        supervisor.spawn("cgroup watcher", async { classes.run().await.map(never) });
        supervisor.spawn("network device watcher", async move {
            links::watch(&mut bpf).await.map(never)
        });
        if let Some(embedded) = upstream.embedded().cloned() {
            let refresh = embedded.refresh(serving_watcher.clone());
            supervisor.spawn("credentials refresher", infallible(refresh));
        }
        let endpoint = Arc::new(Endpoint::new(gate, upstream, audit.recorder()));
        for listener in listeners {
            let serve = listener.run(Arc::clone(&endpoint), serving_watcher.clone());
            supervisor.spawn("credential endpoint", infallible(serve));
        }
        Ok(Self {
            supervisor,
            serving,
            feeding,
        })
    }

    /// Stops in order. What is still under way after that is dropped with the supervisor.
    async fn stop(self, deadline: Duration) {
        if let Err(StillBusy) = self.serving.drain(deadline).await {
            warn!(?deadline, "requests still under way are cut off");
        }
        if let Err(StillBusy) = self.feeding.drain(FEED_DEADLINE).await {
            warn!("kernel events are left in the ring buffer; the next start reads them");
        }
        drop(self.supervisor);
    }
}

fn attributor(config: &Config, cgroups: &CgroupFs) -> Attributor {
    let tasks = config.tasks.iter();
    let cgroups_of_tasks = tasks.flat_map(|task| task.cgroups.iter().map(|cgroup| (cgroup.clone(), task.name.clone())));
    Attributor::new(cgroups.clone(), cgroups_of_tasks)
}

fn ownership(config: &Config) -> Ownership {
    let tasks = config.tasks.iter();
    tasks
        .flat_map(|task| task.credential_ids.iter().map(|id| (id.clone(), task.name.clone())))
        .collect()
}

fn class_rules(config: &Config, cgroups: &CgroupFs) -> Result<Rules, AppError> {
    let mut host = config.cgroups.host.clone();
    // The enforcer asks the ECS agent, and nobody may steer that back to the enforcer.
    host.push(own_cgroup(cgroups)?);
    Ok(Rules {
        host,
        guarded: config.cgroups.guarded.clone(),
    })
}

fn own_cgroup(cgroups: &CgroupFs) -> Result<PathBuf, AppError> {
    let own = cgroups.own()?;
    if own.parent().is_none() {
        return Err(AppError::RootCgroup);
    }
    Ok(own)
}

async fn listen(config: &config::Endpoint) -> Result<[Listener; 2], ListenError> {
    let steer = SocketAddrV4::new(config.address, config.steer_port);
    let packet_steer = SocketAddrV4::new(config.address, config.packet_steer_port);
    Ok([Listener::bind(steer).await?, Listener::bind(packet_steer).await?])
}

/// Says what is guarded and where it listens.
fn announce(config: &Config, bpf: &bpf::Config) {
    let Config {
        cgroups,
        endpoint,
        upstream,
        metadata,
        ..
    } = config;
    info!(root = %bpf.cgroup_root.display(), trusted = ?cgroups.host, "guarding every cgroup below the root that is not trusted");
    info!(addresses = ?metadata, "instance metadata is blocked");
    info!(
        endpoint = %SocketAddrV4::new(endpoint.address, endpoint.port),
        listening = ?[endpoint.steer_port, endpoint.packet_steer_port],
        ?upstream,
        "credentials go to their owners only"
    );
    for task in &config.tasks {
        info!(task = task.name.as_str(), cgroups = ?task.cgroups, credentials = task.credential_ids.len(), "task");
    }
}

/// Each connection is a descriptor, and the usual soft limit of 1024 is for programs that use `select`.
fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, ?current, "cannot raise the limit of open files");
    }
}

/// Tells the service manager, if there is one.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!(%error, "cannot notify the service manager");
    }
}

async fn infallible(task: impl Future<Output = ()>) -> Result<(), Infallible> {
    task.await;
    Ok(())
}

const fn never(never: Infallible) {
    match never {}
}
