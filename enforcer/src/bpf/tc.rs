//! TC hooks: which device gets which, and how they stay on it without the daemon.
//!
//! On Linux 6.6 and newer they are tcx links: first in line, pinned, and nobody but who holds the pin takes them away. Before
//! that they are filters of a clsact qdisc, which live with the device; whoever administers its network namespace can
//! remove them, so they are asserted again whenever that may have happened.

use std::{
    collections::BTreeSet,
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    str::FromStr,
};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, Program, ProgramError, SchedClassifier, TcAttachType,
        links::FdLink,
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
    },
    util::KernelVersion,
};

use super::{
    BpfError,
    error::file_error,
    pins::{self, Pins},
};
use crate::sys::bpf::{LinkTarget, link_info, open_pin, update_link};

/// Program and filter name of the ingress hook of containers' interfaces.
pub(super) const INGRESS: &str = "enforcer_in";
/// Program and filter name of the egress hook of containers' interfaces.
pub(super) const EGRESS: &str = "enforcer_out";

/// Program and filter name of the egress hook of the host's other devices.
pub(super) const UPLINK: &str = "enforcer_uplink";
/// Program and filter name of the egress hook of devices inside containers' network namespaces.
pub(super) const DEVICE: &str = "enforcer_device";

/// What a network device is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The host side of a container's interface.
    Container,
    /// Another device of the host: containers in the host's network namespace send through it.
    Uplink,
    /// A device inside a container's network namespace.
    Device,
}

/// A network device. It is named for the network namespace of the thread that attaches to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    /// Cookie of its network namespace, which no other namespace ever has.
    pub namespace: u64,
    /// Index in there.
    pub index: u32,
    /// Name in there.
    pub name: String,
    /// What it is to us.
    pub role: Role,
}

/// No other filter comes before ours on a clsact qdisc.
const PRIORITY: u16 = 1;
/// One fixed handle, which nobody else chooses: attaching again replaces the program atomically, and only ours.
const HANDLE: TcHandle = TcHandle::new(0, 0xe4f0);

/// Attaches TC hooks, and knows which devices have theirs.
#[derive(Debug)]
pub(super) struct Tc {
    /// Whether this kernel has tcx.
    has_tcx: bool,
    attached: BTreeSet<(u64, u32)>,
}

/// What became of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// It had its hooks already.
    Present,
    /// It has them now.
    New,
    /// It has them again: somebody had removed them.
    Restored,
}

// === impl Role ===

impl Role {
    const fn hooks(self) -> &'static [(&'static str, TcAttachType)] {
        match self {
            Self::Container => &[(INGRESS, TcAttachType::Ingress), (EGRESS, TcAttachType::Egress)],
            Self::Uplink => &[(UPLINK, TcAttachType::Egress)],
            Self::Device => &[(DEVICE, TcAttachType::Egress)],
        }
    }
}

// === impl Tc ===

impl Tc {
    pub(super) fn new() -> Self {
        Self {
            has_tcx: KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0)),
            attached: BTreeSet::new(),
        }
    }

    /// Attaches a device's hooks, or swaps the programs of those that are there. To be called in its network namespace.
    pub(super) fn attach(&mut self, ebpf: &mut Ebpf, device: &Device, pins: &Pins) -> Result<Attachment, BpfError> {
        let is_known = self.attached.contains(&(device.namespace, device.index));
        let mut created = false;
        for (hook, direction) in device.role.hooks() {
            let program = ebpf.program_mut(hook).ok_or(BpfError::Missing { what: hook })?;
            created |= if self.has_tcx {
                let pin = pin_directory(pins, device).join(hook);
                attach_link(program, (hook, *direction), device, (&pin, is_known))?
            } else {
                attach_filter(program, (hook, *direction), &device.name)?
            };
        }
        if self.has_tcx && !is_known {
            // What an earlier enforcer may have left would judge a second time, with other maps.
            detach(&device.name)?;
        }
        self.attached.insert((device.namespace, device.index));
        Ok(match (is_known, created) {
            (true, true) => Attachment::Restored,
            (true, false) => Attachment::Present,
            (false, _) => Attachment::New,
        })
    }

    /// Forgets devices that are gone, and removes the links of those that have left a namespace that was `seen` or whose
    /// device is gone.
    pub(super) fn retain(
        &mut self,
        seen: &BTreeSet<u64>,
        devices: &BTreeSet<(u64, u32)>,
        pins: &Pins,
    ) -> Result<(), BpfError> {
        self.attached
            .retain(|key| devices.contains(key) || !seen.contains(&key.0));
        for namespace in pins::children(&pins.device_links())? {
            let cookie = number::<u64>(&namespace);
            for device in pins::children(&namespace)? {
                let is_there = devices.contains(&(cookie, number(&device)));
                if !is_there && (seen.contains(&cookie) || is_dead(&device)?) {
                    pins::remove_links(&device)?;
                }
            }
            if pins::children(&namespace)?.is_empty() {
                pins::remove(&namespace)?;
            }
        }
        Ok(())
    }
}

fn pin_directory(pins: &Pins, device: &Device) -> PathBuf {
    let namespace = pins.device_links().join(device.namespace.to_string());
    namespace.join(device.index.to_string())
}

/// The number a directory of pins is named by; 0, which nothing has, if it is none of ours.
fn number<T: FromStr + Default>(directory: &Path) -> T {
    let name = directory.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.parse().ok()).unwrap_or_default()
}

/// Attaches by a link, unless a living one is pinned; tells whether it did.
fn attach_link(
    program: &mut Program,
    (hook, direction): (&'static str, TcAttachType),
    device: &Device,
    (pin, is_current): (&Path, bool),
) -> Result<bool, BpfError> {
    let failed = |source| attach_error(hook, source);
    if attached_to(pin)? == Some(device.index) {
        if !is_current {
            let fd = program.fd().map_err(failed)?;
            open_pin(pin)
                .and_then(|link| update_link(link.as_fd(), fd.as_fd()))
                .map_err(|source| file_error("replace the program of", pin, source))?;
        }
        return Ok(false);
    }
    pins::remove_link(pin)?;
    pins::create(pin.parent().unwrap_or(pin))?;
    let program: &mut SchedClassifier = program.try_into().map_err(failed)?;
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program
        .attach_with_options(&device.name, direction, first)
        .map_err(failed)?;
    let link = FdLink::try_from(program.take_link(id).map_err(failed)?);
    let link = link.map_err(|source| BpfError::Link { hook, source })?;
    link.pin(pin).map_err(|source| BpfError::Pin { hook, source })?;
    // Names change; whoever administers the namespace may do it at this very moment.
    if attached_to(pin)? == Some(device.index) {
        return Ok(true);
    }
    pins::remove_link(pin)?;
    Err(BpfError::Renamed {
        interface: device.name.clone(),
    })
}

/// Index of the device a pinned link is attached to: 0 if the device is gone, none if there is no such pin.
fn attached_to(pin: &Path) -> Result<Option<u32>, BpfError> {
    let info = match open_pin(pin) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        link => link.and_then(|link| link_info(link.as_fd())),
    };
    match info.map_err(|source| file_error("inspect", pin, source))?.target {
        LinkTarget::Device(index) => Ok(Some(index)),
        LinkTarget::Cgroup(_) => Ok(None),
    }
}

/// Whether the device of a directory of links is gone.
fn is_dead(directory: &Path) -> Result<bool, BpfError> {
    for pin in pins::children(directory)? {
        if attached_to(&pin)?.is_some_and(|index| index != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Attaches by a filter, or replaces the program of the one that is there; tells whether there was none.
fn attach_filter(
    program: &mut Program,
    (hook, direction): (&'static str, TcAttachType),
    interface: &str,
) -> Result<bool, BpfError> {
    match tc::qdisc_add_clsact(interface) {
        Ok(()) => {}
        Err(error) if is(&error, io::ErrorKind::AlreadyExists) => {}
        Err(source) => return Err(tc_error("add the clsact qdisc", interface, source)),
    }
    let failed = |source| attach_error(hook, source);
    let program: &mut SchedClassifier = program.try_into().map_err(failed)?;
    let present = SchedClassifierLink::attached(interface, direction, PRIORITY, HANDLE, None)
        .map_err(|error| failed(ProgramError::TcError(TcError::IoError(error))))?;
    let (id, created) = if let Ok(id) = program.attach_to_link(present) {
        (id, false)
    } else {
        let options = TcAttachOptions::Netlink(NlOptions {
            priority: PRIORITY,
            handle: HANDLE,
            classid: None,
        });
        let id = program
            .attach_with_options(interface, direction, options)
            .map_err(failed)?;
        (id, true)
    };
    // The filter belongs to the interface now; dropping the link would remove it.
    std::mem::forget(program.take_link(id).map_err(failed)?);
    Ok(created)
}

/// Removes our filters from an interface of the calling thread's network namespace. Not being there is fine.
pub fn detach(interface: &str) -> Result<(), BpfError> {
    for role in [Role::Container, Role::Uplink, Role::Device] {
        for (hook, direction) in role.hooks() {
            match tc::qdisc_detach_program(interface, *direction, hook) {
                Ok(()) => {}
                Err(error) if is(&error, io::ErrorKind::NotFound) => {}
                Err(source) => return Err(tc_error("remove the packet hooks", interface, source)),
            }
        }
    }
    Ok(())
}

fn is(error: &TcError, kind: io::ErrorKind) -> bool {
    let io_error = if let TcError::NetlinkError(error) = error {
        error
            .raw_os_error()
            .map(|code| io::Error::from_raw_os_error(code).kind())
    } else if let TcError::IoError(error) = error {
        Some(error.kind())
    } else {
        None
    };
    io_error == Some(kind)
}

fn attach_error(hook: &'static str, source: ProgramError) -> BpfError {
    BpfError::Hook {
        operation: "attach",
        hook,
        source: Box::new(source),
        hint: "",
    }
}

fn tc_error(operation: &'static str, interface: &str, source: TcError) -> BpfError {
    BpfError::Tc {
        operation,
        interface: interface.to_owned(),
        source,
    }
}
