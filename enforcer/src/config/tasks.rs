//! Tasks: who they are, what they own, what they may.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
};

use super::{
    Groups, InvalidConfig, Role, Task, raw,
    validate::{absolute, in_mount},
};
use crate::{attribution::TaskName, policy::CredentialId};

/// Validates the tasks, each by itself and all together.
pub(super) fn tasks(raw: Vec<raw::Task>, groups: &Groups) -> Result<Vec<Task>, InvalidConfig> {
    let mut names = HashSet::new();
    let mut cgroup_owners = HashMap::new();
    let mut id_owners = HashMap::new();
    let mut tasks = Vec::with_capacity(raw.len());
    for written in raw {
        let name = written.name;
        if name.is_empty() {
            return Err(InvalidConfig::UnnamedTask);
        }
        if !names.insert(name.clone()) {
            return Err(InvalidConfig::DuplicateTask { task: name });
        }
        if written.cgroups.is_empty() {
            return Err(InvalidConfig::NoCgroups { task: name });
        }
        let cgroups = cgroups(&name, written.cgroups, &mut cgroup_owners)?;
        let key = || format!("task {name:?}: allow");
        tasks.push(Task {
            cgroups,
            groups: written.allow.map(|allow| groups.bits(&allow, &key())).transpose()?,
            observe: written.observe,
            credential_ids: credential_ids(&name, written.credential_ids, &mut id_owners)?,
            name: TaskName::new(&name),
        });
    }
    Ok(tasks)
}

fn cgroups(
    task: &str,
    written: Vec<PathBuf>,
    owners: &mut HashMap<PathBuf, String>,
) -> Result<Vec<PathBuf>, InvalidConfig> {
    let mut cgroups = Vec::with_capacity(written.len());
    for cgroup in written {
        let cgroup = in_mount(&format!("task {task:?}: cgroups"), cgroup)?;
        let task = task.to_owned();
        let text = cgroup.to_string_lossy();
        // A pattern would never match here, and the root is everybody's.
        if text == "/" || text.contains(['*', '?', '[', ']']) {
            return Err(InvalidConfig::TaskCgroup { task, cgroup });
        }
        if let Some(other) = owners.insert(cgroup.clone(), task.clone()) {
            return Err(InvalidConfig::SharedCgroup { task, cgroup, other });
        }
        cgroups.push(cgroup);
    }
    Ok(cgroups)
}

fn credential_ids(
    task: &str,
    written: Vec<raw::Secret>,
    owners: &mut HashMap<CredentialId, String>,
) -> Result<Vec<CredentialId>, InvalidConfig> {
    let mut ids = Vec::with_capacity(written.len());
    for (raw::Secret(text), number) in written.into_iter().zip(1..) {
        let id = CredentialId::granted(&text).map_err(|source| InvalidConfig::CredentialId {
            task: task.to_owned(),
            number,
            source,
        })?;
        if let Some(other) = owners.insert(id.clone(), task.to_owned()) {
            return Err(InvalidConfig::SharedCredentialId {
                task: task.to_owned(),
                number,
                other,
            });
        }
        ids.push(id);
    }
    Ok(ids)
}

/// What the embedded upstream needs, of every task that owns a credential ID.
pub(super) fn roles(tasks: &[raw::Task]) -> Result<Vec<Role>, InvalidConfig> {
    let owners = tasks.iter().filter(|task| !task.credential_ids.is_empty());
    let role = |task: &raw::Task| {
        let missing = |key| InvalidConfig::Missing {
            task: task.name.clone(),
            key,
        };
        let file = task
            .credentials_file
            .clone()
            .ok_or_else(|| missing("credentials-file"))?;
        Ok(Role {
            task: TaskName::new(&task.name),
            arn: task.role_arn.clone().ok_or_else(|| missing("role-arn"))?,
            credentials_file: absolute(&format!("task {:?}: credentials-file", task.name), file)?,
        })
    };
    owners.map(role).collect()
}
