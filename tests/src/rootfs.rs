//! The files of containers that no image is there for: links into `/usr`, which is this machine's, read-only, and the
//! program of the lab.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{keeper::Keeper, scene::Scene};

/// Where the files are in the scene.
const DIRECTORY: &str = "/run/rootfs";

/// A container's files.
#[derive(Debug)]
pub struct Rootfs {
    program: String,
}

// === impl Rootfs ===

impl Rootfs {
    /// Makes the files in a scene.
    pub fn make(scene: &Scene) -> Result<Self> {
        let directory = scene.path(DIRECTORY);
        fs::create_dir(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        link_into_usr(&directory)?;
        // Containers in the host's network get the host's; the scene has none.
        for file in ["/etc/hosts", "/etc/resolv.conf"] {
            let path = scene.path(file);
            fs::write(&path, "").with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(Self {
            program: Keeper::program("lab").display().to_string(),
        })
    }

    /// Where they are, in the scene.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        DIRECTORY.into()
    }

    /// What is to be bound in them: from, to.
    #[must_use]
    pub fn mounts(&self) -> [(&str, &str); 2] {
        [("/usr", "/usr"), (&self.program, "/lab")]
    }
}

/// Makes the links a tree needs for `/usr` to be all there is.
pub(crate) fn link_into_usr(tree: &Path) -> Result<()> {
    for directory in ["bin", "lib", "lib64", "sbin"] {
        symlink(Path::new("usr").join(directory), tree.join(directory)).context("cannot make a container's files")?;
    }
    Ok(())
}
