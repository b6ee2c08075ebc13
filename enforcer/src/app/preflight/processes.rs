//! Guarded processes that may write packets by hand: what socket hooks do not see.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use enforcer_common::cgroup::CgroupClass;
use procfs::process::{FDTarget, Process};

use super::{Outcome, Problem, cgroups};
use crate::{app::kernel, config::Config};

/// `CAP_NET_ADMIN` and `CAP_NET_RAW`, as bits of a capability set.
const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;

/// Guarded processes with capabilities that let them write packets or change their network.
pub(super) fn capabilities(config: &Config) -> Outcome {
    let (mut raw, mut admin) = (0, 0);
    for process in guarded(config)? {
        let effective = process.status().map_or(0, |status| status.capeff);
        raw += usize::from(effective & NET_RAW != 0);
        admin += usize::from(effective & NET_ADMIN != 0);
    }
    if raw + admin == 0 {
        return Ok("no guarded process holds NET_RAW or NET_ADMIN".to_owned());
    }
    Err(Problem::new(
        format!("{raw} guarded processes hold CAP_NET_RAW, {admin} CAP_NET_ADMIN: they can write packets by hand"),
        "the packet hooks hold against that; still, drop the capabilities where they are not needed (--cap-drop NET_RAW)",
    )
    .warn())
}

/// Guarded processes with packet sockets that are older than the hook on their options.
pub(super) fn packet_sockets(config: &Config) -> Outcome {
    let mut known: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    let mut holders = Vec::new();
    for process in guarded(config)? {
        let Ok(namespace) = fs::metadata(format!("/proc/{}/ns/net", process.pid)) else {
            continue;
        };
        let sockets = known
            .entry(namespace.ino())
            .or_insert_with(|| packet_sockets_seen_by(process.pid));
        let holds = |target: FDTarget| matches!(target, FDTarget::Socket(inode) if sockets.contains(&inode));
        if !sockets.is_empty()
            && let Ok(mut descriptors) = process.fd()
            && descriptors.any(|descriptor| descriptor.is_ok_and(|descriptor| holds(descriptor.target)))
        {
            holders.push(process.pid.to_string());
        }
    }
    if holders.is_empty() {
        return Ok("no guarded process has a packet socket".to_owned());
    }
    Err(Problem::new(
        format!("guarded processes with packet sockets: {}", holders.join(", ")),
        "where they were opened before the enforcer was first started, restart these containers: such a socket may go past \
         the packet hooks of devices inside a container (PACKET_QDISC_BYPASS)",
    )
    .warn())
}

/// Inode numbers of the packet sockets in a process's network namespace.
fn packet_sockets_seen_by(pid: i32) -> BTreeSet<u64> {
    let table = fs::read_to_string(format!("/proc/{pid}/net/packet")).unwrap_or_default();
    let inode = |line: &str| line.split_whitespace().last()?.parse().ok();
    table.lines().skip(1).filter_map(inode).collect()
}

fn guarded(config: &Config) -> Result<impl Iterator<Item = Process>, Problem> {
    let processes = procfs::process::all_processes().map_err(|error| Problem::told(&error).warn())?;
    let tree = cgroups(config)?;
    let own = tree.own().map_err(|error| Problem::told(&error).warn())?;
    let rules = kernel::rules(config, &own);
    let root = config
        .cgroups
        .root
        .as_deref()
        .unwrap_or_else(|| tree.mount())
        .to_owned();
    let is_guarded = move |cgroup: &Path| {
        tree.absolute(cgroup).starts_with(&root) && rules.treatment(cgroup).class == CgroupClass::Guarded
    };
    Ok(processes.flatten().filter(move |process| {
        let cgroups = process.cgroups().into_iter().flatten();
        let mut unified = cgroups.filter(|cgroup| cgroup.hierarchy == 0);
        // A kernel thread never asks for credentials.
        let is_user = process.exe().is_ok();
        is_user && unified.any(|cgroup| is_guarded(Path::new(&cgroup.pathname)))
    }))
}
