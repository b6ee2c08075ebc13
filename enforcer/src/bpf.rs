//! The kernel side, seen from userspace: loads the hooks, fills their maps, attaches and pins them, reads what they say.
//! This tree alone names `aya`.
//!
//! What is pinned outlives the daemon: links and maps stay in the pin directory (`pins`), so a dead enforcer leaves
//! metadata blocked and the credential endpoint refusing. The next start adopts the maps, or makes new ones if its layout
//! is newer, and swaps the programs inside the links.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    str::FromStr,
};

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray},
};
use enforcer_common::address::AddressRule;
use serde::{Deserialize, Serialize};

mod attach;
mod error;
mod foreign;
mod load;
mod maps;
mod pinned;
mod pins;
mod ring;
mod status;
mod tables;
mod tc;
mod upgrade;

pub use self::{
    error::BpfError,
    foreign::{Foreign, Position, on_cgroups, on_device},
    maps::{Accepted, Classes, Counters},
    pinned::{Kernel, Pinned},
    pins::{Removal, require_bpffs},
    ring::{EventRing, KernelLog},
    status::{AttachedTo, HookStatus, missing_hooks, status},
    tables::Tables,
    tc::{Attachment, Device, Role, detach as detach_interface},
};
use self::{maps::map_error, pins::Pins, tc::Tc, upgrade::Older};

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
    /// The ECS agent's introspection port, if containers may not use it.
    pub introspection_port: Option<u16>,
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It is blocked.
    #[default]
    Enforce,
    /// It is recorded only.
    Observe,
}

/// A mode that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `enforce` or `observe`")]
pub struct UnknownMode;

/// The loaded kernel side, and the lock on its pins. Dropping it detaches nothing that is pinned.
#[derive(Debug)]
pub struct Bpf {
    ebpf: Ebpf,
    tables: Option<Tables>,
    tc: Tc,
    is_first: bool,
    former_endpoint: Option<Ipv4Addr>,
    /// What is replaced, until it is.
    older: Option<Older>,
    pins: Pins,
}

/// The object in the kernel, attached to nothing: most of the work of a start, done while another enforcer still runs.
#[derive(Debug)]
pub struct Prepared {
    ebpf: Ebpf,
    /// IDs of the maps it shares with the running enforcer.
    adopted: Option<Vec<u32>>,
}

// === impl Mode ===

impl Mode {
    /// The name in the configuration and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Observe => "observe",
        }
    }
}

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Self, UnknownMode> {
        [Self::Enforce, Self::Observe]
            .into_iter()
            .find(|mode| mode.name() == text)
            .ok_or(UnknownMode)
    }
}

// === impl Bpf ===

impl Bpf {
    /// Loads the object, or adopts the maps an earlier enforcer left, and fills settings and address table. Nothing is
    /// attached yet, see [`Bpf::attach`]; what an earlier enforcer left attached goes on meanwhile.
    pub fn load(config: &Config, prepared: Option<Prepared>) -> Result<Self, BpfError> {
        let pins = Pins::open(&config.pin_dir)?;
        let mut ebpf = match prepared {
            Some(prepared) if prepared.is_current(&pins.maps()) => prepared.ebpf,
            _ => load::load(Some(&pins.maps()))?,
        };
        let mut tables = Tables::try_new(&mut ebpf)?;
        // The settings are written last, so that a start killed before that carries over again.
        let are_new = tables.are_new()?;
        let older = match pins.older_maps()? {
            Some(maps) if are_new => Some(carry_over(maps, &mut ebpf)?),
            _ => None,
        };
        if !are_new && tables.differ_from(config)? {
            // Of the earlier configuration, whose numbers may come to stand for other groups. They come back with the classes.
            maps::forget_exceptions(&mut ebpf)?;
        }
        let endpoint = tables.endpoint()?;
        let is_moved = !are_new && endpoint != config.endpoint_address;
        tables.write(config)?;
        Ok(Self {
            former_endpoint: is_moved.then_some(endpoint),
            ebpf,
            tables: Some(tables),
            tc: Tc::new(),
            is_first: are_new && older.is_none(),
            older,
            pins,
        })
    }

    /// Attaches and pins every hook of cgroups, or swaps the programs inside the links an earlier enforcer left. Classes
    /// belong into their map ([`Bpf::take_classes`]) before, so that no host service is refused meanwhile.
    pub fn attach(&mut self, config: &Config) -> Result<(), BpfError> {
        attach::attach(&mut self.ebpf, config, &self.pins)
    }

    /// Lets go of the maps of older layouts. To be called when every hook is attached, those of devices included.
    pub fn retire_older(&mut self) -> Result<(), BpfError> {
        if let Some(older) = self.older.take() {
            older.tell_rest()?;
        }
        self.pins.remove_older_maps()
    }

    /// Whether no earlier enforcer left anything: nothing was guarded until now.
    #[must_use]
    pub const fn is_first(&self) -> bool {
        self.is_first
    }

    /// The credential endpoint's address in an earlier enforcer's configuration, if it is another one now.
    #[must_use]
    pub const fn former_endpoint(&self) -> Option<Ipv4Addr> {
        self.former_endpoint
    }

    /// Whether the maps of an older layout were replaced, and with them all that was known of connections on their way.
    #[must_use]
    pub const fn is_upgrade(&self) -> bool {
        self.older.is_some()
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

    /// Attaches the packet hooks of a device's role, or swaps the programs of those an earlier enforcer left. To be called in
    /// the device's network namespace.
    pub fn attach_device(&mut self, device: &Device) -> Result<Attachment, BpfError> {
        self.tc.attach(&mut self.ebpf, device, &self.pins)
    }

    /// Forgets every device that is gone. `namespaces` are those (by cookie) whose devices were listed, `devices`
    /// what they have (namespace and index).
    pub fn retain_devices(
        &mut self,
        namespaces: &BTreeSet<u64>,
        devices: &BTreeSet<(u64, u32)>,
    ) -> Result<(), BpfError> {
        self.tc.retain(namespaces, devices, &self.pins)
    }
}

// === impl Prepared ===

impl Prepared {
    /// Loads the object around the maps of the running enforcer; has maps of its own, and leaves none behind, if that one
    /// has an older layout.
    pub fn load(pin_dir: &Path) -> Result<Self, BpfError> {
        pins::require_known_layout(pin_dir)?;
        let maps = pins::maps(pin_dir);
        let adopted = load::pinned(&maps);
        let ebpf = load::load(adopted.as_ref().map(|_| maps.as_path()))?;
        Ok(Self { ebpf, adopted })
    }

    /// Whether its maps are still those that are pinned.
    fn is_current(&self, maps: &Path) -> bool {
        self.adopted.is_some() && self.adopted == load::pinned(maps)
    }
}

/// Whether this kernel takes the object: loads it without attaching or pinning anything.
pub fn probe() -> Result<(), BpfError> {
    load::load(None).map(drop)
}

fn carry_over(maps: PathBuf, ebpf: &mut Ebpf) -> Result<Older, BpfError> {
    let counters = ebpf.map_mut("COUNTERS").ok_or(BpfError::Missing { what: "COUNTERS" })?;
    let mut counters: PerCpuArray<&mut MapData, u64> =
        PerCpuArray::try_from(counters).map_err(map_error("open", "COUNTERS"))?;
    Older::carry_over(maps, &mut counters)
}
