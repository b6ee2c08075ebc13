//! The cgroup v2 tree: from ID to path and back.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use procfs::{ProcResult, process::Process};

use super::containers::is_like_a_containers;
use crate::sys;

/// What goes wrong with the cgroup tree.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// There is no cgroup2 mount.
    #[error("no cgroup2 file system is mounted: mount one (mount -t cgroup2 none /sys/fs/cgroup)")]
    NotMounted,
    /// A directory is not part of any cgroup2 mount.
    #[error("{path} is not on a cgroup2 file system: set cgroups.root to a directory below one")]
    NotCgroup2 {
        /// The directory.
        path: PathBuf,
    },
    /// What is mounted is not the tree that this process's own cgroup is told in: its root is another cgroup.
    #[error(
        "{path} shows the cgroups from {root} on, and not those of this process's cgroup namespace: \
         run in the host's cgroup namespace (docker run --cgroupns=host)"
    )]
    OtherView {
        /// Where it is mounted.
        path: PathBuf,
        /// The mount's root, as this process's cgroup namespace has it.
        root: String,
    },
    /// The kernel's files about a process could not be read.
    #[error("cannot read {what} of a process: {source}")]
    Proc {
        /// Which file.
        what: &'static str,
        /// Why.
        source: procfs::ProcError,
    },
    /// A cgroup directory could not be used.
    #[error("cannot {operation} cgroup {path}: {source}")]
    File {
        /// What was tried.
        operation: &'static str,
        /// The directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A cgroup ID could not be looked up.
    #[error("cannot find cgroup {id}: {source}")]
    Find {
        /// The ID.
        id: u64,
        /// Why.
        source: io::Error,
    },
}

/// The mounted cgroup v2 hierarchy.
#[derive(Clone, Debug)]
pub struct CgroupFs {
    mount: PathBuf,
    directory: Arc<File>,
}

// === impl CgroupFs ===

impl CgroupFs {
    /// Finds the cgroup2 mount that holds `root`, or the first one if `root` is `None`. It may be anywhere: hybrid hosts
    /// have it at `/sys/fs/cgroup/unified`.
    pub fn find(root: Option<&Path>) -> Result<Self, CgroupError> {
        let mounts = Process::myself()
            .and_then(|process| process.mountinfo())
            .map_err(|source| CgroupError::Proc {
                what: "mountinfo",
                source,
            })?;
        let mut candidates: Vec<_> = mounts
            .into_iter()
            .filter(|mount| mount.fs_type == "cgroup2")
            .map(|mount| (mount.mount_point, mount.root))
            .collect();
        if candidates.is_empty() {
            return Err(CgroupError::NotMounted);
        }
        // The deepest mount point that contains the root.
        candidates.sort_by_key(|(mount, _)| std::cmp::Reverse(mount.components().count()));
        let (mount, shown) = match root {
            None => candidates.pop().ok_or(CgroupError::NotMounted)?,
            Some(root) => candidates
                .into_iter()
                .find(|(mount, _)| root.starts_with(mount))
                .ok_or_else(|| CgroupError::NotCgroup2 { path: root.to_owned() })?,
        };
        require_own_view(&mount, shown)?;
        let directory = File::open(&mount).map_err(|source| file_error("open", &mount, source))?;
        Ok(Self {
            mount,
            directory: Arc::new(directory),
        })
    }

    /// A directory that is none, as if it were.
    #[cfg(test)]
    pub(crate) fn pretend(directory: &Path) -> Self {
        Self {
            mount: directory.to_owned(),
            directory: Arc::new(File::open(directory).unwrap()),
        }
    }

    /// Absolute path of the mount.
    #[must_use]
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// Path of a cgroup relative to the mount, with a leading slash; `None` if the cgroup is gone.
    pub fn path_of(&self, id: u64) -> Result<Option<PathBuf>, CgroupError> {
        let opened = match sys::file_handle::open_cgroup(self.directory.as_fd(), id) {
            Ok(opened) => opened,
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) => return Ok(None),
            Err(source) => return Err(CgroupError::Find { id, source }),
        };
        let path = fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd()))
            .map_err(|source| CgroupError::Find { id, source })?;
        // A cgroup removed after it was opened keeps its descriptor; its path is not one any more.
        let removed = fs::metadata(&path).map_or(true, |metadata| metadata.ino() != id);
        Ok((!removed).then(|| self.relative(&path)).flatten())
    }

    /// ID of the cgroup at a path relative to the mount; `None` if there is none. The ID is the directory's inode number.
    pub fn id_of(&self, path: &Path) -> Result<Option<u64>, CgroupError> {
        let path = self.absolute(path);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(file_error("inspect", &path, source)),
        }
    }

    /// Every cgroup below a directory of the mount, by its path relative to the mount, except what is below what looks like a
    /// container's: a container may make as many as it likes. One that vanishes meanwhile has none.
    #[must_use]
    pub fn below(&self, directory: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut left = vec![directory.to_owned()];
        while let Some(directory) = left.pop() {
            let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
            let children = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            for child in children.map(|entry| entry.path()) {
                found.extend(self.relative(&child));
                if !child.file_name().is_some_and(is_like_a_containers) {
                    left.push(child);
                }
            }
        }
        found
    }

    /// Path of this process's own cgroup relative to the mount.
    pub fn own(&self) -> Result<PathBuf, CgroupError> {
        cgroup_of(Process::myself())
    }

    /// The same of any process.
    pub fn of_process(&self, pid: i32) -> Result<PathBuf, CgroupError> {
        cgroup_of(Process::new(pid))
    }

    /// The absolute path of a path relative to the mount.
    #[must_use]
    pub fn absolute(&self, path: &Path) -> PathBuf {
        self.mount.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The path relative to the mount of an absolute one, `None` if it lies elsewhere.
    #[must_use]
    pub fn relative(&self, path: &Path) -> Option<PathBuf> {
        path.strip_prefix(&self.mount)
            .ok()
            .map(|relative| Path::new("/").join(relative))
    }
}

fn cgroup_of(process: ProcResult<Process>) -> Result<PathBuf, CgroupError> {
    let cgroups = process
        .and_then(|process| process.cgroups())
        .map_err(|source| CgroupError::Proc { what: "cgroup", source })?;
    let unified = cgroups
        .into_iter()
        .find(|cgroup| cgroup.hierarchy == 0)
        .ok_or(CgroupError::NotMounted)?;
    Ok(PathBuf::from(unified.pathname))
}

/// Elsewhere, paths of processes and paths of directories mean different cgroups.
fn require_own_view(mount: &Path, root: String) -> Result<(), CgroupError> {
    if root == "/" {
        return Ok(());
    }
    let path = mount.to_owned();
    Err(CgroupError::OtherView { path, root })
}

fn file_error(operation: &'static str, path: &Path, source: io::Error) -> CgroupError {
    CgroupError::File {
        operation,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::require_own_view;

    #[test]
    fn a_mount_that_shows_other_cgroups_than_ones_own_is_refused() {
        let mount = Path::new("/sys/fs/cgroup");
        require_own_view(mount, "/".to_owned()).unwrap();
        // The host's in another cgroup namespace, and a part of the tree.
        for root in ["/..", "/../..", "/kubepods.slice"] {
            let refused = require_own_view(mount, root.to_owned()).unwrap_err().to_string();
            assert!(
                refused.contains(root) && refused.contains("--cgroupns=host"),
                "{refused}"
            );
        }
    }
}
