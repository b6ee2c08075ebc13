//! What follows from what the engine tells of a container: which task it belongs to, and what it claims. Pure.
//!
//! Who may set labels need not be who runs the host, so a label never makes a container part of a task that others made
//! without it. A container of a pod, which cri-dockerd makes, is of the pod whose cgroup it is in. Labels of containers that say they are the ECS agent's come from task definitions: there they mean nothing.

use std::{net::SocketAddrV4, path::PathBuf};

use super::{super::told, container::Container, labeled::Labeled, place::Placing};
use crate::attribution::{
    Cgroup, Entry, Fact, TaskName, is_name,
    kubernetes::{NotOfThisPod, Pod},
};

/// What the ARNs of tasks begin with that the ECS agent makes for itself.
const OF_THE_AGENT: &str = "arn:::::/";

/// What statements are made by.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// How the engine makes cgroups.
    pub(super) placing: Placing,
    /// Where containers ask for credentials.
    pub(super) endpoint: SocketAddrV4,
    /// Whether labels may name tasks and roles.
    pub(super) labels: bool,
}

/// What is to be said of a container.
pub(super) enum Said {
    /// There is such a container.
    Entry(Entry),
    /// There is one, and the agent may know in a moment whose it is. This, if it never does.
    Undecided(Entry),
    /// There is one, and nothing to be said of it.
    Nothing,
    /// There is none.
    Gone,
}

/// What is to be said of a container, as far as the engine can tell.
pub(super) enum Saying {
    /// This.
    Entry(Entry),
    /// Nothing: where its cgroup is cannot be told.
    Nothing,
    /// What its labels name counts unless its image does.
    Labeled(Box<Labeled>),
    /// Whose it is the ECS agent can tell.
    Unproven(Box<Unproven>),
}

/// A container that says it is of an ECS task. Who may choose labels may choose the cgroup as well, so what counts is the
/// agent's word; where it has none to give, that it is in the task's cgroup. Where the agent limits no tasks, it makes no
/// cgroups for them.
pub(super) struct Unproven {
    /// The ARN of the task.
    pub(super) task: TaskName,
    /// What is to be said if it is of this task.
    member: Entry,
    is_in_its_cgroup: bool,
    /// No process has run in it yet.
    is_new: bool,
    own_name: TaskName,
}

// === impl Unproven ===

impl Unproven {
    /// What is to be said now that the agent has been asked. It knows a container before it starts it, but not before it
    /// has made it.
    pub(super) fn asked(self, is_of_task: bool) -> Said {
        if is_of_task {
            return Said::Entry(self.member);
        }
        let is_new = self.is_new;
        let forged = self.forged("the ECS agent does not know it as one of the task that its labels name");
        if is_new {
            Said::Undecided(forged)
        } else {
            Said::Entry(forged)
        }
    }

    /// Whether the agent tells whose it is. Of the tasks that it makes for itself, whose ARNs have no region and no account, it
    /// tells nobody.
    pub(super) fn is_told(&self) -> bool {
        !self.task.as_str().starts_with(OF_THE_AGENT)
    }

    /// What is to be said if there is no agent to ask.
    pub(super) fn not_asked(self) -> Entry {
        if self.is_in_its_cgroup {
            return self.member;
        }
        self.forged("it is not in the cgroup of the task its labels name, and no ECS agent tells that it is")
    }

    fn forged(self, why: &str) -> Entry {
        let own = Entry {
            task: self.own_name,
            ..self.member
        };
        forged(own, why)
    }
}

// === impl Rules ===

impl Rules {
    /// What is to be said of a container.
    pub(super) fn say(&self, container: &Container<'_>) -> Saying {
        let Some(cgroup) = self.placing.cgroup(&container.host_config.cgroup_parent, &container.id) else {
            return Saying::Nothing;
        };
        let own_name = own_name(container);
        let labels = container.config.labels.as_ref();
        let is_pods = match Pod::of(|key| labels?.of_pod(key), &cgroup) {
            Ok(None) => false,
            // An image has labels, too; only the kubelet has containers put into a pod's cgroup.
            Err(NotOfThisPod::NoUid) => true,
            Ok(Some(pod)) => return Saying::Entry(self.of_pod(container, cgroup, pod)),
            Err(NotOfThisPod::Unnamed) => return Saying::Entry(self.entry(container, cgroup, own_name)),
            Err(problem) => {
                let entry = self.entry(container, cgroup, own_name);
                return Saying::Entry(forged(entry, &problem.to_string()));
            }
        };
        let Some(arn) = labels.and_then(|labels| labels.ecs_task.as_deref()) else {
            let plain = self.entry(container, cgroup, own_name);
            // Who makes pods is not who runs the host: no label gives them a role.
            let labeled = (self.labels && !is_pods)
                .then(|| Labeled::new(container, &plain))
                .flatten();
            return labeled.map_or(Saying::Entry(plain), |labeled| Saying::Labeled(Box::new(labeled)));
        };
        if !arn.starts_with("arn:") || !is_name(arn) {
            let entry = self.entry(container, cgroup, own_name);
            return Saying::Entry(forged(entry, "the task its labels name is none: that is no ARN"));
        }
        let task = TaskName::new(arn);
        let member = self.entry(container, cgroup, task.clone());
        let task_id = arn.rsplit(['/', ':']).next().unwrap_or_default();
        let parent = &container.host_config.cgroup_parent;
        Saying::Unproven(Box::new(Unproven {
            task,
            member,
            is_in_its_cgroup: self.placing.is_of_ecs_task(parent, task_id),
            is_new: container.is_new(),
            own_name,
        }))
    }

    fn entry(&self, container: &Container<'_>, cgroup: PathBuf, task: TaskName) -> Entry {
        let environment = told::environment(container.environment(), self.endpoint);
        let mounts = container.mount_options().filter_map(told::mount);
        Entry {
            id: container.id.as_str().into(),
            task,
            cgroups: [Cgroup {
                path: cgroup.into(),
                id: None,
            }]
            .into(),
            created: container.created,
            credential_ids: told::claims(environment.chain(mounts)),
            execution_ids: container
                .log_credentials()
                .and_then(told::credential)
                .into_iter()
                .collect(),
            role_arn: None,
            facts: [
                (Fact::Container, container.name().into()),
                (Fact::NetworkMode, container.host_config.network_mode.as_ref().into()),
            ]
            .into(),
        }
    }

    /// Of a container of a pod.
    fn of_pod(&self, container: &Container<'_>, cgroup: PathBuf, pod: Pod) -> Entry {
        let entry = self.entry(container, cgroup, pod.task());
        let own = entry.facts.into_iter().filter(|(fact, _)| *fact != Fact::Container);
        Entry {
            facts: pod.facts().chain(own).collect(),
            ..entry
        }
    }
}

/// The same, with why it is not what its labels make of it.
pub(super) fn forged(entry: Entry, why: &str) -> Entry {
    Entry {
        facts: entry.facts.into_iter().chain([(Fact::Forged, why.into())]).collect(),
        ..entry
    }
}

/// Of a container that belongs to no task but itself: containers' names have no slash, so no other one gets it.
fn own_name(container: &Container<'_>) -> TaskName {
    let name = container.name();
    TaskName::new(&if is_name(name) {
        format!("docker/{name}")
    } else {
        format!("docker/id/{}", container.id.as_str())
    })
}

#[cfg(test)]
mod tests;
