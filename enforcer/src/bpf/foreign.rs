//! Programs of others at the same attach points: who is in our way, and who comes after us.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
};

use super::{BpfError, error::file_error};
use crate::sys::bpf::{ALLOW_MULTIPLE, ALLOW_OVERRIDE, Attached, open_program, program_info, query};

/// Our hooks' attach types on cgroups (`enum bpf_attach_type` of linux/bpf.h).
const CGROUP_HOOKS: [(&str, u32); 10] = [
    ("egress", 1),
    ("sock_create", 2),
    ("sock_ops", 3),
    ("bind4", 8),
    ("bind6", 9),
    ("connect4", 10),
    ("connect6", 11),
    ("sendmsg4", 14),
    ("sendmsg6", 15),
    ("setsockopt", 22),
];

/// Our hooks' attach types on devices, Linux 6.6 and newer.
const DEVICE_HOOKS: [(&str, u32); 2] = [("tcx/ingress", 46), ("tcx/egress", 47)];

/// A program of somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Our hook it shares.
    pub hook: &'static str,
    /// The cgroup, or the device's name.
    pub at: PathBuf,
    /// The kernel's number.
    pub id: u32,
    /// Its name, cut off at 15 bytes.
    pub name: String,
    /// User ID of who loaded it.
    pub owner: u32,
    /// What it means for us.
    pub position: Position,
}

/// Where a program of somebody else stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// It was attached in a way that lets nobody else in.
    Excluding,
    /// It runs before our hook.
    Before,
    /// It runs after our hook.
    After,
}

/// The programs of others on the cgroup that hooks attach to and on its ancestors up to the cgroup2 `mount`. `ours` are the
/// numbers of our own programs.
///
/// Programs run from the deepest cgroup up and in the order of their attachment, so those of descendants come before our
/// hooks; they exclude nobody above.
pub fn on_cgroups(root: &Path, mount: &Path, ours: &BTreeSet<u32>) -> Result<Vec<Foreign>, BpfError> {
    let mut found = Vec::new();
    for cgroup in root.ancestors().take_while(|path| path.starts_with(mount)) {
        let opened = File::open(cgroup).map_err(|source| file_error("open cgroup", cgroup, source))?;
        let descriptor = opened.as_raw_fd().unsigned_abs();
        for (hook, attach_type) in CGROUP_HOOKS {
            let attached = query(descriptor, attach_type)
                .map_err(|source| file_error("query the programs of cgroup", cgroup, source))?;
            let excludes = excludes(&attached, cgroup == root);
            let before = if cgroup == root {
                Position::Before
            } else {
                Position::After
            };
            found.extend(others(&attached, ours, before).map(|(program, position)| {
                let position = if excludes { Position::Excluding } else { position };
                describe(hook, cgroup, program, position)
            }));
        }
    }
    Ok(found)
}

/// The program that keeps one of our hooks out of a cgroup: it sits there or above and does not share.
pub(super) fn excluding(hook: &str, root: &Path) -> Option<Foreign> {
    let is_cgroup = |path: &&Path| path.join("cgroup.procs").exists();
    let mount = root.ancestors().take_while(is_cgroup).last()?;
    let found = on_cgroups(root, mount, &BTreeSet::new()).ok()?;
    found
        .into_iter()
        .find(|program| program.hook == hook && program.position == Position::Excluding)
}

/// The programs of others on a device of the calling thread's network namespace. Empty on kernels without tcx.
pub fn on_device(index: u32, name: &str, ours: &BTreeSet<u32>) -> Result<Vec<Foreign>, BpfError> {
    let mut found = Vec::new();
    for (hook, attach_type) in DEVICE_HOOKS {
        let attached = match query(index, attach_type) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            attached => {
                attached.map_err(|source| file_error("query the programs of device", Path::new(name), source))?
            }
        };
        // Where ours is not attached yet, it will come first.
        let before = if attached.program_ids.iter().any(|id| ours.contains(id)) {
            Position::Before
        } else {
            Position::After
        };
        let others = others(&attached, ours, before);
        found.extend(others.map(|(program, position)| describe(hook, Path::new(name), program, position)));
    }
    Ok(found)
}

/// Whether nobody else gets in beside, or below, what is attached.
fn excludes(attached: &Attached, is_same_cgroup: bool) -> bool {
    let shares = attached.flags & ALLOW_MULTIPLE != 0 || (!is_same_cgroup && attached.flags & ALLOW_OVERRIDE != 0);
    !attached.program_ids.is_empty() && !shares
}

/// The programs that are not ours, with their position: `before` until ours comes.
fn others(attached: &Attached, ours: &BTreeSet<u32>, before: Position) -> impl Iterator<Item = (u32, Position)> {
    let mut position = before;
    attached.program_ids.iter().filter_map(move |id| {
        if ours.contains(id) {
            position = Position::After;
            return None;
        }
        Some((*id, position))
    })
}

/// A program that is gone meanwhile has no name.
fn describe(hook: &'static str, at: &Path, id: u32, position: Position) -> Foreign {
    let info = open_program(id).and_then(|program| program_info(program.as_fd())).ok();
    let (name, owner) = info.map_or_else(Default::default, |info| (info.name, info.owner));
    Foreign {
        hook,
        at: at.to_owned(),
        id,
        name,
        owner,
        position,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{ALLOW_MULTIPLE, ALLOW_OVERRIDE, Attached, Position, excludes, others};

    fn attached(flags: u32) -> Attached {
        Attached {
            program_ids: vec![1, 2, 3],
            flags,
        }
    }

    #[test]
    fn whoever_comes_after_ours_may_change_what_ours_has_judged() {
        let attached = attached(ALLOW_MULTIPLE);
        let found: Vec<_> = others(&attached, &BTreeSet::from([2]), Position::Before).collect();
        assert_eq!(found, [(1, Position::Before), (3, Position::After)]);
    }

    #[test]
    fn only_a_program_that_shares_lets_ours_in() {
        for (flags, beside, below) in [
            (0, true, true),
            (ALLOW_OVERRIDE, true, false),
            (ALLOW_MULTIPLE, false, false),
        ] {
            let attached = attached(flags);
            assert_eq!([excludes(&attached, true), excludes(&attached, false)], [beside, below]);
        }
    }
}
