//! The OCI runtimes' state: containers of containerd (through the CRI, `ctr` or nerdctl), CRI-O, Podman, and plain runc or
//! crun, learned from the files they keep, without asking an engine.
//!
//! A bundle tells everything there is to know, and it is there before the container's first process. containerd's events
//! would only tell earlier than a scan that there is a new one; a container that asks before the next scan causes one, so
//! nothing waits for it, and nothing is lost when an engine restarts. Docker's containers are left to Docker's source
//! where there is one: a bundle does not tell which task an ECS agent made it for.

use std::{
    collections::BTreeMap,
    net::SocketAddrV4,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    task::{JoinError, spawn_blocking},
    time::{Instant, sleep, sleep_until},
};
use tracing::{debug, error, info, warn};

use self::{
    file::Trust,
    scan::{Changes, Scanner, Scope},
};
use super::{Believed, SourceState, SourceStatus};
use crate::{
    attribution::{CgroupPaths, ContainerId, Entry, Registry, SourceKind, is_gone},
    config::OciSource,
    drain::Watcher,
};

mod container;
mod file;
mod kubelet;
mod place;
mod runtime;
mod scan;

pub use self::place::{InvalidPlace, Place};

/// How often everything is looked at again.
const INTERVAL: Duration = Duration::from_secs(3);

/// How much longer than a scan takes the pause after it is at least.
const PAUSE: u32 = 20;

/// How many times as long as a scan takes nothing is looked at after it, whoever asks, and how long at most: a container
/// that can make cgroups can ask from ever new ones, and a new one must not wait for long.
const REST: u32 = 3;
const LONGEST_REST: Duration = Duration::from_millis(250);

/// How many reasons for passing something over are kept for people to see.
const REASONS: usize = 32;

/// The namespace of Docker's containers in containerd.
const DOCKER: &[&str] = &["moby"];

/// The source; cheap to copy.
#[derive(Clone, Debug)]
pub struct Oci {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    registry: Arc<Registry>,
    cgroups: Arc<dyn CgroupPaths>,
    /// Held while files are read, on threads for that.
    scans: Mutex<Scans>,
    status: Mutex<Status>,
}

#[derive(Debug)]
struct Scans {
    scanner: Scanner,
    last: Option<Scan>,
}

/// A scan that is over. What it found is in the registry.
#[derive(Clone, Debug)]
struct Scan {
    began: Instant,
    took: Duration,
    outcome: Result<(), OciError>,
}

/// Everything has just been looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TooEarly {
    until: Instant,
}

/// How it goes.
#[derive(Debug, Default)]
struct Status {
    containers: usize,
    /// Whether there is anything to look at.
    is_present: bool,
    /// Since when not everything can be listed, and why.
    failing: Option<(Timestamp, String)>,
    /// Files and directories that were passed over, and why; some of them if there are many.
    refused: BTreeMap<PathBuf, String>,
}

/// What the source is made with.
#[derive(Clone, Copy, Debug)]
pub struct Config<'a> {
    /// What is configured.
    pub source: &'a OciSource,
    /// Whether Docker's containers have a source of their own.
    pub docker_has_its_own: bool,
    /// Whose annotations count.
    pub believed: Believed,
    /// Where containers ask for credentials.
    pub endpoint: SocketAddrV4,
}

/// The runtimes' state cannot be looked at.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OciError {
    /// Not all of it.
    #[error("not all directories of the OCI runtimes' state can be listed: {0}")]
    Partial(String),
    /// None of it.
    #[error("looking at the OCI runtimes' state failed: {0}")]
    Failed(Arc<JoinError>),
}

// === impl Oci ===

impl Oci {
    /// The source.
    #[must_use]
    pub fn new(config: Config<'_>, cgroups: impl CgroupPaths, registry: Arc<Registry>) -> Self {
        let scope = Scope {
            places: config.source.places.clone().into(),
            skipped: if config.docker_has_its_own { DOCKER } else { &[] },
            endpoint: config.endpoint,
            believed: config.believed,
            kubelet: config.source.kubelet.clone(),
            trust: Trust::ROOT,
        };
        let cgroups: Arc<dyn CgroupPaths> = Arc::new(cgroups);
        Self {
            shared: Arc::new(Shared {
                registry,
                cgroups: Arc::clone(&cgroups),
                scans: Mutex::new(Scans {
                    scanner: Scanner::new(scope, cgroups),
                    last: None,
                }),
                status: Mutex::default(),
            }),
        }
    }

    /// Has everything said that it knows of the containers a cgroup is at or below of. A plain container's cgroup can have
    /// any name, so whatever came since the last scan is looked at.
    pub(super) async fn find(&self, cgroup: &Path) -> Result<bool, OciError> {
        self.scan().await?.outcome?;
        Ok(self.shared.registry.read().is_said(SourceKind::Oci, cgroup))
    }

    /// What it knows of a container; `None` if it surely knows none of this ID.
    pub(super) async fn container(&self, id: &ContainerId) -> Result<Option<Entry>, OciError> {
        self.scan().await?.outcome?;
        let tasks = self.shared.registry.read();
        let known = tasks.container(SourceKind::Oci, id);
        Ok(known.map(|entry| Entry::clone(entry)))
    }

    /// Keeps the registry up to date until the drain.
    pub(super) async fn run(self, mut drain: Watcher) {
        loop {
            let pause = match self.scan().await {
                Ok(scan) => INTERVAL.max(scan.took * PAUSE),
                Err(error) => {
                    error!(%error, "containers are not found");
                    INTERVAL
                }
            };
            tokio::select! {
                () = drain.signaled() => return,
                () = sleep(pause) => {}
            }
        }
    }

    /// How it goes.
    pub(super) fn status(&self) -> SourceStatus {
        let status = lock(&self.shared.status);
        let state = match (&status.failing, status.is_present) {
            (Some((since, error)), _) => SourceState::Retrying {
                since: *since,
                error: error.clone(),
            },
            (None, true) => SourceState::Ready,
            (None, false) => SourceState::Absent,
        };
        SourceStatus {
            source: SourceKind::Oci,
            state,
            containers: status.containers,
            passed_over: status.refused.values().cloned().collect(),
        }
    }

    /// Has everything looked at that is there now. Those who ask while a scan is under way, or soon after it, share the
    /// next.
    async fn scan(&self) -> Result<Scan, OciError> {
        let asked = Instant::now();
        loop {
            let shared = Arc::clone(&self.shared);
            let scan = spawn_blocking(move || shared.scan(asked)).await;
            match scan.map_err(|error| OciError::Failed(Arc::new(error)))? {
                Ok(scan) => return Ok(scan),
                Err(TooEarly { until }) => sleep_until(until).await,
            }
        }
    }
}

// === impl Scan ===

impl Scan {
    /// When the next may begin.
    fn rests_until(&self) -> Instant {
        self.began + self.took + (self.took * REST).min(LONGEST_REST)
    }
}

// === impl Shared ===

impl Shared {
    fn scan(&self, asked: Instant) -> Result<Scan, TooEarly> {
        let mut scans = lock(&self.scans);
        let began = Instant::now();
        match &scans.last {
            Some(last) if last.began >= asked => return Ok(last.clone()),
            Some(last) if last.rests_until() > began => {
                return Err(TooEarly {
                    until: last.rests_until(),
                });
            }
            Some(_) | None => {}
        }
        let changes = scans.scanner.scan();
        let outcome = changes
            .unlisted
            .clone()
            .map_or(Ok(()), |problem| Err(OciError::Partial(problem)));
        self.apply(changes, began);
        let scan = Scan {
            began,
            took: began.elapsed(),
            outcome,
        };
        Ok(scans.last.insert(scan).clone())
    }

    fn apply(&self, changes: Changes, began: Instant) {
        for id in &changes.removed {
            self.registry.remove(SourceKind::Oci, id);
        }
        if !changes.removed.is_empty() {
            // What they claimed may be claimed anew at once, by those that come in their place.
            self.registry.sweep(|cgroup| is_gone(&*self.cgroups, cgroup));
        }
        let found = changes.put.len();
        for entry in &changes.put {
            debug!(task = entry.task.as_str(), container = &*entry.id, "container found");
        }
        if found > 0 {
            self.registry.put_all(SourceKind::Oci, changes.put);
            let milliseconds = began.elapsed().as_millis();
            info!(containers = found, milliseconds, "containers of OCI runtimes found");
        }
        let refused: BTreeMap<_, _> = changes
            .refused
            .into_iter()
            .take(REASONS)
            .map(|(path, refused)| (path, refused.to_string()))
            .collect();
        let mut status = lock(&self.status);
        for (path, reason) in &refused {
            if status.refused.get(path) != Some(reason) {
                warn!(reason, "a container's files are passed over");
            }
        }
        let since = status.failing.take().map_or_else(Timestamp::now, |(since, _)| since);
        *status = Status {
            containers: changes.containers,
            is_present: changes.is_present,
            failing: changes.unlisted.map(|problem| (since, problem)),
            refused,
        };
    }
}

/// A scan that panicked has lost nothing that the next one does not find again.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
