//! A scan: what runtimes keep, compared with what it was. Only what is new or has changed is read.
//!
//! A runtime's own state is the best word: there is such a container, where its cgroup is, and which bundle it was made of.
//! Of a bundle that no state names, its configuration has to tell the cgroup. Either is about the very cgroup that is there
//! now, by its ID: what comes to the same path later is another container's, and is asked for anew.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ffi::OsStr,
    net::SocketAddrV4,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use tracing::debug;

use super::{
    container::{Container, entry},
    file::{Content, Refused, Stamp, Trust},
    kubelet::Kubelet,
    place::{Findings, Found, Kind, Place},
    runtime::{Spec, State},
};
use crate::attribution::{CgroupPaths, kubernetes::Pod, task::Entry};

/// What is known, and where to look for more.
#[derive(Debug)]
pub(super) struct Scanner {
    places: Box<[Place]>,
    /// Namespaces that another source answers for.
    skipped: &'static [&'static str],
    /// Where containers ask for credentials.
    endpoint: SocketAddrV4,
    pods_are_believed: bool,
    kubelet: Kubelet,
    trust: Trust,
    cgroups: Arc<dyn CgroupPaths>,
    /// What runtimes say, by their files.
    states: HashMap<PathBuf, Stated>,
    /// Containers, by their configurations' files.
    containers: HashMap<PathBuf, Known>,
}

/// What a runtime says of a container.
#[derive(Clone, Debug)]
struct Stated {
    stamp: Stamp,
    name: String,
    state: State,
}

/// A container that was read.
#[derive(Debug)]
struct Known {
    stamp: Stamp,
    stated: Option<Stamp>,
    cgroup: Option<PathBuf>,
    /// The cgroup's; none if there is no such cgroup, so that nothing is said of it.
    cgroup_id: Option<u64>,
}

/// A container that is there.
struct Present<'a> {
    name: &'a str,
    stamp: Stamp,
    /// Whether an engine made its configuration for it. What no engine made may be older, and made for several.
    is_engines: bool,
    stated: Option<&'a Stated>,
}

// === impl Present ===

impl Present<'_> {
    /// Since when there is such a container: by one clock for all that engines make, so that none seems older than it is
    /// until the runtime has written down its state.
    fn created(&self, content: &Content) -> Timestamp {
        let stated = self.stated.filter(|_| !self.is_engines);
        stated.map_or(content.modified, |stated| stated.state.created)
    }
}

/// What has changed.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Containers that are new or not as they were.
    pub(super) put: Vec<Entry>,
    /// Those that are gone.
    pub(super) removed: Vec<String>,
    /// How many there are now.
    pub(super) containers: usize,
    /// What was passed over, and why.
    pub(super) refused: BTreeMap<PathBuf, Refused>,
    /// Whether there is anything to look at.
    pub(super) is_present: bool,
    /// Why not everything could be listed.
    pub(super) unlisted: Option<String>,
}

/// What there is to know of where to look.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    pub(super) places: Box<[Place]>,
    pub(super) skipped: &'static [&'static str],
    /// Where containers ask for credentials.
    pub(super) endpoint: SocketAddrV4,
    pub(super) pods_are_believed: bool,
    /// The kubelet's directory.
    pub(super) kubelet: PathBuf,
    pub(super) trust: Trust,
}

// === impl Scanner ===

impl Scanner {
    /// One that knows nothing yet.
    pub(super) fn new(scope: Scope, cgroups: Arc<dyn CgroupPaths>) -> Self {
        Self {
            places: scope.places,
            skipped: scope.skipped,
            endpoint: scope.endpoint,
            pods_are_believed: scope.pods_are_believed,
            kubelet: Kubelet {
                directory: scope.kubelet,
                trust: scope.trust,
            },
            trust: scope.trust,
            cgroups,
            states: HashMap::new(),
            containers: HashMap::new(),
        }
    }

    /// Looks at everything there is.
    pub(super) fn scan(&mut self) -> Changes {
        let mut findings = Findings::default();
        for place in &self.places {
            place.look(self.trust, self.skipped, &mut findings);
        }
        let mut changes = Changes {
            refused: findings.refused.into_iter().collect(),
            is_present: findings.is_present,
            unlisted: findings.unlisted,
            ..Changes::default()
        };
        let (bundles, states): (Vec<_>, Vec<_>) =
            findings.found.into_iter().partition(|found| found.kind == Kind::Bundle);
        self.take_states(states, &mut changes);
        let states = std::mem::take(&mut self.states);
        let present = self.present(&bundles, &states, &mut changes);
        for (path, present) in &present {
            if let Err(refused) = self.compare(path, present, &mut changes) {
                self.forget(path, &mut changes);
                changes.refused.insert(path.clone(), refused);
            }
        }
        // What cannot be looked at now stays as it was.
        let is_gone = |path: &&PathBuf| changes.unlisted.is_none() && !present.contains_key(*path);
        let gone: Vec<_> = self.containers.keys().filter(is_gone).cloned().collect();
        for path in &gone {
            self.forget(path, &mut changes);
        }
        drop(present);
        self.states = states;
        changes.containers = self
            .containers
            .values()
            .filter(|known| known.cgroup_id.is_some())
            .count();
        changes
    }

    /// Reads the states that are new, and forgets those that are gone.
    fn take_states(&mut self, found: Vec<Found>, changes: &mut Changes) {
        let paths: HashSet<_> = found.iter().map(|found| found.path.clone()).collect();
        self.states
            .retain(|path, _| paths.contains(path) || changes.unlisted.is_some());
        for Found {
            path,
            kind,
            stamp,
            name,
        } in found
        {
            if self.states.get(&path).is_some_and(|known| known.stamp == stamp) {
                continue;
            }
            self.states.remove(&path);
            match self.read_state(&path, kind) {
                Ok(Some((stamp, state))) => {
                    self.states.insert(path, Stated { stamp, name, state });
                }
                Ok(None) => {}
                Err(refused) => {
                    changes.refused.insert(path, refused);
                }
            }
        }
    }

    fn read_state(&self, path: &Path, kind: Kind) -> Result<Option<(Stamp, State)>, Refused> {
        let Some(content) = self.read(path)? else {
            return Ok(None);
        };
        let state = match kind {
            Kind::Crun => State::parse_crun(&content.bytes),
            Kind::Runc | Kind::Bundle => State::parse_runc(&content.bytes),
        };
        let malformed = |problem| Refused::Content {
            path: path.to_owned(),
            problem,
        };
        Ok(Some((content.stamp, state.map_err(malformed)?)))
    }

    /// Every container there is, by its configuration's file.
    fn present<'a>(
        &self,
        bundles: &'a [Found],
        states: &'a HashMap<PathBuf, Stated>,
        changes: &mut Changes,
    ) -> HashMap<PathBuf, Present<'a>> {
        let of_bundle = |found: &'a Found| {
            let present = Present {
                name: &found.name,
                stamp: found.stamp,
                is_engines: true,
                stated: None,
            };
            (found.path.clone(), present)
        };
        let mut present: HashMap<_, _> = bundles.iter().map(of_bundle).collect();
        for stated in states.values() {
            let path = stated.state.bundle.join(Kind::Bundle.file());
            if let Some(present) = present.get_mut(&path) {
                present.stated = Some(stated);
                continue;
            }
            match self.stamp(&path) {
                Ok(Some(stamp)) => {
                    present.insert(
                        path,
                        Present {
                            name: &stated.name,
                            stamp,
                            is_engines: false,
                            stated: Some(stated),
                        },
                    );
                }
                Ok(None) => {}
                Err(refused) => {
                    changes.refused.insert(path, refused);
                }
            }
        }
        present
    }

    /// Compares a container with what was known of it.
    fn compare(&mut self, path: &Path, present: &Present<'_>, changes: &mut Changes) -> Result<(), Refused> {
        let stated = present.stated.map(|stated| stated.stamp);
        if let Some(known) = self.containers.get_mut(path)
            && (known.stamp, known.stated) == (present.stamp, stated)
        {
            let cgroup_id = id_of(&*self.cgroups, known.cgroup.as_deref(), path)?;
            if cgroup_id == known.cgroup_id {
                return Ok(());
            }
            if cgroup_id.is_none() {
                known.cgroup_id = None;
                changes.removed.push(name_of(path)?);
                return Ok(());
            }
        }
        let Some(content) = self.read(path)? else {
            self.forget(path, changes);
            return Ok(());
        };
        let known = self.take_in(path, present, &content, changes)?;
        self.containers.insert(path.to_owned(), known);
        Ok(())
    }

    /// Takes in what a container's configuration says.
    fn take_in(
        &self,
        path: &Path,
        present: &Present<'_>,
        content: &Content,
        changes: &mut Changes,
    ) -> Result<Known, Refused> {
        let malformed = |problem| Refused::Content {
            path: path.to_owned(),
            problem,
        };
        let spec = Spec::parse(&content.bytes).map_err(malformed)?;
        let cgroup = match present.stated {
            Some(stated) => stated.state.cgroup.clone(),
            None => spec.cgroup(),
        };
        let cgroup_id = id_of(&*self.cgroups, cgroup.as_deref(), path)?;
        if self.stamp(path)? != Some(content.stamp) {
            return Err(malformed(
                "it changed while it was read; it will be read again".to_owned(),
            ));
        }
        if let (Some(cgroup), Some(cgroup_id)) = (&cgroup, cgroup_id) {
            let container = Container {
                id: name_of(path)?,
                name: present.name,
                cgroup,
                cgroup_id,
                created: present.created(content),
                endpoint: self.endpoint,
                pods_are_believed: self.pods_are_believed,
            };
            changes
                .put
                .push(entry(&container, &spec, |pod| self.service_account(pod)));
        } else if self.containers.get(path).is_some_and(|known| known.cgroup_id.is_some()) {
            changes.removed.push(name_of(path)?);
        }
        Ok(Known {
            stamp: content.stamp,
            stated: present.stated.map(|stated| stated.stamp),
            cgroup,
            cgroup_id,
        })
    }

    /// The service account of a pod. Not knowing it changes nothing else.
    fn service_account(&self, pod: &Pod) -> Option<String> {
        self.kubelet.service_account(pod).unwrap_or_else(|refused| {
            debug!(%refused, "cannot tell the service account of a pod");
            None
        })
    }

    fn forget(&mut self, path: &Path, changes: &mut Changes) {
        let known = self.containers.remove(path);
        if known.is_some_and(|known| known.cgroup_id.is_some()) {
            changes.removed.extend(name_of(path));
        }
    }

    fn read(&self, path: &Path) -> Result<Option<Content>, Refused> {
        let (directory, file) = split(path)?;
        match self.trust.open(directory)? {
            Some(directory) => directory.read(file),
            None => Ok(None),
        }
    }

    fn stamp(&self, path: &Path) -> Result<Option<Stamp>, Refused> {
        let (directory, file) = split(path)?;
        match self.trust.open(directory)? {
            Some(directory) => directory.stamp(file),
            None => Ok(None),
        }
    }
}

fn split(path: &Path) -> Result<(&Path, &OsStr), Refused> {
    let malformed = || Refused::Malformed(path.to_owned());
    Ok((
        path.parent().ok_or_else(malformed)?,
        path.file_name().ok_or_else(malformed)?,
    ))
}

/// What the source calls the container that a file is of.
fn name_of(path: &Path) -> Result<String, Refused> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Refused::Name(path.to_owned()))
}

/// The ID of the cgroup at a path, if there is one.
fn id_of(cgroups: &dyn CgroupPaths, cgroup: Option<&Path>, file: &Path) -> Result<Option<u64>, Refused> {
    let Some(cgroup) = cgroup else {
        return Ok(None);
    };
    cgroups.id_of(cgroup).map_err(|error| Refused::Content {
        path: file.to_owned(),
        problem: error.to_string(),
    })
}

#[cfg(test)]
mod tests;
