//! Everything the sources say, and what follows from it: whose a cgroup is, and whose a credential ID. Plain data
//! without synchronization, without I/O, and without a clock.
//!
//! Of a cgroup, the deepest of those above it that something explicit is said about decides, else the deepest that an
//! engine knows. A container that is made in another's cgroup is one of its own: what is said of the outer one and above
//! does not reach it. Several sources may know one cgroup: the most reliable names the task, and the task gets what they
//! all say together. What a source takes back stays as long as its cgroups do, owning nothing but keeping its credential
//! IDs from others.

mod said;
mod statements;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    iter,
    path::Path,
    sync::Arc,
};

pub use self::said::Said;
use self::statements::{Statement, Statements};
use super::{
    claims::{Claims, Conflict, Holder, Standing, Use},
    task::{Cgroup, Entry, SourceKind, TaskName},
};
use crate::policy::CredentialId;

/// What the sources say.
#[derive(Debug, Default)]
pub struct Tasks {
    statements: Statements,
    /// By what their source calls them.
    entries: BTreeMap<SourceKind, HashMap<Arc<str>, Arc<Entry>>>,
    /// Cgroups about which something was taken back.
    leaving: BTreeSet<Arc<Path>>,
    claims: Claims,
    /// How often something has changed.
    changes: u64,
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
    cgroup: Arc<Path>,
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
    pub fn put(&mut self, source: SourceKind, mut entry: Entry) -> Result<Vec<Conflict>, Taken> {
        self.require_free(source, &entry)?;
        let known = self.entry(source, &entry.id);
        if known.is_some_and(|known| **known == entry && self.over(known).is_none()) {
            return Ok(Vec::new());
        }
        self.share(&mut entry);
        let entry = Arc::new(entry);
        let known = self.refused(&entry);
        self.changes += 1;
        self.erase(source, &entry.id);
        for cgroup in &entry.cgroups {
            self.state(source, &entry, cgroup);
        }
        let mut conflicts = self.refused(&entry);
        conflicts.retain(|conflict| !known.contains(conflict));
        let of_source = self.entries.entry(source).or_default();
        of_source.insert(Arc::clone(&entry.id), entry);
        Ok(conflicts)
    }

    /// As [`Self::put`], for somebody who can be told why not: what is stated to be another task's is refused.
    pub fn register(&mut self, entry: Entry) -> Result<Vec<Conflict>, Refused> {
        for id in &entry.credential_ids {
            if self.claims.holder(id) == Holder::Execution || entry.execution_ids.contains(id) {
                return Err(Refused::Execution);
            }
            let mut others = self.claims.stated(id).filter(|(task, _)| **task != entry.task);
            if let Some((holder, _)) = others.find(|(task, claims)| self.left(&entry, id, task) < *claims) {
                return Err(Refused::Claimed(holder.clone()));
            }
        }
        let stated = |id| self.claims.stated(id).next();
        if let Some((holder, _)) = entry.execution_ids.iter().find_map(stated) {
            return Err(Refused::Claimed(holder.clone()));
        }
        Ok(self.put(SourceKind::Registration, entry)?)
    }

    /// Takes back what a source said of a container. Its cgroups are nobody's from now on, or their ancestors' owner's;
    /// its credential IDs stay kept from others until [`Self::sweep`] finds the cgroups gone.
    pub fn remove(&mut self, source: SourceKind, id: &str) -> bool {
        let entry = self.entry(source, id).filter(|entry| self.over(entry).is_none());
        let Some(entry) = entry.cloned() else {
            return false;
        };
        self.changes += 1;
        if entry.cgroups.is_empty() {
            self.erase(source, id);
        }
        for cgroup in &entry.cgroups {
            let claimant = self.statements.claimant(&cgroup.path).unwrap_or(&entry.task).clone();
            self.change(&cgroup.path, |statements| {
                let of_it = |statement: &&mut Statement| Arc::ptr_eq(&statement.entry, &entry);
                let over = statements.iter_mut().filter(of_it);
                over.for_each(|statement| statement.over = Some(claimant.clone()));
            });
            self.leaving.insert(Arc::clone(&cgroup.path));
        }
        true
    }

    /// Forgets what a source said of a container, as if it had never been said: its credential IDs are free at once.
    pub fn forget(&mut self, source: SourceKind, id: &str) {
        self.changes += 1;
        self.erase(source, id);
    }

    /// Takes back everything a source said that is not of these containers.
    pub fn retain(&mut self, source: SourceKind, keep: impl Fn(&str) -> bool) {
        let ids = self.of(source).map(|entry| &entry.id);
        let gone: Vec<_> = ids.filter(|id| !keep(id)).cloned().collect();
        for id in gone {
            self.remove(source, &id);
        }
    }

    /// Forgets what was taken back about cgroups that are gone.
    pub fn sweep(&mut self, is_gone: impl Fn(&Cgroup) -> bool) {
        let leaving = std::mem::take(&mut self.leaving);
        for path in leaving {
            let over = self.statements.at(&path).iter();
            let over: Vec<_> = over.filter(|statement| statement.over.is_some()).cloned().collect();
            for Statement { source, entry, .. } in over {
                let mut there = entry.cgroups.iter().filter(|cgroup| cgroup.path == path);
                if !there.all(&is_gone) {
                    self.leaving.insert(Arc::clone(&path));
                    continue;
                }
                self.changes += 1;
                self.change(&path, |statements| {
                    statements.retain(|statement| !Arc::ptr_eq(&statement.entry, &entry));
                });
                if self.over(&entry).is_none() {
                    self.erase(source, &entry.id);
                }
            }
        }
    }

    /// Whose a cgroup is. `is_this` tells whether the cgroup at a path, which is the one asked for or above it, has an ID.
    #[must_use]
    pub fn owner(&self, path: &Path, is_this: impl Fn(&Path, u64) -> bool) -> Option<Owner> {
        let mut owner = None;
        for Statement { entry, .. } in self.statements.deciding(path, is_this) {
            let owner = owner.get_or_insert_with(|| Owner::of(&entry.task));
            if owner.role_arn.is_none() {
                owner.role_arn.clone_from(&entry.role_arn);
            }
            if owner.credential.is_none() {
                owner.credential = entry.credential_ids.first().cloned();
            }
        }
        owner
    }

    /// Whether a cgroup may be that of a container nothing is said of yet, which was made in the cgroup of another one: a
    /// name below that of the other looks like it.
    #[must_use]
    pub fn may_be_anothers(&self, path: &Path) -> bool {
        self.statements.may_be_anothers(path)
    }

    /// Who says whose a cgroup is, most reliable first; `is_this` as in [`Self::owner`].
    #[must_use]
    pub fn sources(&self, path: &Path, is_this: impl Fn(&Path, u64) -> bool) -> Vec<SourceKind> {
        self.statements
            .deciding(path, is_this)
            .map(|statement| statement.source)
            .collect()
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

    /// How many claims of a task to an ID are left to an entry once it is registered.
    fn left(&self, entry: &Entry, id: &CredentialId, task: &TaskName) -> usize {
        let left = entry.cgroups.iter().flat_map(|cgroup| {
            let there = self.statements.at(&cgroup.path);
            let is_left = |said: &Statement| there.iter().any(|other| said.leaves(Use::Own, id, other));
            there.iter().filter(move |said| {
                let is_over = said.source.is_explicit() && said.over.as_ref() == Some(task);
                is_over && said.entry.credential_ids.contains(id) && !is_left(said)
            })
        });
        left.count()
    }

    /// Claims of the IDs an entry mentions that are not granted.
    fn refused(&self, entry: &Entry) -> Vec<Conflict> {
        let mentioned = entry.credential_ids.iter().chain(&entry.execution_ids);
        mentioned.flat_map(|id| self.claims.refused(id)).collect()
    }

    fn require_free(&self, source: SourceKind, entry: &Entry) -> Result<(), Taken> {
        for cgroup in &entry.cgroups {
            let statements = self.statements.at(&cgroup.path).iter();
            let mut others = statements.filter(|other| other.over.is_none() && other.entry.task != entry.task);
            let taken = others.find(|other| source.is_explicit() && other.source.is_explicit());
            if let Some(other) = taken {
                return Err(Taken {
                    cgroup: Arc::clone(&cgroup.path),
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
            over: None,
        };
        self.change(&cgroup.path, |statements| {
            // There is hardly ever a second one.
            statements.reserve_exact(1);
            statements.push(statement);
            statements.sort_by_key(|statement| statement.source);
        });
    }

    /// Forgets what a source said of a container, and with it its claims.
    fn erase(&mut self, source: SourceKind, id: &str) {
        let of_source = self.entries.get_mut(&source);
        let Some(entry) = of_source.and_then(|entries| entries.remove(id)) else {
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
    fn change(&mut self, path: &Arc<Path>, change: impl FnOnce(&mut Vec<Statement>)) {
        let affected: Vec<_> = iter::once(Arc::clone(path))
            .chain(self.statements.below(path))
            .collect();
        for path in &affected {
            self.for_each_claim(path, |claims, id, of, task, _| claims.withdraw(id, of, task));
        }
        self.statements.change(path, change);
        for path in &affected {
            self.for_each_claim(path, Claims::claim);
        }
    }

    fn for_each_claim(&mut self, path: &Path, act: impl Fn(&mut Claims, &CredentialId, Use, &TaskName, Standing)) {
        let claimant = self.statements.claimant(path);
        let statements = self.statements.at(path);
        for statement in statements {
            let Some(task) = statement.over.as_ref().or(claimant) else {
                continue;
            };
            let standing = Standing::new(statement.source, statement.entry.created);
            for (of, ids) in statement.ids() {
                let is_kept = |id: &&CredentialId| !statements.iter().any(|other| statement.leaves(of, id, other));
                for id in ids.iter().filter(is_kept) {
                    act(&mut self.claims, id, of, task, standing);
                }
            }
        }
    }

    /// Has an entry hold what others of its task hold already, so that several containers need it only once.
    fn share(&self, entry: &mut Entry) {
        for id in &mut entry.credential_ids {
            if let Some(known) = self.claims.known(id) {
                *id = known.clone();
            }
        }
        let holder = entry.credential_ids.first().map(|id| self.claims.holder(id));
        if let Some(Holder::Task(task)) = holder
            && *task == entry.task
        {
            entry.task = task.clone();
        }
    }
}

#[cfg(test)]
mod tests;
