//! Cgroups by name: finds those the configuration says something about, now and when they appear, and tells the kernel how
//! they are treated. Whatever nothing is said about is guarded.

mod search;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use enforcer_common::cgroup::{CgroupClass, Treatment};
use rustix::fs::inotify;
use serde::{Deserialize, Serialize};
use tokio::{
    io::unix::AsyncFd,
    sync::{mpsc, oneshot, watch},
    task::yield_now,
    time::sleep,
};

use self::search::{Found, MOST_BELOW, search};
use super::{HostError, cgroupfs::CgroupFs, treatment::Rules};
use crate::{bpf::Classes, drain::Watcher, sys::readiness::readable, telemetry::Seldom};

/// How often the tree is read where it cannot be watched.
const RESCAN: Duration = Duration::from_secs(1);

/// Keeps the kernel's class map in step with the cgroup tree.
///
/// Watches are scarce and shared with everybody who runs as root, containers included. Where there are none left, the
/// tree is read once a second instead: the enforcer must not die of it.
#[derive(Debug)]
pub struct ClassWatch {
    cgroups: CgroupFs,
    rules: Arc<Rules>,
    classes: Classes,
    /// `None` where the kernel gave none.
    changes: Option<AsyncFd<OwnedFd>>,
    /// Watched directories and their watch descriptors.
    watched: BTreeMap<PathBuf, i32>,
    /// Whether every directory of interest is watched.
    sees_all: bool,
    /// Whether the tree is to be read again at once.
    is_due: bool,
    requests: mpsc::Receiver<Request>,
    classified: watch::Sender<Vec<Classified>>,
    crowded: Seldom,
    too_deep: Seldom,
    unwritten: Seldom,
}

/// Changes what a [`ClassWatch`] goes by, and tells what it found.
#[derive(Debug)]
pub struct ClassControl {
    requests: mpsc::Sender<Request>,
    classified: watch::Receiver<Vec<Classified>>,
}

/// A cgroup that something is said about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Classified {
    /// Its ID.
    pub id: u64,
    /// Its path relative to the mount, with a leading slash.
    pub path: String,
    /// Whether its processes are trusted host services.
    pub host: bool,
    /// Whether attempts of its processes are recorded only.
    pub observed: bool,
    /// Groups of blocked destinations they may use, as bits.
    pub exceptions: u16,
}

/// Other rules, and who waits until they hold.
#[derive(Debug)]
struct Request {
    rules: Arc<Rules>,
    done: oneshot::Sender<()>,
}

// === impl ClassWatch ===

impl ClassWatch {
    /// Classifies what is there, and begins to watch for what appears.
    pub fn start(cgroups: CgroupFs, rules: Arc<Rules>, classes: Classes) -> Result<(Self, ClassControl), HostError> {
        let changes = open_inotify().inspect_err(|error| {
            tracing::warn!(%error, "cannot watch the cgroup tree, reading it once a second instead");
        });
        let (sender, requests) = mpsc::channel(1);
        let (classified, receiver) = watch::channel(Vec::new());
        let mut watch = Self {
            cgroups,
            rules,
            classes,
            changes: changes.ok(),
            watched: BTreeMap::new(),
            sees_all: true,
            is_due: false,
            requests,
            classified,
            crowded: Seldom::default(),
            too_deep: Seldom::default(),
            unwritten: Seldom::default(),
        };
        watch.update()?;
        let control = ClassControl {
            requests: sender,
            classified: receiver,
        };
        Ok((watch, control))
    }

    /// Follows the tree until the drain.
    pub async fn run(mut self, mut drain: Watcher) -> Result<(), HostError> {
        loop {
            let done = tokio::select! {
                biased; // Nothing is worth a look after the end, and a tree that never rests must not keep a request waiting.
                () = drain.signaled() => return Ok(()),
                Some(request) = self.requests.recv() => {
                    self.rules = request.rules;
                    Some(request.done)
                }
                () = yield_now(), if self.is_due => None,
                changed = wait(self.changes.as_ref().filter(|_| self.sees_all), &self.cgroups) => {
                    changed?;
                    None
                }
            };
            self.update()?;
            if let Some(done) = done
                && done.send(()).is_err()
            {
                tracing::debug!("nobody waits for the cgroups' new classes any more");
            }
        }
    }

    /// Makes the class map say what the tree says. A directory that appears while it is read is seen by its parent's watch,
    /// unless that is new: then the tree is to be read once more, after whoever waits had a turn. Who makes directories
    /// faster than they are read must not keep this from ending.
    fn update(&mut self) -> Result<(), HostError> {
        let found = search(&self.cgroups, &self.rules);
        self.tell(&found);
        self.write(&found.cgroups)?;
        self.is_due = self.watch(found.parents);
        self.classified.send_replace(classified(found.cgroups));
        Ok(())
    }

    /// Tells what is guarded though something else may be said about it.
    fn tell(&self, found: &Found) {
        if let Some(trusted) = &found.crowded
            && let Some(times) = self.crowded.happened()
        {
            let below = trusted.display();
            tracing::warn!(%below, most = MOST_BELOW, times, "too many cgroups below a trusted one or a container's, the rest is guarded");
        }
        if let Some(cgroup) = &found.too_deep
            && let Some(times) = self.too_deep.happened()
        {
            let cgroup = cgroup.display();
            tracing::error!(%cgroup, times, "too deep in the cgroup tree to be classified, it stays guarded");
        }
    }

    /// In an order that nobody can do more meanwhile than before or after: what has a word of its own has it before the one
    /// above it changes, and what permits goes before what restricts.
    fn write(&mut self, cgroups: &BTreeMap<u64, (PathBuf, Treatment)>) -> Result<(), HostError> {
        let mut deepest_first: Vec<_> = cgroups.iter().collect();
        deepest_first.sort_by_key(|(_, (path, _))| Reverse(path.components().count()));
        for (id, (path, treatment)) in deepest_first {
            if let Err(error) = self.classes.set(*id, *treatment)
                && let Some(times) = self.unwritten.happened()
            {
                // The map is full, most likely. A host service more is guarded, which is the safe side.
                let cgroup = path.display();
                tracing::error!(%cgroup, times, %error, "cannot classify a cgroup, it stays guarded");
            }
        }
        let is_wanted = |id| cgroups.contains_key(&id);
        self.classes
            .retain(|id, treatment| is_wanted(id) || !permits_something(treatment))?;
        self.classes.retain(|id, _| is_wanted(id))?;
        Ok(())
    }

    /// Watches these directories alone, and tells whether one of them was not watched before. Asking for a watch that is
    /// there gives the same one; a directory removed and made again gets a new one.
    fn watch(&mut self, parents: BTreeSet<PathBuf>) -> bool {
        let Some(changes) = &self.changes else {
            return false;
        };
        let flags = inotify::WatchFlags::CREATE | inotify::WatchFlags::DELETE | inotify::WatchFlags::ONLYDIR;
        let (mut added, mut watched) = (false, BTreeMap::new());
        let saw_all = std::mem::replace(&mut self.sees_all, true);
        for (path, descriptor) in &self.watched {
            if !parents.contains(path)
                && let Err(error) = inotify::remove_watch(changes, *descriptor)
            {
                tracing::debug!(cgroup = %path.display(), %error, "a cgroup is gone, and its watch with it");
            }
        }
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

// === impl ClassControl ===

impl ClassControl {
    /// Goes by other rules from now on. When this returns, the kernel does.
    pub async fn apply(&self, rules: Arc<Rules>) -> Result<(), HostError> {
        let ended = HostError::WatchEnded {
            what: "the cgroup tree",
        };
        let (done, waiting) = oneshot::channel();
        if self.requests.send(Request { rules, done }).await.is_err() || waiting.await.is_err() {
            return Err(ended);
        }
        Ok(())
    }

    /// The cgroups that something is said about, as they are now.
    #[must_use]
    pub fn classified(&self) -> Vec<Classified> {
        self.classified.borrow().clone()
    }
}

fn open_inotify() -> io::Result<AsyncFd<OwnedFd>> {
    let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    readable(inotify)
}

/// Waits until something was made or removed in a watched directory, and forgets what it was: the tree itself is read
/// again, which an overflow of the queue cannot spoil. Without watches, waits until it is time to look.
async fn wait(changes: Option<&AsyncFd<OwnedFd>>, cgroups: &CgroupFs) -> Result<(), HostError> {
    let Some(changes) = changes else {
        sleep(RESCAN).await;
        return Ok(());
    };
    let failed = |source| HostError::Watch {
        path: cgroups.mount().to_owned(),
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

/// Whether a treatment is more than that of a cgroup nothing is said about.
fn permits_something(treatment: Treatment) -> bool {
    treatment != Treatment::default()
}

fn classified(cgroups: BTreeMap<u64, (PathBuf, Treatment)>) -> Vec<Classified> {
    let classified = |(id, (path, treatment)): (u64, (PathBuf, Treatment))| Classified {
        id,
        path: path.to_string_lossy().into_owned(),
        host: treatment.class == CgroupClass::Host,
        observed: treatment.observed,
        exceptions: treatment.exceptions,
    };
    cgroups.into_iter().map(classified).collect()
}
