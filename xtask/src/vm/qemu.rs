//! One virtual machine from boot to its end: its console line by line, and a deadline.

use std::{
    collections::VecDeque,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, ChildStdout, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};

use crate::step;

/// Emulation is about ten times slower than the host; a machine that needs longer hangs.
const DEADLINE: Duration = Duration::from_mins(55);

/// How much of the console explains a failure.
const TAIL_LINES: usize = 60;

/// Emulation and nothing else, so that every host runs the same machine. Its serial console is all there is to see, and
/// a panic ends it instead of booting it again.
///
/// One thread emulates both processors: with one each, QEMU before 8.1 (Debian 12 has 7.2) now and then lets a processor
/// run an instruction the other has patched meanwhile, and the kernel, which patches itself whenever a hook is attached,
/// panics with `Oops: int3`.
#[rustfmt::skip] // An option and its value belong on one line.
const MACHINE: [&str; 17] = [
    "-accel", "tcg,thread=single",
    "-cpu", "max",
    "-smp", "2",
    "-m", "2048",
    "-nodefaults",
    "-no-user-config",
    "-no-reboot",
    "-display", "none",
    "-serial", "stdio",
    "-append", "console=ttyS0 panic=-1 loglevel=4",
];

/// How a machine ended.
#[derive(Debug)]
pub(super) struct Console {
    end: End,
    tail: VecDeque<String>,
}

#[derive(Debug)]
enum End {
    Exited(ExitStatus),
    DeadlineExceeded,
}

/// Boots `image` with `initramfs` and calls `on_line` for each line of its console until the machine is off.
pub(super) fn boot(image: &Path, initramfs: &Path, on_line: impl FnMut(&str) -> Result<()>) -> Result<Console> {
    let mut qemu = step::command("qemu-system-x86_64");
    qemu.args(MACHINE)
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(initramfs);
    qemu.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = qemu.spawn().context("cannot start qemu-system-x86_64")?;
    let output = child.stdout.take().context("qemu has no output")?;

    let (stop, told_to_stop) = sync_channel(1);
    let watchdog = thread::spawn(move || watch(child, &told_to_stop, DEADLINE));
    let tail = follow(output, on_line);
    if tail.is_err() {
        // The watchdog may be gone already; then so is the machine.
        stop.send(()).unwrap_or_default();
    }
    drop(stop);
    let end = watchdog
        .join()
        .map_err(|_panic| anyhow!("the watchdog of qemu panicked"))??;
    Ok(Console { end, tail: tail? })
}

/// Hands over the console line by line until it is closed; returns its end.
fn follow(console: ChildStdout, mut on_line: impl FnMut(&str) -> Result<()>) -> Result<VecDeque<String>> {
    let mut tail = VecDeque::new();
    for line in BufReader::new(console).split(b'\n') {
        let line = line.context("cannot read the console of qemu")?;
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        on_line(&text)?;
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(text);
    }
    Ok(tail)
}

/// Waits until the console is closed (`stop` is dropped), kills the machine at the deadline or when told by `stop`,
/// and collects the process in each case.
fn watch(mut child: Child, stop: &Receiver<()>, deadline: Duration) -> Result<End> {
    let event = stop.recv_timeout(deadline);
    if event != Err(RecvTimeoutError::Disconnected) {
        child.kill().context("cannot kill qemu")?;
    }
    let status = child.wait().context("cannot wait for qemu")?;
    Ok(if event == Err(RecvTimeoutError::Timeout) {
        End::DeadlineExceeded
    } else {
        End::Exited(status)
    })
}

// === impl Console ===

impl Console {
    /// How the machine ended, and the last it said.
    pub(super) fn explain(&self) -> String {
        let end = match &self.end {
            End::Exited(status) => format!("the machine ended early (qemu: {status})"),
            End::DeadlineExceeded => format!("killed after {} minutes", DEADLINE.as_secs() / 60),
        };
        let tail: Vec<_> = self.tail.iter().map(|line| format!("    {line}")).collect();
        format!("{end}; the console ended with\n{}", tail.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::process::ExitStatusExt as _,
        process::{Child, Command},
        sync::mpsc::sync_channel,
        time::Duration,
    };

    use super::{End, watch};

    /// Longer than any test takes, shorter than anybody waits.
    const FAR: Duration = Duration::from_mins(1);

    fn machine(seconds: &str) -> Child {
        Command::new("sleep").arg(seconds).spawn().unwrap()
    }

    #[test]
    fn a_machine_that_hangs_is_killed_at_the_deadline() {
        let (_open_console, stop) = sync_channel(1);
        let end = watch(machine("600"), &stop, Duration::from_millis(1)).unwrap();
        assert!(matches!(end, End::DeadlineExceeded), "{end:?}");
    }

    #[test]
    fn a_machine_nobody_listens_to_is_killed() {
        let (tell, stop) = sync_channel(1);
        tell.send(()).unwrap();
        let end = watch(machine("600"), &stop, FAR).unwrap();
        assert!(
            matches!(end, End::Exited(status) if status.signal() == Some(9)),
            "{end:?}"
        );
    }

    #[test]
    fn a_machine_that_powers_off_is_collected() {
        let (tell, stop) = sync_channel(1);
        drop(tell);
        let end = watch(machine("0"), &stop, FAR).unwrap();
        assert!(matches!(end, End::Exited(status) if status.success()), "{end:?}");
    }
}
