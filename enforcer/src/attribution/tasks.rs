//! Everything the sources say, and what follows from it: whose a cgroup is, and whose a credential ID. Plain data
//! without synchronization, without I/O, and without a clock.
//!
//! Of a cgroup, the deepest of those above it that something explicit is said about decides, else the deepest that an
//! engine knows. A container that is made in another's cgroup is one of its own: what is said of the outer one and above
//! does not reach it. Several sources may know one cgroup: the most reliable names the task, and the task gets what they
//! all say together. What a source takes back stays as long as its cgroups do, owning nothing but keeping its credential
//! IDs from others.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    path::Path,
    sync::Arc,
};

use super::{
    cgroup_path::is_like_a_containers,
    claims::{Claims, Conflict, Holder, Standing, Use},
    task::{Cgroup, Entry, SourceKind, TaskName},
};
use crate::policy::CredentialId;

/// What the sources say.
#[derive(Debug, Default)]
pub struct Tasks {
    /// Ordered by components, so that what is below a cgroup follows it.
    places: BTreeMap<Box<Path>, Vec<Statement>>,
    entries: HashMap<(SourceKind, Arc<str>), Arc<Entry>>,
    /// Cgroups about which something was taken back.
    leaving: BTreeSet<Box<Path>>,
    claims: Claims,
    /// How often something has changed.
    changes: u64,
}

/// What one source says about one cgroup.
#[derive(Clone, Debug)]
struct Statement {
    source: SourceKind,
    entry: Arc<Entry>,
    /// Only the cgroup with this ID is meant.
    cgroup_id: Option<u64>,
    /// The source took it back.
    is_over: bool,
}

/// Whose a cgroup is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The task.
    pub task: TaskName,
    /// The role whose credentials it gets, if a source says so.
    pub role_arn: Option<Arc<str>>,
    /// A credential ID its container was given. Whether that is its own, [`Claims`] tells.
    pub credential: Option<CredentialId>,
}

/// Something a source says of a container, and what follows from it.
#[derive(Clone, Debug)]
pub struct Said<'a> {
    /// Who says it.
    pub source: SourceKind,
    /// What.
    pub entry: &'a Arc<Entry>,
    /// The task it belongs to after all that is said.
    pub task: TaskName,
    /// Whether it was taken back, and only its credential IDs are still kept from others.
    pub is_over: bool,
}

/// Why a registration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A cgroup is another task's.
    #[error(transparent)]
    Taken(#[from] Taken),
    /// A credential ID is another task's.
    #[error("a credential ID named for it belongs to task {:?} already", .0.as_str())]
    Claimed(TaskName),
    /// A credential ID is that of an execution role.
    #[error("a credential ID named for it is an execution role's, and those are no container's")]
    Execution,
}

/// Another task was stated for a cgroup that is stated to be this one's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cgroup {} belongs to task {:?} already, by {source_kind}", .cgroup.display(), .task.as_str())]
pub struct Taken {
    cgroup: Box<Path>,
    task: TaskName,
    source_kind: SourceKind,
}

// === impl Refused ===

impl Refused {
    /// Who has what was refused, if it is a task.
    pub(super) const fn holder(&self) -> Option<&TaskName> {
        match self {
            Self::Taken(taken) => Some(&taken.task),
            Self::Claimed(holder) => Some(holder),
            Self::Execution => None,
        }
    }
}

// === impl Owner ===

impl Owner {
    /// A task nothing more is known of.
    #[must_use]
    pub fn of(task: &TaskName) -> Self {
        Self {
            task: task.clone(),
            role_arn: None,
            credential: None,
        }
    }
}

// === impl Tasks ===

impl Tasks {
    /// Takes in what a source says, in place of what it said about the same container before. Returns the claims that
    /// are not granted because of it.
    pub fn put(&mut self, source: SourceKind, entry: Entry) -> Result<Vec<Conflict>, Taken> {
        self.require_free(source, &entry)?;
        let entry = Arc::new(entry);
        let key = (source, Arc::clone(&entry.id));
        let is_leaving = entry.cgroups.iter().any(|cgroup| self.leaving.contains(&cgroup.path));
        if !is_leaving && self.entries.get(&key).is_some_and(|known| *known == entry) {
            return Ok(Vec::new());
        }
        let known = self.refused(&entry);
        self.changes += 1;
        self.erase(source, &key.1);
        for cgroup in &entry.cgroups {
            self.state(source, &entry, cgroup);
        }
        let mut conflicts = self.refused(&entry);
        conflicts.retain(|conflict| !known.contains(conflict));
        self.entries.insert(key, entry);
        Ok(conflicts)
    }

    /// As [`Self::put`], for somebody who can be told why not: what is stated to be another task's is refused.
    pub fn register(&mut self, entry: Entry) -> Result<Vec<Conflict>, Refused> {
        let stated = |id: &CredentialId| self.claims.stated(id).cloned();
        for id in &entry.credential_ids {
            if self.claims.holder(id) == Holder::Execution || entry.execution_ids.contains(id) {
                return Err(Refused::Execution);
            }
            if let Some(holder) = stated(id).filter(|holder| *holder != entry.task) {
                return Err(Refused::Claimed(holder));
            }
        }
        if let Some(holder) = entry.execution_ids.iter().find_map(stated) {
            return Err(Refused::Claimed(holder));
        }
        Ok(self.put(SourceKind::Registration, entry)?)
    }

    /// Takes back what a source said of a container. Its cgroups are nobody's from now on, or their ancestors' owner's;
    /// its credential IDs stay kept from others until [`Self::sweep`] finds the cgroups gone.
    pub fn remove(&mut self, source: SourceKind, id: &str) -> bool {
        let key = (source, Arc::from(id));
        let Some(entry) = self.entries.get(&key).cloned() else {
            return false;
        };
        self.changes += 1;
        if entry.cgroups.is_empty() {
            self.erase(source, &key.1);
        }
        for cgroup in &entry.cgroups {
            let statements = self.places.get_mut(&cgroup.path).into_iter().flatten();
            for statement in statements.filter(|statement| Arc::ptr_eq(&statement.entry, &entry)) {
                statement.is_over = true;
            }
            self.leaving.insert(cgroup.path.clone());
        }
        true
    }

    /// Takes back everything a source said that is not of these containers.
    pub fn retain(&mut self, source: SourceKind, keep: impl Fn(&str) -> bool) {
        let gone = |(kind, id): &&(SourceKind, Arc<str>)| *kind == source && !keep(id);
        let gone: Vec<_> = self.entries.keys().filter(gone).map(|(_, id)| Arc::clone(id)).collect();
        for id in gone {
            self.remove(source, &id);
        }
    }

    /// Forgets what was taken back and whose cgroups are gone.
    pub fn sweep(&mut self, is_gone: impl Fn(&Cgroup) -> bool) {
        let leaving = std::mem::take(&mut self.leaving);
        for path in leaving {
            let statements = self.places.get(&path).into_iter().flatten();
            let over: Vec<_> = statements.filter(|statement| statement.is_over).cloned().collect();
            for Statement { source, entry, .. } in over {
                if entry.cgroups.iter().all(&is_gone) {
                    self.changes += 1;
                    self.erase(source, &entry.id);
                } else {
                    self.leaving.insert(path.clone());
                }
            }
        }
    }

    /// Whose a cgroup is. `is_this` tells whether the cgroup at a path, which is the one asked for or above it, has an ID.
    #[must_use]
    pub fn owner(&self, path: &Path, is_this: impl Fn(&Path, u64) -> bool) -> Option<Owner> {
        let statements = self.deciding(path, is_this)?;
        let first = statements.first()?;
        let entries = || statements.iter().map(|statement| &statement.entry);
        Some(Owner {
            task: first.entry.task.clone(),
            role_arn: entries().find_map(|entry| entry.role_arn.clone()),
            credential: entries().find_map(|entry| entry.credential_ids.first().cloned()),
        })
    }

    /// Whether a cgroup may be that of a container nothing is said of yet, which was made in the cgroup of another one: a
    /// name below that of the other looks like it.
    #[must_use]
    pub fn may_be_anothers(&self, path: &Path) -> bool {
        let statements = |path: &Path| self.places.get(path).map(Vec::as_slice).unwrap_or_default();
        let Some(stated) = path.ancestors().find(|path| !statements(path).is_empty()) else {
            return false;
        };
        let below = path.strip_prefix(stated).unwrap_or(path);
        below.iter().any(is_like_a_containers)
            && stated
                .ancestors()
                .any(|path| statements(path).iter().any(Statement::is_containers))
    }

    /// Who says whose a cgroup is, most reliable first; `is_this` as in [`Self::owner`].
    #[must_use]
    pub fn sources(&self, path: &Path, is_this: impl Fn(&Path, u64) -> bool) -> Vec<SourceKind> {
        let deciding = self.deciding(path, is_this).unwrap_or_default();
        deciding.iter().map(|statement| statement.source).collect()
    }

    /// Who claims which credential ID.
    #[must_use]
    pub const fn claims(&self) -> &Claims {
        &self.claims
    }

    /// How often something has changed.
    #[must_use]
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    /// Everything that is said.
    pub fn said(&self) -> impl Iterator<Item = Said<'_>> {
        self.entries
            .iter()
            .map(|((source, _), entry)| self.follows(*source, entry))
    }

    /// What a source says of a container.
    #[must_use]
    pub fn said_of(&self, source: SourceKind, id: &str) -> Option<Said<'_>> {
        let entry = self.entries.get(&(source, Arc::from(id)))?;
        Some(self.follows(source, entry))
    }

    /// The cgroups of what was taken back.
    #[must_use]
    pub fn leaving(&self) -> Vec<Cgroup> {
        let statements = self.leaving.iter().filter_map(|path| self.places.get(path)).flatten();
        let over = statements.filter(|statement| statement.is_over);
        over.flat_map(|statement| statement.entry.cgroups.iter().cloned())
            .collect()
    }

    /// Of how many containers a source says something.
    #[must_use]
    pub fn count(&self, source: SourceKind) -> usize {
        self.entries.keys().filter(|(kind, _)| *kind == source).count()
    }

    /// Whether something is said about exactly this cgroup.
    #[must_use]
    pub fn knows(&self, path: &Path) -> bool {
        self.places.contains_key(path)
    }

    fn follows<'a>(&self, source: SourceKind, entry: &'a Arc<Entry>) -> Said<'a> {
        let first = entry.cgroups.first();
        let statements = first.and_then(|cgroup| self.places.get(&cgroup.path));
        let mut of_it = statements.into_iter().flatten();
        Said {
            source,
            entry,
            task: first
                .and_then(|cgroup| self.claimant(&cgroup.path))
                .unwrap_or_else(|| entry.task.clone()),
            is_over: of_it.any(|statement| statement.is_over && Arc::ptr_eq(&statement.entry, entry)),
        }
    }

    /// Claims of the IDs an entry mentions that are not granted.
    fn refused(&self, entry: &Entry) -> Vec<Conflict> {
        let mentioned = entry.credential_ids.iter().chain(&entry.execution_ids);
        mentioned.flat_map(|id| self.claims.refused(id)).collect()
    }

    fn require_free(&self, source: SourceKind, entry: &Entry) -> Result<(), Taken> {
        for cgroup in &entry.cgroups {
            let statements = self.places.get(&cgroup.path).into_iter().flatten();
            let mut others = statements.filter(|other| !other.is_over && other.entry.task != entry.task);
            let taken = others.find(|other| source.is_explicit() && other.source.is_explicit());
            if let Some(other) = taken {
                return Err(Taken {
                    cgroup: cgroup.path.clone(),
                    task: other.entry.task.clone(),
                    source_kind: other.source,
                });
            }
        }
        Ok(())
    }

    fn state(&mut self, source: SourceKind, entry: &Arc<Entry>, cgroup: &Cgroup) {
        let statement = Statement {
            source,
            entry: Arc::clone(entry),
            cgroup_id: cgroup.id,
            is_over: false,
        };
        self.change(&cgroup.path, |statements| {
            statements.push(statement);
            statements.sort_by_key(|statement| statement.source);
        });
    }

    /// Forgets what a source said of a container, and with it its claims.
    fn erase(&mut self, source: SourceKind, id: &Arc<str>) {
        let Some(entry) = self.entries.remove(&(source, Arc::clone(id))) else {
            return;
        };
        for cgroup in &entry.cgroups {
            self.change(&cgroup.path, |statements| {
                statements.retain(|statement| !Arc::ptr_eq(&statement.entry, &entry));
            });
        }
    }

    /// Changes what is said about a cgroup. Claims are made for whom a cgroup belongs to, so those of a cgroup whose owner
    /// may change, this one and all below it, are withdrawn before and made again after.
    fn change(&mut self, path: &Path, change: impl FnOnce(&mut Vec<Statement>)) {
        let from = self.places.range::<Path, _>((Bound::Included(path), Bound::Unbounded));
        let below = from.map(|(below, _)| below).take_while(|below| below.starts_with(path));
        let mut affected: Vec<Box<Path>> = below.cloned().collect();
        if affected.first().is_none_or(|first| **first != *path) {
            affected.push(path.into());
        }
        for path in &affected {
            self.for_each_claim(path, |claims, id, of, task, _| claims.withdraw(id, of, task));
        }
        let statements = self.places.entry(path.into()).or_default();
        change(statements);
        if statements.is_empty() {
            self.places.remove(path);
        }
        for path in &affected {
            self.for_each_claim(path, Claims::claim);
        }
    }

    fn for_each_claim(&mut self, path: &Path, act: impl Fn(&mut Claims, &CredentialId, Use, &TaskName, Standing)) {
        let Some(task) = self.claimant(path) else {
            return;
        };
        for statement in self.places.get(path).into_iter().flatten() {
            let standing = Standing::new(statement.source, statement.entry.created);
            let entry = &statement.entry;
            for (of, ids) in [
                (Use::Own, &entry.credential_ids),
                (Use::Execution, &entry.execution_ids),
            ] {
                for credential in ids {
                    act(&mut self.claims, credential, of, &task, standing);
                }
            }
        }
    }

    /// For whom the claims of a cgroup are made. What was taken back goes on claiming for whom it did.
    fn claimant(&self, path: &Path) -> Option<TaskName> {
        let mut container = None;
        for ancestor in path.ancestors() {
            let statements = self.places.get(ancestor).map(Vec::as_slice).unwrap_or_default();
            let is_containers = statements.iter().any(Statement::is_containers);
            if is_containers && container.is_some() {
                break;
            }
            if statements.iter().any(|statement| statement.source.is_explicit()) {
                container = Some(statements);
                break;
            }
            if is_containers {
                container = Some(statements);
            }
        }
        container?.first().map(|statement| statement.entry.task.clone())
    }

    /// What is said that decides whose a cgroup is, most reliable first.
    fn deciding(&self, path: &Path, is_this: impl Fn(&Path, u64) -> bool) -> Option<Vec<&Statement>> {
        let mut container = None;
        for ancestor in path.ancestors() {
            let Some(statements) = self.places.get(ancestor) else {
                continue;
            };
            let is_meant = |statement: &&Statement| statement.cgroup_id.is_none_or(|id| is_this(ancestor, id));
            let is_containers = statements.iter().filter(is_meant).any(Statement::is_containers);
            if is_containers && container.is_some() {
                break;
            }
            let live = statements.iter().filter(|statement| !statement.is_over);
            let holding: Vec<_> = live.filter(is_meant).collect();
            if holding.first().is_some_and(|first| first.source.is_explicit()) {
                return Some(holding);
            }
            if is_containers {
                container = Some(holding);
            }
        }
        container.filter(|holding| !holding.is_empty())
    }
}

// === impl Statement ===

impl Statement {
    /// Whether the cgroup is that of one container, also if it was taken back.
    const fn is_containers(&self) -> bool {
        !self.source.is_explicit()
    }
}

#[cfg(test)]
mod tests;
