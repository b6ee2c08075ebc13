//! From a container's configuration to what the source says of it. Pure.

use std::{net::SocketAddrV4, path::Path};

use jiff::Timestamp;

use super::runtime::Spec;
use crate::attribution::{
    kubernetes::{NotOfThisPod, Pod},
    source::told::{self, Believed, Named, ROLE_ARN, TASK},
    task::{Cgroup, Entry, Fact, SourceKind, TaskName},
};

/// A container, besides its configuration.
pub(super) struct Container<'a> {
    /// What the source calls it.
    pub(super) id: String,
    /// What those who made it call it, after the namespace if there are any.
    pub(super) name: &'a str,
    /// The task it is if nobody names one.
    pub(super) own_task: TaskName,
    pub(super) cgroup: &'a Path,
    pub(super) cgroup_id: u64,
    pub(super) created: Timestamp,
    /// Where it asks for credentials.
    pub(super) endpoint: SocketAddrV4,
    /// Whether Podman made it.
    pub(super) is_podmans: bool,
    /// Whose annotations count.
    pub(super) believed: Believed,
}

/// What the source says of a container. `account` tells the service account of a pod.
pub(super) fn entry(container: &Container<'_>, spec: &Spec, account: impl Fn(&Pod) -> Option<String>) -> Entry {
    let annotation = |key: &str| spec.annotation(key);
    let pod = Pod::of(annotation, container.cgroup);
    // Who may make pods is not root: what their annotations say counts only where that is wanted.
    let is_believed = match pod {
        Ok(None) if container.is_podmans => container.believed.podman,
        Ok(None) => container.believed.containers,
        Ok(Some(_)) | Err(_) => container.believed.pods,
    };
    let believed = |key: &str| annotation(key).filter(|_| is_believed);
    let named = Named::new(believed(TASK), believed(ROLE_ARN));
    let (task, facts): (_, Vec<_>) = match pod {
        Ok(Some(pod)) => {
            let account = account(&pod).map(|name| (Fact::ServiceAccount, name.into()));
            (Some(pod.task()), pod.facts().chain(account).collect())
        }
        Ok(None) => (
            named.task(SourceKind::Oci),
            vec![(Fact::Container, container.name.into())],
        ),
        Err(NotOfThisPod::NoUid | NotOfThisPod::Unnamed) => (None, vec![(Fact::Container, container.name.into())]),
        Err(problem @ (NotOfThisPod::OtherCgroup | NotOfThisPod::TwoPods | NotOfThisPod::Malformed)) => {
            (None, vec![(Fact::Forged, problem.to_string().into())])
        }
    };
    Entry {
        id: container.id.as_str().into(),
        task: task.unwrap_or_else(|| container.own_task.clone()),
        cgroups: [Cgroup {
            path: container.cgroup.into(),
            id: Some(container.cgroup_id),
        }]
        .into(),
        created: container.created,
        credential_ids: told::claims(told::environment(spec.environment(), container.endpoint)),
        execution_ids: [].into(),
        role_arn: named.role_arn(),
        facts: facts.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv4Addr, SocketAddrV4},
        path::Path,
    };

    use jiff::Timestamp;

    use super::{Container, entry};
    use crate::attribution::{
        source::{oci::runtime::Spec, told::Believed},
        task::{Entry, Fact, TaskName},
    };

    const UID: &str = "aaaa2b4a-f398-41c0-928b-049e1cc4ec40";

    const NOBODY: Believed = Believed {
        containers: false,
        podman: false,
        pods: false,
    };
    const CONTAINERS: Believed = Believed {
        containers: true,
        ..NOBODY
    };
    const ALL: Believed = Believed {
        containers: true,
        podman: true,
        pods: true,
    };

    fn said(cgroup: &str, believed: Believed, annotations: &str) -> Entry {
        said_of(false, cgroup, believed, annotations)
    }

    fn said_of(is_podmans: bool, cgroup: &str, believed: Believed, annotations: &str) -> Entry {
        let text = format!(
            r#"{{"process":{{"env":["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=/v2/credentials/one"]}},"annotations":{{{annotations}}}}}"#
        );
        let container = Container {
            id: "/bundle/config.json".to_owned(),
            name: "default/web",
            own_task: TaskName::new("oci/container/default/web"),
            cgroup: Path::new(cgroup),
            cgroup_id: 7,
            created: Timestamp::UNIX_EPOCH,
            endpoint: SocketAddrV4::new(Ipv4Addr::new(169, 254, 170, 2), 80),
            is_podmans,
            believed,
        };
        entry(&container, &Spec::parse(text.as_bytes()).unwrap(), |_| {
            Some("checkout".to_owned())
        })
    }

    fn pod(annotations: &str) -> String {
        let names = r#""io.kubernetes.cri.sandbox-name":"web-0","io.kubernetes.cri.sandbox-namespace":"shop""#;
        format!(r#"{names},"io.kubernetes.cri.sandbox-uid":"{UID}"{annotations}"#)
    }

    #[test]
    fn annotations_name_task_and_role() {
        let annotations = r#""enforcer.role-arn":"arn","enforcer.task":"web""#;
        let entry = said("/web", NOBODY, annotations);
        assert_eq!(
            (entry.task.as_str(), entry.role_arn),
            ("oci/container/default/web", None)
        );
        let entry = said("/web", CONTAINERS, annotations);
        assert_eq!(entry.task.as_str(), "oci/task/web@arn");
        assert_eq!(entry.role_arn.as_deref(), Some("arn"));
        assert_eq!(entry.credential_ids.len(), 1);
        assert_eq!(entry.cgroups[0].id, Some(7));
    }

    #[test]
    fn without_annotations_the_task_is_named_as_the_container() {
        let entry = said("/web", CONTAINERS, "");
        assert_eq!(
            (entry.task.as_str(), entry.role_arn),
            ("oci/container/default/web", None)
        );
    }

    #[test]
    fn an_image_chooses_no_role_where_its_annotations_may_be_among_the_containers() {
        for (believed, role) in [(CONTAINERS, None), (ALL, Some("arn"))] {
            let entry = said_of(true, "/web", believed, r#""enforcer.role-arn":"arn""#);
            assert_eq!(entry.role_arn.as_deref(), role);
            assert_eq!(entry.credential_ids.len(), 1);
        }
    }

    #[test]
    fn a_pods_author_chooses_a_role_only_where_that_is_wanted() {
        let cgroup = format!("/kubepods/pod{UID}/x");
        let annotations = pod(r#","enforcer.role-arn":"arn","enforcer.task":"other""#);
        let task = format!("kubernetes/shop/web-0/{UID}");
        for (believed, role) in [(CONTAINERS, None), (ALL, Some("arn"))] {
            let entry = said(&cgroup, believed, &annotations);
            assert_eq!((entry.task.as_str(), entry.role_arn.as_deref()), (&*task, role));
            assert!(entry.facts.contains(&(Fact::ServiceAccount, "checkout".into())));
        }
    }

    #[test]
    fn where_cgroups_do_not_tell_pods_no_annotations_make_two_containers_one_task() {
        let entry = said("/x", CONTAINERS, &pod(r#","enforcer.role-arn":"arn""#));
        assert_eq!(
            (entry.task.as_str(), entry.role_arn),
            ("oci/container/default/web", None)
        );
        assert_eq!(*entry.facts, [(Fact::Container, "default/web".into())]);
    }

    #[test]
    fn a_pod_that_is_another_is_named_as_the_container_and_marked() {
        let cgroup = format!("/kubepods/pod{}/x", UID.replace('a', "b"));
        let entry = said(&cgroup, CONTAINERS, &pod(r#","enforcer.role-arn":"arn""#));
        assert_eq!(
            (entry.task.as_str(), entry.role_arn),
            ("oci/container/default/web", None)
        );
        assert_eq!(entry.facts[0].0, Fact::Forged);
    }
}
