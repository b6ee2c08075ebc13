//! Coverage: packet hooks on every device that packets of guarded processes pass, in every network namespace, now and when
//! devices and namespaces appear.
//!
//! ```text
//! change of a device or filter, in any namespace ─┐
//!                         every 30 seconds anyway ─┴─> list namespaces, list their devices, attach what lacks its hooks
//! ```
//!
//! Looking at everything again cannot miss what a lost message or a race would hide. However many changes there are, at
//! most a fixed share of the time goes into it; until a device has its hooks, the socket hooks hold, which need none.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rtnetlink::sys::{Socket, protocols::NETLINK_ROUTE};
use tokio::{
    io::unix::AsyncFd,
    task::block_in_place,
    time::{Instant, sleep, timeout},
};

use super::{
    HostError,
    cgroupfs::CgroupFs,
    links::{Listed, devices},
    namespaces::{Namespace, foreign},
};
use crate::{
    bpf::{Attachment, Bpf, Device, detach_interface},
    sys::readiness::readable,
};

/// How often everything is looked at although nothing was told.
const RESCAN: Duration = Duration::from_secs(30);

/// What follows a look at everything, as a multiple of the time it took: nobody who makes and removes devices all the time
/// gets more than a fifth of one CPU.
const REST: u32 = 4;

/// `RTNLGRP_LINK` and `RTNLGRP_TC` of linux/rtnetlink.h.
const GROUPS: [u32; 2] = [1, 4];

/// Messages that may mean work (linux/rtnetlink.h): `RTM_NEWLINK`, `RTM_DELLINK`, `RTM_DELQDISC`, `RTM_DELTFILTER`. What
/// attaching causes is not among them.
const CHANGES: [u16; 4] = [16, 17, 37, 45];

/// Attaches packet hooks wherever they are needed. The kernel side is owned here, and its pins are locked as long as this
/// lives.
#[derive(Debug)]
pub struct Coverage {
    bpf: Bpf,
    changes: Changes,
    cgroups: CgroupFs,
    /// Absolute path of the cgroup that hooks attach to.
    root: PathBuf,
    /// Devices without hooks, which was told.
    bare: BTreeSet<(u64, u32)>,
}

/// What was seen while everything was looked at.
#[derive(Default)]
struct Seen {
    namespaces: BTreeSet<u64>,
    devices: BTreeSet<(u64, u32)>,
}

/// The kernel's reports of changed devices and filters, from every namespace it has a number for.
#[derive(Debug)]
struct Changes {
    socket: AsyncFd<Socket>,
}

// === impl Coverage ===

impl Coverage {
    /// Attaches to every device there is, for what is below the cgroup `root`. Needs a runtime with several threads.
    pub fn start(bpf: Bpf, cgroups: CgroupFs, root: PathBuf) -> Result<Self, HostError> {
        let mut coverage = Self {
            bpf,
            // Before the first look, so that nothing changes unseen after it.
            changes: Changes::open().map_err(|source| HostError::Socket { source })?,
            cgroups,
            root,
            bare: BTreeSet::new(),
        };
        block_in_place(|| coverage.cover())?;
        coverage.bpf.retire_older()?;
        Ok(coverage)
    }

    /// Follows all changes, forever.
    pub async fn run(mut self) -> Result<Infallible, HostError> {
        loop {
            if let Ok(Err(source)) = timeout(RESCAN, self.changes.wait()).await {
                return Err(HostError::Socket { source });
            }
            let began = Instant::now();
            block_in_place(|| self.cover())?;
            sleep(began.elapsed() * REST).await;
        }
    }

    /// Looks at everything. Namespaces come and go meanwhile, so a foreign one that cannot be covered is only told.
    fn cover(&mut self) -> Result<(), HostError> {
        let mut seen = Seen::default();
        let own = Namespace::own()?;
        self.cover_namespace(&own, true, &mut seen)?;
        let foreign = foreign(&self.cgroups, &self.root)?;
        for namespace in &foreign {
            if let Err(error) = namespace.report_changes() {
                tracing::warn!(namespace = namespace.inode, %error, "changes are seen every 30 seconds only");
            }
            if let Err(error) = self.cover_namespace(namespace, false, &mut seen) {
                tracing::warn!(namespace = namespace.inode, %error, "cannot look into a network namespace");
            }
        }
        self.bare.retain(|device| seen.devices.contains(device));
        Ok(self.bpf.retain_devices(&seen.namespaces, &seen.devices)?)
    }

    fn cover_namespace(&mut self, namespace: &Namespace, is_own: bool, seen: &mut Seen) -> Result<(), HostError> {
        let listed = namespace.enter(|| {
            let listed = devices(is_own)?;
            for device in &listed.devices {
                self.attach(device);
            }
            Ok(listed)
        })?;
        if let Some(Listed { namespace, devices }) = listed {
            seen.namespaces.insert(namespace);
            seen.devices
                .extend(devices.iter().map(|device| (device.namespace, device.index)));
        }
        Ok(())
    }

    /// A device that cannot be attached to is told, once, and left to the socket hooks; it may just have vanished again.
    fn attach(&mut self, device: &Device) {
        let Device {
            namespace, name, role, ..
        } = device;
        let key = (*namespace, device.index);
        match self.bpf.attach_device(device) {
            Ok(Attachment::Present) => {}
            Ok(Attachment::New) => tracing::debug!(namespace, device = name, ?role, "packet hooks attached"),
            Ok(Attachment::Restored) => {
                tracing::warn!(
                    namespace,
                    device = name,
                    "somebody removed packet hooks; they are attached again"
                );
            }
            Err(error) if self.bare.insert(key) => {
                tracing::warn!(namespace, device = name, %error, "no packet hooks on this device");
            }
            Err(_told) => {}
        }
    }
}

/// The devices of this process's network namespace that get packet hooks.
pub fn own_devices() -> Result<Vec<Device>, HostError> {
    let own = Namespace::own()?;
    let listed = own.enter(|| devices(true))?;
    Ok(listed.map(|listed| listed.devices).unwrap_or_default())
}

/// Removes packet hooks from the devices of every namespace, where they are not pinned.
pub fn detach(cgroups: &CgroupFs, root: &Path) -> Result<(), HostError> {
    let own = Namespace::own()?;
    let is_own = |namespace: &Namespace| namespace.inode == own.inode;
    for namespace in std::iter::once(own.clone()).chain(foreign(cgroups, root)?) {
        namespace.enter(|| {
            for device in devices(is_own(&namespace))?.devices {
                detach_interface(&device.name)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

// === impl Changes ===

impl Changes {
    fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_listen_all_namespaces(true)?;
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        socket.set_non_blocking(true)?;
        Ok(Self {
            socket: readable(socket)?,
        })
    }

    /// Waits for a change and forgets what it was, and all others that were reported.
    async fn wait(&self) -> io::Result<()> {
        let mut message = Vec::with_capacity(4096);
        let mut has_changed = false;
        while !has_changed {
            let mut guard = self.socket.readable().await?;
            loop {
                message.clear();
                match guard.get_inner().recv(&mut message, 0) {
                    Ok(_length) => has_changed |= is_change(&message),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // There was no room for all of them.
                    Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => has_changed = true,
                    Err(error) => return Err(error),
                }
            }
            guard.clear_ready();
        }
        Ok(())
    }
}

/// Whether a report may mean work. Its type follows the length in `struct nlmsghdr`.
fn is_change(message: &[u8]) -> bool {
    let kind = message.get(4..6).and_then(|kind| kind.try_into().ok());
    kind.is_some_and(|kind| CHANGES.contains(&u16::from_ne_bytes(kind)))
}
