//! What is said, for who asks for it.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::Arc,
};

use super::Tasks;
use crate::attribution::{
    cgroup_path::ContainerId,
    task::{Cgroup, Entry, SourceKind, TaskName},
};

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

// === impl Tasks ===

impl Tasks {
    /// Everything that is said.
    pub fn said(&self) -> impl Iterator<Item = Said<'_>> {
        self.entries.keys().flat_map(|source| self.said_by(*source))
    }

    /// Everything that a source says.
    pub fn said_by(&self, source: SourceKind) -> impl Iterator<Item = Said<'_>> {
        self.of(source).map(move |entry| self.follows(source, entry))
    }

    /// What a source says of a container.
    #[must_use]
    pub fn said_of(&self, source: SourceKind, id: &str) -> Option<Said<'_>> {
        let entry = self.entry(source, id)?;
        Some(self.follows(source, entry))
    }

    /// What an engine or runtime says of a container and has not taken back. It calls it by its ID, or by the path of a file
    /// that is in a directory of this name.
    #[must_use]
    pub fn container(&self, source: SourceKind, id: &ContainerId) -> Option<&Arc<Entry>> {
        let in_directory = |entry: &&Arc<Entry>| {
            let mut names = Path::new(&*entry.id).iter();
            names.any(|name| name == id.as_str()) && self.is_live(source, &entry.id)
        };
        let by_id = self
            .entry(source, id.as_str())
            .filter(|_| self.is_live(source, id.as_str()));
        by_id.or_else(|| self.of(source).find(in_directory))
    }

    /// Whether a source says something of a container, and has not taken it back.
    #[must_use]
    pub fn is_live(&self, source: SourceKind, id: &str) -> bool {
        self.entry(source, id).is_some_and(|entry| self.over(entry).is_none())
    }

    /// Whether a source says something about a cgroup or one above it, and has not taken it back.
    #[must_use]
    pub fn is_said(&self, source: SourceKind, path: &Path) -> bool {
        let mut statements = path.ancestors().flat_map(|path| self.statements.at(path));
        statements.any(|statement| statement.source == source && statement.over.is_none())
    }

    /// The same, without what follows from it.
    #[must_use]
    pub fn entry(&self, source: SourceKind, id: &str) -> Option<&Arc<Entry>> {
        self.entries.get(&source)?.get(id)
    }

    /// The same of all its containers.
    pub fn of(&self, source: SourceKind) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.get(&source).into_iter().flat_map(HashMap::values)
    }

    /// The cgroups of what was taken back.
    #[must_use]
    pub fn leaving(&self) -> Vec<Cgroup> {
        let statements = self.leaving.iter().flat_map(|path| self.statements.at(path));
        let over = statements.filter(|statement| statement.over.is_some());
        over.flat_map(|statement| statement.entry.cgroups.iter().cloned())
            .collect()
    }

    /// Of how many containers a source says something that it has not taken back.
    #[must_use]
    pub fn count(&self, source: SourceKind) -> usize {
        let leaving = self.leaving.iter().flat_map(|path| self.statements.at(path));
        let over = leaving.filter(|statement| statement.source == source && statement.over.is_some());
        let over: HashSet<_> = over.map(|statement| &statement.entry.id).collect();
        let all = self.entries.get(&source).map_or(0, HashMap::len);
        all.saturating_sub(over.len())
    }

    /// Whether something is said about exactly this cgroup.
    #[must_use]
    pub fn knows(&self, path: &Path) -> bool {
        !self.statements.at(path).is_empty()
    }

    fn follows<'a>(&self, source: SourceKind, entry: &'a Arc<Entry>) -> Said<'a> {
        let over = self.over(entry);
        let claimant = || self.statements.claimant(&entry.cgroups.first()?.path);
        Said {
            source,
            entry,
            task: over.or_else(claimant).unwrap_or(&entry.task).clone(),
            is_over: over.is_some(),
        }
    }

    /// For whom an entry that was taken back claims.
    pub(super) fn over(&self, entry: &Arc<Entry>) -> Option<&TaskName> {
        let statements = entry.cgroups.iter().flat_map(|cgroup| self.statements.at(&cgroup.path));
        let mut of_it = statements.filter(|statement| Arc::ptr_eq(&statement.entry, entry));
        of_it.next()?.over.as_ref()
    }
}
