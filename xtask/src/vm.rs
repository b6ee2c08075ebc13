//! The kernel tests on other kernels: Debian's, in QEMU, with an initramfs that holds nothing but our binaries.
//!
//! PID 1 of the machine is `vm-init` (package `enforcer-tests`); what it prints on the serial console is the contract:
//! libtest's own lines, then [`STATUS_MARKER`] with the exit code. A machine that ends without it has failed.

mod initramfs;
mod modules;
mod package;
mod qemu;

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use self::initramfs::Initramfs;
use crate::{
    cargo::Executable,
    step,
    test::{print_line, tally::Tally},
};

/// Precedes the exit code of the tests on the console; `vm-init` writes it.
const STATUS_MARKER: &str = "vm-init: tests ended with exit code ";

/// What the kernel tests need of the kernel and Debian builds as modules: links, TC, the protocols a container might
/// try, and the lists of sockets (`*_diag`).
const MODULES: [&str; 20] = [
    "veth",
    "bridge",
    "dummy",
    "macvlan",
    "ipvlan",
    "tun",
    "ifb",
    "sch_ingress",
    "cls_bpf",
    "cls_u32",
    "act_mirred",
    "sctp",
    "dccp_ipv4",
    "dccp_ipv6",
    "tcp_diag",
    "udp_diag",
    "raw_diag",
    "mptcp_diag",
    "af_packet_diag",
    "unix_diag",
];

/// A kernel line we test on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Kernel {
    /// The kernel line, as users name it.
    pub(crate) line: &'static str,
    /// What the names of its packages begin with.
    package_prefix: &'static str,
}

/// Debian 12's kernel, which is also Amazon Linux 2023's line: the oldest supported.
pub(crate) const OLDEST: Kernel = Kernel {
    line: "6.1",
    package_prefix: "linux-image-6.1.0-",
};

/// The next long-term kernel.
pub(crate) const NEWER: Kernel = Kernel {
    line: "6.12",
    package_prefix: "linux-image-6.12.",
};

/// What a machine is given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Payload<'a> {
    /// PID 1.
    pub(crate) init: &'a Executable,
    /// Goes to `/bin` under its own name; `kernel`, the test executable, is among them.
    pub(crate) programs: &'a [&'a Executable],
    /// Arguments of the test executable.
    pub(crate) arguments: &'a [String],
}

/// A kernel that is unpacked on this host.
#[derive(Debug)]
pub(crate) struct Prepared {
    kernel: Kernel,
    tree: package::Tree,
}

/// Downloads and unpacks the newest kernel of a line, unless that is done already.
pub(crate) fn prepare(kernel: Kernel) -> Result<Prepared> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the virtual machines are for x86_64 hosts only; use `cargo xtask test --kernel host`"
    );
    let tree = package::fetch(kernel.package_prefix).with_context(|| format!("cannot get kernel {}", kernel.line))?;
    Ok(Prepared { kernel, tree })
}

// === impl Prepared ===

impl Prepared {
    /// Which kernel this is, in full.
    pub(crate) fn release(&self) -> &str {
        &self.tree.release
    }

    /// Boots the kernel, runs the tests in it and returns their sum.
    pub(crate) fn run_tests(&self, payload: Payload<'_>) -> Result<Tally> {
        let line = self.kernel.line;
        let initramfs = self.tree.directory.join("initramfs.cpio");
        fs::write(&initramfs, self.pack(payload)?)
            .with_context(|| format!("cannot write {}; is the disk full?", initramfs.display()))?;
        step::announce(&format!("booting {} in QEMU", self.release()));

        let mut tally = Tally::default();
        let mut status = None;
        let console = qemu::boot(&self.tree.image(), &initramfs, |text| {
            tally.read(text);
            status = status.or_else(|| exit_code(text));
            print_line(&format!("[{line}] {text}"))
        })?;
        match status {
            Some(code) => tally.finish(code == 0, &format!("kernel tests on {line} (exit code {code})")),
            None => tally.fail(format!("kernel tests on {line}: {}", console.explain())),
        }
        Ok(tally)
    }

    fn pack(&self, payload: Payload<'_>) -> Result<Vec<u8>> {
        let mut archive = Initramfs::default();
        for directory in ["bin", "dev", "modules", "proc", "run", "sys", "tmp"] {
            archive.directory(directory)?;
        }
        archive.file("init", &read(&payload.init.path)?)?;
        for program in payload.programs {
            archive.file(&format!("bin/{}", program.name), &read(&program.path)?)?;
        }
        archive.file("arguments", payload.arguments.join("\n").as_bytes())?;
        for (index, module) in modules::in_load_order(&self.tree.modules(), &MODULES)?
            .iter()
            .enumerate()
        {
            archive.file(&format!("modules/{index:02}-{}.ko", module.name), &module.image)?;
        }
        archive.finish()
    }
}

/// The exit code in a console line, if it is the one that carries it.
fn exit_code(text: &str) -> Option<u32> {
    text.split_once(STATUS_MARKER)?.1.trim().parse().ok()
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}
