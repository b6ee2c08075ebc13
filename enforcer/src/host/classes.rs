//! Host and guarded cgroups by name: finds the cgroups the configured patterns match, now and when they appear, and
//! classifies them. Whatever no pattern matches is guarded.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    fs, io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use enforcer_common::cgroup::{CgroupClass, MAX_LEVEL, Treatment};
use glob::Pattern;
use rustix::fs::inotify;
use tokio::{io::unix::AsyncFd, time::sleep};

use super::{HostError, cgroupfs::CgroupFs};
use crate::{bpf::Classes, sys::readiness::readable};

/// Which cgroups (paths relative to the mount, `*` within a component) are of which class.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Trusted host subtrees.
    pub host: Vec<PathBuf>,
    /// Guarded subtrees below those.
    pub guarded: Vec<PathBuf>,
}

/// How often the tree is read where it cannot be watched.
const RESCAN: Duration = Duration::from_secs(1);

/// Keeps the kernel's class map in step with the cgroup tree.
///
/// Watches are scarce and shared with everybody who runs as root, containers included. Where there are none left, the
/// tree is read once a second instead: the enforcer must not die of it.
#[derive(Debug)]
pub struct ClassWatch {
    cgroups: CgroupFs,
    rules: Rules,
    classes: Classes,
    /// `None` where the kernel gave none.
    changes: Option<AsyncFd<OwnedFd>>,
    /// Watched directories and their watch descriptors.
    watched: BTreeMap<PathBuf, i32>,
    /// Whether every directory of interest is watched.
    sees_all: bool,
}

/// What the patterns match at one moment.
#[derive(Default)]
struct Matches {
    classes: BTreeMap<u64, CgroupClass>,
    /// Directories in which a new match could appear.
    parents: BTreeSet<PathBuf>,
}

// === impl ClassWatch ===

impl ClassWatch {
    /// Classifies what is there, and begins to watch for what appears.
    pub fn start(cgroups: CgroupFs, rules: Rules, classes: Classes) -> Result<Self, HostError> {
        let changes = open_inotify().inspect_err(|error| {
            tracing::warn!(%error, "cannot watch the cgroup tree, reading it once a second instead");
        });
        let mut watch = Self {
            cgroups,
            rules,
            classes,
            changes: changes.ok(),
            watched: BTreeMap::new(),
            sees_all: true,
        };
        watch.update()?;
        Ok(watch)
    }

    /// Follows the tree, forever.
    pub async fn run(mut self) -> Result<Infallible, HostError> {
        loop {
            match &self.changes {
                Some(changes) if self.sees_all => self.wait(changes).await?,
                _ => sleep(RESCAN).await,
            }
            self.update()?;
        }
    }

    /// Waits until something was made or removed in a watched directory, and forgets what it was: the tree itself is
    /// read again, which an overflow of the queue cannot spoil.
    async fn wait(&self, changes: &AsyncFd<OwnedFd>) -> Result<(), HostError> {
        let failed = |source| HostError::Watch {
            path: self.cgroups.mount().to_owned(),
            source,
        };
        let mut guard = changes.readable().await.map_err(failed)?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(guard.get_inner(), &mut buffer);
        loop {
            match reader.next() {
                Ok(_change) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => break,
                Err(error) => return Err(failed(error.into())),
            }
        }
        guard.clear_ready();
        Ok(())
    }

    /// Makes the class map say what the tree says. A directory that appears while it is read is seen by its watch, so
    /// this repeats until no new watch was needed.
    fn update(&mut self) -> Result<(), HostError> {
        loop {
            let matches = self.matches();
            for (id, class) in &matches.classes {
                let treatment = Treatment {
                    class: *class,
                    ..Treatment::default()
                };
                if let Err(error) = self.classes.set(*id, treatment) {
                    // The map is full, most likely. A host service more is guarded, which is the safe side.
                    tracing::error!(cgroup_id = id, %error, "cannot classify a cgroup, it stays guarded");
                }
            }
            self.classes.retain(|id| matches.classes.contains_key(&id))?;
            if !self.watch(matches.parents) {
                return Ok(());
            }
        }
    }

    fn matches(&self) -> Matches {
        let mut matches = Matches::default();
        for (patterns, class) in [
            (&self.rules.host, CgroupClass::Host),
            (&self.rules.guarded, CgroupClass::Guarded),
        ] {
            for pattern in patterns {
                find(&self.cgroups, pattern, class, &mut matches);
            }
        }
        matches
    }

    /// Watches all these directories, and tells whether one of them was not watched before. Asking for a watch that is
    /// there gives the same one; a directory removed and made again gets a new one.
    fn watch(&mut self, parents: BTreeSet<PathBuf>) -> bool {
        let Some(changes) = &self.changes else {
            return false;
        };
        let flags = inotify::WatchFlags::CREATE | inotify::WatchFlags::DELETE | inotify::WatchFlags::ONLYDIR;
        let (mut added, mut watched) = (false, BTreeMap::new());
        let saw_all = std::mem::replace(&mut self.sees_all, true);
        for parent in parents {
            match inotify::add_watch(changes, &parent, flags) {
                Ok(descriptor) => {
                    added |= self.watched.get(&parent) != Some(&descriptor);
                    watched.insert(parent, descriptor);
                }
                Err(rustix::io::Errno::NOENT) => {}
                Err(error) => {
                    if saw_all {
                        tracing::warn!(cgroup = %parent.display(), %error, "cannot watch, reading once a second");
                    }
                    self.sees_all = false;
                }
            }
        }
        self.watched = watched;
        added
    }
}

fn open_inotify() -> io::Result<AsyncFd<OwnedFd>> {
    let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    readable(inotify)
}

/// Walks the tree along a pattern, component by component.
fn find(cgroups: &CgroupFs, pattern: &Path, class: CgroupClass, matches: &mut Matches) {
    let mut level: Vec<PathBuf> = vec![cgroups.mount().to_owned()];
    for component in pattern.components() {
        let Component::Normal(name) = component else { continue };
        let Ok(name) = Pattern::new(&name.to_string_lossy()) else {
            return;
        };
        let mut next = Vec::new();
        for directory in level {
            next.extend(children(&directory).filter(|child| {
                child
                    .file_name()
                    .is_some_and(|child| name.matches(&child.to_string_lossy()))
            }));
            matches.parents.insert(directory);
        }
        level = next;
    }
    for directory in level {
        let Some(path) = cgroups.relative(&directory) else {
            continue;
        };
        if path.components().count() > MAX_LEVEL as usize + 1 {
            tracing::error!(cgroup = %path.display(), "too deep in the cgroup tree to be classified, it stays guarded");
            continue;
        }
        if let Ok(Some(id)) = cgroups.id_of(&path) {
            matches.classes.insert(id, class);
        }
    }
}

/// The subdirectories of a cgroup. One that vanishes meanwhile has none.
fn children(directory: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
}
