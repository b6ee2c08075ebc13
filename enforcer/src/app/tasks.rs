//! Tasks on command: registers them, takes them back, tells what is known of them and why.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use serde_json::json;
use tracing::{error, info, warn};

use super::{controller::Controller, told};
use crate::{
    attribution::{self, Conflict, Registry, Said, TaskName, Tasks, Wanted},
    audit::{By, Change},
    control::{
        Answer,
        task::{Added, Claim, Details, Holder, NewTask, Secret, Statement, Summary},
    },
    policy::{CredentialId, InvalidCredentialId},
    upstream::Upstream,
};

// === impl Controller ===

impl Controller {
    /// Registers tasks, each by itself.
    pub(super) async fn add_tasks(&mut self, tasks: Vec<NewTask>, by: By) -> Answer {
        let attributor = Arc::clone(&self.attributor.borrow());
        let access = Arc::clone(&self.access.borrow());
        let until = self.registrations.deadline();
        let mut added = Vec::with_capacity(tasks.len());
        for task in tasks {
            let name = task.task.clone();
            let role_arn: Option<Arc<str>> = task.role_arn.as_deref().map(Arc::from);
            let has_id = !task.credential_ids.is_empty();
            let outcome = match wanted(task) {
                Ok(wanted) => {
                    let trusts = |path: &Path| attributor.trusts(path);
                    self.registrations.add(wanted, until, trusts).await
                }
                Err(error) => Err(error.into()),
            };
            let error = outcome.as_ref().err().map(ToString::to_string);
            let warning = (role_arn.filter(|_| error.is_none()))
                .and_then(|role_arn| without_credentials(&access.upstream, &TaskName::new(&name), &role_arn, has_id));
            match (&error, &warning) {
                (Some(error), _) => warn!(task = name, error, "not registered"),
                (None, Some(warning)) => warn!(task = name, warning, "registered"),
                (None, None) => info!(task = name, "registered"),
            }
            self.record_task("task-add", by, &name, error.clone());
            let credential = outcome.ok().flatten();
            added.push(Added {
                task: name,
                relative_uri: credential.map(|id| Secret(format!("/v2/credentials/{}", id.expose()))),
                error,
                warning,
            });
        }
        told(&added)
    }

    /// Takes the registration of a task back.
    pub(super) fn remove_task(&mut self, task: &str, by: By) -> Answer {
        let outcome = self.registrations.remove(task);
        let error = outcome.as_ref().err().map(ToString::to_string);
        self.record_task("task-remove", by, task, error);
        match outcome {
            Ok(()) => {
                info!(task, "a registration was taken back");
                Answer::Ok(json!({}))
            }
            Err(error) => Answer::Error(error.to_string()),
        }
    }

    /// All tasks there are.
    pub(super) fn list_tasks(&self) -> Answer {
        let access = Arc::clone(&self.access.borrow());
        told(&summaries(&self.registry().read(), lacks(&access.upstream)))
    }

    /// Everything about one task.
    pub(super) fn show_task(&self, task: &str) -> Answer {
        let hash = |credential: &CredentialId| self.recorder.hash(credential);
        let access = Arc::clone(&self.access.borrow());
        match details(&self.registry().read(), task, hash, lacks(&access.upstream)) {
            Some(details) => told(&details),
            None => Answer::Error(format!(
                "nobody knows a task {task:?}; `enforcer task list` shows those there are"
            )),
        }
    }

    /// Forgets what nobody needs any more; `thoroughly` also looks for registrations whose cgroups are gone.
    pub(super) fn sweep(&mut self, thoroughly: bool) {
        let cgroups = &self.cgroups;
        self.registry().sweep(|cgroup| attribution::is_gone(cgroups, cgroup));
        if thoroughly && let Err(error) = self.registrations.take_back_gone() {
            error!(%error, "cannot keep registrations; they hold until the enforcer ends");
        }
    }

    pub(super) fn registry(&self) -> Arc<Registry> {
        Arc::clone(self.attributor.borrow().registry())
    }

    fn record_task(&self, command: &'static str, by: By, task: &str, error: Option<String>) {
        self.recorder.control(Change {
            command,
            by,
            mode: self.config.mode.name(),
            task: Some(task.to_owned()),
            error,
        });
    }
}

/// Tells whether the enforcer itself is to have a task's credentials, and has none for its role.
fn lacks(upstream: &Upstream) -> impl Fn(&TaskName, &Arc<str>) -> bool {
    let embedded = upstream.embedded();
    move |task, role_arn| embedded.is_some_and(|embedded| !embedded.has(Some(task), Some(role_arn)))
}

/// Why the role that a task was registered with gives it nothing, if it does not. `has_id` tells whether it was registered
/// with a credential ID, too.
fn without_credentials(upstream: &Upstream, task: &TaskName, role_arn: &Arc<str>, has_id: bool) -> Option<String> {
    let (is_without, what_to_do) = match upstream {
        Upstream::Embedded(_) => (
            lacks(upstream)(task, role_arn),
            "configure them as [[role]], or register another",
        ),
        Upstream::EcsAgent(_) => (
            !has_id,
            "the ECS agent knows no roles, only credential IDs; register those it gave the task with --credential-id",
        ),
    };
    is_without.then(|| format!("nobody has credentials for role {role_arn:?}; {what_to_do}"))
}

fn wanted(task: NewTask) -> Result<Wanted, InvalidCredentialId> {
    let granted = |ids: Vec<Secret>| {
        ids.iter()
            .map(|id| CredentialId::granted(&id.0))
            .collect::<Result<_, _>>()
    };
    Ok(Wanted {
        credential_ids: granted(task.credential_ids)?,
        execution_ids: granted(task.execution_ids)?,
        task: task.task,
        cgroups: task.cgroups,
        containers: task.containers,
        role_arn: task.role_arn,
    })
}

/// What is said, by the task it is about.
fn by_task(tasks: &Tasks) -> BTreeMap<TaskName, Vec<Said<'_>>> {
    let mut of = BTreeMap::<_, Vec<_>>::new();
    for said in tasks.said() {
        of.entry(said.task.clone()).or_default().push(said);
    }
    of
}

fn summaries(tasks: &Tasks, lacks: impl Fn(&TaskName, &Arc<str>) -> bool) -> Vec<Summary> {
    let summary = |(task, mut said): (TaskName, Vec<Said<'_>>)| {
        let claimed = claimed(&said);
        let leaving = said.iter().all(|said| said.is_over);
        // Of what was taken back, only the claims say something of a task that goes on.
        said.retain(|said| leaving || !said.is_over);
        let sources: BTreeSet<_> = said.iter().map(|said| said.source).collect();
        let containers: BTreeSet<_> = (said.iter())
            .filter(|said| !said.source.is_explicit())
            .map(|said| &said.entry.id)
            .collect();
        let cgroups: BTreeSet<_> = said
            .iter()
            .flat_map(|said| &said.entry.cgroups)
            .map(|cgroup| &cgroup.path)
            .collect();
        let role_arn = said.iter().find_map(|said| said.entry.role_arn.as_ref());
        let granted = claimed.iter().filter(|id| is_own(tasks, &task, id)).count();
        Summary {
            sources: sources.into_iter().collect(),
            containers: containers.len(),
            cgroups: cgroups.len(),
            role_arn: role_arn.map(ToString::to_string),
            no_credentials: role_arn.is_some_and(|role_arn| lacks(&task, role_arn)),
            granted,
            refused: claimed.len() - granted,
            leaving,
            task: task.as_str().to_owned(),
        }
    };
    by_task(tasks).into_iter().map(summary).collect()
}

fn details(
    tasks: &Tasks,
    name: &str,
    hash: impl Fn(&CredentialId) -> String,
    lacks: impl Fn(&TaskName, &Arc<str>) -> bool,
) -> Option<Details> {
    let task = TaskName::new(name);
    let mut said: Vec<_> = tasks.said().filter(|said| said.task == task).collect();
    if said.is_empty() {
        return None;
    }
    said.sort_by(|one, other| (one.source, &one.entry.id).cmp(&(other.source, &other.entry.id)));
    let claim = |credential: &CredentialId| Claim {
        credential: hash(credential),
        holder: holder(tasks, &task, credential),
        refused: others(tasks.claims().refused(credential), &task),
    };
    Some(Details {
        task: name.to_owned(),
        claims: claimed(&said).into_iter().map(claim).collect(),
        said: said
            .iter()
            .map(|said| statement(said, |role_arn| lacks(&task, role_arn)))
            .collect(),
    })
}

fn statement(said: &Said<'_>, lacks: impl Fn(&Arc<str>) -> bool) -> Statement {
    let entry = said.entry;
    let fact = |(fact, value): &(attribution::Fact, Box<str>)| (fact.name().to_owned(), value.to_string());
    Statement {
        source: said.source,
        id: entry.id.to_string(),
        named: entry.task.as_str().to_owned(),
        cgroups: entry
            .cgroups
            .iter()
            .map(|cgroup| (cgroup.path.to_string_lossy().into_owned(), cgroup.id))
            .collect(),
        created: entry.created,
        role_arn: entry.role_arn.as_deref().map(str::to_owned),
        no_credentials: entry.role_arn.as_ref().is_some_and(lacks),
        credential_ids: entry.credential_ids.len(),
        execution_ids: entry.execution_ids.len(),
        facts: entry.facts.iter().map(fact).collect(),
        leaving: said.is_over,
    }
}

/// The credential IDs that are claimed, each once.
fn claimed<'a>(said: &[Said<'a>]) -> Vec<&'a CredentialId> {
    let mut claimed = Vec::new();
    for credential in said.iter().flat_map(|said| &said.entry.credential_ids) {
        if !claimed.contains(&credential) {
            claimed.push(credential);
        }
    }
    claimed
}

fn is_own(tasks: &Tasks, task: &TaskName, credential: &CredentialId) -> bool {
    tasks.claims().holder(credential) == attribution::Holder::Task(task)
}

fn holder(tasks: &Tasks, task: &TaskName, credential: &CredentialId) -> Holder {
    match tasks.claims().holder(credential) {
        attribution::Holder::Task(holder) if holder == task => Holder::Own,
        attribution::Holder::Task(holder) => Holder::Task(holder.as_str().to_owned()),
        attribution::Holder::Execution | attribution::Holder::Nobody => Holder::Execution,
    }
}

/// Those besides a task whose claims are refused.
fn others(conflicts: impl Iterator<Item = Conflict>, task: &TaskName) -> Vec<String> {
    let others = conflicts
        .map(|conflict| conflict.refused)
        .filter(|refused| refused != task);
    others.map(|refused| refused.as_str().to_owned()).collect()
}

#[cfg(test)]
mod tests;
