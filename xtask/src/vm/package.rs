//! Debian's kernel packages: which is the newest of a line, and where it lies unpacked.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{setup::packages, step};

/// Cloud kernels: the smallest, and what instances run.
const SUFFIX: &str = "-cloud-amd64";

/// An unpacked kernel package.
#[derive(Debug)]
pub(super) struct Tree {
    /// What `uname -r` says in it.
    pub(super) release: String,
    /// Where it lies.
    pub(super) directory: PathBuf,
}

/// Returns the newest package of a line, unpacked below `target/vm`.
pub(super) fn fetch(prefix: &str) -> Result<Tree> {
    packages::with_fresh_index(|| {
        let names = step::output_of(step::command("apt-cache").args(["pkgnames", prefix]))?;
        let package = newest(names.lines(), prefix).with_context(|| {
            format!(
                "none of this host's package sources has {prefix}*{SUFFIX}; add Debian 12 with its security updates to \
                /etc/apt/sources.list.d, or use `cargo xtask test --kernel host`"
            )
        })?;
        let directory = step::workspace_root().join("target/vm").join(package);
        if !directory.exists() {
            unpack(package, &directory)?;
        }
        let release = package.trim_start_matches("linux-image-").to_owned();
        Ok(Tree { release, directory })
    })
}

/// Downloads and unpacks beside `directory`, then renames: what has the final name is complete.
fn unpack(package: &str, directory: &Path) -> Result<()> {
    let partial = directory.with_file_name(format!("{package}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
    }
    fs::create_dir_all(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
    step::run_download(
        step::command("apt-get")
            .args(["download", package])
            .current_dir(&partial),
    )?;
    let archive = fs::read_dir(&partial)
        .and_then(|mut entries| entries.next().transpose())
        .with_context(|| format!("cannot list {}", partial.display()))?
        .with_context(|| format!("`apt-get download {package}` left no file in {}", partial.display()))?
        .path();
    step::run(step::command("dpkg-deb").arg("-x").arg(&archive).arg(&partial))?;
    fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))?;
    fs::rename(&partial, directory).with_context(|| format!("cannot rename {}", partial.display()))
}

/// The signed cloud kernel with the highest version among `names`.
fn newest<'a>(names: impl Iterator<Item = &'a str>, prefix: &str) -> Option<&'a str> {
    names
        .filter_map(|name| Some((version(name, prefix)?, name)))
        .max()
        .map(|(_, name)| name)
}

/// The numbers after `prefix`: 56 of `6.1.0-56`, 117 of `6.12.117+deb12`.
fn version(name: &str, prefix: &str) -> Option<u32> {
    let version = name.strip_prefix(prefix)?.strip_suffix(SUFFIX)?;
    version.split('+').next()?.parse().ok()
}

// === impl Tree ===

impl Tree {
    /// The bootable image.
    pub(super) fn image(&self) -> PathBuf {
        self.directory.join("boot").join(format!("vmlinuz-{}", self.release))
    }

    /// The directory of its modules.
    pub(super) fn modules(&self) -> PathBuf {
        self.directory.join("lib/modules").join(&self.release)
    }
}

#[cfg(test)]
mod tests {
    use super::newest;

    #[test]
    fn the_newest_kernel_is_found_by_number_not_by_spelling() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-47-cloud-amd64",
        ];
        assert_eq!(
            newest(names.into_iter(), "linux-image-6.1.0-"),
            Some("linux-image-6.1.0-56-cloud-amd64")
        );
    }

    #[test]
    fn debug_unsigned_and_other_flavors_are_passed_over() {
        let names = [
            "linux-image-6.12.117+deb12-cloud-amd64-dbg",
            "linux-image-6.12.117+deb12-cloud-amd64-unsigned",
            "linux-image-6.12.117+deb12-rt-amd64",
            "linux-image-6.12.101+deb12-cloud-amd64",
        ];
        assert_eq!(
            newest(names.into_iter(), "linux-image-6.12."),
            Some("linux-image-6.12.101+deb12-cloud-amd64")
        );
    }
}
