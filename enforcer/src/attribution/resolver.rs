//! Resolution on demand: a sender whose cgroup nobody knows is not refused before the sources were asked.
//!
//! One task asks, so that many requests that wait for one cgroup cause one look-up. What is not known in time is neither
//! guessed nor refused for good: the client is told to come again, and the look-up goes on meanwhile.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tracing::{debug, warn};

use super::{registry::Registry, source::Source};
use crate::{drain::Watcher, host::containers::is_like_a_containers};

/// How many cgroups are looked up at once, and how many may wait for that.
const AT_ONCE: usize = 64;

/// How many of them may be in the cgroups of containers, and how many in what may be that of one container nobody knows: a
/// container that can make cgroups makes as many as it likes.
const NESTED_AT_ONCE: usize = 8;

/// How many requests may wait for an answer.
const QUEUE: usize = 1024;

/// How long a cgroup that no source knows is not asked for again.
const REST: Duration = Duration::from_millis(500);

/// How long one look-up may take; longer than any request waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came of a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Every source has answered; what they know is in the registry.
    Complete,
    /// A source could not be asked, or not in time.
    Unknown,
}

/// Where a cgroup is that is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// In no container's.
    Outermost,
    /// In that of a container.
    Nested,
}

/// Has cgroups looked up.
#[derive(Clone, Debug)]
pub struct Resolver {
    requests: mpsc::Sender<Request>,
    bound: Duration,
}

/// Looks cgroups up.
#[derive(Debug)]
pub struct Lookups {
    requests: mpsc::Receiver<Request>,
    sources: Arc<[Source]>,
    registry: Arc<Registry>,
    /// Who waits for which cgroup.
    waiting: HashMap<Arc<Path>, Waiting>,
    running: JoinSet<Lookup>,
    /// Cgroups no source knew, and when that was.
    unknown: HashMap<Arc<Path>, Instant>,
}

/// Who waits for a look-up that is under way.
#[derive(Debug)]
struct Waiting {
    depth: Depth,
    replies: Vec<oneshot::Sender<Resolution>>,
}

/// A look-up that is over.
#[derive(Debug)]
struct Lookup {
    cgroup: Arc<Path>,
    resolution: Resolution,
    /// Whether a source knows it.
    is_known: bool,
}

#[derive(Debug)]
struct Request {
    cgroup: Arc<Path>,
    depth: Depth,
    reply: oneshot::Sender<Resolution>,
}

// === impl Resolver ===

impl Resolver {
    /// A resolver, and the task that works for it. No request waits longer than `bound`.
    #[must_use]
    pub fn new(sources: Arc<[Source]>, registry: Arc<Registry>, bound: Duration) -> (Self, Lookups) {
        let (sender, requests) = mpsc::channel(QUEUE);
        let lookups = Lookups {
            requests,
            sources,
            registry,
            waiting: HashMap::new(),
            running: JoinSet::new(),
            unknown: HashMap::new(),
        };
        (
            Self {
                requests: sender,
                bound,
            },
            lookups,
        )
    }

    /// Until when somebody may wait who comes now.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.bound
    }

    /// Has all sources asked about a cgroup, and waits for that, but not longer than `until`.
    pub async fn resolve(&self, cgroup: &Path, depth: Depth, until: Instant) -> Resolution {
        let (reply, answer) = oneshot::channel();
        let cgroup = Arc::from(cgroup);
        if self.requests.try_send(Request { cgroup, depth, reply }).is_err() {
            warn!("more requests wait for their cgroup's task than can be looked up");
            return Resolution::Unknown;
        }
        match timeout_at(until, answer).await {
            Ok(Ok(resolution)) => resolution,
            Ok(Err(_)) | Err(_) => Resolution::Unknown,
        }
    }
}

// === impl Lookups ===

impl Lookups {
    /// Who is asked.
    #[must_use]
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Where what they say goes.
    #[must_use]
    pub const fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Looks up what is asked for until the drain.
    pub async fn run(mut self, mut drain: Watcher) {
        loop {
            tokio::select! {
                () = drain.signaled() => return,
                Some(done) = self.running.join_next() => match done {
                    Ok(lookup) => self.finish(lookup),
                    // Nobody can tell whose look-up it was: all who wait have to come again.
                    Err(error) => {
                        warn!(%error, "looking up a cgroup failed");
                        self.waiting.clear();
                    }
                },
                request = self.requests.recv() => match request {
                    Some(request) => self.start(request),
                    None => return,
                },
            }
        }
    }

    fn start(&mut self, Request { cgroup, depth, reply }: Request) {
        self.unknown.retain(|_, asked| asked.elapsed() < REST);
        if self.unknown.contains_key(&cgroup) {
            answer(reply, Resolution::Complete);
            return;
        }
        if let Some(waiting) = self.waiting.get_mut(&cgroup) {
            waiting.replies.push(reply);
        } else if self.has_room(&cgroup, depth) {
            let replies = vec![reply];
            self.waiting.insert(Arc::clone(&cgroup), Waiting { depth, replies });
            let (sources, registry) = (Arc::clone(&self.sources), Arc::clone(&self.registry));
            self.running
                .spawn(async move { look_up(&sources, &registry, cgroup).await });
        } else {
            answer(reply, Resolution::Unknown);
        }
    }

    /// Whether one more may be looked up now.
    fn has_room(&self, cgroup: &Path, depth: Depth) -> bool {
        let alike: usize = match depth {
            Depth::Nested => {
                let nested = self.waiting.values().filter(|waiting| waiting.depth == Depth::Nested);
                nested.count()
            }
            Depth::Outermost => outermost_container(cgroup).map_or(0, |container| {
                let of_it = self.waiting.keys().filter(|other| other.starts_with(container));
                of_it.count()
            }),
        };
        self.running.len() < AT_ONCE && alike < NESTED_AT_ONCE
    }

    fn finish(&mut self, lookup: Lookup) {
        let waiting = self.waiting.remove(&lookup.cgroup);
        for reply in waiting.into_iter().flat_map(|waiting| waiting.replies) {
            answer(reply, lookup.resolution);
        }
        // What is asked for again although it was known is another cgroup, in the same place.
        if lookup.resolution == Resolution::Complete && !lookup.is_known {
            self.unknown.insert(lookup.cgroup, Instant::now());
        }
    }
}

fn answer(reply: oneshot::Sender<Resolution>, resolution: Resolution) {
    if reply.send(resolution).is_err() {
        debug!("nobody waits for a cgroup's task any more");
    }
}

/// The outermost cgroup above one, or itself, that looks like a container's.
fn outermost_container(cgroup: &Path) -> Option<&Path> {
    let is_containers = |path: &&Path| path.file_name().is_some_and(is_like_a_containers);
    cgroup.ancestors().filter(is_containers).last()
}

/// Asks all sources about a cgroup, at once: who waits no longer than one takes learns what the others know.
async fn look_up(sources: &[Source], registry: &Registry, cgroup: Arc<Path>) -> Lookup {
    let ask = async |source: &Source| match timeout(PATIENCE, source.find(&cgroup, registry)).await {
        Ok(Ok(is_known)) => (Resolution::Complete, is_known),
        Ok(Err(error)) => {
            debug!(source = source.kind().name(), %error, "cannot ask about a cgroup");
            (Resolution::Unknown, false)
        }
        Err(_late) => (Resolution::Unknown, false),
    };
    let answers = join_all(sources.iter().map(ask)).await;
    let are_complete = answers.iter().all(|(answer, _)| *answer == Resolution::Complete);
    Lookup {
        resolution: if are_complete {
            Resolution::Complete
        } else {
            Resolution::Unknown
        },
        is_known: answers.iter().any(|(_, is_known)| *is_known),
        cgroup,
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc, time::Duration};

    use super::{AT_ONCE, Depth, NESTED_AT_ONCE, Resolver, Waiting};
    use crate::attribution::Registry;

    #[tokio::test]
    async fn cgroups_that_containers_make_leave_room_for_containers() {
        let bound = Duration::from_secs(1);
        let (_resolver, mut lookups) = Resolver::new(Arc::new([]), Arc::new(Registry::default()), bound);
        let unknown = Path::new("/docker/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
        let other = Path::new("/docker/fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210");
        for (cgroup, depth) in [(Path::new("/docker/x"), Depth::Nested), (unknown, Depth::Outermost)] {
            for number in 0..NESTED_AT_ONCE {
                assert!(lookups.has_room(cgroup, depth));
                let replies = Vec::new();
                lookups
                    .waiting
                    .insert(cgroup.join(number.to_string()).into(), Waiting { depth, replies });
                lookups.running.spawn(std::future::pending());
            }
            assert!(!lookups.has_room(cgroup, depth) && lookups.has_room(other, Depth::Outermost));
        }
        for _ in 2 * NESTED_AT_ONCE..AT_ONCE {
            lookups.running.spawn(std::future::pending());
        }
        assert!(!lookups.has_room(other, Depth::Outermost));
    }
}
