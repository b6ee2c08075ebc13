//! The wiring: builds every component, spawns what runs, waits, stops. The one file that knows them all.
//!
//! Stopping has an order: stop accepting and finish requests until the deadline, then read the last kernel events, then
//! cut off what is left, then flush the audit trail. What is pinned stays, so enforcement goes on.

mod kernel;
pub mod preflight;

use std::{convert::Infallible, net::SocketAddrV4, sync::Arc, time::Duration};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tracing::{info, warn};

use self::preflight::OwnCgroupError;
use crate::{
    attribution::Attributor,
    audit::{self, Audit, AuditError, kernel::Feed},
    bpf::{self, Bpf, BpfError, KernelLog},
    config::{self, Config},
    drain::{self, StillBusy, Trigger},
    endpoint::{Endpoint, Gate, ListenError, Listener},
    host::{
        HostError, address,
        cgroupfs::{CgroupError, CgroupFs},
        classes::ClassWatch,
        coverage::Coverage,
    },
    policy::Ownership,
    signal::{SignalError, Signals},
    supervisor::{Supervisor, TaskEnded},
    upstream::Upstream,
};

/// How long the last kernel events may take to be read.
const FEED_DEADLINE: Duration = Duration::from_secs(1);

/// How long tasks may take to be gone once they are cut off; they only have to be dropped.
const CUT_OFF_DEADLINE: Duration = Duration::from_secs(1);

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
    /// The enforcer's own cgroup.
    #[error(transparent)]
    OwnCgroup(#[from] OwnCgroupError),
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
    running.cut_off().await;
    let audit::Totals {
        emitted,
        delivered,
        dropped,
        ring,
    } = audit.close(AUDIT_DEADLINE).await;
    info!(emitted, delivered, dropped, ring, "audit trail closed");
    ended
}

// === impl Running ===

impl Running {
    async fn start(config: &Config, audit: &Audit) -> Result<Self, AppError> {
        let cgroups = CgroupFs::find(config.cgroups.root.as_deref())?;
        let attributor = Arc::new(attributor(config, &cgroups));
        let own_cgroup = preflight::own_cgroup(&cgroups)?;
        let bpf_config = kernel::bpf_config(config, &cgroups, &own_cgroup);
        let mut bpf = Bpf::load(&bpf_config)?;
        let rules = kernel::class_rules(config, &own_cgroup);
        let classes = ClassWatch::start(cgroups.clone(), rules, bpf.take_classes()?)?;
        let gate = Gate::new(bpf.take_accepted()?, Arc::clone(&attributor), ownership(config));
        let feed = Feed {
            ring: bpf.take_events()?,
            counters: bpf.take_counters()?,
            attributor,
            recorder: audit.recorder(),
        };
        let log = bpf.take_log()?;
        let upstream = Upstream::build(&config.upstream);
        // Blocking comes before listening: if somebody holds our ports, metadata is blocked all the same.
        bpf.attach(&bpf_config)?;
        let coverage = Coverage::start(bpf, cgroups, bpf_config.cgroup_root.clone())?;
        address::ensure(config.endpoint.address).await?;
        let listeners = listen(&config.endpoint).await?;
        announce(config, &bpf_config);

        let (serving, serving_watcher) = drain::channel();
        let (feeding, feeding_watcher) = drain::channel();
        let mut supervisor = Supervisor::default();
        supervisor.spawn("kernel event reader", feed.run(feeding_watcher));
        supervisor.spawn("kernel log reader", async { forward(log).await.map(never) });
        supervisor.spawn("cgroup watcher", async { classes.run().await.map(never) });
        supervisor.spawn("network device watcher", async { coverage.run().await.map(never) });
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

    /// Stops in order.
    async fn stop(&self, deadline: Duration) {
        if let Err(StillBusy) = self.serving.drain(deadline).await {
            warn!(?deadline, "requests still under way are cut off");
        }
        if let Err(StillBusy) = self.feeding.drain(FEED_DEADLINE).await {
            warn!("kernel events are left in the ring buffer; the next start reads them");
        }
    }

    /// Drops what is still under way, and waits until it is gone: a request is recorded when it is dropped, and dropping
    /// the supervisor only asks for that.
    async fn cut_off(self) {
        drop(self.supervisor);
        for watched in [self.serving, self.feeding] {
            if let Err(StillBusy) = watched.drain(CUT_OFF_DEADLINE).await {
                warn!("tasks that were cut off are still there; what they did is not recorded");
            }
        }
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

async fn listen(config: &config::Endpoint) -> Result<[Listener; 2], ListenError> {
    let steer = SocketAddrV4::new(config.address, config.steer_port);
    let packet_steer = SocketAddrV4::new(config.address, config.packet_steer_port);
    Ok([Listener::bind(steer).await?, Listener::bind(packet_steer).await?])
}

/// Says what is guarded and where it listens.
fn announce(config: &Config, bpf: &bpf::Config) {
    let endpoint = &config.endpoint;
    let upstream = match &config.upstream {
        config::Upstream::Embedded(_) => "embedded".to_owned(),
        config::Upstream::EcsAgent(agent) => format!("ECS agent at {agent}"),
    };
    info!(root = %bpf.cgroup_root.display(), trusted = ?config.cgroups.host, "guarding all cgroups but the trusted ones");
    info!(addresses = ?config.metadata, "blocking instance metadata");
    info!(
        endpoint = %SocketAddrV4::new(endpoint.address, endpoint.port),
        listening = ?[endpoint.steer_port, endpoint.packet_steer_port],
        upstream,
        "serving credentials to their owners"
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

/// Passes on what the hooks log for people.
async fn forward(mut log: KernelLog) -> Result<Infallible, BpfError> {
    loop {
        log.forward().await?;
    }
}

async fn infallible(task: impl Future<Output = ()>) -> Result<(), Infallible> {
    task.await;
    Ok(())
}

const fn never(never: Infallible) {
    match never {}
}
