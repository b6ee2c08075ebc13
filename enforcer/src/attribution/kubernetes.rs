//! Kubernetes: which pod a container is of. Pure.
//!
//! Who makes the cgroups of pods, the kubelet, names them by the pods' UIDs; who makes containers below them, a CRI
//! runtime or cri-dockerd, writes the pod's name, namespace and UID beside each. Both must agree: some runtimes pass what a
//! pod's author writes on to the same place. What they write themselves they write last, each under keys of its own; so
//! where there are the keys of two, an author may have written those of one, and they must say the same. And only root
//! chooses a cgroup: without the UID in its path, as under a kubelet that makes no cgroups for pods, nothing proves that
//! two containers are of one pod, and each is a task of its own.

use std::{borrow::Cow, path::Path};

use super::task::{Fact, TaskName};

/// Length of a pod's UID: a UUID in its usual form. That of a static pod is a hash of 32 digits.
const UID_LENGTHS: [usize; 2] = [36, 32];

/// The name every kubelet gives the cgroup all pods are below of, and what comes before it in a systemd slice's.
const PODS: &str = "kubepods";

/// Where a container runtime writes what.
struct Keys {
    name: &'static str,
    namespace: &'static str,
    uid: &'static str,
    container: &'static str,
}

/// What containerd's CRI service writes.
const CONTAINERD: Keys = Keys {
    name: "io.kubernetes.cri.sandbox-name",
    namespace: "io.kubernetes.cri.sandbox-namespace",
    uid: "io.kubernetes.cri.sandbox-uid",
    container: "io.kubernetes.cri.container-name",
};

/// What the kubelet has every runtime write; CRI-O makes annotations of it, and cri-dockerd labels.
const KUBELET: Keys = Keys {
    name: "io.kubernetes.pod.name",
    namespace: "io.kubernetes.pod.namespace",
    uid: "io.kubernetes.pod.uid",
    container: "io.kubernetes.container.name",
};

/// The pod a container is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod {
    namespace: String,
    name: String,
    uid: String,
    container: Option<String>,
}

/// What is written beside a container in the keys of one runtime.
struct Written<'a> {
    /// Namespace and name.
    names: [&'a str; 2],
    uid: Option<&'a str>,
    container: Option<&'a str>,
}

/// What is said of a container's pod is not so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotOfThisPod {
    /// It is in the cgroup of another.
    #[error("its annotations name another pod than its cgroup does")]
    OtherCgroup,
    /// It is in the cgroup of one.
    #[error("its annotations do not name the pod whose cgroup it is in")]
    Unnamed,
    /// It is written in two ways which do not agree.
    #[error("its annotations name two pods, and its author may have written one of them")]
    TwoPods,
    /// Nothing but its annotations tells which of those of its name it is.
    #[error("its cgroup does not tell the UID of its pod")]
    NoUid,
    /// A name or UID is none.
    #[error("its annotations name a pod that cannot be")]
    Malformed,
}

// === impl Keys ===

impl Keys {
    /// What is written in them, if it names a pod.
    fn read<'a>(&self, annotation: impl Fn(&str) -> Option<&'a str>) -> Option<Written<'a>> {
        Some(Written {
            names: [annotation(self.namespace)?, annotation(self.name)?],
            uid: annotation(self.uid),
            container: annotation(self.container),
        })
    }
}

// === impl Pod ===

impl Pod {
    /// The pod that a container's annotations or labels name, if any; it must be the one whose cgroup the container is in.
    pub(super) fn of<'a>(
        annotation: impl Fn(&str) -> Option<&'a str>,
        cgroup: &Path,
    ) -> Result<Option<Self>, NotOfThisPod> {
        let mut written = [&CONTAINERD, &KUBELET]
            .into_iter()
            .filter_map(|keys| keys.read(&annotation));
        let in_path = uid_of(cgroup);
        let Some(Written { names, uid, container }) = written.next() else {
            return in_path.map_or(Ok(None), |_| Err(NotOfThisPod::Unnamed));
        };
        // Old runtimes leave the UID out.
        let differs = |other: Option<&str>| other.zip(uid).is_some_and(|(other, uid)| other != uid);
        if written.any(|other| other.names != names || differs(other.uid)) {
            return Err(NotOfThisPod::TwoPods);
        }
        let uid = in_path.ok_or(NotOfThisPod::NoUid)?;
        if differs(Some(&uid)) {
            return Err(NotOfThisPod::OtherCgroup);
        }
        let [namespace, name] = names;
        if !is_name(namespace) || !is_name(name) {
            return Err(NotOfThisPod::Malformed);
        }
        Ok(Some(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: uid.into_owned(),
            container: container.filter(|name| is_name(name)).map(str::to_owned),
        }))
    }

    /// The task all containers of the pod are. The UID is what tells it from others of its name, before and after it.
    pub(super) fn task(&self) -> TaskName {
        TaskName::new(&format!("kubernetes/{}/{}/{}", self.namespace, self.name, self.uid))
    }

    /// What tells it from others of its name.
    pub(super) fn uid(&self) -> &str {
        &self.uid
    }

    /// Whether these are its namespace, name and UID, and this can be its service account.
    pub(super) fn is(&self, namespace: &str, name: &str, uid: &str, account: &str) -> bool {
        [namespace, name, uid] == [&*self.namespace, &*self.name, &*self.uid] && is_name(account)
    }

    /// What there is to tell people.
    pub(super) fn facts(self) -> impl Iterator<Item = (Fact, Box<str>)> {
        let container = self.container.map(|name| (Fact::Container, name.into()));
        [
            (Fact::Namespace, self.namespace.into()),
            (Fact::Pod, self.name.into()),
            (Fact::PodUid, self.uid.into()),
        ]
        .into_iter()
        .chain(container)
    }
}

/// The UID of the pod whose cgroup this is, or is below.
///
/// The cgroupfs driver makes `/kubepods/pod<uid>`, or with a class of service between them; the systemd driver
/// `/kubepods.slice/kubepods-pod<uid>.slice`, or with the class in the slice's name, and `_` in place of `-` in the UID.
/// Others may be above these: the kubelet can be given a root of its own, which the systemd driver has in all names.
fn uid_of(cgroup: &Path) -> Option<Cow<'_, str>> {
    let mut is_below_pods = false;
    for component in cgroup.components() {
        let name = component.as_os_str().to_str()?;
        let uid = if let Some(slice) = name.strip_suffix(".slice") {
            is_below_pods |= slice.split('-').any(|part| part == PODS);
            let uid = slice.rsplit_once("-pod").map(|(_, uid)| uid);
            uid.map(|uid| Cow::Owned(uid.replace('_', "-")))
        } else {
            is_below_pods |= name == PODS;
            name.strip_prefix("pod").map(Cow::Borrowed)
        };
        if let Some(uid) = uid
            && is_below_pods
            && is_uid(&uid)
        {
            return Some(uid);
        }
    }
    None
}

fn is_uid(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    UID_LENGTHS.contains(&text.len()) && text.bytes().all(plain)
}

/// Whether this can be the name of a pod, a namespace or a service account, none of which has a slash.
fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    !text.is_empty() && text.len() <= 253 && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{NotOfThisPod, Pod, uid_of};
    use crate::attribution::task::Fact;

    const UID: &str = "aaaa2b4a-f398-41c0-928b-049e1cc4ec40";
    const OTHER: &str = "bbbb2b4a-f398-41c0-928b-049e1cc4ec40";
    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// What kubelets and runtimes make of a pod.
    const LAYOUTS: [&str; 11] = [
        // The cgroupfs driver: guaranteed, burstable, best effort; containerd and cri-dockerd, then CRI-O.
        "/kubepods/podUID/ID",
        "/kubepods/burstable/podUID/ID",
        "/kubepods/besteffort/podUID/ID",
        "/kubepods/burstable/podUID/crio-ID",
        // The systemd driver: containerd, CRI-O, cri-dockerd.
        "/kubepods.slice/kubepods-podSLICE.slice/cri-containerd-ID.scope",
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podSLICE.slice/cri-containerd-ID.scope",
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podSLICE.slice/crio-ID.scope/container",
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podSLICE.slice/docker-ID.scope",
        // A kubelet in a container, as kind has it, and one with a root of its own.
        "/docker/ID/kubelet/kubepods/burstable/podUID/ID",
        "/system.slice/docker-ID.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podSLICE.slice/cri-containerd-ID.scope",
        "/mine/kubepods/podUID",
    ];

    fn path(layout: &str) -> String {
        let slice = UID.replace('-', "_");
        layout.replace("SLICE", &slice).replace("UID", UID).replace("ID", ID)
    }

    fn annotations<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<&'a str> {
        move |key| pairs.iter().find(|(name, _)| *name == key).map(|(_, value)| *value)
    }

    fn containerd<'a>(name: &'a str, uid: &'a str) -> [(&'a str, &'a str); 4] {
        [
            ("io.kubernetes.cri.sandbox-name", name),
            ("io.kubernetes.cri.sandbox-namespace", "shop"),
            ("io.kubernetes.cri.sandbox-uid", uid),
            ("io.kubernetes.cri.container-name", "app"),
        ]
    }

    #[test]
    fn every_layout_tells_the_pods_uid() {
        for layout in LAYOUTS {
            assert_eq!(uid_of(Path::new(&path(layout))).as_deref(), Some(UID), "{layout}");
        }
        let hash = "0123456789abcdef0123456789abcdef";
        assert_eq!(
            uid_of(Path::new(&format!("/kubepods/pod{hash}/x"))).as_deref(),
            Some(hash)
        );
    }

    #[test]
    fn what_only_looks_like_a_pods_cgroup_is_none() {
        for layout in [
            "/system.slice/podUID",
            "/podUID/kubepods/x",
            "/docker/ID/podUID",
            "/kubepodsx/podUID",
            "/kubepods/podUIDx",
            "/kubepods/xpodUID",
            "/system.slice/notkubepods-podSLICE.slice/x",
        ] {
            assert_eq!(uid_of(Path::new(&path(layout))), None, "{layout}");
        }
    }

    #[test]
    fn all_containers_of_a_pod_are_one_task() {
        let said = containerd("web-0", UID);
        let sandbox = said.get(..3).unwrap();
        let cgroup = path("/kubepods/podUID/ID");
        let of = |said| Pod::of(annotations(said), Path::new(&cgroup)).unwrap().unwrap();
        let (app, sandbox) = (of(&said), of(sandbox));
        assert_eq!(app.task().as_str(), format!("kubernetes/shop/web-0/{UID}"));
        assert_eq!(app.task(), sandbox.task());
        assert_ne!(app, sandbox);
    }

    #[test]
    fn what_the_kubelet_has_runtimes_write_is_known_too() {
        let said = [
            ("io.kubernetes.pod.name", "segfaulter"),
            ("io.kubernetes.pod.namespace", "default"),
            ("io.kubernetes.pod.uid", UID),
            ("io.kubernetes.cri-o.ContainerType", "sandbox"),
        ];
        let pod = Pod::of(annotations(&said), Path::new(&path(LAYOUTS[6])))
            .unwrap()
            .unwrap();
        assert_eq!(pod.task().as_str(), format!("kubernetes/default/segfaulter/{UID}"));
    }

    #[test]
    fn two_pods_of_one_name_are_two_tasks() {
        let of = |uid| {
            let said = containerd("web-0", uid);
            Pod::of(annotations(&said), Path::new(&format!("/kubepods/pod{uid}/x")))
                .unwrap()
                .unwrap()
        };
        assert_ne!(of(UID).task(), of(OTHER).task());
    }

    #[test]
    fn a_pod_in_the_cgroup_of_another_is_not_believed() {
        let said = containerd("web-0", OTHER);
        let cgroup = path("/kubepods/podUID/ID");
        assert_eq!(
            Pod::of(annotations(&said), Path::new(&cgroup)),
            Err(NotOfThisPod::OtherCgroup)
        );
    }

    #[test]
    fn names_that_would_pass_for_others_are_not_believed() {
        for name in ["", "web/0", "a b", "../x", "Web"] {
            let (said, cgroup) = (containerd(name, UID), path(LAYOUTS[0]));
            let pod = Pod::of(annotations(&said), Path::new(&cgroup));
            assert_eq!(pod, Err(NotOfThisPod::Malformed), "{name}");
        }
        assert_eq!(Pod::of(annotations(&[]), Path::new("/x")), Ok(None));
    }

    #[test]
    fn what_is_in_a_pods_cgroup_is_of_a_pod_whatever_it_says() {
        let cgroup = path("/kubepods/podUID/ID");
        assert_eq!(
            Pod::of(annotations(&[]), Path::new(&cgroup)),
            Err(NotOfThisPod::Unnamed)
        );
    }

    #[test]
    fn where_a_runtime_leaves_the_uid_out_the_cgroup_tells_it() {
        let said = containerd("web-0", UID);
        let without = [said[0], said[1]];
        let pod = Pod::of(annotations(&without), Path::new(&path(LAYOUTS[0])))
            .unwrap()
            .unwrap();
        assert_eq!(pod.task().as_str(), format!("kubernetes/shop/web-0/{UID}"));
    }

    #[test]
    fn annotations_alone_make_no_containers_one_task() {
        let said = containerd("web-0", UID);
        for said in [&said[..], &said[..2]] {
            let pod = Pod::of(annotations(said), Path::new("/system.slice/x"));
            assert_eq!(pod, Err(NotOfThisPod::NoUid));
        }
    }

    #[test]
    fn where_two_runtimes_keys_are_they_name_one_pod() {
        let of_author = containerd("etcd", UID);
        let of_runtime = |name| {
            [
                ("io.kubernetes.pod.name", name),
                ("io.kubernetes.pod.namespace", "shop"),
                ("io.kubernetes.pod.uid", UID),
                ("io.kubernetes.container.name", "app"),
            ]
        };
        let cgroup = path(LAYOUTS[6]);
        let of = |author: &[_], runtime| {
            let said = [author, &of_runtime(runtime)].concat();
            let pod = Pod::of(annotations(&said), Path::new(&cgroup));
            pod.map(|pod| pod.unwrap().task().as_str().to_owned())
        };
        for other in [&of_author, &containerd("web-0", OTHER)] {
            assert_eq!(of(other, "web-0"), Err(NotOfThisPod::TwoPods));
        }
        assert_eq!(of(&of_author, "etcd").unwrap(), format!("kubernetes/shop/etcd/{UID}"));
        // What names no pod is nothing.
        let name_only = &of_author[..1];
        assert_eq!(of(name_only, "web-0").unwrap(), format!("kubernetes/shop/web-0/{UID}"));
    }

    #[test]
    fn a_containers_name_that_is_none_is_not_told() {
        let cgroup = path(LAYOUTS[0]);
        let [name, namespace, uid, _] = containerd("web-0", UID);
        let said = [name, namespace, uid, ("io.kubernetes.cri.container-name", "a\u{1b}[2J")];
        let pod = Pod::of(annotations(&said), Path::new(&cgroup)).unwrap().unwrap();
        assert!(pod.facts().all(|(fact, _)| fact != Fact::Container));
    }
}
