//! Claims: whose a credential ID is, where several say it is theirs.
//!
//! The first claim wins: one that was stated explicitly before one an engine merely passes on, then that of the older
//! container. An ID of an execution role is nobody's, whoever claims it. Pure; the order in which claims come does not
//! matter, except between containers of one age.

use std::collections::HashMap;

use jiff::Timestamp;

use super::task::{SourceKind, TaskName};
use crate::policy::CredentialId;

/// Who claims which credential ID.
#[derive(Debug, Default)]
pub struct Claims {
    claimed: HashMap<CredentialId, Vec<Claim>>,
    /// IDs of execution roles, and how many containers name them.
    execution: HashMap<CredentialId, u32>,
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
        if self.execution.contains_key(credential) {
            return Holder::Execution;
        }
        let claims = self.claimed.get(credential);
        claims
            .and_then(|claims| claims.first())
            .map_or(Holder::Nobody, |claim| Holder::Task(&claim.task))
    }

    /// The ID as it is kept, for who should not keep the caller's text.
    #[must_use]
    pub fn known(&self, credential: &CredentialId) -> Option<&CredentialId> {
        let claimed = self.claimed.get_key_value(credential).map(|(known, _)| known);
        claimed.or_else(|| self.execution.get_key_value(credential).map(|(known, _)| known))
    }

    /// The task that an ID was stated to be of, by more than an engine that passes it on.
    #[must_use]
    pub fn stated(&self, credential: &CredentialId) -> Option<&TaskName> {
        let claim = self.claimed.get(credential)?.first()?;
        (!claim.standing.is_passed_on).then_some(&claim.task)
    }

    /// A container of a task claims an ID.
    pub(super) fn claim(&mut self, credential: &CredentialId, task: &TaskName, standing: Standing) {
        let claims = self.claimed.entry(credential.clone()).or_default();
        match claims.iter_mut().find(|claim| claim.task == *task) {
            Some(claim) => {
                claim.containers += 1;
                claim.standing = claim.standing.min(standing);
            }
            None => claims.push(Claim {
                task: task.clone(),
                standing,
                containers: 1,
            }),
        }
        // Stable: who came first stays first among equals.
        claims.sort_by_key(|claim| claim.standing);
    }

    /// A container of a task does not claim an ID any more.
    pub(super) fn withdraw(&mut self, credential: &CredentialId, task: &TaskName) {
        let Some(claims) = self.claimed.get_mut(credential) else {
            return;
        };
        if let Some(claim) = claims.iter_mut().find(|claim| claim.task == *task) {
            claim.containers -= 1;
        }
        claims.retain(|claim| claim.containers > 0);
        if claims.is_empty() {
            self.claimed.remove(credential);
        }
    }

    /// A container names an execution role's ID.
    pub(super) fn name_execution(&mut self, credential: &CredentialId) {
        *self.execution.entry(credential.clone()).or_default() += 1;
    }

    /// A container that named an execution role's ID is gone.
    pub(super) fn forget_execution(&mut self, credential: &CredentialId) {
        if let Some(containers) = self.execution.get_mut(credential) {
            *containers -= 1;
            if *containers == 0 {
                self.execution.remove(credential);
            }
        }
    }

    /// Claims of an ID that are not granted.
    pub fn refused<'a>(&'a self, credential: &'a CredentialId) -> impl Iterator<Item = Conflict> + 'a {
        let holder = match self.holder(credential) {
            Holder::Task(task) => Some(task),
            Holder::Execution | Holder::Nobody => None,
        };
        let claims = self.claimed.get(credential).into_iter().flatten();
        claims
            .filter(move |claim| Some(&claim.task) != holder)
            .map(move |claim| Conflict {
                credential: credential.clone(),
                refused: claim.task.clone(),
                holder: holder.cloned(),
            })
    }

    /// Every claim that is not granted.
    pub fn conflicts(&self) -> impl Iterator<Item = Conflict> + '_ {
        self.claimed.keys().flat_map(|credential| self.refused(credential))
    }
}
