//! Cgroups: a subtree of the cgroup v2 hierarchy that dies as a whole.

use std::{
    fs,
    io::{ErrorKind, Read, Seek},
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use nix::{
    mount::{MntFlags, MsFlags, mount as mount_at, umount2},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, unshare},
};

/// How long killed processes may take to disappear.
const EXIT_DEADLINE_MS: u16 = 10_000;

/// Where the cgroup v2 hierarchy is mounted; on a hybrid host that is not `/sys/fs/cgroup`.
pub fn mount() -> Result<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    table
        .lines()
        .find_map(|line| {
            let (mount, filesystem) = line.split_once(" - ")?;
            filesystem.starts_with("cgroup2 ").then_some(())?;
            mount.split(' ').nth(4).map(PathBuf::from)
        })
        .context("no cgroup v2 hierarchy is mounted; mount one: mount -t cgroup2 none /sys/fs/cgroup")
}

/// Where everybody looks for cgroups; on a hybrid host other hierarchies are mounted there.
pub(crate) const USUAL: &str = "/sys/fs/cgroup";

/// Mounts the hierarchy where everybody looks for it, and no other, in a mount namespace of the calling process's own.
pub(crate) fn mount_alone() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot unshare mounts; this needs root")?;
    umount2(USUAL, MntFlags::MNT_DETACH).with_context(|| format!("cannot unmount {USUAL}"))?;
    let flags = MsFlags::empty();
    mount_at(Some("cgroup2"), USUAL, Some("cgroup2"), flags, None::<&str>)
        .with_context(|| format!("cannot mount cgroups at {USUAL}"))
}

/// Absolute path of the cgroup a process is in.
pub fn of_process(pid: u32) -> Result<PathBuf> {
    let file = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
    Ok(mount()?.join(path.with_context(|| format!("{file} names no cgroup: {text}"))?))
}

/// Makes a cgroup and its ancestors.
pub fn create(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot create cgroup {}", path.display()))
}

/// Moves the calling process into a cgroup.
pub fn join(path: &Path) -> Result<()> {
    let procs = path.join("cgroup.procs");
    fs::write(&procs, "0").with_context(|| format!("cannot join the cgroup by writing {}", procs.display()))
}

/// Kills every process in a subtree, waits until they are gone, and removes the subtree. One that is not there is fine.
pub fn destroy(path: &Path) -> Result<()> {
    match fs::write(path.join("cgroup.kill"), "1") {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        outcome => outcome.with_context(|| format!("cannot kill cgroup {}", path.display()))?,
    }
    await_empty(path)?;
    remove(path)
}

/// The kernel wakes pollers of `cgroup.events` when the last process of the subtree is gone.
fn await_empty(path: &Path) -> Result<()> {
    let name = path.join("cgroup.events");
    let mut events = fs::File::open(&name).with_context(|| format!("cannot open {}", name.display()))?;
    loop {
        let mut text = String::new();
        events.rewind().context("cannot rewind cgroup.events")?;
        events.read_to_string(&mut text).context("cannot read cgroup.events")?;
        if text.lines().any(|line| line == "populated 0") {
            return Ok(());
        }
        let mut watched = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
        if poll(&mut watched, PollTimeout::from(EXIT_DEADLINE_MS)).context("cannot poll cgroup.events")? == 0 {
            bail!("processes in {} survive being killed", path.display());
        }
    }
}

fn remove(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path).with_context(|| format!("cannot list cgroup {}", path.display()))? {
        let entry = entry.context("cannot list a cgroup")?;
        if entry.file_type().context("cannot inspect a cgroup")?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(path).with_context(|| format!("cannot remove cgroup {}", path.display()))
}
