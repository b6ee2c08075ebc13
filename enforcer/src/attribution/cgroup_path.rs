//! What a cgroup's path says about the container it may be of. Pure.
//!
//! A path proves nothing: whoever may make cgroups can give them any name. What is found here are only container IDs to
//! ask the sources for; they answer with the cgroup their own state gives such a container, and only what is at or below
//! that very cgroup belongs to it.

use std::{fmt, path::Path, sync::Arc};

use crate::host::containers::is_id;

/// What engines and runtimes with the systemd cgroup driver begin a scope's name with.
const SCOPES: [&str; 6] = ["docker-", "cri-containerd-", "crio-", "libpod-", "nerdctl-", "runc-"];

/// A container's ID; cheap to copy.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(Arc<str>);

/// The ID of no container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a container ID is 64 characters out of 0-9 and a-f")]
pub struct InvalidContainerId;

// === impl ContainerId ===

impl ContainerId {
    /// An ID in full.
    pub fn parse(text: &str) -> Result<Self, InvalidContainerId> {
        is_id(text.as_bytes())
            .then(|| Self(text.into()))
            .ok_or(InvalidContainerId)
    }

    /// The ID as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The containers that a cgroup may be of, outermost first. A nested engine's containers come after the one it runs in.
pub(super) fn candidates(path: &Path) -> impl Iterator<Item = ContainerId> + '_ {
    path.components().filter_map(|component| {
        let name = component.as_os_str().to_str()?;
        let id = name.strip_suffix(".scope").map_or(name, |scope| {
            let prefix = SCOPES.iter().find_map(|prefix| scope.strip_prefix(prefix));
            prefix.unwrap_or_default()
        });
        ContainerId::parse(id).ok()
    })
}

/// Where systemd puts a unit: slices are nested by the dashes in their names, `a-b.slice` in `a.slice`. `None` if that is
/// no name of a slice.
#[must_use]
pub(super) fn slice(name: &str) -> Option<String> {
    let stem = name.strip_suffix(".slice")?;
    if stem == "-" {
        return Some(String::new());
    }
    if stem.is_empty() || name.contains('/') || stem.split('-').any(str::is_empty) {
        return None;
    }
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    Some(ends.fold(String::new(), |path, end| {
        let (slice, _) = stem.split_at(end);
        format!("{path}/{slice}.slice")
    }))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{candidates, slice};

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const INNER: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";

    fn found(path: &str) -> Vec<String> {
        candidates(Path::new(path)).map(|id| id.as_str().to_owned()).collect()
    }

    #[test]
    fn every_drivers_names_are_found() {
        for path in [
            "/docker/ID",
            "/system.slice/docker-ID.scope",
            "/ecs/0123/ID",
            "/ecstasks.slice/ecstasks-0123.slice/docker-ID.scope/init",
            "/kubepods/burstable/pod1/ID",
            "/kubepods.slice/kubepods-pod1.slice/cri-containerd-ID.scope",
            "/kubepods.slice/kubepods-pod1.slice/crio-ID.scope",
            "/machine.slice/libpod-ID.scope/container",
            "/default/ID",
        ] {
            assert_eq!(found(&path.replace("ID", ID)), [ID], "{path}");
        }
    }

    #[test]
    fn nested_containers_come_after_the_outer_one() {
        assert_eq!(found(&format!("/docker/{ID}/docker/{INNER}")), [ID, INNER]);
    }

    #[test]
    fn what_only_looks_like_one_is_none() {
        for path in [
            "/system.slice/ssh.service",
            "/docker/ID0",
            "/docker/xID",
            "/system.slice/fake-ID.scope",
            "/system.slice/docker-ID.service",
            "/system.slice/ID.scope",
        ] {
            assert_eq!(found(&path.replace("ID", ID)), [""; 0], "{path}");
        }
        assert_eq!(found(&format!("/docker/{}", ID.to_uppercase())), [""; 0]);
    }

    #[test]
    fn slices_are_nested_by_their_dashes() {
        assert_eq!(
            slice("ecstasks-a-b.slice").unwrap(),
            "/ecstasks.slice/ecstasks-a.slice/ecstasks-a-b.slice"
        );
        assert_eq!(slice("system.slice").unwrap(), "/system.slice");
        assert_eq!(slice("-.slice").unwrap(), "");
        for name in ["", "a", ".slice", "a--b.slice", "-a.slice", "a/b.slice", "a-.slice"] {
            assert_eq!(slice(name), None, "{name}");
        }
    }
}
