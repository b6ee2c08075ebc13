//! Attribution: from what the kernel says about a sender to the task it belongs to.
//!
//! A cgroup ID becomes a path, and the deepest configured cgroup that contains the path names the task. Both the
//! caller's cgroup and the one its socket was made in must lead to the same task. IDs are never reused and cgroups
//! never move, so what was found once stays true, also after the cgroup is gone.

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use enforcer_common::{
    cgroup::CgroupClass,
    handshake::{Handshake, state},
};
use tracing::warn;

use crate::{
    bpf::Mode,
    host::{
        cgroupfs::{CgroupError, CgroupFs},
        treatment::Rules,
    },
};

/// How many cgroups are remembered. When there are more, remembering starts over.
const CACHED_CGROUPS: usize = 16_384;

/// A task's name; cheap to copy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TaskName(Arc<str>);

/// Whose connection it is, or why that is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attributed {
    /// A task's.
    Task(TaskName),
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
}

/// Where a cgroup is in the tree, and whose it is.
#[derive(Debug, PartialEq, Eq)]
pub struct Located {
    /// Path relative to the cgroup2 mount, with a leading slash.
    pub path: Box<str>,
    /// The task, if one claims it.
    pub task: Option<TaskName>,
    /// Whether what it is refused is recorded only.
    pub observed: bool,
}

/// What the configuration says about places in the tree.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Cgroup paths relative to the mount, and whose they are, with everything below them.
    pub tasks: HashMap<PathBuf, TaskName>,
    /// How cgroups are treated.
    pub rules: Arc<Rules>,
    /// How all of them together are treated.
    pub mode: Mode,
}

/// Tells the path of a cgroup.
pub trait CgroupPaths: fmt::Debug + Send + Sync + 'static {
    /// Path relative to the cgroup2 mount, with a leading slash; `None` if the cgroup is gone.
    fn path_of(&self, id: u64) -> Result<Option<PathBuf>, CgroupError>;
}

/// Answers whose a cgroup is.
#[derive(Debug)]
pub struct Attributor {
    paths: Arc<dyn CgroupPaths>,
    places: Places,
    /// Plain data, held for a lookup or an insertion only.
    known: Mutex<HashMap<u64, Arc<Located>>>,
}

// === impl TaskName ===

impl TaskName {
    /// A task's name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// === impl CgroupPaths ===

impl CgroupPaths for CgroupFs {
    fn path_of(&self, id: u64) -> Result<Option<PathBuf>, CgroupError> {
        Self::path_of(self, id)
    }
}

// === impl Attributor ===

impl Attributor {
    /// An attributor that knows whose places are.
    #[must_use]
    pub fn new(paths: impl CgroupPaths, places: Places) -> Self {
        Self {
            paths: Arc::new(paths),
            places,
            known: Mutex::default(),
        }
    }

    /// One that knows other things about places, and remembers the same cgroups.
    #[must_use]
    pub fn with(&self, places: Places) -> Self {
        let remembered = self.known().clone();
        let other = Self {
            paths: Arc::clone(&self.paths),
            places,
            known: Mutex::default(),
        };
        let located = |(id, located): (u64, Arc<Located>)| (id, Arc::new(other.located(Path::new(&*located.path))));
        let known = remembered.into_iter().map(located).collect();
        *other.known() = known;
        other
    }

    /// Whether what is refused in a place is recorded only. For places that are not known, it is what holds everywhere.
    #[must_use]
    pub fn observes(&self, located: Option<&Located>) -> bool {
        self.places.mode == Mode::Observe || located.is_some_and(|located| located.observed)
    }

    /// Whether the processes of a cgroup are trusted host services.
    #[must_use]
    pub fn trusts(&self, path: &Path) -> bool {
        self.places.rules.treatment(path).class == CgroupClass::Host
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
            if agreed.as_ref().is_some_and(|first| first.task != located.task) {
                return Attributed::SocketFromElsewhere;
            }
            agreed = Some(located);
        }
        match agreed.map(|located| located.task.clone()) {
            None => Attributed::UnknownSender,
            Some(None) => Attributed::NoTask,
            Some(Some(task)) => Attributed::Task(task),
        }
    }

    /// Where a cgroup is and whose; `None` if that cannot be told.
    pub fn locate(&self, cgroup_id: u64) -> Option<Arc<Located>> {
        if cgroup_id == 0 {
            return None;
        }
        if let Some(located) = self.known().get(&cgroup_id) {
            return Some(Arc::clone(located));
        }
        let path = match self.paths.path_of(cgroup_id) {
            Ok(path) => path?,
            Err(error) => {
                warn!(
                    cgroup_id,
                    %error,
                    "cannot tell the path of a cgroup"
                );
                return None;
            }
        };
        let located = Arc::new(self.located(&path));
        let mut known = self.known();
        if known.len() >= CACHED_CGROUPS {
            known.clear();
        }
        known.insert(cgroup_id, Arc::clone(&located));
        Some(located)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<u64, Arc<Located>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn located(&self, path: &Path) -> Located {
        let mut ancestors = path.ancestors();
        Located {
            path: path.to_string_lossy().into(),
            task: ancestors.find_map(|ancestor| self.places.tasks.get(ancestor)).cloned(),
            observed: self.places.rules.treatment(path).observed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, path::PathBuf, sync::Mutex};

    use enforcer_common::{
        handshake::{Handshake, state},
        identity::Identity,
    };

    use super::{Attributed, Attributor, CgroupPaths, Places, TaskName};
    use crate::host::cgroupfs::CgroupError;

    #[derive(Debug)]
    struct Tree(Mutex<HashMap<u64, &'static str>>);

    impl CgroupPaths for Tree {
        fn path_of(&self, id: u64) -> Result<Option<PathBuf>, CgroupError> {
            Ok(self.0.lock().unwrap().remove(&id).map(PathBuf::from))
        }
    }

    /// Each cgroup can be asked for once, so a second answer must come from memory.
    fn attributor() -> Attributor {
        let tree = Tree(Mutex::new(HashMap::from([
            (1, "/"),
            (10, "/ecs/web"),
            (11, "/ecs/web/container/deep"),
            (12, "/ecs/web-2"),
            (20, "/ecs/web/batch/x"),
            (30, "/system.slice/ssh.service"),
        ])));
        let tasks = [("/ecs/web", "web"), ("/ecs/web/batch", "batch")];
        Attributor::new(tree, places(&tasks))
    }

    fn places(tasks: &[(&str, &str)]) -> Places {
        let tasks = tasks.iter().map(|(path, name)| (path.into(), TaskName::new(name)));
        Places {
            tasks: tasks.collect(),
            ..Places::default()
        }
    }

    fn from(cgroup_id: u64, socket_cgroup_id: u64, state: u32) -> Handshake {
        Handshake {
            identity: Identity {
                cgroup_id,
                socket_cgroup_id,
                ..Identity::default()
            },
            state,
            reserved: 0,
        }
    }

    fn attribute(cgroup_id: u64, socket_cgroup_id: u64) -> Attributed {
        attributor().attribute(Some(&from(cgroup_id, socket_cgroup_id, state::CONFIRMED)))
    }

    fn task(name: &str) -> Attributed {
        Attributed::Task(TaskName::new(name))
    }

    #[test]
    fn the_deepest_configured_cgroup_names_the_task() {
        assert_eq!(attribute(10, 0), task("web"));
        assert_eq!(attribute(11, 10), task("web"));
        assert_eq!(attribute(20, 0), task("batch"));
    }

    #[test]
    fn a_cgroup_whose_name_merely_begins_alike_is_nobodys() {
        assert_eq!(attribute(12, 12), Attributed::NoTask);
    }

    #[test]
    fn a_packet_without_a_caller_is_attributed_by_its_socket() {
        assert_eq!(attribute(0, 11), task("web"));
        assert_eq!(attribute(0, 0), Attributed::UnknownSender);
    }

    #[test]
    fn a_socket_of_another_task_or_of_none_is_refused() {
        assert_eq!(attribute(10, 20), Attributed::SocketFromElsewhere);
        assert_eq!(attribute(10, 30), Attributed::SocketFromElsewhere);
        assert_eq!(attribute(30, 10), Attributed::SocketFromElsewhere);
    }

    #[test]
    fn a_vanished_cgroup_is_gone_unless_it_was_known() {
        assert_eq!(attribute(99, 10), Attributed::SenderGone);
        let attributor = attributor();
        let handshake = from(10, 11, state::CLAIMED);
        assert_eq!(attributor.attribute(Some(&handshake)), task("web"));
        assert_eq!(attributor.attribute(Some(&handshake)), task("web"));
    }

    #[test]
    fn what_was_found_stays_found_when_the_tasks_change() {
        let before = attributor();
        let handshake = from(10, 20, state::CONFIRMED);
        assert_eq!(before.attribute(Some(&handshake)), Attributed::SocketFromElsewhere);
        let after = before.with(places(&[("/ecs", "one")]));
        assert_eq!(after.attribute(Some(&handshake)), task("one"));
        assert_eq!(after.with(places(&[])).attribute(Some(&handshake)), Attributed::NoTask);
    }

    #[test]
    fn a_missing_or_ambiguous_handshake_is_nobodys() {
        assert_eq!(attributor().attribute(None), Attributed::UnknownSender);
        for state in [0, state::AMBIGUOUS, 77] {
            assert_eq!(
                attributor().attribute(Some(&from(10, 10, state))),
                Attributed::AmbiguousSender
            );
        }
    }
}
