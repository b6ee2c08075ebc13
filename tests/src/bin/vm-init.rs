//! PID 1 of the virtual machines that `cargo xtask test` boots: makes a system, runs the kernel tests, powers off.
//!
//! Everything it needs is in the initramfs: `/modules/*.ko` in load order, `/arguments` (one per line), the tests
//! ([`TESTS`]) and the binaries they start. The exit code goes to the console behind a marker that xtask knows.

use std::{
    fs::{self, File},
    io,
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    errno::Errno,
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    sys::{
        reboot::{RebootMode, reboot},
        termios::tcdrain,
        wait::{WaitStatus, wait},
    },
};

/// Type and place of each file system, in the order to mount them.
const FILE_SYSTEMS: [(&str, &str); 7] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("bpf", "/sys/fs/bpf"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
];

/// The tests, in the order they run.
const TESTS: [&str; 2] = ["/bin/kernel", "/bin/matrix"];

fn main() -> Result<()> {
    ensure!(
        std::process::id() == 1,
        "vm-init powers the machine off: it runs as PID 1 of a virtual machine only"
    );
    match prepare().and_then(|()| run_tests()) {
        Ok(code) => eprintln!("vm-init: tests ended with exit code {code}"),
        Err(error) => eprintln!("vm-init: {error:#}"),
    }
    // What is still on its way to the serial port would be lost.
    tcdrain(io::stderr()).context("cannot drain the console")?;
    reboot(RebootMode::RB_POWER_OFF).map(drop).context("cannot power off")
}

fn prepare() -> Result<()> {
    for (kind, target) in FILE_SYSTEMS {
        mount(Some(kind), target, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount {kind} at {target}"))?;
    }
    let mut modules = fs::read_dir("/modules")
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>())
        .context("cannot list /modules")?;
    modules.sort();
    modules.iter().try_for_each(|module| load(module))
}

fn load(module: &Path) -> Result<()> {
    let file = File::open(module).with_context(|| format!("cannot open {}", module.display()))?;
    finit_module(&file, c"", ModuleInitFlags::empty()).with_context(|| format!("cannot load {}", module.display()))
}

/// Runs the tests and, as every PID 1 must, collects whatever else ends meanwhile. Returns their exit code as a shell
/// would.
fn run_tests() -> Result<i32> {
    let mut worst = 0;
    for tests in TESTS {
        worst = worst.max(run(tests)?);
    }
    Ok(worst)
}

fn run(program: &str) -> Result<i32> {
    let arguments = fs::read_to_string("/arguments").context("cannot read /arguments")?;
    let tests = Command::new(program)
        .args(["--test-threads", "2"])
        .args(arguments.lines())
        .env("ENFORCER_TEST_BIN_DIR", "/bin")
        .env("ENFORCER_TEST_HAMMER_ACTIONS", "10")
        .env("ENFORCER_TEST_SLOWNESS", "5")
        .env("RUST_BACKTRACE", "1")
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, code)) if pid.as_raw().unsigned_abs() == tests.id() => return Ok(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw().unsigned_abs() == tests.id() => {
                return Ok(128 + signal as i32);
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for the tests"),
        }
    }
}
