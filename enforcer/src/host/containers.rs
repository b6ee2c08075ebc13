//! What containers' cgroups look like, whatever engine made them. A name proves nothing: whoever may make cgroups can give
//! them any.

use std::ffi::OsStr;

/// Length of the IDs that engines give their containers.
const ID_LENGTH: usize = 64;

/// Whether that is a container's ID, in full.
#[must_use]
pub fn is_id(text: &[u8]) -> bool {
    text.len() == ID_LENGTH && text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether an engine may have given this name to a container's cgroup: it ends in a container's ID, whatever engine and
/// driver it is that puts something before.
#[must_use]
pub fn is_like_a_containers(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    let name = name.strip_suffix(b".scope").unwrap_or(name);
    let at = name.len().checked_sub(ID_LENGTH);
    let parts = at.and_then(|at| name.split_at_checked(at));
    parts.is_some_and(|(before, id)| is_id(id) && matches!(before, [] | [.., b'-' | b':']))
}

#[cfg(test)]
mod tests {
    use super::is_like_a_containers;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn whatever_engine_made_it_a_containers_cgroup_looks_like_one() {
        for name in [
            "ID",
            "docker-ID.scope",
            "libpod-ID",
            "libpod-payload-ID",
            "crio-ID.scope",
            "new-engine-ID.scope",
            "ID.scope",
            // Where the runtime and the engine do not agree on a driver.
            "kubepods-pod1.slice:cri-containerd:ID",
        ] {
            assert!(is_like_a_containers(name.replace("ID", ID).as_ref()), "{name}");
        }
        for name in ["", "init", "ssh.service", "xID", "IDx", "ID.service", "docker-1.scope"] {
            assert!(!is_like_a_containers(name.replace("ID", ID).as_ref()), "{name}");
        }
        assert!(!is_like_a_containers(ID.to_uppercase().as_ref()));
    }
}
