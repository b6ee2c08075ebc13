//! The pin directory: what outlives the daemon, and whose layout it has.
//!
//! ```text
//! <pin_dir>/<layout>/maps/<MAP>                  shared state; adopted by the next start of the same layout
//! <pin_dir>/links/<cgroup ID>/<hook>             attachments to cgroups
//! <pin_dir>/links/tc/<namespace>/<device>/<hook> attachments to network devices, by cookie and index
//! ```
//!
//! Links belong to no layout: the programs inside them are swapped, and with them the maps they use. The maps of an
//! older layout stay until that is done, so a start that is killed on the way leaves everything in force, and the next
//! one begins again.

use std::{
    fs::{self, File, Metadata},
    io,
    os::{
        fd::AsFd as _,
        unix::fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use enforcer_common::ABI_VERSION;

use super::{BpfError, error::file_error};
use crate::sys;

/// What the first layout called its directory of maps.
const UNVERSIONED_MAPS: &str = "maps";
/// Directory of the attachments.
const LINKS: &str = "links";
/// Directory of the attachments to devices, beside those to cgroups.
const DEVICE_LINKS: &str = "tc";

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// The pin directory, locked: two enforcers must not share pins.
#[derive(Debug)]
pub(super) struct Pins {
    directory: PathBuf,
    _lock: File,
}

// === impl Pins ===

impl Pins {
    /// Makes and locks the directory; refuses one that has maps of a newer layout.
    pub(super) fn open(directory: &Path) -> Result<Self, BpfError> {
        require_bpffs(directory)?;
        let lock = loop {
            create(directory)?;
            if let Some(lock) = lock(directory)? {
                break lock;
            }
        };
        let pins = Self {
            directory: directory.to_owned(),
            _lock: lock,
        };
        require_known_layout(directory)?;
        create(&pins.maps())?;
        create(&pins.links())?;
        Ok(pins)
    }

    /// Where the maps of this layout are.
    pub(super) fn maps(&self) -> PathBuf {
        maps(&self.directory)
    }

    /// Where the attachments are.
    pub(super) fn links(&self) -> PathBuf {
        links(&self.directory)
    }

    /// Where the attachments to devices are.
    pub(super) fn device_links(&self) -> PathBuf {
        self.links().join(DEVICE_LINKS)
    }

    /// Directories of the attachments to cgroups.
    pub(super) fn cgroup_links(&self) -> Result<Vec<PathBuf>, BpfError> {
        let mut directories = children(&self.links())?;
        directories.retain(|path| path.file_name().is_some_and(|name| name != DEVICE_LINKS));
        Ok(directories)
    }

    /// Where the maps of the newest older layout are, if there is one that was ever in use.
    pub(super) fn older_maps(&self) -> Result<Option<PathBuf>, BpfError> {
        let mut older = layouts(&self.directory)?;
        older.retain(|(layout, _)| *layout < ABI_VERSION);
        older.sort_by_key(|(layout, _)| std::cmp::Reverse(*layout));
        let mut maps = older.into_iter().map(|(_, directory)| maps_below(&directory));
        // What a start made that was killed at once has no maps yet, or not all.
        Ok(maps.find(|maps| ["COUNTERS", "EVENTS"].iter().all(|map| maps.join(map).exists())))
    }

    /// Removes the maps of older layouts. Programs that still use them keep them.
    pub(super) fn remove_older_maps(&self) -> Result<(), BpfError> {
        for (layout, directory) in layouts(&self.directory)? {
            if layout < ABI_VERSION {
                tracing::info!(layout, "removing the maps of an older enforcer");
                remove(&directory)?;
            }
        }
        Ok(())
    }
}

/// Refuses a directory that has maps of a newer layout.
pub(super) fn require_known_layout(pin_dir: &Path) -> Result<(), BpfError> {
    match layouts(pin_dir)?.into_iter().find(|(layout, _)| *layout > ABI_VERSION) {
        Some((found, _)) => Err(BpfError::NewerLayout {
            path: pin_dir.to_owned(),
            found,
            wanted: ABI_VERSION,
        }),
        None => Ok(()),
    }
}

/// Every layout that is pinned, with the directory to remove when it is not needed any more.
fn layouts(pin_dir: &Path) -> Result<Vec<(u32, PathBuf)>, BpfError> {
    let mut layouts = Vec::new();
    for path in children(pin_dir)? {
        let name = path.file_name().unwrap_or_default();
        if name == UNVERSIONED_MAPS {
            layouts.push((1, path));
        } else if let Some(layout) = name.to_str().and_then(|name| name.parse().ok()) {
            layouts.push((layout, path));
        }
    }
    Ok(layouts)
}

/// Where the maps of this layout are.
pub(super) fn maps(pin_dir: &Path) -> PathBuf {
    pin_dir.join(ABI_VERSION.to_string()).join(UNVERSIONED_MAPS)
}

/// Where the attachments are.
pub(super) fn links(pin_dir: &Path) -> PathBuf {
    pin_dir.join(LINKS)
}

/// The pins on their way out, locked: nobody starts meanwhile.
#[derive(Debug)]
pub struct Removal {
    directory: PathBuf,
    _lock: File,
}

// === impl Removal ===

impl Removal {
    /// Locks the pins; none if there are none.
    pub fn begin(pin_dir: &Path) -> Result<Option<Self>, BpfError> {
        if !pin_dir.exists() {
            return Ok(None);
        }
        require_bpffs(pin_dir)?;
        let lock = lock(pin_dir)?;
        Ok(lock.map(|lock| Self {
            directory: pin_dir.to_owned(),
            _lock: lock,
        }))
    }

    /// Removes every pin, and with them hooks and maps. The directory goes last: as long as it is there, this can be done
    /// again.
    pub fn finish(self) -> Result<(), BpfError> {
        remove_links(&links(&self.directory))?;
        for path in children(&self.directory)? {
            remove(&path)?;
        }
        remove(&self.directory)
    }
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

/// Makes a directory and its parents, for root alone.
pub(super) fn create(directory: &Path) -> Result<(), BpfError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|source| file_error("create", directory, source))
}

/// Detaches and removes every link in a directory and below.
pub(super) fn remove_links(directory: &Path) -> Result<(), BpfError> {
    for path in children(directory)? {
        if path.is_dir() {
            remove_links(&path)?;
        } else {
            remove_link(&path)?;
        }
    }
    remove(directory)
}

/// Detaches and removes a link.
pub(super) fn remove_link(pin: &Path) -> Result<(), BpfError> {
    // One that cannot be opened or detached, because what it was attached to is gone, just goes.
    if let Ok(link) = sys::bpf::open_pin(pin)
        && let Err(error) = sys::bpf::detach_link(link.as_fd())
    {
        tracing::debug!(pin = %pin.display(), %error, "a link ends only with its pin");
    }
    remove(pin)
}

/// Removes a pin or a directory of pins. Not being there is fine.
pub(super) fn remove(path: &Path) -> Result<(), BpfError> {
    let removed = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(file_error("remove", path, source)),
        _ => Ok(()),
    }
}

/// What is in a directory; one that does not exist is empty.
pub(super) fn children(directory: &Path) -> Result<Vec<PathBuf>, BpfError> {
    let failed = |source| file_error("list", directory, source);
    let entries = match fs::read_dir(directory) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    paths.collect::<io::Result<_>>().map_err(failed)
}

fn maps_below(layout: &Path) -> PathBuf {
    if layout.ends_with(UNVERSIONED_MAPS) {
        layout.to_owned()
    } else {
        layout.join(UNVERSIONED_MAPS)
    }
}

/// Locks the directory; none if it was removed meanwhile, by whoever had the lock before: a lock on that one keeps nobody
/// out.
fn lock(pin_dir: &Path) -> Result<Option<File>, BpfError> {
    let directory = File::open(pin_dir).map_err(|source| file_error("open", pin_dir, source))?;
    match rustix::fs::flock(&directory, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Err(BpfError::AlreadyRunning {
                path: pin_dir.to_owned(),
            });
        }
        Err(error) => return Err(file_error("lock", pin_dir, error.into())),
    }
    let locked = directory
        .metadata()
        .map_err(|source| file_error("inspect", pin_dir, source))?;
    let is_there = is_at(&locked, pin_dir);
    Ok(is_there.then_some(directory))
}

/// Whether a path leads to this very file.
fn is_at(file: &Metadata, path: &Path) -> bool {
    let there = path.metadata();
    there.is_ok_and(|there| (there.dev(), there.ino()) == (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{is_at, lock};

    #[test]
    fn a_directory_that_was_made_again_is_another_one() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("pins");
        fs::create_dir(&path).unwrap();
        let first = lock(&path).unwrap().unwrap();
        let metadata = first.metadata().unwrap();
        assert!(is_at(&metadata, &path));
        fs::remove_dir(&path).unwrap();
        assert!(!is_at(&metadata, &path));
        fs::create_dir(&path).unwrap();
        assert!(!is_at(&metadata, &path));
        let second = lock(&path).unwrap();
        assert!(second.is_some(), "its lock is not that of the first one");
    }
}
