//! The cgroup v2 tree: from ID to path and back.

use std::path::{Path, PathBuf};

/// What goes wrong with the cgroup tree.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {}

/// The mounted cgroup v2 hierarchy.
#[derive(Debug, Clone)]
pub struct CgroupFs {}

impl CgroupFs {
    /// Finds the cgroup2 mount (`/proc/self/mountinfo`) that holds `root`, or any if `root` is `None`.
    pub fn find(_root: Option<&Path>) -> Result<Self, CgroupError> {
        unimplemented!()
    }
    /// Absolute path of the mount.
    pub fn mount(&self) -> &Path {
        unimplemented!()
    }
    /// Path of a cgroup relative to the mount, with a leading slash; `None` if the cgroup is gone.
    pub fn path_of(&self, _id: u64) -> Result<Option<PathBuf>, CgroupError> {
        unimplemented!()
    }
    /// ID of the cgroup at a path relative to the mount.
    pub fn id_of(&self, _path: &Path) -> Result<u64, CgroupError> {
        unimplemented!()
    }
}
