//! Attribution: from what the kernel says about a sender to the task it belongs to.
//!
//! A cgroup ID becomes a path, and what the sources say about the cgroups on this path names the task ([`Tasks`]). Both the
//! caller's cgroup and the one its socket was made in must lead to the same task. IDs are never reused and cgroups never
//! move, so where a cgroup is stays true, also after it is gone; if whose it is changes by then, it is nobody's.

mod cache;
mod cgroup_path;
mod claims;
mod kubernetes;
mod registration;
mod registry;
mod resolver;
mod source;
mod task;
mod tasks;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use enforcer_common::{
    cgroup::{CgroupClass, Treatment},
    handshake::{Handshake, state},
};
use tracing::warn;

use self::cache::{Cache, Known};
pub use self::{
    cgroup_path::{ContainerId, InvalidContainerId},
    claims::{Claims, Conflict, Holder},
    registration::{RegistrationError, Registrations, Wanted, is_gone},
    registry::{Alarm, Listener, Registry},
    resolver::{Depth, Lookups, Resolution, Resolver},
    source::{
        Believed, DOCKER_STATES, Docker, DockerConfig, DockerError, InvalidPlace, Oci, OciConfig, OciError, Place,
        Source, SourceError, SourceState, SourceStatus,
    },
    task::{Cgroup, Entry, Fact, SourceKind, TaskName, is_name},
    tasks::{Owner, Refused, Said, Taken, Tasks},
};
use crate::{
    bpf::Mode,
    host::{
        cgroupfs::{CgroupError, CgroupFs},
        treatment::{Consumer, Rules},
    },
};

/// Whose connection it is, or why that is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attributed {
    /// A task's.
    Task(Owner),
    /// That of a trusted host service which may ask for credentials that are not its own.
    Consumer(Arc<Consumer>),
    /// The kernel announced no sender.
    UnknownSender,
    /// The kernel has two candidates.
    AmbiguousSender,
    /// The sender's cgroup is gone, or the kernel would not tell its path.
    SenderGone,
    /// The caller and its socket come from different places.
    SocketFromElsewhere,
    /// Of a cgroup that belongs to no task.
    NoTask,
    /// Of a cgroup that no source could be asked about in time.
    Unresolved,
}

/// Where a cgroup is in the tree, and whose it is.
#[derive(Debug, PartialEq, Eq)]
pub struct Located {
    /// Path relative to the cgroup2 mount, with a leading slash.
    pub path: Box<str>,
    /// Whose it is, if that is known.
    pub owner: Option<Owner>,
    /// The host service it is, if that may ask for credentials.
    pub consumer: Option<Arc<Consumer>>,
    /// Whether what it is refused is recorded only.
    pub observed: bool,
}

/// What the configuration says about places in the tree.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// How cgroups are treated.
    pub rules: Arc<Rules>,
    /// How all of them together are treated.
    pub mode: Mode,
}

/// Tells paths of cgroups, and IDs of paths.
pub trait CgroupPaths: fmt::Debug + Send + Sync + 'static {
    /// Path relative to the cgroup2 mount, with a leading slash; `None` if the cgroup is gone.
    fn path_of(&self, id: u64) -> Result<Option<PathBuf>, CgroupError>;

    /// ID of the cgroup at such a path; `None` if there is none.
    fn id_of(&self, path: &Path) -> Result<Option<u64>, CgroupError>;
}

/// Answers whose a cgroup is.
#[derive(Debug)]
pub struct Attributor {
    paths: Arc<dyn CgroupPaths>,
    registry: Arc<Registry>,
    places: Places,
    /// Plain data, held for a lookup or an insertion only.
    known: Mutex<Cache>,
}

/// A cgroup that is nobody's as far as is known: the sources may know better.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unowned {
    /// Its ID.
    pub cgroup_id: u64,
    /// Where it is.
    pub located: Arc<Located>,
    /// Whether it is in the cgroup of a container.
    pub depth: Depth,
}

// === impl CgroupPaths ===

impl CgroupPaths for CgroupFs {
    fn path_of(&self, id: u64) -> Result<Option<PathBuf>, CgroupError> {
        Self::path_of(self, id)
    }

    fn id_of(&self, path: &Path) -> Result<Option<u64>, CgroupError> {
        Self::id_of(self, path)
    }
}

// === impl Located ===

impl Located {
    /// The task it belongs to.
    #[must_use]
    pub fn task(&self) -> Option<&TaskName> {
        self.owner.as_ref().map(|owner| &owner.task)
    }
}

// === impl Attributor ===

impl Attributor {
    /// An attributor that goes by what is in the registry.
    #[must_use]
    pub fn new(paths: impl CgroupPaths, registry: Arc<Registry>, places: Places) -> Self {
        Self {
            paths: Arc::new(paths),
            registry,
            places,
            known: Mutex::default(),
        }
    }

    /// One that knows other things about places, and remembers the same cgroups.
    #[must_use]
    pub fn with(&self, places: Places) -> Self {
        let other = Self {
            paths: Arc::clone(&self.paths),
            registry: Arc::clone(&self.registry),
            places,
            known: Mutex::default(),
        };
        let again = |known: Known| Known {
            located: Arc::new(other.placed(known.path(), known.located.owner.clone())),
            ..known
        };
        let earlier = self.known().clone();
        *other.known() = earlier.map(again);
        other
    }

    /// What the sources say.
    #[must_use]
    pub const fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Whether what is refused in a place is recorded only. For places that are not known, it is what holds everywhere.
    #[must_use]
    pub fn observes(&self, located: Option<&Located>) -> bool {
        self.places.mode == Mode::Observe || located.is_some_and(|located| located.observed)
    }

    /// Whether the processes of a cgroup are trusted host services.
    #[must_use]
    pub fn trusts(&self, path: &Path) -> bool {
        self.treatment(path).class == CgroupClass::Host
    }

    /// How the processes of a cgroup are treated.
    #[must_use]
    pub fn treatment(&self, path: &Path) -> Treatment {
        self.places.rules.treatment(path)
    }

    /// Whose connection a handshake announces.
    pub fn attribute(&self, handshake: Option<&Handshake>) -> Attributed {
        let Some(handshake) = handshake else {
            return Attributed::UnknownSender;
        };
        if !matches!(handshake.state, state::CLAIMED | state::CONFIRMED) {
            return Attributed::AmbiguousSender;
        }
        let identity = &handshake.identity;
        let mut agreed: Option<Arc<Located>> = None;
        for id in [identity.cgroup_id, identity.socket_cgroup_id] {
            if id == 0 {
                continue;
            }
            let Some(located) = self.locate(id) else {
                return Attributed::SenderGone;
            };
            let is_other = |first: &Arc<Located>| first.task() != located.task() || first.consumer != located.consumer;
            if agreed.as_ref().is_some_and(is_other) {
                return Attributed::SocketFromElsewhere;
            }
            agreed = Some(located);
        }
        let Some(located) = agreed else {
            return Attributed::UnknownSender;
        };
        match (&located.consumer, &located.owner) {
            (Some(consumer), _) => Attributed::Consumer(Arc::clone(consumer)),
            (None, Some(owner)) => Attributed::Task(owner.clone()),
            (None, None) => Attributed::NoTask,
        }
    }

    /// Those of these cgroups that are guarded, look like a container's, and belong to nobody.
    #[must_use]
    pub fn unclaimed(&self, cgroups: impl Iterator<Item = PathBuf>) -> Vec<PathBuf> {
        let is_container = |path: &PathBuf| {
            let name = path.file_name().map(Path::new);
            name.is_some_and(|name| cgroup_path::candidates(name).next().is_some())
        };
        cgroups
            .filter(|path| is_container(path) && !self.trusts(path) && self.owner(path, true).is_none())
            .collect()
    }

    /// Those cgroups of a handshake that are nobody's as far as is known, and not a trusted host service's.
    #[must_use]
    pub fn unowned(&self, handshake: Option<&Handshake>) -> Vec<Unowned> {
        let ids = handshake.map(|handshake| [handshake.identity.cgroup_id, handshake.identity.socket_cgroup_id]);
        let unowned = |cgroup_id| {
            let located = self.locate(cgroup_id)?;
            let path = Path::new(&*located.path);
            let depth = if self.registry.read().may_be_anothers(path) {
                Depth::Nested
            } else {
                Depth::Outermost
            };
            let is_unowned = located.owner.is_none() && !self.trusts(path);
            is_unowned.then_some(Unowned {
                cgroup_id,
                located,
                depth,
            })
        };
        let mut unowned: Vec<_> = ids.into_iter().flatten().filter_map(unowned).collect();
        unowned.dedup();
        unowned
    }

    /// All sources were asked about a cgroup: if it is in the cgroup of a container, it is that container's unless a source
    /// says otherwise.
    pub fn settle(&self, cgroup_id: u64) {
        self.known().settle(cgroup_id);
    }

    /// Where a cgroup is and whose; `None` if that cannot be told.
    pub fn locate(&self, cgroup_id: u64) -> Option<Arc<Located>> {
        if cgroup_id == 0 {
            return None;
        }
        let changes = self.registry.changes();
        let known = self.known().get(cgroup_id);
        let known = match known {
            Some(known) if known.changes == Some(changes) => return Some(known.located),
            Some(known) => self.again(cgroup_id, known).ok()?,
            None => {
                let path = self.path_of(cgroup_id).ok()??;
                let located = Arc::new(self.placed(&path, self.owner(&path, false)));
                Known {
                    odd_path: (Path::new(&*located.path) != path).then(|| path.into()),
                    located,
                    changes: None,
                    is_settled: false,
                }
            }
        };
        let located = Arc::clone(&known.located);
        let changes = Some(changes);
        self.known().remember(cgroup_id, Known { changes, ..known });
        Some(located)
    }

    fn path_of(&self, cgroup_id: u64) -> Result<Option<PathBuf>, CgroupError> {
        let path = self.paths.path_of(cgroup_id);
        path.inspect_err(|error| warn!(cgroup_id, %error, "cannot tell the path of a cgroup"))
    }

    /// Whose a cgroup is that was known, now that something has changed. One that is gone is nobody's after that: what is
    /// said now is about the one that has its path.
    fn again(&self, cgroup_id: u64, before: Known) -> Result<Known, CgroupError> {
        let path = before.path();
        let owner = self.owner(path, before.is_settled);
        if owner == before.located.owner {
            return Ok(before);
        }
        let is_there = self.path_of(cgroup_id)?.as_deref() == Some(path);
        Ok(Known {
            located: Arc::new(self.placed(path, owner.filter(|_| is_there))),
            ..before
        })
    }

    fn placed(&self, path: &Path, owner: Option<Owner>) -> Located {
        Located {
            path: path.to_string_lossy().into(),
            owner,
            consumer: self.places.rules.consumer(path).cloned(),
            observed: self.treatment(path).observed,
        }
    }

    /// Whose a cgroup is. What may be a container's of its own is nobody's until that is settled.
    fn owner(&self, path: &Path, is_settled: bool) -> Option<Owner> {
        let is_this = |path: &Path, id| matches!(self.paths.id_of(path), Ok(Some(found)) if found == id);
        let tasks = self.registry.read();
        if !is_settled && tasks.may_be_anothers(path) {
            return None;
        }
        tasks.owner(path, is_this)
    }

    /// Who says whose a cgroup is, most reliable first.
    #[must_use]
    pub fn sources(&self, path: &Path) -> Vec<SourceKind> {
        let is_this = |path: &Path, id| matches!(self.paths.id_of(path), Ok(Some(found)) if found == id);
        self.registry.read().sources(path, is_this)
    }

    fn known(&self) -> MutexGuard<'_, Cache> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(crate) mod tests;
