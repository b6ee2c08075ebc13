//! Tasks: who they are, what they own, what they may.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
};

use super::{
    Groups, InvalidConfig, Role, Task, raw,
    validate::{absolute, in_mount},
};
use crate::{
    attribution::{TaskName, is_name},
    policy::CredentialId,
};

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
        if TaskName::is_made_of_containers(&name) {
            return Err(InvalidConfig::NameOfContainers { task: name });
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
            role_arn: written.role_arn.map(role_arn).transpose()?.map(Into::into),
            name: TaskName::new(&name),
        });
    }
    Ok(tasks)
}

fn role_arn(arn: String) -> Result<String, InvalidConfig> {
    if is_name(&arn) {
        Ok(arn)
    } else {
        Err(InvalidConfig::RoleArn { arn })
    }
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

/// The roles the embedded upstream has credentials of. Every task that owns a credential ID must have one.
pub(super) fn roles(tasks: &[raw::Task], written: Vec<raw::Role>) -> Result<Vec<Role>, InvalidConfig> {
    let mut arns = HashSet::new();
    let mut roles = Vec::new();
    for raw::Role { arn, credentials_file } in written {
        let arn = role_arn(arn)?;
        if !arns.insert(arn.clone()) {
            return Err(InvalidConfig::DuplicateRole { arn });
        }
        roles.push(Role {
            task: None,
            credentials_file: absolute(&format!("role {arn:?}: credentials-file"), credentials_file)?,
            arn,
        });
    }
    for task in tasks {
        let missing = |key| InvalidConfig::Missing {
            task: task.name.clone(),
            key,
        };
        match (&task.role_arn, &task.credentials_file) {
            (Some(arn), Some(file)) => roles.push(Role {
                task: Some(TaskName::new(&task.name)),
                arn: arn.clone(),
                credentials_file: absolute(&format!("task {:?}: credentials-file", task.name), file.clone())?,
            }),
            (Some(arn), None) if !arns.contains(arn) => return Err(missing("credentials-file")),
            (None, None) if task.credential_ids.is_empty() => {}
            (None, _) => return Err(missing("role-arn")),
            (Some(_), None) => {}
        }
    }
    Ok(roles)
}
