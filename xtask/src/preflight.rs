//! What this host must offer before hooks can be attached: one clear line for each thing missing.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use anyhow::{Context as _, Result, bail, ensure};

/// The oldest kernel all hooks work on.
const OLDEST_KERNEL: (u32, u32) = (6, 1);

/// Fails if programs cannot be attached on this host.
pub(crate) fn require_kernel_access() -> Result<()> {
    require_linux()?;
    require_kernel(&read("/proc/sys/kernel/osrelease")?)?;
    require_btf(Path::new("/sys/kernel/btf/vmlinux"))?;
    require_cgroup2(&read("/proc/self/mountinfo")?)?;
    require_root()
}

/// Fails anywhere but on Linux.
pub(crate) fn require_linux() -> Result<()> {
    ensure!(
        cfg!(target_os = "linux"),
        "this is not Linux: use a Linux machine or virtual machine (kernel 6.1 or newer)"
    );
    Ok(())
}

/// Whether this process may attach programs and install packages.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn require_root() -> Result<()> {
    ensure!(
        is_root(),
        "not root: hooks can only be attached by root; run the same command with sudo or in a root shell"
    );
    Ok(())
}

fn require_kernel(release: &str) -> Result<()> {
    let release = release.trim();
    let mut numbers = release
        .split(['.', '-', '+'])
        .map_while(|part| part.parse::<u32>().ok());
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
        bail!("kernel release `{release}` has no version number");
    };
    let (oldest_major, oldest_minor) = OLDEST_KERNEL;
    ensure!(
        (major, minor) >= OLDEST_KERNEL,
        "kernel {release} is too old: {oldest_major}.{oldest_minor} is the oldest supported; boot a newer one"
    );
    Ok(())
}

fn require_btf(file: &Path) -> Result<()> {
    ensure!(
        file.exists(),
        "no BTF ({} is missing): boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, as all current distributions do",
        file.display()
    );
    Ok(())
}

fn require_cgroup2(mountinfo: &str) -> Result<()> {
    let is_cgroup2 = |line: &str| {
        line.split_once(" - ")
            .is_some_and(|(_, source)| source.starts_with("cgroup2 "))
    };
    ensure!(
        mountinfo.lines().any(is_cgroup2),
        "no cgroup v2 hierarchy is mounted: boot with systemd.unified_cgroup_hierarchy=1, or `mount -t cgroup2 cgroup2 /sys/fs/cgroup`"
    );
    Ok(())
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}; is /proc mounted?"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{require_btf, require_cgroup2, require_kernel};

    #[test]
    fn kernels_since_6_1_are_accepted() {
        for release in ["6.1.0-56-cloud-amd64\n", "6.1", "6.12.117+deb12", "7.0-rc1"] {
            assert!(require_kernel(release).is_ok(), "{release}");
        }
    }

    #[test]
    fn older_kernels_are_refused_with_both_versions() {
        for release in ["5.15.0-1", "6.0.19", "4.18.0-553.el8"] {
            let error = require_kernel(release).unwrap_err().to_string();
            assert!(
                error.contains(release) && error.contains("6.1 is the oldest"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_release_without_a_version_is_refused() {
        assert!(require_kernel("generic").is_err());
    }

    #[test]
    fn a_cgroup2_mount_counts_wherever_it_is() {
        let hybrid = "35 31 0:33 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        assert!(require_cgroup2(hybrid).is_ok());
    }

    #[test]
    fn cgroup_v1_alone_is_refused() {
        let error = require_cgroup2("35 31 0:33 / /sys/fs/cgroup/cgroup2 rw - cgroup cgroup2 rw,cpu\n").unwrap_err();
        assert!(error.to_string().contains("no cgroup v2"), "{error}");
    }

    #[test]
    fn a_kernel_without_btf_is_refused() {
        assert!(
            require_btf(Path::new("/nonexistent/vmlinux"))
                .unwrap_err()
                .to_string()
                .contains("no BTF")
        );
    }
}
