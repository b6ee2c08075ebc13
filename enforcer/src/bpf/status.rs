//! What is attached, read from the pins: tells it without a daemon.

use std::{
    fs, io,
    os::fd::{AsFd as _, BorrowedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;

use super::{
    BpfError,
    attach::root_hooks,
    error::file_error,
    pins::{children, links},
};
use crate::sys::bpf::{LinkTarget, link_info, open_pin, open_program, program_info};

/// Where the kernel says whether it counts runs.
const STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// One attached hook.
#[derive(Clone, Debug, Serialize)]
pub struct HookStatus {
    /// Name of the hook's program.
    pub hook: String,
    /// What it is attached to.
    pub attached_to: AttachedTo,
    /// The pin that holds the attachment.
    pub pin: PathBuf,
    /// The kernel's number of the program.
    pub program_id: u32,
    /// How long ago the program was loaded.
    #[serde(serialize_with = "as_seconds", rename = "age_seconds")]
    pub age: Duration,
    /// How often it ran; none unless the kernel counts that (`kernel.bpf_stats_enabled`).
    pub run_count: Option<u64>,
    /// How long it ran altogether, likewise.
    #[serde(serialize_with = "as_nanoseconds", rename = "run_time_ns")]
    pub run_time: Option<Duration>,
}

/// What a hook is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttachedTo {
    /// A cgroup, by its ID; 0 if that is gone.
    Cgroup(u64),
    /// A network device, by its index in its network namespace, itself by its cookie. 0 if the device is gone.
    Device {
        /// The namespace.
        namespace: u64,
        /// The device.
        index: u32,
    },
}

/// Every hook that is pinned below `pin_dir`, ordered by pin. Hooks on devices are pinned on Linux 6.6 and newer only.
pub fn status(pin_dir: &Path) -> Result<Vec<HookStatus>, BpfError> {
    let mut pins = Vec::new();
    collect(&links(pin_dir), &mut pins)?;
    pins.sort();
    let counts_runs = fs::read_to_string(STATISTICS).is_ok_and(|text| text.trim() == "1");
    let mut hooks = Vec::new();
    for pin in pins {
        let looked = open_pin(&pin).and_then(|link| hook_status(&pin, link.as_fd(), counts_runs));
        match looked {
            Ok(hook) => hooks.push(hook),
            // Devices go meanwhile, and what is pinned for them goes too.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(file_error("inspect pinned link", &pin, source)),
        }
    }
    Ok(hooks)
}

/// Hooks that the cgroup root with this ID cannot be guarded without, and that are not attached to it.
#[must_use]
pub fn missing_hooks(root: u64, attached: &[HookStatus]) -> Vec<&'static str> {
    let is_attached = |hook: &str| {
        let mut hooks = attached
            .iter()
            .filter(|status| status.attached_to == AttachedTo::Cgroup(root));
        hooks.any(|status| status.hook == hook)
    };
    root_hooks().filter(|hook| !is_attached(hook)).collect()
}

fn collect(directory: &Path, pins: &mut Vec<PathBuf>) -> Result<(), BpfError> {
    for path in children(directory)? {
        if path.is_dir() {
            collect(&path, pins)?;
        } else {
            pins.push(path);
        }
    }
    Ok(())
}

fn hook_status(pin: &Path, link: BorrowedFd<'_>, counts_runs: bool) -> io::Result<HookStatus> {
    let link = link_info(link)?;
    let program = program_info(open_program(link.program_id)?.as_fd())?;
    let attached_to = match link.target {
        LinkTarget::Cgroup(id) => AttachedTo::Cgroup(id),
        LinkTarget::Device(index) => AttachedTo::Device {
            namespace: number(pin.ancestors().nth(2)),
            index,
        },
    };
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let now = Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0));
    Ok(HookStatus {
        hook: pin.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        attached_to,
        pin: pin.to_owned(),
        program_id: link.program_id,
        age: now.saturating_sub(program.loaded),
        run_count: counts_runs.then_some(program.run_count),
        run_time: counts_runs.then_some(program.run_time),
    })
}

/// The number a directory is named by.
fn number(directory: Option<&Path>) -> u64 {
    let name = directory.and_then(Path::file_name).and_then(|name| name.to_str());
    name.and_then(|name| name.parse().ok()).unwrap_or(0)
}

fn as_seconds<S: serde::Serializer>(age: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(age.as_secs())
}

#[expect(clippy::ref_option, reason = "serde passes the field by reference")]
fn as_nanoseconds<S: serde::Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
        .serialize(serializer)
}
