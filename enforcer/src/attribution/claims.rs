//! Claims: whose a credential ID is, where several say it is theirs.
//!
//! The first claim wins: one that was stated explicitly before one an engine merely passes on, then that of the older
//! container. An ID of an execution role is nobody's: who claims one that is named so already, or by its own task, does
//! not get it, and who names another's ID so does not take it away. Pure; the order in which claims come does not matter,
//! except between containers of one age.

use std::collections::HashMap;

use jiff::Timestamp;

use super::task::{SourceKind, TaskName};
use crate::policy::CredentialId;

/// Who claims which credential ID.
#[derive(Debug, Default)]
pub struct Claims(HashMap<CredentialId, Claimed>);

/// What an ID is claimed to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// A task's own.
    Own,
    /// An execution role's, which the engine uses for a task.
    Execution,
}

/// Who says what of an ID, strongest first.
#[derive(Debug, Default)]
struct Claimed {
    own: Vec<Claim>,
    execution: Vec<Claim>,
}

/// A task's claim of an ID, by one container or several.
#[derive(Debug)]
struct Claim {
    task: TaskName,
    standing: Standing,
    containers: u32,
}

/// How strong a claim is; the least is the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Standing {
    is_passed_on: bool,
    created: Timestamp,
}

/// Who has an ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder<'a> {
    /// A task.
    Task(&'a TaskName),
    /// It is an execution role's.
    Execution,
    /// Nobody.
    Nobody,
}

/// A claim that is not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The ID.
    pub credential: CredentialId,
    /// Who claims it and does not get it.
    pub refused: TaskName,
    /// Who has it; none if it is an execution role's.
    pub holder: Option<TaskName>,
}

// === impl Standing ===

impl Standing {
    /// How strong a claim is that a source makes for a container.
    #[must_use]
    pub(super) const fn new(source: SourceKind, created: Timestamp) -> Self {
        Self {
            is_passed_on: !source.is_explicit(),
            created,
        }
    }
}

// === impl Claims ===

impl Claims {
    /// Who has an ID.
    #[must_use]
    pub fn holder(&self, credential: &CredentialId) -> Holder<'_> {
        self.0.get(credential).map_or(Holder::Nobody, Claimed::holder)
    }

    /// The ID as it is kept, for who should not keep the caller's text.
    #[must_use]
    pub fn known(&self, credential: &CredentialId) -> Option<&CredentialId> {
        self.0.get_key_value(credential).map(|(known, _)| known)
    }

    /// The tasks that an ID was stated to be of, by more than an engine that passes it on, and how often each claims it.
    pub(super) fn stated(&self, credential: &CredentialId) -> impl Iterator<Item = (&TaskName, usize)> {
        let claims = self.0.get(credential).into_iter().flat_map(|claimed| &claimed.own);
        let stated = claims.filter(|claim| !claim.standing.is_passed_on);
        stated.map(|claim| (&claim.task, claim.containers as usize))
    }

    /// A container of a task says what an ID is.
    pub(super) fn claim(&mut self, credential: &CredentialId, of: Use, task: &TaskName, standing: Standing) {
        let claims = self.0.entry(credential.clone()).or_default().of(of);
        if let Some(claim) = claims.iter_mut().find(|claim| claim.task == *task) {
            claim.containers += 1;
            claim.standing = claim.standing.min(standing);
        } else {
            // There is hardly ever a second one.
            claims.reserve_exact(1);
            claims.push(Claim {
                task: task.clone(),
                standing,
                containers: 1,
            });
        }
        // Stable: who came first stays first among equals.
        claims.sort_by_key(|claim| claim.standing);
    }

    /// A container of a task does not say so any more.
    pub(super) fn withdraw(&mut self, credential: &CredentialId, of: Use, task: &TaskName) {
        let Some(claimed) = self.0.get_mut(credential) else {
            return;
        };
        let claims = claimed.of(of);
        if let Some(claim) = claims.iter_mut().find(|claim| claim.task == *task) {
            claim.containers -= 1;
        }
        claims.retain(|claim| claim.containers > 0);
        if claimed.own.is_empty() && claimed.execution.is_empty() {
            self.0.remove(credential);
        }
    }

    /// Claims of an ID that are not granted.
    pub fn refused<'a>(&'a self, credential: &'a CredentialId) -> impl Iterator<Item = Conflict> + 'a {
        let claimed = self.0.get(credential);
        let refused = claimed.into_iter().flat_map(Claimed::refused);
        refused.map(move |(refused, holder)| Conflict {
            credential: credential.clone(),
            refused: refused.clone(),
            holder: holder.cloned(),
        })
    }

    /// Every claim that is not granted.
    pub fn conflicts(&self) -> impl Iterator<Item = Conflict> + '_ {
        self.0.keys().flat_map(|credential| self.refused(credential))
    }
}

// === impl Claimed ===

impl Claimed {
    const fn of(&mut self, of: Use) -> &mut Vec<Claim> {
        match of {
            Use::Own => &mut self.own,
            Use::Execution => &mut self.execution,
        }
    }

    fn holder(&self) -> Holder<'_> {
        match self.own.first() {
            _ if self.is_execution() => Holder::Execution,
            Some(claim) => Holder::Task(&claim.task),
            None => Holder::Nobody,
        }
    }

    /// Whether it is an execution role's. Who says so of what another task had before is not believed: it would take the
    /// ID away from its owner, and have the engine use it.
    fn is_execution(&self) -> bool {
        let holds = |naming: &Claim| {
            self.own.first().is_none_or(|claim| {
                !naming.standing.is_passed_on || naming.standing <= claim.standing || naming.task == claim.task
            })
        };
        self.execution.iter().any(holds)
    }

    /// Who does not get what it claims, and who has it.
    fn refused(&self) -> impl Iterator<Item = (&TaskName, Option<&TaskName>)> {
        let (holder, claims) = match self.holder() {
            Holder::Task(holder) => (Some(holder), [&*self.own, &*self.execution]),
            Holder::Execution | Holder::Nobody => (None, [&*self.own, &[]]),
        };
        let tasks = claims.into_iter().flatten().map(|claim| &claim.task);
        tasks
            .filter(move |task| Some(*task) != holder)
            .map(move |task| (task, holder))
    }
}
