//! `lab engine`: makes the mounts a container engine expects, in a mount namespace of its own, and becomes the engine.

use std::{ffi::OsString, os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result, anyhow};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

/// Where engines look for cgroups; on a hybrid host other hierarchies are mounted there.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Runs the command line; returns only if that fails.
pub fn run(command_line: &[OsString]) -> Result<()> {
    let (program, arguments) = command_line.split_first().context("there is no engine to run")?;
    unshare(CloneFlags::CLONE_NEWNS).context("cannot unshare mounts; this needs root")?;
    umount2(CGROUPS, MntFlags::MNT_DETACH).with_context(|| format!("cannot unmount {CGROUPS}"))?;
    mount(
        Some("cgroup2"),
        CGROUPS,
        Some("cgroup2"),
        MsFlags::empty(),
        None::<&str>,
    )
    .with_context(|| format!("cannot mount cgroups at {CGROUPS}"))?;
    let error = Command::new(program).args(arguments).exec();
    Err(anyhow!(error).context(format!("cannot run {}", program.display())))
}
