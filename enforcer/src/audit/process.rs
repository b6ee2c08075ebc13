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

/// How much of a command line and of a path is told, in bytes: a process can make them as long as it likes.
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
    // One byte more than is told tells a longer one.
    let limit = u64::try_from(MOST_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    directory
        .open_relative("cmdline")?
        .take(limit)
        .read_to_end(&mut bytes)?;
    Ok(arguments(&bytes))
}

/// The arguments in what was read of a command line.
fn arguments(bytes: &[u8]) -> Vec<String> {
    let mut redaction = Redaction::default();
    let (whole, cut) = match bytes.get(..MOST_BYTES).filter(|told| told.len() < bytes.len()) {
        Some(told) => {
            let last = told.iter().rposition(|byte| *byte == 0).map_or(0, |end| end + 1);
            let (whole, cut) = told.split_at_checked(last).unwrap_or((&[], told));
            (whole, Some(cut))
        }
        None => (bytes, None),
    };
    let ended = whole.strip_suffix(b"\0").unwrap_or(whole);
    let arguments = ended.split(|byte| *byte == 0).filter(|_| !whole.is_empty());
    let mut shown: Vec<_> = arguments
        .map(|argument| redaction.argument(&String::from_utf8_lossy(argument)))
        .collect();
    shown.extend(cut.map(|cut| redaction.cut_argument(&String::from_utf8_lossy(cut))));
    shown
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

    use super::{MOST_BYTES, Process, arguments};

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
        assert!(length.abs_diff(MOST_BYTES) < 8, "{length}");
        assert!(told.command.last().unwrap().ends_with("x ***"), "{told:?}");
    }

    #[test]
    fn what_is_cut_off_is_not_shown_in_part() {
        for secret in [
            "https://me:hunter2@host",
            "d8f91d60-f0c6-4160-b32b-3f61089b625a",
            "AKIAIOSFODNN7EXAMPLE",
        ] {
            for (read, separator) in (0..secret.len()).flat_map(|read| [(read, " "), (read, "\0")]) {
                let before = "x".repeat(MOST_BYTES - read - 1);
                let line = format!("{before}{separator}{secret}\0");
                let shown = arguments(&line.as_bytes()[..=MOST_BYTES]);
                assert_eq!(shown.join("\0"), format!("{before}{separator}***"));
            }
        }
        let whole = "x".repeat(MOST_BYTES - 1);
        assert_eq!(arguments(format!("{whole}\0").as_bytes()), [whole]);
        assert_eq!(arguments(b"x\0\0"), ["x", ""]);
        assert_eq!(arguments(b""), [""; 0]);
    }

    #[test]
    fn who_cannot_be_is_nobody() {
        assert_eq!(Process::read(u32::MAX), None);
        assert_eq!(Process::read(0), None);
    }
}
