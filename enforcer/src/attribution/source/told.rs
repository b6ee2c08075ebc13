//! What a container was told when it was made: in its environment, with its mounts, and in its labels or annotations. The
//! same whoever tells of it. Pure.
//!
//! Nothing of it is proof. Credential IDs are claims, of which the first counts. Labels never make a
//! container part of a task that others made without them: tasks they name have names of their own, of which the role that
//! they name is a part, so that containers share a task only if each would get the same role without it.

use std::{net::SocketAddrV4, sync::Arc};

use crate::{
    attribution::task::{SourceKind, TaskName, is_name},
    policy::CredentialId,
};

/// The label that names the role whose credentials a container gets.
pub(super) const ROLE_ARN: &str = "enforcer.role-arn";

/// The label that names a container's task.
pub(super) const TASK: &str = "enforcer.task";

/// The variable that holds a path of the endpoint, and the one that holds a URI of anybody.
const RELATIVE: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
const FULL: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";

/// What comes before a credential ID in a path.
const PATHS: [&str; 2] = ["/v2/credentials/", "/v1/credentials?id="];

/// The option of a mount that holds such a path.
const MOUNT_OPTION: &str = "awscredsuri=";

/// The port of a URI that names none.
const DEFAULT_PORT: u16 = 80;

/// How many credential IDs a container may claim: an honest one is told of one, by one variable or two.
const MAX_CLAIMS: usize = 4;

/// What comes between a task's name and its role's.
const OF_ROLE: char = '@';

/// Whose annotations name tasks and roles. Nobody's do if whoever holds the credentials knows no roles: containers of one task
/// would share what is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Believed {
    /// Those of containers that root makes.
    pub containers: bool,
    /// Those of Podman's among them, which may be an image's.
    pub podman: bool,
    /// Those of pods.
    pub pods: bool,
}

/// What labels name.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Named<'a> {
    task: Option<&'a str>,
    role_arn: Option<&'a str>,
}

/// The credential IDs that are claimed, each once; the first of them if there are too many.
pub(super) fn claims(ids: impl Iterator<Item = CredentialId>) -> Box<[CredentialId]> {
    let mut claims = Vec::new();
    for id in ids {
        if claims.len() < MAX_CLAIMS && !claims.contains(&id) {
            claims.push(id);
        }
    }
    claims.into()
}

/// The credential IDs that an environment leads to at the endpoint.
pub(super) fn environment<'a>(
    variables: impl Iterator<Item = (&'a str, &'a str)>,
    endpoint: SocketAddrV4,
) -> impl Iterator<Item = CredentialId> {
    variables.filter_map(move |(name, value)| match name {
        RELATIVE => credential(value),
        FULL => credential(path_at(endpoint, value)?),
        _ => None,
    })
}

/// The credential ID in a path of the endpoint; none in that of the caller's own, which claims nothing.
pub(super) fn credential(path: &str) -> Option<CredentialId> {
    let id = PATHS.iter().find_map(|before| path.strip_prefix(before));
    CredentialId::granted(id?).ok()
}

/// The credential ID that a volume is mounted with, in the options of its mount: as of an EFS file system, whose mount
/// helper asks for a task's credentials.
pub(super) fn mount(options: &str) -> Option<CredentialId> {
    let mut options = options.split(',');
    credential(options.find_map(|option| option.strip_prefix(MOUNT_OPTION))?)
}

/// The path of a URI that leads to the endpoint. One that leads elsewhere, as to a sidecar, is nothing of the endpoint's.
fn path_at(endpoint: SocketAddrV4, uri: &str) -> Option<&str> {
    let rest = uri.strip_prefix("http://")?.strip_prefix(&endpoint.ip().to_string())?;
    let path = match rest.strip_prefix(':') {
        Some(rest) => rest.strip_prefix(&endpoint.port().to_string())?,
        None => Some(rest).filter(|_| endpoint.port() == DEFAULT_PORT)?,
    };
    path.starts_with('/').then_some(path)
}

// === impl Named ===

impl<'a> Named<'a> {
    /// What a label for the task and one for the role name. A task's name that would pass for one with a role is none.
    pub(super) fn new(task: Option<&'a str>, role_arn: Option<&'a str>) -> Self {
        Self {
            task: task.filter(|name| is_name(name) && !name.contains(OF_ROLE)),
            role_arn: role_arn.filter(|arn| is_name(arn)),
        }
    }

    /// The task, which needs a role: without one, all that its containers could share is what others of them claim.
    pub(super) fn task(&self, source: SourceKind) -> Option<TaskName> {
        let (task, role) = (self.task?, self.role_arn?);
        Some(TaskName::new(&format!("{source}/task/{task}{OF_ROLE}{role}")))
    }

    /// The role.
    pub(super) fn role_arn(&self) -> Option<Arc<str>> {
        self.role_arn.map(Arc::from)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use super::{FULL, Named, RELATIVE, claims, environment, mount};
    use crate::attribution::SourceKind;

    fn claimed_at(port: u16, variables: &[(&str, &str)]) -> Vec<String> {
        let endpoint = SocketAddrV4::new(Ipv4Addr::new(169, 254, 170, 2), port);
        let ids = claims(environment(variables.iter().copied(), endpoint));
        ids.iter().map(|id| id.expose().to_owned()).collect()
    }

    fn claimed(variables: &[(&str, &str)]) -> Vec<String> {
        claimed_at(80, variables)
    }

    fn task(task: &str, role_arn: Option<&str>) -> Option<String> {
        let name = Named::new(Some(task), role_arn).task(SourceKind::Docker)?;
        Some(name.as_str().to_owned())
    }

    #[test]
    fn ids_are_claimed_by_every_form_of_the_variables() {
        for (name, value) in [
            (RELATIVE, "/v2/credentials/one"),
            (RELATIVE, "/v1/credentials?id=one"),
            (FULL, "http://169.254.170.2/v2/credentials/one"),
            (FULL, "http://169.254.170.2:80/v2/credentials/one"),
            (FULL, "http://169.254.170.2/v1/credentials?id=one"),
        ] {
            assert_eq!(
                claimed(&[("PATH", "/bin"), (name, value), (name, value)]),
                ["one"],
                "{value}"
            );
        }
    }

    #[test]
    fn a_volumes_mount_leads_to_an_id() {
        let id = |options| mount(options).map(|id| id.expose().to_owned());
        let options = "tls,iam,awscredsuri=/v2/credentials/one,accesspoint=fsap-1";
        assert_eq!(id(options).as_deref(), Some("one"));
        for options in ["", "tls", "awscredsuri=", "x-awscredsuri=/v2/credentials/one"] {
            assert_eq!(id(options), None, "{options}");
        }
    }

    #[test]
    fn what_leads_elsewhere_claims_nothing() {
        for uri in [
            "http://169.254.170.23/v2/credentials/one",
            "http://169.254.170.2:8080/v2/credentials/one",
            "http://169.254.170.2:/v2/credentials/one",
            "http://169.254.170.2.example.com/v2/credentials/one",
            "http://169.254.170.2@example.com/v2/credentials/one",
            "https://169.254.170.2/v2/credentials/one",
            "http://localhost/v2/credentials/one",
            "http://127.0.0.1:9/v2/credentials/one",
            "/v2/credentials/one",
        ] {
            assert_eq!(claimed(&[(FULL, uri)]), [""; 0], "{uri}");
        }
        // What names no port leads to another one than the endpoint's.
        let uri = "http://169.254.170.2/v2/credentials/one";
        assert_eq!(claimed_at(8080, &[(FULL, uri)]), [""; 0]);
        let uri = "http://169.254.170.2:8080/v2/credentials/one";
        assert_eq!(claimed_at(8080, &[(FULL, uri)]), ["one"]);
    }

    #[test]
    fn what_is_no_id_is_not_claimed() {
        for path in [
            "",
            "/v2/credentials/",
            "/v2/credentials/self",
            "/v2/credentials/a/b",
            "/v2/credentials/a%62",
            "/x/v2/credentials/one",
            "/v1/credentials?id=",
            "/v1/credentials?id=a&b",
            "one",
            "/v4/one",
        ] {
            assert_eq!(claimed(&[(RELATIVE, path)]), [""; 0], "{path}");
        }
        assert_eq!(claimed(&[("OTHER", "/v2/credentials/one")]), [""; 0]);
    }

    #[test]
    fn a_long_environment_does_not_claim_more_than_a_few() {
        let values: Vec<_> = (0..100).map(|number| format!("/v2/credentials/{number}")).collect();
        let variables: Vec<_> = values.iter().map(|value| (RELATIVE, value.as_str())).collect();
        assert_eq!(claimed(&variables), ["0", "1", "2", "3"]);
    }

    #[test]
    fn containers_with_other_roles_do_not_share_a_task() {
        assert_eq!(task("shop", Some("arn:1")).as_deref(), Some("docker/task/shop@arn:1"));
        assert_ne!(task("shop", Some("arn:1")), task("shop", Some("arn:2")));
        assert_eq!(task("shop", None), None);
    }

    #[test]
    fn no_task_is_named_as_another_with_its_role() {
        let with_role = task("shop", Some("arn:1/a@b")).unwrap();
        assert_eq!(with_role, "docker/task/shop@arn:1/a@b");
        for (name, role) in [("shop@arn:1/a@b", None), ("shop@arn:1/a", Some("b"))] {
            assert_eq!(task(name, role), None, "{name}");
        }
    }

    #[test]
    fn what_people_could_not_read_names_nothing() {
        for name in ["", "a b", "a\u{1b}[2J", "ä", &"x".repeat(600)] {
            let named = Named::new(Some(name), Some(name));
            assert_eq!(named.task(SourceKind::Oci), None, "{name}");
            assert_eq!(named.role_arn(), None, "{name}");
        }
    }
}
