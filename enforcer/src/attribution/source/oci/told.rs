//! What a container was told when it was made: in its environment, and in its annotations. Pure.
//!
//! Nothing of it is proof. Credential IDs in the environment are claims, of which the first counts. Annotations never make a
//! container part of a task that others made without them: tasks they name have names of their own, and where they name a
//! role it is a part of the task's name, so that containers share a task only if each would get the same role without it.

use std::sync::Arc;

use crate::{
    attribution::{source::MAX_CLAIMS, task::TaskName},
    policy::CredentialId,
};

/// Variables that hold a path or URI ending in a credential ID.
const CREDENTIALS: [&str; 2] = [
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

/// What comes before the ID in them.
const PATHS: [&str; 2] = ["/v2/credentials/", "/v1/credentials?id="];

/// The annotations that name the role whose credentials a container gets, and its task.
const ROLE_ARN: &str = "enforcer.role-arn";
const TASK: &str = "enforcer.task";

/// The longest name or ARN taken from an annotation.
const MAX_NAME_BYTES: usize = 512;

/// The credential IDs an environment claims, each once; the first of them if there are too many.
pub(super) fn credential_ids<'a>(environment: impl Iterator<Item = (&'a str, &'a str)>) -> Box<[CredentialId]> {
    let mut ids: Vec<CredentialId> = Vec::new();
    for (name, value) in environment {
        if !CREDENTIALS.contains(&name) {
            continue;
        }
        let written = PATHS.iter().find_map(|path| value.split_once(path));
        if let Some(id) = written.and_then(|(_, id)| CredentialId::granted(id).ok())
            && !ids.contains(&id)
        {
            ids.push(id);
        }
        if ids.len() == MAX_CLAIMS {
            break;
        }
    }
    ids.into()
}

/// The role that annotations name.
pub(super) fn role_arn<'a>(annotation: impl Fn(&str) -> Option<&'a str>) -> Option<Arc<str>> {
    annotation(ROLE_ARN).filter(|arn| is_name(arn)).map(Arc::from)
}

/// The task that annotations name.
pub(super) fn task<'a>(annotation: impl Fn(&str) -> Option<&'a str>) -> Option<TaskName> {
    let task = annotation(TASK).filter(|name| is_name(name))?;
    Some(TaskName::new(&match role_arn(annotation) {
        None => format!("oci/task/{task}"),
        Some(role) => format!("oci/task/{task}@{role}"),
    }))
}

/// Whether an annotation's text may name something: people read it.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::credential_ids;

    fn claimed(environment: &[(&str, &str)]) -> Vec<String> {
        let ids = credential_ids(environment.iter().copied());
        ids.iter().map(|id| id.expose().to_owned()).collect()
    }

    #[test]
    fn ids_are_claimed_by_every_form_of_the_variables() {
        for (name, value) in [
            ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/one"),
            ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v1/credentials?id=one"),
            (
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                "http://169.254.170.2/v2/credentials/one",
            ),
        ] {
            assert_eq!(claimed(&[(name, value), (name, value)]), ["one"], "{value}");
        }
    }

    #[test]
    fn a_long_environment_does_not_claim_more_than_a_few() {
        let values: Vec<_> = (0..100).map(|number| format!("/v2/credentials/{number}")).collect();
        let name = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
        let environment: Vec<_> = values.iter().map(|value| (name, value.as_str())).collect();
        assert_eq!(claimed(&environment), ["0", "1", "2", "3"]);
    }

    #[test]
    fn what_is_no_id_is_not_claimed() {
        for (name, value) in [
            ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/self"),
            ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/"),
            ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/a/b"),
            ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "one"),
            ("OTHER", "/v2/credentials/one"),
        ] {
            assert_eq!(claimed(&[(name, value)]), [""; 0], "{value}");
        }
    }
}
