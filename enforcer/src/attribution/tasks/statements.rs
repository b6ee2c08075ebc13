//! What is said about which cgroups, and which of it decides.

use std::{borrow::Borrow, cmp::Ordering, collections::BTreeMap, ffi::OsStr, ops::Bound, path::Path, sync::Arc};

use crate::{
    attribution::{
        claims::Use,
        task::{Entry, SourceKind, TaskName},
    },
    host::containers::is_like_a_containers,
    policy::CredentialId,
};

/// What is said about which cgroups.
#[derive(Debug, Default)]
pub(super) struct Statements(BTreeMap<Place, Vec<Statement>>);

/// A cgroup's path in its one spelling. Ordered by its bytes: that takes a fraction of the time that components do, and all
/// that begins alike is together, so what is below a cgroup is too.
#[derive(Debug)]
struct Place(Arc<Path>);

/// What one source says about one cgroup.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) source: SourceKind,
    pub(super) entry: Arc<Entry>,
    /// Only the cgroup with this ID is meant.
    pub(super) cgroup_id: Option<u64>,
    /// The source took it back: for whom it claimed by then, and goes on.
    pub(super) over: Option<TaskName>,
}

// === impl Statements ===

impl Statements {
    /// What is said about exactly this cgroup.
    pub(super) fn at(&self, path: &Path) -> &[Statement] {
        self.0.get(path.as_os_str()).map_or(&[], Vec::as_slice)
    }

    /// The cgroups below one that something is said about: their paths are its own with a slash and something after it.
    pub(super) fn below(&self, path: &Path) -> impl Iterator<Item = Arc<Path>> {
        let beginning = path.join("");
        let from = (Bound::Excluded(beginning.as_os_str()), Bound::Unbounded);
        let places = self.0.range::<OsStr, _>(from).map(|(Place(place), _)| place);
        places.take_while(move |place| place.starts_with(path)).cloned()
    }

    /// Changes what is said about exactly this cgroup.
    pub(super) fn change(&mut self, path: &Arc<Path>, change: impl FnOnce(&mut Vec<Statement>)) {
        let statements = self.0.entry(Place(Arc::clone(path))).or_default();
        change(statements);
        if statements.is_empty() {
            self.0.remove(path.as_os_str());
        }
    }

    /// Whether a cgroup may be that of a container nothing is said of yet, which was made in the cgroup of another one: a
    /// name below that of the other looks like it.
    pub(super) fn may_be_anothers(&self, path: &Path) -> bool {
        let Some(stated) = path.ancestors().find(|path| !self.at(path).is_empty()) else {
            return false;
        };
        let below = path.strip_prefix(stated).unwrap_or(path);
        below.iter().any(is_like_a_containers)
            && stated
                .ancestors()
                .any(|path| self.at(path).iter().any(Statement::is_containers))
    }

    /// For whom the claims of a cgroup are made.
    pub(super) fn claimant<'a>(&'a self, path: &'a Path) -> Option<&'a TaskName> {
        let mut deciding = self.deciding(path, |_, _| true);
        deciding.next().map(|statement| &statement.entry.task)
    }

    /// What is said that decides whose a cgroup is, most reliable first. Takes no memory: every connection asks.
    pub(super) fn deciding<'a>(
        &'a self,
        path: &'a Path,
        is_this: impl Fn(&Path, u64) -> bool + 'a,
    ) -> impl Iterator<Item = &'a Statement> {
        let is_meant = move |place: &Path, said: &Statement| said.cgroup_id.is_none_or(|id| is_this(place, id));
        let mut deciding: (&Path, &[Statement]) = (path, &[]);
        for ancestor in path.ancestors() {
            let statements = self.at(ancestor);
            let meant = || statements.iter().filter(|said| is_meant(ancestor, said));
            let is_containers = meant().any(Statement::is_containers);
            if is_containers && !deciding.1.is_empty() {
                break;
            }
            let first = meant().find(|said| said.over.is_none());
            let is_explicit = first.is_some_and(|first| first.source.is_explicit());
            if is_explicit || is_containers {
                deciding = (ancestor, statements);
            }
            if is_explicit {
                break;
            }
        }
        let (place, statements) = deciding;
        let holds = move |said: &&Statement| said.over.is_none() && is_meant(place, said);
        statements.iter().filter(holds)
    }
}

// === impl Place ===

impl Borrow<OsStr> for Place {
    fn borrow(&self) -> &OsStr {
        self.0.as_os_str()
    }
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.as_os_str().cmp(other.0.as_os_str())
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Eq for Place {}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

// === impl Statement ===

impl Statement {
    /// Credential IDs it claims, by what they are claimed to be.
    pub(super) fn ids(&self) -> [(Use, &[CredentialId]); 2] {
        [
            (Use::Own, &self.entry.credential_ids),
            (Use::Execution, &self.entry.execution_ids),
        ]
    }

    /// Whether it leaves an ID to another statement about the same cgroup: who states whose a cgroup is from now on states
    /// it of the IDs there too.
    pub(super) fn leaves(&self, of: Use, id: &CredentialId, other: &Self) -> bool {
        let is_superseded = self.source.is_explicit() && self.over.is_some();
        let supersedes = other.source.is_explicit() && other.over.is_none();
        let mut ids = other.ids().into_iter();
        is_superseded && supersedes && ids.any(|(other, ids)| other == of && ids.contains(id))
    }

    /// Whether the cgroup is that of one container, also if it was taken back.
    const fn is_containers(&self) -> bool {
        !self.source.is_explicit()
    }
}
