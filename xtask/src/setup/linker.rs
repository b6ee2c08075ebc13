//! bpf-linker, and the LLVM it is built against: the one whose bitcode nightly's compiler writes.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::packages;
use crate::{cargo, step};

/// The release the eBPF side was tested with.
const VERSION: &str = "0.13.0";

/// The LLVM releases bpf-linker can be built against, by its features.
const SUPPORTED_LLVM: [u32; 3] = [21, 22, 23];

/// Installs bpf-linker for nightly's LLVM. Asked offline, cargo tells within a tenth of a second that this is done
/// already; when nightly has moved to the next LLVM it builds the linker anew.
pub(super) fn ensure_bpf_linker() -> Result<()> {
    let version = step::output_of(step::command("rustup").args(["run", "nightly", "rustc", "--version", "--verbose"]))?;
    let llvm = llvm_major(&version)?;
    if !SUPPORTED_LLVM.contains(&llvm) {
        bail!(
            "nightly writes LLVM {llvm} bitcode, which bpf-linker {VERSION} cannot read; type:\n  \
            rustup update nightly"
        );
    }
    let prefix = format!("/usr/lib/llvm-{llvm}");
    let config = format!("{prefix}/bin/llvm-config");
    packages::ensure(Path::new(&config).exists(), &config, &format!("llvm-{llvm}-dev"))?;

    step::announce(&format!("looking for bpf-linker {VERSION} with LLVM {llvm}"));
    let install = |options: &[&str]| {
        let mut command = cargo::stable();
        command
            .arg("install")
            .args(options)
            .args(["bpf-linker", "--locked", "--version", VERSION]);
        command
            .args(["--no-default-features", "--features", &format!("llvm-{llvm}")])
            .env("LLVM_PREFIX", &prefix);
        command
    };
    if step::succeeds(&mut install(&["--offline"])) {
        return Ok(());
    }
    step::run_download(&mut install(&[]))
}

/// The major version in `rustc -vV`'s line `LLVM version: 22.1.4`.
fn llvm_major(rustc_version: &str) -> Result<u32> {
    rustc_version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: ")?.split('.').next()?.parse().ok())
        .context("`rustc -vV` of nightly names no LLVM version")
}

#[cfg(test)]
mod tests {
    use super::llvm_major;

    #[test]
    fn the_llvm_release_comes_from_the_compiler() {
        assert_eq!(
            llvm_major("rustc 1.97.0-nightly\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4\n").unwrap(),
            22
        );
        assert!(llvm_major("rustc 1.97.0-nightly\n").is_err());
    }
}
