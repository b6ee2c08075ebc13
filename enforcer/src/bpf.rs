//! The kernel side, seen from userspace: loads the hooks, fills their maps, attaches and pins them, reads what they say.
//! This tree alone names `aya`.
//!
//! What is pinned outlives the daemon: links and maps stay under `pin_dir`, so a dead enforcer leaves metadata blocked
//! and the credential endpoint refusing. The next start adopts the maps and swaps the programs inside the links.
//!
//! ```text
//! <pin_dir>/maps/<MAP>                 shared state, adopted by the next start
//! <pin_dir>/links/<cgroup ID>/<hook>   attachments; the directory names the cgroup they belong to
//! ```

use std::{
    fs::{self, File},
    io,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use aya::{Ebpf, programs::links::FdLink};
use enforcer_common::address::AddressRule;

mod attach;
mod error;
mod load;
mod maps;
mod ring;
mod tables;
mod tc;

use self::error::file_error;
pub use self::{
    error::BpfError,
    maps::{Accepted, Classes, Counters},
    ring::{EventRing, KernelLog},
    tables::Tables,
    tc::detach as detach_interface,
};

/// What the kernel side needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory on a bpffs that holds the pins.
    pub pin_dir: PathBuf,
    /// Absolute path of the cgroup directory everything is attached to.
    pub cgroup_root: PathBuf,
    /// Absolute path of the enforcer's own cgroup directory.
    pub own_cgroup: PathBuf,
    /// Address of the credential endpoint.
    pub endpoint_address: Ipv4Addr,
    /// Port of the credential endpoint as containers write it.
    pub endpoint_port: u16,
    /// Where socket hooks steer to.
    pub steer_port: u16,
    /// Where TC steers to.
    pub packet_steer_port: u16,
    /// The address table.
    pub addresses: Vec<(IpAddr, AddressRule)>,
    /// What is done about what is refused.
    pub mode: Mode,
    /// Whether guarded cgroups get no raw IP sockets.
    pub raw_sockets_denied: bool,
    /// IP protocols (IANA numbers) guarded cgroups get no sockets of.
    pub denied_protocols: Vec<u8>,
}

/// What is done about what is refused, in all cgroups together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is blocked.
    Enforce,
    /// It is recorded only.
    Observe,
}

/// The loaded kernel side. Dropping it detaches nothing that is pinned.
#[derive(Debug)]
pub struct Bpf {
    ebpf: Ebpf,
    tables: Option<Tables>,
    /// Hands identities to our own accepted sockets; dies with the process, because nobody would read them.
    _own_link: FdLink,
    /// Held while the process lives: two enforcers must not share pins.
    _lock: File,
}

// === impl Bpf ===

impl Bpf {
    /// Loads the object, or adopts the maps an earlier enforcer left, fills settings and address table, and attaches the
    /// hook on the enforcer's own cgroup: from here on, what it accepts has an identity. What guards others is attached
    /// by [`Bpf::attach`]; what an earlier enforcer left attached goes on meanwhile.
    pub fn load(config: &Config) -> Result<Self, BpfError> {
        create_pin_dirs(&config.pin_dir)?;
        let lock = lock(&config.pin_dir)?;
        let mut ebpf = load::load(&config.pin_dir)?;
        let mut tables = Tables::try_new(&mut ebpf)?;
        tables.write(config)?;
        load::load_programs(&mut ebpf)?;
        let own_link = attach::attach_own(&mut ebpf, config)?;
        Ok(Self {
            ebpf,
            tables: Some(tables),
            _own_link: own_link,
            _lock: lock,
        })
    }

    /// Attaches and pins every hook of the cgroup root, or swaps the programs inside the links an earlier enforcer left.
    /// Classes belong into their map ([`Bpf::take_classes`]) before, so that no host service is refused meanwhile.
    pub fn attach(&mut self, config: &Config) -> Result<(), BpfError> {
        attach::attach_root(&mut self.ebpf, config)
    }

    /// The ring buffer's reader; there is one, so the second call fails.
    pub fn take_events(&mut self) -> Result<EventRing, BpfError> {
        EventRing::try_new(&mut self.ebpf)
    }

    /// The reader of what the hooks log for people; there is one, so the second call fails.
    pub fn take_log(&mut self) -> Result<KernelLog, BpfError> {
        KernelLog::try_new(&mut self.ebpf)
    }

    /// The reader of the identities of accepted sockets; the second call fails.
    pub fn take_accepted(&mut self) -> Result<Accepted, BpfError> {
        Accepted::try_new(&mut self.ebpf)
    }

    /// The reader of the kernel's counters; the second call fails.
    pub fn take_counters(&mut self) -> Result<Counters, BpfError> {
        Counters::try_new(&mut self.ebpf)
    }

    /// The writer of settings and address table; the second call fails.
    pub fn take_tables(&mut self) -> Result<Tables, BpfError> {
        self.tables.take().ok_or(BpfError::Missing { what: "SETTINGS" })
    }

    /// The writer of cgroup classes; the second call fails.
    pub fn take_classes(&mut self) -> Result<Classes, BpfError> {
        Classes::try_new(&mut self.ebpf)
    }

    /// Attaches the packet hooks to the host side of a container's interface; replaces what an earlier enforcer left.
    pub fn attach_interface(&mut self, interface: &str) -> Result<(), BpfError> {
        tc::attach(&mut self.ebpf, interface)
    }
}

/// Removes every pin below `pin_dir`, and with them hooks and maps; `false` if there is none. Interfaces are detached one
/// by one with [`detach_interface`].
pub fn detach(pin_dir: &Path) -> Result<bool, BpfError> {
    if !pin_dir.join("maps").exists() {
        return Ok(false);
    }
    require_bpffs(pin_dir)?;
    let _lock = lock(pin_dir)?;
    for directory in [pin_dir.join("links"), pin_dir.join("maps")] {
        match fs::remove_dir_all(&directory) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(file_error("remove", &directory, source));
            }
            _ => {}
        }
    }
    fs::remove_dir(pin_dir).map_err(|source| file_error("remove", pin_dir, source))?;
    Ok(true)
}

/// Whether this kernel takes the object: loads it without attaching or pinning anything.
pub fn probe() -> Result<(), BpfError> {
    let mut ebpf = load::load_unpinned()?;
    load::load_programs(&mut ebpf)
}

fn create_pin_dirs(pin_dir: &Path) -> Result<(), BpfError> {
    require_bpffs(pin_dir)?;
    for directory in [pin_dir.join("maps"), pin_dir.join("links")] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(|source| file_error("create", &directory, source))?;
    }
    Ok(())
}

/// Whether a directory, or its nearest parent that exists, lies on a bpffs.
pub fn require_bpffs(directory: &Path) -> Result<(), BpfError> {
    let existing = directory.ancestors().find(|path| path.exists()).unwrap_or(directory);
    let stat = rustix::fs::statfs(existing).map_err(|error| file_error("inspect", existing, error.into()))?;
    if u64::try_from(stat.f_type).ok() != Some(BPF_FS_MAGIC) {
        return Err(BpfError::NotBpffs {
            path: existing.to_owned(),
        });
    }
    Ok(())
}

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

fn lock(pin_dir: &Path) -> Result<File, BpfError> {
    let directory = File::open(pin_dir).map_err(|source| file_error("open", pin_dir, source))?;
    match rustix::fs::flock(&directory, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(directory),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(BpfError::AlreadyRunning {
            path: pin_dir.to_owned(),
        }),
        Err(error) => Err(file_error("lock", pin_dir, error.into())),
    }
}
