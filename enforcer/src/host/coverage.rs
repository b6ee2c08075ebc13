//! Coverage: packet hooks on every device that packets of guarded processes pass, in every network namespace, now and when
//! devices and namespaces appear.
//!
//! ```text
//! change of a device or filter in a namespace ──> list the devices of that one, attach what lacks its hooks
//!             then, and every 10 seconds anyway ──> list namespaces, and do so in all of them
//! ```
//!
//! Looking at everything again cannot miss what a lost message or a race would hide. However many changes there are, at
//! most a fixed share of the time goes into it, and who causes many delays no one but those like him: the host's own
//! namespace, the others and everything have a pace each, and the host's own comes first, also in the middle of a look at
//! everything. Until a device has its hooks, the socket hooks hold, which need none.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    task::block_in_place,
    time::{Instant, timeout_at},
};

use super::{
    HostError,
    cgroupfs::CgroupFs,
    changes::{Changed, Changes},
    links::{Listed, devices},
    namespaces::{Namespace, foreign},
};
use crate::bpf::{Attachment, Bpf, Device, detach_interface};

/// How often everything is looked at although nothing was told: nothing tells of a process that comes to a network that is
/// there already.
const RESCAN: Duration = Duration::from_secs(10);

/// The rest after a look, as a multiple of the time it took: nobody who makes and removes devices all the time gets more
/// than a fifth of one CPU for each of the three paces.
const REST: u32 = 4;

/// Attaches packet hooks wherever they are needed. The kernel side is owned here, and its pins are locked as long as this
/// lives.
#[derive(Debug)]
pub struct Coverage {
    bpf: Bpf,
    changes: Changes,
    cgroups: CgroupFs,
    /// Absolute path of the cgroup that hooks attach to.
    root: PathBuf,
    /// Foreign namespaces by the numbers that reports name them by.
    numbered: BTreeMap<i32, Namespace>,
    changed: Changed,
    own_pace: Pace,
    foreign_pace: Pace,
    whole_pace: Pace,
    /// Devices without hooks, which was told.
    bare: BTreeSet<(u64, u32)>,
}

/// What was seen while everything was looked at.
#[derive(Default)]
struct Seen {
    namespaces: BTreeSet<u64>,
    devices: BTreeSet<(u64, u32)>,
}

/// How often something may be looked at.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Not before that.
    next: Instant,
}

/// What to look at.
#[derive(Clone, Copy, Debug)]
enum Look {
    /// This process's network namespace.
    Own,
    /// Those others in which something changed.
    Foreign,
    /// Everything.
    Whole,
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
            numbered: BTreeMap::new(),
            changed: Changed::default(),
            own_pace: Pace::new(),
            foreign_pace: Pace::new(),
            whole_pace: Pace::new(),
            bare: BTreeSet::new(),
        };
        block_in_place(|| coverage.cover())?;
        coverage.bpf.retire_older()?;
        Ok(coverage)
    }

    /// Follows all changes, forever.
    pub async fn run(mut self) -> Result<Infallible, HostError> {
        let mut rescan = Instant::now() + RESCAN;
        loop {
            let (look, due) = self.next(rescan);
            if due > Instant::now() {
                if let Ok(Err(source)) = timeout_at(due, self.changes.wait(&mut self.changed)).await {
                    return Err(HostError::Socket { source });
                }
                continue;
            }
            block_in_place(|| self.look(look))?;
            if matches!(look, Look::Whole) {
                rescan = Instant::now() + RESCAN;
            }
        }
    }

    /// What to look at next, and when.
    fn next(&self, rescan: Instant) -> (Look, Instant) {
        let now = Instant::now();
        let Changed { own, foreign, anywhere } = &self.changed;
        let whole = if *anywhere { self.whole_pace.next } else { rescan };
        let mut next = (Look::Whole, whole.max(now));
        for (look, pace, has_changed) in [
            (Look::Foreign, self.foreign_pace, !foreign.is_empty()),
            (Look::Own, self.own_pace, *own),
        ] {
            let due = pace.next.max(now);
            if has_changed && due <= next.1 {
                next = (look, due);
            }
        }
        next
    }

    fn look(&mut self, look: Look) -> Result<(), HostError> {
        let began = Instant::now();
        match look {
            Look::Own => {
                self.look_at_own()?;
                self.own_pace.rest(began);
            }
            Look::Foreign => {
                self.look_at_changed();
                self.foreign_pace.rest(began);
            }
            Look::Whole => {
                self.cover()?;
                self.whole_pace.rest(began);
            }
        }
        Ok(())
    }

    fn look_at_own(&mut self) -> Result<(), HostError> {
        self.changed.own = false;
        self.cover_namespace(&Namespace::own()?, true, &mut Seen::default())
    }

    /// One that nobody knows is found by the look at everything that follows.
    fn look_at_changed(&mut self) {
        for number in std::mem::take(&mut self.changed.foreign) {
            if let Some(namespace) = self.numbered.get(&number).cloned() {
                self.cover_foreign(&namespace, &mut Seen::default());
            }
        }
    }

    /// Looks at everything.
    fn cover(&mut self) -> Result<(), HostError> {
        self.changed = Changed::default();
        let mut seen = Seen::default();
        self.cover_namespace(&Namespace::own()?, true, &mut seen)?;
        let mut numbered = BTreeMap::new();
        for namespace in foreign(&self.cgroups, &self.root)? {
            match namespace.report_changes() {
                Ok(Some(number)) => drop(numbered.insert(number, namespace.clone())),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(namespace = namespace.inode, %error, "changes are seen every 10 seconds only");
                }
            }
            self.cover_foreign(&namespace, &mut seen);
            self.attend_to_own()?;
        }
        self.numbered = numbered;
        self.bare.retain(|device| seen.devices.contains(device));
        Ok(self.bpf.retain_devices(&seen.namespaces, &seen.devices)?)
    }

    /// Looks at this process's namespace in the middle of something that takes long, if that is due.
    fn attend_to_own(&mut self) -> Result<(), HostError> {
        let taken = self.changes.take(&mut self.changed);
        taken.map_err(|source| HostError::Socket { source })?;
        if self.changed.own && self.own_pace.next <= Instant::now() {
            return self.look(Look::Own);
        }
        Ok(())
    }

    /// Namespaces come and go, so a foreign one that cannot be covered is only told.
    fn cover_foreign(&mut self, namespace: &Namespace, seen: &mut Seen) {
        if let Err(error) = self.cover_namespace(namespace, false, seen) {
            tracing::warn!(namespace = namespace.inode, %error, "cannot look into a network namespace");
        }
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

// === impl Pace ===

impl Pace {
    fn new() -> Self {
        Self { next: Instant::now() }
    }

    /// After a look that began then.
    fn rest(&mut self, began: Instant) {
        let now = Instant::now();
        self.next = now + now.duration_since(began) * REST;
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
