//! The wiring: builds every component, spawns what runs, waits, stops. The one file that knows them all.
//!
//! Stopping has an order: stop accepting and finish requests until the deadline, then read the last kernel events, then
//! cut off what is left, then flush the audit trail. What is pinned stays, so enforcement goes on.

mod attribution;
mod commanders;
mod controller;
mod explain;
mod guard;
mod kernel;
pub mod preflight;
pub mod sockets;
mod tasks;

use std::{convert::Infallible, net::SocketAddrV4, os::fd::OwnedFd, sync::Arc, time::Duration};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use serde_json::json;
use tokio::{
    sync::{mpsc, watch},
    task::block_in_place,
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};

pub(crate) use self::kernel::INTROSPECTION_PORT;
use self::{
    attribution::Attribution,
    controller::{Controller, Earlier, access},
    guard::Guard,
    preflight::OwnCgroupError,
    sockets::{Offered, Sockets},
};
use crate::{
    attribution::{Attributor, RegistrationError},
    audit::{self, Audit, AuditError, By, kernel::Feed},
    bpf::{self, Bpf, BpfError, KernelLog, Prepared},
    config::{self, Config, load::Flags},
    control::{self, Answer, Command, ControlError, Peer},
    drain::{self, StillBusy, Trigger},
    endpoint::{Endpoint, Gate, ListenError},
    host::{
        HostError, address,
        cgroupfs::{CgroupError, CgroupFs},
        coverage::Coverage,
        sockets::Stale,
        treatment::Rules,
    },
    signal::{SignalError, Signals, Wanted},
    supervisor::{Supervisor, TaskEnded},
    sys::memory::give_back,
    upstream,
};

/// How long the watchers of the host may take to let go of the kernel side.
const RELEASE_DEADLINE: Duration = Duration::from_secs(5);

/// How long the last kernel events may take to be read.
const FEED_DEADLINE: Duration = Duration::from_secs(1);

/// How long tasks may take to be gone once they are cut off; they only have to be dropped.
const CUT_OFF_DEADLINE: Duration = Duration::from_secs(1);

/// How long the audit output may take for what is left.
const AUDIT_DEADLINE: Duration = Duration::from_secs(5);

/// How often what was taken back is looked at: whether its cgroups are gone.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Every how many sweeps registrations are looked at too. Until then they are in nobody's way.
const THOROUGH_SWEEP: u32 = 30;

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
    /// The control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// What is registered.
    #[error(transparent)]
    Registration(#[from] RegistrationError),
    /// A task without which there is no service.
    #[error(transparent)]
    TaskEnded(#[from] TaskEnded),
}

/// What the service starts with.
#[derive(Debug)]
pub struct Launch {
    /// What the command line said, for reading the configuration again.
    pub flags: Flags,
    /// The configuration.
    pub config: Config,
    /// Listening sockets there are already.
    pub offered: Offered,
    /// The kernel side, if it is loaded already.
    pub prepared: Option<Prepared>,
}

/// The service while it runs.
struct Running {
    supervisor: Supervisor,
    controller: Controller,
    requests: mpsc::Receiver<control::Request>,
    /// The endpoint's sockets, for whoever listens next.
    handles: Vec<OwnedFd>,
    /// Ends the serving of requests.
    serving: Trigger,
    /// Ends the watching of the host, and lets go of the kernel side.
    watching: Trigger,
    /// Ends the reading of kernel events.
    feeding: Trigger,
}

/// Why the service stops.
enum Ending {
    /// Somebody wants it to.
    Stop,
    /// Another enforcer takes its place.
    Handover(control::Request),
}

/// Runs the service until a signal, a successor or a failure ends it.
pub async fn run(launch: Launch) -> Result<(), AppError> {
    let mut signals = Signals::listen()?;
    raise_open_files();
    let Launch {
        flags,
        config,
        offered,
        prepared,
    } = launch;
    let guard = Guard::attach(&config, prepared)?;
    let audit = Audit::start(&config.audit)?;
    let mut running = Running::start(flags, config, guard, offered, &audit).await?;
    notify(&[NotifyState::Ready]);
    let (ending, outcome) = match running.wait(&mut signals).await {
        Ok(ending) => (ending, Ok(())),
        Err(ended) => (Ending::Stop, Err(AppError::from(ended))),
    };
    notify(&[NotifyState::Stopping]);
    tokio::select! {
        () = running.stop(ending) => {}
        signal = signals.stop() => warn!(signal, "not waiting for requests any more"),
    }
    running.cut_off().await;
    let audit::Totals {
        emitted,
        delivered,
        dropped,
        ring,
    } = audit.close(AUDIT_DEADLINE).await;
    info!(emitted, delivered, dropped, ring, "audit trail closed");
    outcome
}

/// The connections that this start leaves behind.
fn stale<'a>(bpf: &Bpf, cgroups: &'a CgroupFs, config: &'a bpf::Config, rules: &'a Rules) -> Stale<'a> {
    Stale {
        cgroups,
        config,
        rules,
        is_first: bpf.is_first(),
        is_upgrade: bpf.is_upgrade(),
    }
}

// === impl Running ===

impl Running {
    async fn start(
        flags: Flags,
        config: Config,
        mut guard: Guard,
        offered: Offered,
        audit: &Audit,
    ) -> Result<Self, AppError> {
        let known = Attribution::build(&config, &guard.cgroups, audit)?;
        let earlier = Earlier::None(guard.cgroups.clone(), Arc::clone(&known.registry));
        let access = Arc::new(access(&config, Arc::clone(&guard.rules), &earlier));
        let (attributor, attributor_watch) = watch::channel(Arc::clone(&access.attributor));
        let (access, access_watch) = watch::channel(access);
        let gate = Gate::new(guard.bpf.take_accepted()?, access_watch.clone(), known.resolver);
        let mut feed = feed(&mut guard.bpf, attributor_watch.clone(), audit)?;
        let log = guard.bpf.take_log()?;
        let former = guard.bpf.former_endpoint();
        let stale = stale(&guard.bpf, &guard.cgroups, &guard.config, &guard.rules);
        let coverage = Coverage::start(guard.bpf, guard.cgroups.clone(), guard.config.cgroup_root.clone())?;
        block_in_place(|| stale.destroy())?;
        address::put(config.endpoint.address, former).await?;
        let Sockets { listeners, handles } = Sockets::open(&config.endpoint, offered).await?;
        let control = control::Server::bind(&config.control_socket)?;
        // What happens once this one is ready is not unattended any more.
        let backlog = feed.backlog()?;
        announce(&config, &guard.config);

        let (serving, serving_watcher) = drain::channel();
        let (watching, watching_watcher) = drain::channel();
        let (feeding, feeding_watcher) = drain::channel();
        let mut supervisor = Supervisor::default();
        supervisor.spawn("kernel event reader", feed.run(backlog, feeding_watcher.clone()));
        supervisor.spawn("kernel log reader", forward(log, feeding_watcher));
        supervisor.spawn("cgroup watcher", guard.classes.run(watching_watcher.clone()));
        supervisor.spawn("network device watcher", cover_devices(coverage, watching_watcher));
        attribution::follow(known.lookups, &mut supervisor, &serving_watcher);
        let embedded = move || access_watch.borrow().upstream.embedded().cloned();
        let refresh = upstream::refresh(embedded, serving_watcher.clone());
        supervisor.spawn("credentials refresher", infallible(refresh));
        let endpoint = Arc::new(Endpoint::new(gate, audit.recorder()));
        for listener in listeners {
            let serve = listener.run(Arc::clone(&endpoint), serving_watcher.clone());
            supervisor.spawn("credential endpoint", infallible(serve));
        }
        let (sender, requests) = mpsc::channel(1);
        let admit = commanders::admit(guard.cgroups.clone(), attributor_watch);
        supervisor.spawn(
            "control socket",
            infallible(control.run(admit, sender, serving_watcher)),
        );
        let controller = Controller {
            flags,
            config,
            cgroups: guard.cgroups,
            own_cgroup: guard.own_cgroup,
            tables: guard.tables,
            classes: guard.class_control,
            access,
            attributor,
            recorder: audit.recorder(),
            registrations: known.registrations,
            endpoint,
            sources: known.sources,
        };
        Ok(Self {
            supervisor,
            controller,
            requests,
            handles,
            serving,
            watching,
            feeding,
        })
    }

    /// Does what it is told to, until that is to stop.
    async fn wait(&mut self, signals: &mut Signals) -> Result<Ending, TaskEnded> {
        let mut sweeps = interval(SWEEP_INTERVAL);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seconds = (0..THOROUGH_SWEEP).cycle();
        loop {
            tokio::select! {
                biased; // A failure must not hide behind a signal, and the end not behind requests.
                ended = self.supervisor.first_end() => return Err(ended),
                signal = signals.next() => match signal {
                    Wanted::Stop(signal) => {
                        info!(signal, "stopping; enforcement stays in place");
                        return Ok(Ending::Stop);
                    }
                    Wanted::Reload => drop(self.reload(By::Signal("SIGHUP")).await),
                },
                _ = sweeps.tick() => {
                    let thoroughly = seconds.next() == Some(0);
                    block_in_place(|| self.controller.sweep(thoroughly));
                    if thoroughly {
                        block_in_place(give_back);
                    }
                }
                Some(request) = self.requests.recv() => {
                    if request.command == Command::Handover {
                        info!(pid = request.by.pid, "stopping; another enforcer takes over");
                        return Ok(Ending::Handover(request));
                    }
                    let answer = self.obey(request.command, request.by).await;
                    // Who does not wait any more does not need to know.
                    drop(request.reply.send((answer, Vec::new())));
                }
            }
        }
    }

    async fn obey(&mut self, command: Command, by: Peer) -> Answer {
        let by = process(by);
        let done = match command {
            Command::Status => return told(&self.controller.report()),
            Command::TaskAdd { tasks } => return self.controller.add_tasks(tasks, by).await,
            Command::TaskRemove { task } => return self.controller.remove_task(&task, by),
            Command::TaskList => return self.controller.list_tasks(),
            Command::Explain { question } => return self.controller.explain(question).await,
            Command::TaskShow { task } => return self.controller.show_task(&task),
            Command::Mode { mode } => self.controller.set_mode(mode, by).await,
            Command::Reload => self.reload(by).await,
            // It is no command to go on after.
            Command::Handover => Ok(()),
        };
        match done {
            Ok(()) => Answer::Ok(json!({ "mode": self.controller.config.mode })),
            Err(error) => Answer::Error(error.to_string()),
        }
    }

    async fn reload(&mut self, by: By) -> Result<(), controller::ReloadError> {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[NotifyState::Reloading, now]),
            Err(error) => warn!(%error, "cannot tell the service manager of the reload"),
        }
        let done = self.controller.reload(by).await;
        notify(&[NotifyState::Ready]);
        done
    }

    /// Stops in order.
    async fn stop(&mut self, ending: Ending) {
        // From here on a client that comes waits for the successor, or is refused if there is none.
        self.serving.begin();
        match ending {
            Ending::Stop => self.handles.clear(),
            Ending::Handover(request) => self.hand_over(request).await,
        }
        let deadline = self.controller.config.endpoint.drain;
        if let Err(StillBusy) = self.serving.drain(deadline).await {
            warn!(?deadline, "requests still under way are cut off");
        }
        if let Err(StillBusy) = self.feeding.drain(FEED_DEADLINE).await {
            warn!("kernel events are left in the ring buffer; the next start reads them");
        }
    }

    /// Lets go of the kernel side, which must have one owner, then of the listening sockets.
    async fn hand_over(&mut self, request: control::Request) {
        self.controller.record("handover", process(request.by), None);
        let released = tokio::join!(
            self.watching.drain(RELEASE_DEADLINE),
            self.feeding.drain(RELEASE_DEADLINE)
        );
        let reply = if released == (Ok(()), Ok(())) {
            (Answer::Ok(json!({})), std::mem::take(&mut self.handles))
        } else {
            let problem = "the running enforcer could not let go of the hooks in time; it ends, start another one";
            (Answer::Error(problem.to_owned()), Vec::new())
        };
        if request.reply.send(reply).is_err() {
            warn!("the successor is gone; nobody serves credentials until an enforcer starts");
        }
    }

    /// Drops what is still under way, and waits until it is gone: a request is recorded when it is dropped, and dropping
    /// the supervisor only asks for that.
    async fn cut_off(self) {
        drop(self.supervisor);
        for watched in [self.serving, self.watching, self.feeding] {
            if let Err(StillBusy) = watched.drain(CUT_OFF_DEADLINE).await {
                warn!("tasks that were cut off are still there; what they did is not recorded");
            }
        }
    }
}

/// What the kernel side tells, on its way to the audit trail.
fn feed(bpf: &mut Bpf, attributor: watch::Receiver<Arc<Attributor>>, audit: &Audit) -> Result<Feed, BpfError> {
    Ok(Feed {
        ring: bpf.take_events()?,
        counters: bpf.take_counters()?,
        attributor,
        recorder: audit.recorder(),
    })
}

/// Says what is guarded and where it listens.
fn announce(config: &Config, bpf: &bpf::Config) {
    let endpoint = &config.endpoint;
    let upstream = match &config.upstream {
        config::Upstream::Embedded(_) => "embedded".to_owned(),
        config::Upstream::EcsAgent { address, .. } => format!("ECS agent at {address}"),
    };
    let trusted: Vec<_> = config.cgroups.host.iter().map(ToString::to_string).collect();
    info!(root = %bpf.cgroup_root.display(), ?trusted, "guarding all cgroups but the trusted ones");
    for group in config.protect.iter() {
        info!(group = group.name, addresses = ?group.addresses, mode = config.mode.name(), "blocking");
    }
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
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot notify the service manager");
    }
}

/// An answer that tells something.
fn told(what: &impl serde::Serialize) -> Answer {
    match serde_json::to_value(what) {
        Ok(value) => Answer::Ok(value),
        Err(error) => Answer::Error(format!("cannot tell it: {error}")),
    }
}

const fn process(Peer { uid, pid }: Peer) -> By {
    By::Process { uid, pid }
}

/// Passes on what the hooks log for people, until the drain.
async fn forward(mut log: KernelLog, mut drain: drain::Watcher) -> Result<(), BpfError> {
    loop {
        tokio::select! {
            () = drain.signaled() => return Ok(()),
            forwarded = log.forward() => forwarded?,
        }
    }
}

/// Attaches hooks to devices until the drain. The kernel side is let go of when this ends: another enforcer can load it.
async fn cover_devices(coverage: Coverage, mut drain: drain::Watcher) -> Result<(), HostError> {
    tokio::select! {
        () = drain.signaled() => Ok(()),
        ended = coverage.run() => ended.map(|never| match never {}),
    }
}

async fn infallible(task: impl Future<Output = ()>) -> Result<(), Infallible> {
    task.await;
    Ok(())
}
