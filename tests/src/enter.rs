//! `lab enter`: puts itself into a cgroup and namespaces, then becomes another program.
//!
//! Doing this in a program of its own, after `exec` and with one thread, needs no unsafe code between `fork` and `exec`.

use std::{
    ffi::OsString,
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, anyhow};
use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::resource::{Resource, getrlimit, setrlimit},
};

use crate::cgroup;

/// Where a program is to run.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// Absolute path of the cgroup.
    #[arg(long)]
    pub cgroup: PathBuf,
    /// File of the network namespace.
    #[arg(long)]
    pub network: PathBuf,
    /// File of the mount namespace; without it, the caller's.
    #[arg(long)]
    pub mounts: Option<PathBuf>,
    /// The cgroup that is to look like the root of all; without it, the root does.
    #[arg(long)]
    pub hierarchy: Option<PathBuf>,
}

// === impl Place ===

impl Place {
    /// A command that runs `program` in this place. It gets a process group of its own, so that Ctrl-C on the terminal
    /// reaches only the lab, which then ends things in order.
    #[must_use]
    pub fn command(&self, lab: &Path, program: &Path) -> Command {
        let mut command = Command::new(lab);
        command
            .arg("enter")
            .arg("--cgroup")
            .arg(&self.cgroup)
            .arg("--network")
            .arg(&self.network);
        if let Some(mounts) = &self.mounts {
            command.arg("--mounts").arg(mounts);
        }
        if let Some(hierarchy) = &self.hierarchy {
            command.arg("--hierarchy").arg(hierarchy);
        }
        command.arg("--").arg(program).process_group(0);
        command
    }
}

/// Enters the place and runs the command line in it; returns only if that fails.
pub fn run(place: &Place, command_line: &[OsString]) -> Result<()> {
    let (program, arguments) = command_line.split_first().context("there is no program to run")?;
    if let Some(hierarchy) = &place.hierarchy {
        cgroup::join(hierarchy)?;
        unshare(CloneFlags::CLONE_NEWCGROUP).context("cannot unshare the view of cgroups; this needs root")?;
    }
    cgroup::join(&place.cgroup)?;
    let network = open(&place.network)?;
    let mounts = place.mounts.as_deref().map(open).transpose()?;
    setns(network, CloneFlags::CLONE_NEWNET).context("cannot enter the network namespace")?;
    if let Some(mounts) = mounts {
        setns(mounts, CloneFlags::CLONE_NEWNS).context("cannot enter the mount namespace")?;
    }
    if place.hierarchy.is_some() {
        cgroup::mount_alone()?;
    }
    raise_file_limit()?;
    let error = Command::new(program).args(arguments).exec();
    Err(anyhow!(error).context(format!("cannot run {}", Path::new(program).display())))
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("cannot open namespace {}", path.display()))
}

/// A service manager gives a daemon more descriptors than a shell does.
fn raise_file_limit() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the limit of open files")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("cannot raise the limit of open files")
}
