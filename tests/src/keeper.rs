//! The keeper: a child process that holds the scene's namespaces, and takes the scene down when its parent is gone.
//!
//! Its standard input is a pipe from the parent. However the parent ends, the pipe closes, and the keeper kills and
//! removes the scene's cgroups. Files live in mounts of the keeper's namespace and end with it, so that nothing of a
//! scene is left on the machine even after `kill -9` of the test.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::setsid,
};

use crate::{cgroup, namespace::NetNs};

/// Directories of the host that a scene has to itself, empty at first.
const PRIVATE_DIRECTORIES: [&str; 4] = ["/run", "/etc", "/var/lib", "/var/log"];
/// Where a scene sees the directory of the programs under test, which may lie below a private one.
const PROGRAMS: &str = "/run/programs";

/// The parent's side.
#[derive(Debug)]
pub struct Keeper {
    process: Child,
    cgroup: PathBuf,
}

// === impl Keeper ===

impl Keeper {
    /// Starts a keeper for the cgroup subtree at `cgroup`, which it makes. `programs` is what the scene sees as
    /// [`Self::program`].
    pub fn start(lab: &Path, cgroup: &Path, programs: &Path) -> Result<Self> {
        let mut process = Command::new(lab)
            .arg("keeper")
            .args([cgroup, programs])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {} keeper", lab.display()))?;
        let mut output = process.stdout.take().context("the keeper has no output")?;
        let keeper = Self {
            process,
            cgroup: cgroup.to_owned(),
        };
        output
            .read_exact(&mut [0])
            .context("the keeper failed; it said why on standard error. Labs need root and cgroup v2")?;
        Ok(keeper)
    }

    /// The host's network namespace.
    pub fn network(&self) -> Result<NetNs> {
        NetNs::of_process(self.process.id())
    }

    /// The mount namespace, to enter.
    #[must_use]
    pub fn mounts(&self) -> PathBuf {
        format!("/proc/{}/ns/mnt", self.process.id()).into()
    }

    /// How to reach, from here, an absolute path of the scene.
    #[must_use]
    pub fn path(&self, inside: &str) -> PathBuf {
        format!("/proc/{}/root{inside}", self.process.id()).into()
    }

    /// A program under test, as the scene sees it.
    #[must_use]
    pub fn program(name: &str) -> PathBuf {
        Path::new(PROGRAMS).join(name)
    }

    /// The command that gives a person a shell in the scene.
    #[must_use]
    pub fn shell_command(&self) -> String {
        format!("nsenter --target {} --net --mount", self.process.id())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let ended = self.process.wait().map(|status| status.success());
        // The keeper may have been killed itself.
        if !matches!(ended, Ok(true))
            && let Err(error) = cgroup::destroy(&self.cgroup)
        {
            eprintln!("lab: {error:#}");
        }
    }
}

/// The child's side: `lab keeper CGROUP PROGRAMS`.
pub fn run(cgroup: &Path, programs: &Path) -> Result<()> {
    // Ctrl-C goes to the terminal's foreground process group; a session of its own is not in it.
    setsid().context("cannot start a session")?;
    cgroup::create(cgroup)?;
    let outcome = enter_private_world(programs).and_then(|()| await_parent());
    // Whatever happened, what was made goes.
    cgroup::destroy(cgroup)?;
    outcome
}

fn enter_private_world(programs: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
        .context("cannot unshare namespaces; this needs root")?;
    // Private first: nothing mounted from here on may appear on the machine.
    mount_at("/", None, None, MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    // The descriptor reaches the programs even when a private directory hides their path.
    let programs = File::open(programs).with_context(|| format!("cannot open {}", programs.display()))?;
    for directory in PRIVATE_DIRECTORIES {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {directory}"))?;
        mount_at(directory, None, Some("tmpfs"), MsFlags::empty())?;
    }
    fs::create_dir(PROGRAMS).with_context(|| format!("cannot create {PROGRAMS}"))?;
    let source = format!("/proc/self/fd/{}", programs.as_raw_fd());
    mount_at(PROGRAMS, Some(&source), None, MsFlags::MS_BIND)?;
    mount_at("/sys/fs/bpf", None, Some("bpf"), MsFlags::empty())
}

fn mount_at(target: &str, source: Option<&str>, filesystem: Option<&str>, flags: MsFlags) -> Result<()> {
    mount(source, target, filesystem, flags, None::<&str>).with_context(|| format!("cannot mount at {target}"))
}

/// Says that the scene is ready, then waits for the parent to end.
fn await_parent() -> Result<()> {
    let mut output = io::stdout();
    output.write_all(b"+").context("cannot report to the parent")?;
    output.flush().context("cannot report to the parent")?;
    io::stdin()
        .read_to_end(&mut Vec::new())
        .context("cannot wait for the parent")?;
    Ok(())
}
