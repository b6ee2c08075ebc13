//! What the process is that a record is about, by what `procfs` says of it. It enriches records and decides nothing: all of
//! it but the start time is the process's own to write.

use std::{io::Read as _, path::Path, time::Duration};

use jiff::Timestamp;
use procfs::{
    ProcResult,
    process::{Process as Directory, Stat},
};
use rustix::time::{ClockId, clock_gettime};
use serde::{Serialize, Serializer};

use super::arguments::Redaction;

/// How much of a command line is read, and how much of a path is told, in bytes: a process can make them as long as it
/// likes.
const MOST_BYTES: usize = 1024;

/// How many ancestors are told.
const MOST_ANCESTORS: usize = 6;

/// A process, some moments after what is recorded of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Process {
    /// The program; none for the kernel's own threads.
    executable: Option<String>,
    /// The command line, without what looks like a secret.
    command: Vec<String>,
    /// When it started, to hundredths of a second.
    #[serde(serialize_with = "hundredths")]
    pub(super) started: Timestamp,
    /// Its parent, the parent's parent, and so on.
    ancestors: Vec<Ancestor>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Ancestor {
    pid: i32,
    comm: String,
}

// === impl Process ===

impl Process {
    /// Reads what there is to know of a process; none if it is gone. The directory that is held open is that of one
    /// process, whichever gets its number afterwards.
    pub(super) fn read(pid: u32) -> Option<Self> {
        let directory = Directory::new(pid.try_into().ok()?).ok()?;
        let stat = directory.stat().ok()?;
        Some(Self {
            executable: directory.exe().ok().map(|path| told(&path)),
            command: command(&directory).unwrap_or_default(),
            started: started(&stat)?,
            ancestors: ancestors(&stat),
        })
    }
}

fn told(path: &Path) -> String {
    let mut path = path.to_string_lossy().into_owned();
    path.truncate(path.floor_char_boundary(MOST_BYTES));
    path
}

/// The command line, or as much of it as there is room for.
fn command(directory: &Directory) -> ProcResult<Vec<String>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(MOST_BYTES).unwrap_or(u64::MAX);
    directory
        .open_relative("cmdline")?
        .take(limit)
        .read_to_end(&mut bytes)?;
    let mut redaction = Redaction::default();
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    let arguments = bytes.split(|byte| *byte == 0).filter(|_| !bytes.is_empty());
    Ok(arguments
        .map(|argument| redaction.argument(&String::from_utf8_lossy(argument)))
        .collect())
}

fn started(stat: &Stat) -> Option<Timestamp> {
    let ticks = procfs::ticks_per_second();
    let since_boot = Duration::from_millis(stat.starttime.saturating_mul(1000).checked_div(ticks)?);
    let now = clock_gettime(ClockId::Boottime);
    let now = Duration::new(now.tv_sec.try_into().ok()?, now.tv_nsec.try_into().ok()?);
    Timestamp::now().checked_sub(now.checked_sub(since_boot)?).ok()
}

/// Whoever is younger than its child is somebody else, who got the number of a parent that is gone.
fn ancestors(stat: &Stat) -> Vec<Ancestor> {
    let parent = |child: &Stat| {
        let stat = Directory::new(child.ppid).and_then(|parent| parent.stat()).ok()?;
        (stat.starttime <= child.starttime).then_some(stat)
    };
    let ancestors = std::iter::successors(parent(stat), parent).take(MOST_ANCESTORS);
    ancestors
        .map(|stat| Ancestor {
            pid: stat.pid,
            comm: stat.comm,
        })
        .collect()
}

fn hundredths<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.2}"))
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        process::{self, Command, Stdio},
    };

    use jiff::{SignedDuration, Timestamp};

    use super::{MOST_BYTES, Process};

    #[test]
    fn a_process_is_told_with_its_program_command_line_and_ancestors() {
        let mut child = Command::new("/bin/sh")
            .args(["-c", "echo; read line", "name", "--password", "hunter2"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        let told = Process::read(child.id()).unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
        let program = std::fs::canonicalize("/bin/sh").unwrap();
        assert_eq!(told.executable.as_deref(), program.to_str());
        assert_eq!(
            told.command,
            ["/bin/sh", "-c", "echo; read line", "name", "--password", "***"]
        );
        assert_eq!(told.ancestors[0].pid, i32::try_from(process::id()).unwrap());
        let age = Timestamp::now().duration_since(told.started);
        assert!(!age.is_negative() && age < SignedDuration::from_mins(1), "{age:?}");
        assert_eq!(Process::read(child.id()), None);
    }

    #[test]
    fn a_long_command_line_is_cut_off() {
        let mut child = Command::new("/bin/sh")
            .args(["-c", "echo; read line", &"x ".repeat(MOST_BYTES)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        let told = Process::read(child.id()).unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
        let length: usize = told.command.iter().map(|argument| argument.len() + 1).sum();
        assert_eq!(length, MOST_BYTES + 1);
    }

    #[test]
    fn who_cannot_be_is_nobody() {
        assert_eq!(Process::read(u32::MAX), None);
        assert_eq!(Process::read(0), None);
    }
}
