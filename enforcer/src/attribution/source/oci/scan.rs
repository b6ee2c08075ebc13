//! A scan: what runtimes keep, compared with what it was. Only what is new or has changed is read.
//!
//! A runtime's own state is the best word: there is such a container, where its cgroup is, and which bundle it was made of.
//! Of a bundle that no state names, its configuration has to tell the cgroup. Either is about the very cgroup that is there
//! now, by its ID: what comes to the same path later is another container's, and is asked for anew.
//!
//! A container may stop and start again, as Podman's do: until it is removed, and its directory with it, what is said of it
//! stays. Its cgroup is gone, so it owns nothing, but its credential IDs are still not for others to claim.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsStr,
    net::SocketAddrV4,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use tracing::debug;

use self::states::{Stated, States};
use super::{
    container::{Container, entry},
    file::{Content, Refused, Stamp, Trust},
    kubelet::Kubelet,
    place::{Findings, Found, Kind, Place},
    runtime::Spec,
};
use crate::attribution::{
    CgroupPaths, ContainerId,
    kubernetes::Pod,
    source::told::Believed,
    task::{Entry, TaskName},
};

mod states;

/// What is known, and where to look for more.
#[derive(Debug)]
pub(super) struct Scanner {
    places: Box<[Place]>,
    /// Namespaces that another source answers for.
    skipped: &'static [&'static str],
    /// Where containers ask for credentials.
    endpoint: SocketAddrV4,
    believed: Believed,
    kubelet: Kubelet,
    trust: Trust,
    cgroups: Arc<dyn CgroupPaths>,
    states: States,
    /// Containers: by their configurations' files where engines make these, else by their states', of which several may
    /// name one configuration.
    containers: HashMap<PathBuf, Known>,
}

/// A container that was read.
#[derive(Debug)]
struct Known {
    bundle: Bundle,
    stamp: Stamp,
    stated: Option<Stamp>,
    cgroup: Option<PathBuf>,
    /// The cgroup's; none if there is no such cgroup now.
    cgroup_id: Option<u64>,
}

/// What a container was made of.
#[derive(Clone, Debug)]
struct Bundle {
    /// The configuration's file.
    file: PathBuf,
    /// Whether an engine made it for this container. What no engine made may be older, and made for several.
    is_engines: bool,
}

/// A container that is there.
struct Present<'a> {
    name: &'a str,
    bundle: Bundle,
    stamp: Stamp,
    stated: Option<&'a Stated>,
}

// === impl Bundle ===

impl Bundle {
    /// That of which a runtime says that it is in a directory. Engines name theirs by the container's ID.
    fn stated(directory: &Path) -> Self {
        let is_id = |name: &OsStr| name.to_str().is_some_and(|name| ContainerId::parse(name).is_ok());
        Self {
            file: directory.join(Kind::Bundle.file()),
            is_engines: directory.iter().rev().take(2).any(is_id),
        }
    }

    /// Whether it is where Podman keeps them. CRI-O does there, too, but makes nothing but pods.
    fn is_podmans(&self) -> bool {
        let directory = self.file.parent().and_then(Path::file_name);
        directory == Some(OsStr::new("userdata"))
    }
}

// === impl Present ===

impl Present<'_> {
    /// The task of one that nobody names otherwise. Names of an engine's containers are its own; every other runtime, and
    /// every directory it is told to use, has names of its own.
    fn own_task(&self, key: &Path) -> Result<TaskName, Refused> {
        Ok(TaskName::new(&if self.bundle.is_engines {
            format!("oci/container/{}", self.name)
        } else {
            format!("oci{}", name_of(split(key)?.0)?)
        }))
    }

    /// Since when there is such a container: by one clock for all that engines make, so that none seems older than it is
    /// until the runtime has written down its state, nor younger when it was started again.
    fn created(&self, content: &Content) -> Timestamp {
        let stated = self.stated.filter(|_| !self.bundle.is_engines);
        stated.map_or(content.since, |stated| stated.state.created)
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

// === impl Changes ===

impl Changes {
    /// Passes something over. What fails to be looked at may be there.
    fn pass_over(&mut self, path: PathBuf, refused: Refused) {
        if refused.is_failure() {
            self.unlisted = Some(refused.to_string());
        }
        self.refused.insert(path, refused);
    }
}

/// What there is to know of where to look.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    pub(super) places: Box<[Place]>,
    pub(super) skipped: &'static [&'static str],
    /// Where containers ask for credentials.
    pub(super) endpoint: SocketAddrV4,
    pub(super) believed: Believed,
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
            believed: scope.believed,
            kubelet: Kubelet {
                directory: scope.kubelet,
                trust: scope.trust,
            },
            trust: scope.trust,
            cgroups,
            states: States::default(),
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
        let (bundles, found): (Vec<_>, Vec<_>) =
            findings.found.into_iter().partition(|found| found.kind == Kind::Bundle);
        let mut states = std::mem::take(&mut self.states);
        states.update(self.trust, found, &mut changes);
        let present = self.present(&bundles, &states, &mut changes);
        for (key, present) in &present {
            if let Err(refused) = self.compare(key, present, &mut changes) {
                self.pass_over(key, present.bundle.file.clone(), refused, &mut changes);
            }
        }
        let absent = self.containers.keys().filter(|key| !present.contains_key(*key));
        for key in absent.cloned().collect::<Vec<_>>() {
            if !states.has(&key) && !self.is_kept(&key, &mut changes) {
                self.forget(&key, &mut changes);
            }
        }
        drop(present);
        self.states = states;
        let known = self.containers.values();
        changes.containers = known.filter(|known| known.cgroup_id.is_some()).count();
        changes
    }

    /// Every container there is.
    fn present<'a>(
        &mut self,
        bundles: &'a [Found],
        states: &'a States,
        changes: &mut Changes,
    ) -> HashMap<PathBuf, Present<'a>> {
        let of_engine = |found: &'a Found| {
            let present = Present {
                name: &found.name,
                bundle: Bundle {
                    file: found.path.clone(),
                    is_engines: true,
                },
                stamp: found.stamp,
                stated: None,
            };
            (found.path.clone(), present)
        };
        let mut present: HashMap<_, _> = bundles.iter().map(of_engine).collect();
        for (key, stated) in states.iter() {
            let bundle = Bundle::stated(&stated.state.bundle);
            if let Some(present) = present.get_mut(&bundle.file) {
                present.stated = Some(stated);
                continue;
            }
            match stamp(self.trust, &bundle.file) {
                Ok(Some(stamp)) => {
                    let present_one = Present {
                        name: &stated.name,
                        bundle,
                        stamp,
                        stated: Some(stated),
                    };
                    present.insert(key.clone(), present_one);
                }
                Ok(None) => {
                    let refused = Refused::NoBundle {
                        state: key.clone(),
                        bundle: bundle.file,
                    };
                    self.pass_over(key, key.clone(), refused, changes);
                }
                Err(refused) => self.pass_over(key, bundle.file, refused, changes),
            }
        }
        present
    }

    /// Compares a container with what was known of it.
    fn compare(&mut self, key: &Path, present: &Present<'_>, changes: &mut Changes) -> Result<(), Refused> {
        let stated = present.stated.map(|stated| stated.stamp);
        if let Some(known) = self.containers.get_mut(key)
            && (known.stamp, known.stated) == (present.stamp, stated)
        {
            let cgroup_id = id_of(&*self.cgroups, known.cgroup.as_deref(), &known.bundle.file)?;
            if cgroup_id.is_none() {
                known.cgroup_id = None;
            }
            if cgroup_id == known.cgroup_id {
                return Ok(());
            }
        }
        // What has just gone is looked for by the next scan.
        if let Some(content) = read(self.trust, &present.bundle.file)? {
            let known = self.take_in(key, present, &content, changes)?;
            self.containers.insert(key.to_owned(), known);
        }
        Ok(())
    }

    /// Takes in what a container's configuration says.
    fn take_in(
        &self,
        key: &Path,
        present: &Present<'_>,
        content: &Content,
        changes: &mut Changes,
    ) -> Result<Known, Refused> {
        let path = &present.bundle.file;
        let malformed = |problem| Refused::Content {
            path: path.clone(),
            problem,
        };
        let spec = Spec::parse(&content.bytes).map_err(malformed)?;
        let cgroup = match present.stated {
            Some(stated) => stated.state.cgroup.clone(),
            None => spec.cgroup(),
        };
        let cgroup_id = id_of(&*self.cgroups, cgroup.as_deref(), path)?;
        if stamp(self.trust, path)? != Some(content.stamp) {
            return Err(malformed(
                "it changed while it was read; it will be read again".to_owned(),
            ));
        }
        if let (Some(cgroup), Some(cgroup_id)) = (&cgroup, cgroup_id) {
            let container = Container {
                id: name_of(key)?,
                name: present.name,
                own_task: present.own_task(key)?,
                cgroup,
                cgroup_id,
                created: present.created(content),
                endpoint: self.endpoint,
                is_podmans: present.bundle.is_podmans(),
                believed: self.believed,
            };
            changes
                .put
                .push(entry(&container, &spec, |pod| self.service_account(pod)));
        }
        Ok(Known {
            bundle: present.bundle.clone(),
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

    /// Whether a container that is not there now may be there again: it is only stopped, or cannot be looked at.
    fn is_kept(&self, key: &Path, changes: &mut Changes) -> bool {
        if changes.unlisted.is_some() {
            return true;
        }
        let bundle = self.containers.get(key).map(|known| &known.bundle);
        let Some(bundle) = bundle.filter(|bundle| bundle.is_engines) else {
            return false;
        };
        let directory = split(&bundle.file).and_then(|(directory, _)| self.trust.open(directory));
        directory.map_or_else(
            |refused| {
                let is_kept = refused.may_pass();
                changes.pass_over(bundle.file.clone(), refused);
                is_kept
            },
            |directory| directory.is_some(),
        )
    }

    /// Passes a container's file over. What was known before holds if the file may be as it was.
    fn pass_over(&mut self, key: &Path, file: PathBuf, refused: Refused, changes: &mut Changes) {
        if !refused.may_pass() {
            self.forget(key, changes);
        }
        changes.pass_over(file, refused);
    }

    fn forget(&mut self, key: &Path, changes: &mut Changes) {
        if self.containers.remove(key).is_some() {
            changes.removed.extend(name_of(key));
        }
    }
}

fn read(trust: Trust, path: &Path) -> Result<Option<Content>, Refused> {
    let (directory, file) = split(path)?;
    match trust.open(directory)? {
        Some(directory) => directory.read(file),
        None => Ok(None),
    }
}

fn stamp(trust: Trust, path: &Path) -> Result<Option<Stamp>, Refused> {
    let (directory, file) = split(path)?;
    match trust.open(directory)? {
        Some(directory) => directory.stamp(file),
        None => Ok(None),
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
    cgroups.id_of(cgroup).map_err(|source| Refused::Cgroup {
        path: file.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;
