//! Network namespaces held by a descriptor: no name, no mount, gone with the last one who uses them.

use std::{
    fs::{self, File},
    os::{
        fd::{AsRawFd, RawFd},
        unix::fs::MetadataExt,
    },
    panic,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result};
use nix::{
    ifaddrs::getifaddrs,
    sched::{CloneFlags, setns, unshare},
};

/// A network namespace that lives at least as long as this.
#[derive(Debug)]
pub struct NetNs {
    file: File,
}

// === impl NetNs ===

impl NetNs {
    /// Makes a namespace with nothing but a loopback device that is down.
    pub fn try_new() -> Result<Self> {
        on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace; this needs root")?;
            Self::open(Path::new("/proc/thread-self/ns/net"))
        })
    }

    /// The namespace a process is in.
    pub fn of_process(pid: u32) -> Result<Self> {
        Self::open(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// The namespace that a thread of a process is in, but not the process's first one.
    pub fn of_other_thread(pid: u32) -> Result<Self> {
        let first = fs::metadata(format!("/proc/{pid}/ns/net"))
            .context("the process is gone")?
            .ino();
        let threads = fs::read_dir(format!("/proc/{pid}/task")).context("the process is gone")?;
        let namespaces = threads.map_while(Result::ok).map(|thread| thread.path().join("ns/net"));
        let other = namespaces
            .filter(|path| fs::metadata(path).is_ok_and(|file| file.ino() != first))
            .last();
        Self::open(&other.context("every thread is where the process is")?)
    }

    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open namespace {}", path.display()))?;
        Ok(Self { file })
    }

    /// Runs a function on a thread of its own inside the namespace.
    pub fn run<T: Send>(&self, function: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_own_thread(|| {
            setns(&self.file, CloneFlags::CLONE_NEWNET).context("cannot enter a network namespace")?;
            function()
        })
    }

    /// The hardware address of an interface.
    pub fn hardware(&self, interface: &str) -> Result<[u8; 6]> {
        self.run(|| {
            getifaddrs()
                .context("cannot list interfaces")?
                .filter(|entry| entry.interface_name == interface)
                .find_map(|entry| entry.address?.as_link_addr()?.addr())
                .with_context(|| format!("there is no interface {interface}"))
        })
    }

    /// A path other processes can open the namespace by while this one lives.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.raw()).into()
    }

    /// The descriptor, for messages to the kernel that name a namespace so.
    #[must_use]
    pub fn raw(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// A thread's namespace is its own; one that is thrown away needs no way back.
fn on_own_thread<T: Send>(function: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| match scope.spawn(function).join() {
        Ok(result) => result,
        Err(payload) => panic::resume_unwind(payload),
    })
}
