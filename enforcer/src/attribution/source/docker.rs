//! The Docker engine: finds every container by itself, from what the engine was told when it made it.
//!
//! ```text
//! absent ──> subscribe, list ──> follow ──┐   events only say which container to look at again,
//!                ^   │                    │   so hearing of one twice or late does no harm
//!                └───┴── back off <───────┘   what was said before holds meanwhile
//! ```
//!
//! Subscribing comes before listing, so nothing happens in between unnoticed. The list is repeated now and then: engines
//! drop events of who reads slowly without telling.

mod agent;
mod client;
mod connection;
mod container;
mod labeled;
mod objects;
mod pending;
mod place;
mod round;
mod statement;

use std::{
    collections::HashSet,
    net::{SocketAddr, SocketAddrV4},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{debug, info, warn};

pub use self::client::DockerError;
use self::{
    agent::Agent,
    client::{Asker, Engine, Events},
    pending::Pending,
    place::{Driver, Placing},
    statement::{Rules, Said, Saying},
};
use super::{
    super::{
        cgroup_path::{ContainerId, candidates},
        registry::Registry,
        task::{Entry, SourceKind},
    },
    SourceState, SourceStatus,
    backoff::{Backoff, jittered},
};
use crate::drain::Watcher;

/// How many events may wait to be looked at.
const EVENTS: usize = 4096;

/// How many containers a path may name: engines in containers are not nested deeper. A container that can make cgroups
/// gives them any names.
const NESTED: usize = 4;

/// How long the first wait is after the engine failed, and the longest.
const WAITS: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(10)];

/// How long a request for one container waits for what happened before.
const CATCH_UP: Duration = Duration::from_secs(5);

/// How often everything is listed although nothing failed.
const LIST_EVERY: Duration = Duration::from_mins(5);

/// How far back events are asked for: the engine may subscribe a moment after it says so.
const LOOK_BACK: SignedDuration = SignedDuration::from_secs(2);

/// Where the engine's runtime and its containerd keep a directory for each of its containers, also while the engine is down.
pub const STATES: [&str; 2] = [
    "/run/docker/runtime-runc/moby",
    "/run/containerd/io.containerd.runtime.v2.task/moby",
];

/// What the source is made with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The engine's socket.
    pub socket: PathBuf,
    /// Directories with one for each container of the engine.
    pub states: Vec<PathBuf>,
    /// The daemon's own `--cgroup-parent`, if it has one.
    pub cgroup_parent: Option<String>,
    /// Whether labels may name tasks and roles.
    pub labels: bool,
    /// Where containers ask for credentials.
    pub endpoint: SocketAddrV4,
    /// The ECS agent's introspection, where there is an agent.
    pub introspection: Option<SocketAddr>,
}

/// The Docker engine as a source.
#[derive(Debug)]
pub struct Docker {
    config: Config,
    engine: Engine,
    agent: Option<Agent>,
    /// Plain data, held for a look or a change only.
    state: Mutex<State>,
    /// What the running session has to do; none if there is no session.
    session: watch::Sender<Option<mpsc::Sender<Happened>>>,
    /// Somebody waits for a session.
    wanted: Notify,
}

/// What a session has to do, in this order.
#[derive(Debug)]
enum Happened {
    /// Something happened to a container, or somebody wants it known.
    To(ContainerId),
    /// Somebody wants to know when all that is before this is done.
    Asked(oneshot::Sender<()>),
}

/// What is known of the engine.
#[derive(Debug)]
struct State {
    driver: Option<Driver>,
    /// There has been an engine: if there is none now, it will come back.
    has_been: bool,
    health: SourceState,
    /// How many the registry knows from here.
    containers: usize,
}

// === impl Docker ===

impl Docker {
    /// A source that has not asked yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            engine: Engine::new(&config.socket),
            agent: config.introspection.map(Agent::new),
            config,
            state: Mutex::new(State {
                driver: None,
                has_been: false,
                health: SourceState::Absent,
                containers: 0,
            }),
            session: watch::Sender::new(None),
            wanted: Notify::new(),
        }
    }

    /// How it goes.
    pub fn status(&self) -> SourceStatus {
        let state = self.state();
        SourceStatus {
            source: SourceKind::Docker,
            state: state.health.clone(),
            containers: state.containers,
            passed_over: Vec::new(),
        }
    }

    /// Has everything said that the engine knows of its containers a cgroup is at or below of. It may be several: one can
    /// be made in the cgroup of another. The session says it in its turn: who claims a credential ID first has it, so the
    /// first must not be learned of second, and nothing is said of what was removed meanwhile.
    pub async fn find(&self, cgroup: &Path, registry: &Registry) -> Result<bool, DockerError> {
        let mut found = Vec::new();
        // To leave some out would be to guess: of all there are the innermost counts.
        if candidates(cgroup).count() > NESTED {
            return Err(DockerError::Nested { most: NESTED });
        }
        for id in candidates(cgroup) {
            let entry = self.container(&id).await?;
            let is_above = |entry: &Entry| entry.cgroups.iter().any(|own| cgroup.starts_with(&own.path));
            found.extend(entry.filter(is_above).map(|_| id));
        }
        if found.is_empty() {
            return Ok(false);
        }
        timeout(CATCH_UP, self.catch_up(&found))
            .await
            .map_err(|_late| DockerError::Behind)??;
        let tasks = registry.read();
        let are_said = found.iter().all(|id| tasks.is_live(SourceKind::Docker, id.as_str()));
        if are_said { Ok(true) } else { Err(DockerError::Behind) }
    }

    /// Waits until everything is known that the engine has told of until now, and these containers.
    async fn catch_up(&self, containers: &[ContainerId]) -> Result<(), DockerError> {
        self.wanted.notify_one();
        let mut sessions = self.session.subscribe();
        let session = sessions
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|session| session.clone());
        let (done, answer) = oneshot::channel();
        let session = session.ok_or(DockerError::EventsEnded)?;
        let to_each = containers.iter().cloned().map(Happened::To);
        for happened in to_each.chain([Happened::Asked(done)]) {
            session.try_send(happened).map_err(|_full| DockerError::Flood)?;
        }
        answer.await.map_err(|_ended| DockerError::EventsEnded)
    }

    /// What the engine knows of a container. One whose task will be known in a moment is neither that task's nor nobody's.
    pub async fn container(&self, id: &ContainerId) -> Result<Option<Entry>, DockerError> {
        let rules = match self.rules().await {
            Ok(rules) => rules,
            Err(error) if error.is_absence() && !self.state().has_been && !self.has_left(id) => return Ok(None),
            Err(error) => return Err(error),
        };
        match self.ask(&mut self.engine.asker(), &rules, id).await? {
            Said::Entry(entry) => Ok(Some(entry)),
            Said::Undecided(_) => Err(DockerError::Undecided { container: id.clone() }),
            Said::Nothing | Said::Gone => Ok(None),
        }
    }

    /// Whether an engine has made a container that runs on although there is no engine, as with `live-restore`: then it
    /// will come back. Only root can make it seem so.
    fn has_left(&self, id: &ContainerId) -> bool {
        let mut states = self.config.states.iter();
        states.any(|containers| containers.join(id.as_str()).try_exists().unwrap_or(true))
    }

    /// Keeps the registry up to date until the drain.
    pub async fn run(self: &Arc<Self>, registry: &Registry, mut drain: Watcher) {
        let [first, most] = WAITS;
        let mut backoff = Backoff::new(first, most);
        loop {
            let outcome = tokio::select! {
                () = drain.signaled() => return,
                outcome = self.session(registry, &mut backoff) => outcome,
            };
            self.session.send_replace(None);
            let Err(error) = outcome else {
                continue;
            };
            self.fail(&error);
            let wanted = async {
                sleep(first).await;
                self.wanted.notified().await;
            };
            tokio::select! {
                () = drain.signaled() => return,
                () = sleep(backoff.next()) => {}
                () = wanted => {}
            }
        }
    }

    /// Lists everything and follows what happens, until it is time to list again.
    async fn session(self: &Arc<Self>, registry: &Registry, backoff: &mut Backoff) -> Result<(), DockerError> {
        let began = Instant::now();
        self.state().driver = None;
        let rules = self.rules().await?;
        let (sender, mut happened) = mpsc::channel(EVENTS);
        let events = self.engine.events(Timestamp::now() - LOOK_BACK).await?;
        // Dropped, and so ended, with the session.
        let mut reader = JoinSet::new();
        reader.spawn(read(events, sender.clone()));
        self.session.send_replace(Some(sender));
        let mut pending = Pending::default();
        tokio::select! {
            listed = self.list(&rules, registry, &mut pending) => listed?,
            Some(ended) = reader.join_next() => return Err(ended.unwrap_or(DockerError::EventsEnded)),
        }
        self.is_up_to_date(registry, began.elapsed());
        backoff.reset();
        let again = Instant::now() + jittered(LIST_EVERY);
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                () = sleep_until(again) => return Ok(()),
                Some(ended) = reader.join_next() => return Err(ended.unwrap_or(DockerError::EventsEnded)),
                () = pending.wait() => {}
                _ = happened.recv_many(&mut batch, EVENTS) => {}
            }
            let (mut ids, mut waiting) = (pending.due(), Vec::new());
            for happened in batch {
                match happened {
                    Happened::To(id) => _ = ids.insert(id),
                    Happened::Asked(done) => waiting.push(done),
                }
            }
            self.look_at(&rules, registry, &mut pending, ids).await?;
            self.state().containers = registry.read().count(SourceKind::Docker);
            for done in waiting {
                if done.send(()).is_err() {
                    debug!("nobody waits for what happened any more");
                }
            }
        }
    }

    async fn list(
        self: &Arc<Self>,
        rules: &Rules,
        registry: &Registry,
        pending: &mut Pending,
    ) -> Result<(), DockerError> {
        let ids = self.engine.list().await?;
        let known: HashSet<ContainerId> = ids.iter().cloned().collect();
        self.look_at(rules, registry, pending, ids).await?;
        registry.retain(SourceKind::Docker, |id| {
            ContainerId::parse(id).is_ok_and(|id| known.contains(&id))
        });
        Ok(())
    }

    /// Asks about containers, and has the registry say what the engine does, at once.
    async fn look_at(
        self: &Arc<Self>,
        rules: &Rules,
        registry: &Registry,
        pending: &mut Pending,
        ids: impl IntoIterator<Item = ContainerId>,
    ) -> Result<(), DockerError> {
        let (mut entries, mut gone) = (Vec::new(), Vec::new());
        for (id, said) in round::ask(self, rules, ids.into_iter().collect()).await? {
            if matches!(said, Said::Undecided(_)) && pending.is_undecided(&id) {
                continue;
            }
            pending.is_decided(&id);
            match said {
                Said::Entry(entry) | Said::Undecided(entry) => entries.push(entry),
                Said::Nothing => {}
                Said::Gone => gone.push(id),
            }
        }
        for id in gone {
            registry.remove(SourceKind::Docker, id.as_str());
        }
        registry.put_all(SourceKind::Docker, entries);
        Ok(())
    }

    /// Asks about a container, and the ECS agent whether it is of a task, where only the agent can tell.
    async fn ask(&self, asker: &mut Asker<'_>, rules: &Rules, id: &ContainerId) -> Result<Said, DockerError> {
        let Some(saying) = asker.inspect(id, |container| rules.say(container)).await? else {
            return Ok(Said::Gone);
        };
        let unproven = match saying {
            Saying::Entry(entry) => return Ok(Said::Entry(entry)),
            Saying::Nothing => return Ok(Said::Nothing),
            Saying::Labeled(labeled) => {
                let image = labeled.image.clone();
                let entry = asker.image_labels(&image, id, |labels| labeled.beside(labels)).await?;
                return Ok(Said::Entry(entry));
            }
            Saying::Unproven(unproven) => unproven,
        };
        let Some(agent) = self.agent.as_ref().filter(|_| unproven.is_told()) else {
            return Ok(Said::Entry(unproven.not_asked()));
        };
        let is_of_task = agent.made(id, &unproven.task).await?;
        Ok(unproven.asked(is_of_task))
    }

    /// What the engine's containers are judged by.
    async fn rules(&self) -> Result<Rules, DockerError> {
        let known = self.state().driver;
        let driver = if let Some(driver) = known {
            driver
        } else {
            let name = self.engine.cgroup_driver().await?;
            let driver = Driver::named(&name).ok_or(DockerError::Driver { driver: name })?;
            let mut state = self.state();
            state.driver = Some(driver);
            state.has_been = true;
            driver
        };
        Ok(Rules {
            placing: Placing {
                driver,
                default_parent: self.config.cgroup_parent.clone(),
            },
            endpoint: self.config.endpoint,
            labels: self.config.labels,
        })
    }

    fn is_up_to_date(&self, registry: &Registry, took: Duration) {
        let mut state = self.state();
        state.containers = registry.read().count(SourceKind::Docker);
        if state.health != SourceState::Ready {
            let (socket, containers) = (self.config.socket.display(), state.containers);
            info!(%socket, containers, milliseconds = took.as_millis(), "following the Docker engine");
            state.health = SourceState::Ready;
        }
    }

    fn fail(&self, error: &DockerError) {
        let mut state = self.state();
        if error.is_absence() && !state.has_been {
            debug!(%error, "no Docker engine so far");
            state.health = SourceState::Absent;
            return;
        }
        let since = match &state.health {
            SourceState::Retrying { since, .. } => *since,
            SourceState::Absent | SourceState::Ready => {
                warn!(%error, "cannot follow the Docker engine; what is known of its containers holds meanwhile");
                Timestamp::now()
            }
        };
        state.health = SourceState::Retrying {
            since,
            error: error.to_string(),
        };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passes on which containers something happens to, and returns why it does not any more.
async fn read(events: Events, sender: mpsc::Sender<Happened>) -> DockerError {
    let pass_on = |id| sender.try_send(Happened::To(id)).map_err(|_full| DockerError::Flood);
    match events.follow(pass_on).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

#[cfg(test)]
mod tests;
