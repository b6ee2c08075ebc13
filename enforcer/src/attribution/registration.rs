//! Registrations: what agents and people state about tasks while the enforcer runs.
//!
//! A registration is about cgroups that exist, and means them by their IDs: what comes to their paths later is nobody's.
//! Registering more for a task adds to it; one that says nothing new changes nothing. What is registered is kept in a
//! file until the cgroups are gone.

mod containers;
mod journal;

use std::{
    io,
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::time::Instant;
use tracing::{info, warn};

use self::journal::Journal;
use super::{
    CgroupPaths,
    cgroup_path::{ContainerId, InvalidContainerId},
    registry::Registry,
    source::Source,
    task::{Cgroup, Entry, Fact, SourceKind, TaskName, is_name},
    tasks::Refused,
};
use crate::{
    host::cgroupfs::CgroupError,
    policy::{CredentialId, InvalidCredentialId},
};

/// The longest name of a task; ARNs are shorter.
const MAX_NAME: usize = 512;

/// Bytes of a credential ID that is made here.
const ID_BYTES: usize = 16;

/// What somebody wants registered.
#[derive(Debug)]
pub struct Wanted {
    /// The task's name.
    pub task: String,
    /// Its cgroups: paths within the cgroup2 mount.
    pub cgroups: Vec<PathBuf>,
    /// IDs of its containers.
    pub containers: Vec<String>,
    /// Its credential IDs. If there are none and a role, one is made.
    pub credential_ids: Vec<CredentialId>,
    /// Its role.
    pub role_arn: Option<String>,
    /// IDs of execution roles, which are its engine's and not its own.
    pub execution_ids: Vec<CredentialId>,
}

/// Why a task is not registered, or a registration not kept. No text quotes a credential ID.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// A bad name.
    #[error("a task's name has 1 to {MAX_NAME} characters, none of them a control character")]
    Name,
    /// A name that sources give.
    #[error(
        "names that begin with docker/, oci/ or kubernetes/ are those of containers nobody registered; take another one"
    )]
    NameOfContainers,
    /// A bad role.
    #[error(
        "a role's ARN has no spaces or control characters, and is not empty; leave it out for a task without a role"
    )]
    RoleArn,
    /// It has no place.
    #[error("name at least one cgroup or container of the task")]
    Nowhere,
    /// No path of a cgroup.
    #[error(
        "{path} is no path of a cgroup: write it absolute within the cgroup2 mount, without `..`, and not the root"
    )]
    Path {
        /// As it was written.
        path: PathBuf,
    },
    /// There is no such cgroup.
    #[error("there is no cgroup {path}; register a task when its cgroups exist")]
    NoCgroup {
        /// Its path.
        path: PathBuf,
    },
    /// The cgroup of a trusted service.
    #[error("the cgroup {path} is trusted, and only guarded ones get credentials; list it in cgroups.guarded first")]
    Trusted {
        /// Its path.
        path: PathBuf,
    },
    /// The cgroup tree could not be read.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// No container's ID.
    #[error("container {id:?}: {source}")]
    ContainerId {
        /// As it was written.
        id: String,
        /// Why.
        source: InvalidContainerId,
    },
    /// No source knows the container.
    #[error("no source knows the container {id}; is it running, and does `enforcer status` show its engine as ready?")]
    UnknownContainer {
        /// Its ID.
        id: String,
    },
    /// A source that may know the container gave no answer.
    #[error(
        "cannot look up container {id}: {asked} did not answer in time; register it again, with fewer containers at once, \
        and see in `enforcer status` how it goes with this source"
    )]
    Late {
        /// Its ID.
        id: String,
        /// Who was asked.
        asked: SourceKind,
    },
    /// A credential ID that cannot be one.
    #[error(transparent)]
    CredentialId(#[from] InvalidCredentialId),
    /// It has another role already.
    #[error("task {task:?} is registered with another role; remove it first")]
    OtherRole {
        /// Its name.
        task: String,
    },
    /// It belongs to somebody already.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Nobody registered it.
    #[error("no task {task:?} is registered; what other sources know is theirs to take back")]
    NotRegistered {
        /// Its name.
        task: String,
    },
    /// The kernel gave no random number.
    #[error("cannot make a credential ID: {source}")]
    Random {
        /// Why.
        source: io::Error,
    },
    /// The file that keeps registrations.
    #[error(
        "cannot {operation} the file of registrations {path}: {source}; check control.registrations and its directory"
    )]
    Journal {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds something else.
    #[error(
        "line {line} of the file of registrations {path} makes no sense; remove the file and register the tasks again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which line.
        line: usize,
    },
}

/// Registers tasks, and keeps what is registered.
#[derive(Debug)]
pub struct Registrations {
    registry: Arc<Registry>,
    paths: Arc<dyn CgroupPaths>,
    sources: Arc<[Source]>,
    /// How long a command waits for what sources know of containers.
    wait: Duration,
    path: PathBuf,
    /// The file of this process; none before there is something to write, or after that has failed.
    journal: Option<Journal>,
}

// === impl Registrations ===

impl Registrations {
    /// Registers again what is kept in a file and whose cgroups still exist. The file is only read: another enforcer may
    /// be appending to it, and a full disk is no reason not to start.
    pub fn open(
        path: &Path,
        registry: Arc<Registry>,
        paths: impl CgroupPaths,
        sources: Arc<[Source]>,
        wait: Duration,
    ) -> Result<Self, RegistrationError> {
        let mut kept: Vec<_> = Journal::read(path)?.into_values().collect();
        // What was taken back had its cgroups before others.
        kept.sort_by_key(|(_, is_over)| !is_over);
        for (entry, is_over) in kept {
            let task = Arc::clone(&entry.id);
            if entry.cgroups.iter().all(|cgroup| is_gone(&paths, cgroup)) {
                continue;
            }
            // Who wrote it may have been of a version that took more.
            let registered = require_allowed(&task, entry.role_arn.as_deref());
            if let Err(error) = registered.and_then(|()| Ok(registry.register(entry)?)) {
                warn!(task = &*task, %error, "what was registered before is left out");
            } else if is_over {
                registry.remove(SourceKind::Registration, &task);
            }
        }
        Ok(Self {
            registry,
            paths: Arc::new(paths),
            sources,
            wait,
            path: path.to_owned(),
            journal: None,
        })
    }

    /// Whether a file can be taken up. Changes nothing.
    pub fn check(path: &Path) -> Result<(), RegistrationError> {
        Journal::read(path).map(drop)
    }

    /// Until when a command may wait that comes now.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.wait
    }

    /// Registers a task, or more for one. `trusts` tells trusted cgroups. Gives the credential ID that its containers are to
    /// be told, if it has one. What is answered holds also for the next enforcer.
    pub async fn add(
        &mut self,
        wanted: Wanted,
        until: Instant,
        trusts: impl Fn(&Path) -> bool,
    ) -> Result<Option<CredentialId>, RegistrationError> {
        require_allowed(&wanted.task, wanted.role_arn.as_deref())?;
        let cgroups = self.cgroups(&wanted, until, trusts).await?;
        let before = self.registered(&wanted.task);
        let entry = self.entry(wanted, cgroups, before.as_deref())?;
        let credential = entry.credential_ids.first().cloned();
        if before.as_deref() == Some(&entry) {
            return Ok(credential);
        }
        let said = self.said(&entry.id);
        // Before anything is registered: a file that is written anew must not say what is refused after all.
        let mut journal = self.journal()?;
        if let Err(refused) = self.register(&entry) {
            self.journal = Some(journal);
            return Err(refused.into());
        }
        if let Err(error) = journal.add(&entry) {
            self.undo(&entry, said);
            return Err(error);
        }
        self.journal = Some(journal);
        Ok(credential)
    }

    /// Takes a registration back: the task gets nothing any more, and its credential IDs are nobody else's as long as its
    /// cgroups exist.
    pub fn remove(&mut self, task: &str) -> Result<(), RegistrationError> {
        if self.registered(task).is_none() {
            return Err(RegistrationError::NotRegistered { task: task.to_owned() });
        }
        let mut journal = self.journal()?;
        journal.remove(task)?;
        self.journal = Some(journal);
        self.registry.remove(SourceKind::Registration, task);
        Ok(())
    }

    /// Takes back registrations whose cgroups are gone, and makes room in the file if it has grown too long.
    pub fn take_back_gone(&mut self) -> Result<(), RegistrationError> {
        let registered: Vec<_> = of_registrations(&self.registry).collect();
        for (entry, is_over) in &registered {
            if !is_over && self.has_ended(entry) {
                self.forget(entry);
            }
        }
        if let Some(journal) = &self.journal
            && journal.is_stale(registered.len())
        {
            self.journal = Some(write(&self.path, &self.registry)?);
        }
        Ok(())
    }

    /// What is registered for a task.
    fn registered(&self, task: &str) -> Option<Arc<Entry>> {
        let (entry, is_over) = self.said(task)?;
        (!is_over).then_some(entry)
    }

    /// The same, also if it was taken back, which is told besides.
    fn said(&self, task: &str) -> Option<(Arc<Entry>, bool)> {
        let tasks = self.registry.read();
        let said = tasks.said_of(SourceKind::Registration, task)?;
        Some((Arc::clone(said.entry), said.is_over))
    }

    /// Takes the file that the next enforcer reads, which says what the registry does: a new one, unless this process has
    /// made it. It is put back when it says what has changed; after a failure nobody knows what it ends with, so that it
    /// is written anew as well.
    fn journal(&mut self) -> Result<Journal, RegistrationError> {
        match self.journal.take() {
            Some(journal) if journal.is_in_place() => Ok(journal),
            Some(_) | None => write(&self.path, &self.registry),
        }
    }

    /// The cgroups that somebody named, and those of the containers.
    async fn cgroups(
        &self,
        wanted: &Wanted,
        until: Instant,
        trusts: impl Fn(&Path) -> bool,
    ) -> Result<Vec<Cgroup>, RegistrationError> {
        let mut paths = wanted.cgroups.clone();
        for id in &wanted.containers {
            let parsed =
                ContainerId::parse(id).map_err(|source| RegistrationError::ContainerId { id: id.clone(), source })?;
            paths.extend(self.container(&parsed, until).await?);
        }
        if paths.is_empty() {
            return Err(RegistrationError::Nowhere);
        }
        let cgroups = paths.iter().map(|path| self.cgroup(path, &trusts));
        cgroups.collect()
    }

    /// The cgroup at a path, as the kernel calls it.
    fn cgroup(&self, path: &Path, trusts: impl Fn(&Path) -> bool) -> Result<Cgroup, RegistrationError> {
        let is_plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
        if !path.is_absolute() || path.parent().is_none() || !path.components().all(is_plain) {
            return Err(RegistrationError::Path { path: path.to_owned() });
        }
        let none = || RegistrationError::NoCgroup { path: path.to_owned() };
        let id = self.paths.id_of(path)?.ok_or_else(none)?;
        let path = self.paths.path_of(id)?.ok_or_else(none)?;
        if trusts(&path) {
            return Err(RegistrationError::Trusted { path });
        }
        Ok(Cgroup {
            path: path.into(),
            id: Some(id),
        })
    }

    /// All that is registered for a task from now on.
    fn entry(&self, wanted: Wanted, cgroups: Vec<Cgroup>, before: Option<&Entry>) -> Result<Entry, RegistrationError> {
        let role_arn: Option<Arc<str>> = wanted.role_arn.map(Into::into);
        let known_role = before.and_then(|before| before.role_arn.clone());
        if role_arn.is_some() && known_role.is_some() && role_arn != known_role {
            return Err(RegistrationError::OtherRole { task: wanted.task });
        }
        let role_arn = role_arn.or(known_role);
        let still_there = |cgroup: &&Cgroup| !is_gone(&*self.paths, cgroup);
        let known_cgroups = before.map(|before| &*before.cgroups).unwrap_or_default();
        let mut credential_ids = both(before.map(|before| &*before.credential_ids), wanted.credential_ids);
        if credential_ids.is_empty() && role_arn.is_some() {
            credential_ids = [new_credential_id()?].into();
        }
        let containers = wanted.containers.into_iter().map(|id| (Fact::Container, id.into()));
        let task = TaskName::new(&wanted.task);
        Ok(Entry {
            id: task.as_id(),
            task,
            cgroups: both(
                Some(&known_cgroups.iter().filter(still_there).cloned().collect::<Vec<_>>()),
                cgroups,
            ),
            created: before.map_or_else(Timestamp::now, |before| before.created),
            credential_ids,
            execution_ids: both(before.map(|before| &*before.execution_ids), wanted.execution_ids),
            role_arn,
            facts: both(before.map(|before| &*before.facts), containers.collect()),
        })
    }

    /// Registers what nobody else has. Another registration whose cgroups are gone stands in nobody's way.
    fn register(&self, entry: &Entry) -> Result<(), Refused> {
        let refused = match self.registry.register(entry.clone()) {
            Ok(()) => return Ok(()),
            Err(refused) => refused,
        };
        let holder = refused.holder().and_then(|holder| self.registered(holder.as_str()));
        match holder {
            Some(holder) if self.has_ended(&holder) => {
                self.forget(&holder);
                self.registry.register(entry.clone())
            }
            Some(_) | None => Err(refused),
        }
    }

    /// Has the registry say what it said before a registration that cannot be kept.
    fn undo(&self, entry: &Entry, before: Option<(Arc<Entry>, bool)>) {
        let before = before.map(|(before, is_over)| (Entry::clone(&before), is_over));
        if let Err(error) = self.registry.undo(&entry.id, before) {
            warn!(task = entry.task.as_str(), %error, "a registration is lost");
        }
    }

    fn has_ended(&self, entry: &Entry) -> bool {
        entry.cgroups.iter().all(|cgroup| is_gone(&*self.paths, cgroup))
    }

    /// Forgets a registration whose cgroups are gone. The file need not say so: who reads it looks for the cgroups.
    fn forget(&self, entry: &Entry) {
        info!(task = entry.task.as_str(), "a registration ends with its last cgroup");
        self.registry.remove(SourceKind::Registration, &entry.id);
        self.registry.sweep(|cgroup| is_gone(&*self.paths, cgroup));
    }
}

/// Whether a cgroup is gone: surely, not just out of sight.
#[must_use]
pub fn is_gone(paths: &dyn CgroupPaths, cgroup: &Cgroup) -> bool {
    match paths.id_of(&cgroup.path) {
        Ok(None) => true,
        Ok(Some(found)) => cgroup.id.is_some_and(|id| id != found),
        Err(_) => false,
    }
}

/// Whether a task may have this name and this role.
fn require_allowed(task: &str, role_arn: Option<&str>) -> Result<(), RegistrationError> {
    if !(1..=MAX_NAME).contains(&task.len()) || task.chars().any(char::is_control) {
        return Err(RegistrationError::Name);
    }
    if TaskName::is_made_of_containers(task) {
        return Err(RegistrationError::NameOfContainers);
    }
    if role_arn.is_some_and(|arn| !is_name(arn)) {
        return Err(RegistrationError::RoleArn);
    }
    Ok(())
}

/// Everything that is registered, and whether it was taken back.
fn of_registrations(registry: &Registry) -> impl Iterator<Item = (Arc<Entry>, bool)> {
    let tasks = registry.read();
    let said = tasks.said_by(SourceKind::Registration);
    let said: Vec<_> = said.map(|said| (Arc::clone(said.entry), said.is_over)).collect();
    said.into_iter()
}

/// The file of all that is registered, written anew.
fn write(path: &Path, registry: &Registry) -> Result<Journal, RegistrationError> {
    let registered: Vec<_> = of_registrations(registry).collect();
    Journal::write(path, registered.iter().map(|(entry, is_over)| (&**entry, *is_over)))
}

/// What was there, and what is new, once.
fn both<T: Clone + PartialEq>(before: Option<&[T]>, more: Vec<T>) -> Box<[T]> {
    let mut all = before.unwrap_or_default().to_vec();
    for one in more {
        if !all.contains(&one) {
            all.push(one);
        }
    }
    all.into()
}

fn new_credential_id() -> Result<CredentialId, RegistrationError> {
    let mut bytes = [0; ID_BYTES];
    // `getrandom` gives up to 256 bytes at once, uninterrupted.
    getrandom(&mut bytes, GetRandomFlags::empty())
        .map_err(|error| RegistrationError::Random { source: error.into() })?;
    let text = format!("{:032x}", u128::from_be_bytes(bytes));
    Ok(CredentialId::granted(&text)?)
}

#[cfg(test)]
mod tests;
