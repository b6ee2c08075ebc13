//! Cgroups by name: finds those the configuration says something about, now and when they appear, and tells the kernel how
//! they are treated. Whatever nothing is said about is guarded.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs, io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use enforcer_common::cgroup::{CgroupClass, MAX_LEVEL, Treatment};
use rustix::fs::inotify;
use serde::{Deserialize, Serialize};
use tokio::{
    io::unix::AsyncFd,
    sync::{mpsc, oneshot, watch},
    time::sleep,
};

use super::{HostError, cgroupfs::CgroupFs, treatment::Rules};
use crate::{bpf::Classes, config::CgroupPattern, drain::Watcher, sys::readiness::readable, telemetry::Seldom};

/// How often the tree is read where it cannot be watched.
const RESCAN: Duration = Duration::from_secs(1);

/// How many of the cgroups below one trusted cgroup are looked at and may be trusted: whoever may make some there, a user in
/// its session, must not take the room that others need.
const MOST_BELOW: usize = 1024;

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
    requests: mpsc::Receiver<Request>,
    classified: watch::Sender<Vec<Classified>>,
    crowded: Seldom,
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

/// What the rules are about at one moment.
#[derive(Default)]
struct Matches {
    cgroups: BTreeMap<u64, (PathBuf, Treatment)>,
    /// Directories in which a new match could appear.
    parents: BTreeSet<PathBuf>,
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
            requests,
            classified,
            crowded: Seldom::default(),
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

    /// Makes the class map say what the tree says. A directory that appears while it is read is seen by its watch, so
    /// this repeats until no new watch was needed.
    fn update(&mut self) -> Result<(), HostError> {
        loop {
            let matches = self.matches();
            self.write(&matches)?;
            if !self.watch(matches.parents) {
                self.classified.send_replace(classified(matches.cgroups));
                return Ok(());
            }
        }
    }

    /// In an order that nobody can do more meanwhile than before or after: what restricts comes before what permits, and
    /// goes after it.
    fn write(&mut self, matches: &Matches) -> Result<(), HostError> {
        let (permissive, strict): (Vec<_>, Vec<_>) =
            (matches.cgroups.iter()).partition(|(_, (_, treatment))| permits_something(*treatment));
        for (id, (path, treatment)) in strict.into_iter().chain(permissive) {
            if let Err(error) = self.classes.set(*id, *treatment) {
                // The map is full, most likely. A host service more is guarded, which is the safe side.
                tracing::error!(cgroup = %path.display(), %error, "cannot classify a cgroup, it stays guarded");
            }
        }
        let is_wanted = |id| matches.cgroups.contains_key(&id);
        self.classes
            .retain(|id, treatment| is_wanted(id) || !permits_something(treatment))?;
        self.classes.retain(|id, _| is_wanted(id))?;
        Ok(())
    }

    fn matches(&self) -> Matches {
        let mut matches = Matches::default();
        for path in self.rules.paths() {
            self.find_exactly(path, &mut matches);
        }
        for pattern in self.rules.patterns() {
            self.find(pattern, &mut matches);
        }
        let host = |(_, (path, treatment)): (_, &(PathBuf, Treatment))| {
            (treatment.class == CgroupClass::Host).then(|| path.clone())
        };
        let trusted: Vec<_> = matches.cgroups.iter().filter_map(host).collect();
        for trusted in trusted {
            self.find_below(&trusted, &mut matches);
        }
        matches
    }

    /// Finds what is below a trusted cgroup: the kernel trusts none of it unasked, because it may be a container's. The
    /// nearest are found first, because there may be more than are trusted.
    fn find_below(&self, trusted: &Path, matches: &mut Matches) {
        let mut left = VecDeque::from([self.cgroups.absolute(trusted)]);
        let mut most = MOST_BELOW;
        while let Some(directory) = left.pop_front() {
            matches.parents.insert(directory.clone());
            for child in children(&directory) {
                if most == 0 {
                    if let Some(times) = self.crowded.happened() {
                        let trusted = trusted.display();
                        tracing::warn!(%trusted, most = MOST_BELOW, times, "too many cgroups below a trusted one, the rest is guarded");
                    }
                    return;
                }
                most -= 1;
                let path = self.cgroups.relative(&child).filter(|path| !is_too_deep(path));
                let treatment = path.and_then(|path| self.found(&path, matches));
                if treatment.is_some_and(|treatment| treatment.class == CgroupClass::Host) {
                    left.push_back(child);
                }
            }
        }
    }

    fn find_exactly(&self, path: &Path, matches: &mut Matches) {
        let absolute = self.cgroups.absolute(path);
        let mut above: Vec<_> = absolute.ancestors().take(path.components().count()).collect();
        above.reverse();
        for directory in above {
            if !directory.is_dir() {
                return;
            }
            if directory != absolute {
                matches.parents.insert(directory.to_owned());
            }
        }
        self.found(path, matches);
    }

    /// Walks the tree along a pattern, component by component.
    fn find(&self, pattern: &CgroupPattern, matches: &mut Matches) {
        let mut level: Vec<PathBuf> = vec![self.cgroups.mount().to_owned()];
        for component in pattern.components() {
            let mut next = Vec::new();
            for directory in level {
                let is_match = |child: &PathBuf| {
                    let name = child.file_name().map(|name| name.to_string_lossy());
                    name.is_some_and(|name| component.matches(&name))
                };
                next.extend(children(&directory).filter(is_match));
                matches.parents.insert(directory);
            }
            level = next;
        }
        for directory in level {
            if let Some(path) = self.cgroups.relative(&directory) {
                self.found(&path, matches);
            }
        }
    }

    /// How a cgroup is treated from now on, if it is there.
    fn found(&self, path: &Path, matches: &mut Matches) -> Option<Treatment> {
        if is_too_deep(path) {
            tracing::error!(cgroup = %path.display(), "too deep in the cgroup tree to be classified, it stays guarded");
            return None;
        }
        let id = self.cgroups.id_of(path).ok().flatten()?;
        let treatment = self.rules.treatment(path);
        matches.cgroups.insert(id, (path.to_owned(), treatment));
        Some(treatment)
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

/// Whether the kernel side does not look at a cgroup, so that it is guarded whatever is said about it.
fn is_too_deep(path: &Path) -> bool {
    path.components().count() > MAX_LEVEL as usize + 1
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

/// The subdirectories of a cgroup. One that vanishes meanwhile has none.
fn children(directory: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
}
