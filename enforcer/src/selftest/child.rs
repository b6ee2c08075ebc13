//! The child that makes the attempts: one JSON line in names technique and ground, one JSON line out tells how it went.
//! The first line out says that it is in its place.
//!
//! Its parent puts it into a cgroup and a network namespace, so that the attempts are those of a container's process.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Write},
    os::fd::AsFd as _,
    path::Path,
    process::{Child as Process, ChildStdin, ChildStdout, Command, Stdio},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use super::{SelftestError, ground::Ground, technique};

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "selftest-child";

/// What the child says when it is in its place.
const READY: &str = "1";

/// What the parent says.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    technique: String,
    ground: Ground,
}

/// How an attempt went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was made.
    Tried {
        /// What the last system call answered, `None` for success.
        errno: Option<i32>,
    },
    /// It could not be made.
    Unavailable {
        /// Why.
        why: String,
    },
}

/// Answers of the kernel that mean that it does not have what a technique uses.
const MISSING: [i32; 5] = [
    libc::ENOSYS,
    libc::EPROTONOSUPPORT,
    libc::ESOCKTNOSUPPORT,
    libc::EAFNOSUPPORT,
    libc::ENOPROTOOPT,
];

// === impl Outcome ===

impl Outcome {
    /// Whether every system call succeeded.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        matches!(self, Self::Tried { errno: None })
    }

    fn of(result: io::Result<()>) -> Self {
        match result {
            Ok(()) => Self::Tried { errno: None },
            Err(error) => match error.raw_os_error() {
                Some(errno) if !MISSING.contains(&errno) => Self::Tried { errno: Some(errno) },
                _ => Self::Unavailable { why: error.to_string() },
            },
        }
    }
}

/// The child's side: enters its place, then obeys until its input ends.
pub fn run(cgroup: Option<&Path>, network: Option<&Path>) -> io::Result<()> {
    if let Some(cgroup) = cgroup {
        std::fs::write(cgroup.join("cgroup.procs"), "0")?;
    }
    if let Some(network) = network {
        move_into_link_name_space(File::open(network)?.as_fd(), Some(LinkNameSpaceType::Network))?;
    }
    let mut output = io::stdout().lock();
    writeln!(output, "{READY}")?;
    output.flush()?;
    for line in io::stdin().lock().lines() {
        let order: Order = serde_json::from_str(&line?)?;
        let outcome = match technique::find(&order.technique) {
            Some(technique) => Outcome::of((technique.run)(&order.ground)),
            None => Outcome::Unavailable {
                why: "there is no such technique".to_owned(),
            },
        };
        serde_json::to_writer(&mut output, &outcome)?;
        output.write_all(b"\n")?;
        output.flush()?;
    }
    Ok(())
}

/// The parent's side. The child ends when this is dropped, or the parent is gone.
#[derive(Debug)]
pub(super) struct Child {
    process: Process,
    orders: Option<ChildStdin>,
    outcomes: BufReader<ChildStdout>,
}

// === impl Child ===

impl Child {
    /// Starts a child in a cgroup (none: where the parent is) and a network namespace.
    pub(super) fn start(cgroup: Option<&Path>, network: &Path) -> Result<Self, SelftestError> {
        let failed = |source| SelftestError::Child {
            operation: "start",
            source,
        };
        let mut command = Command::new("/proc/self/exe");
        command.arg(SUBCOMMAND).arg("--network").arg(network);
        if let Some(cgroup) = cgroup {
            command.arg("--cgroup").arg(cgroup);
        }
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let broken = || failed(io::ErrorKind::BrokenPipe.into());
        let orders = process.stdin.take();
        let mut outcomes = BufReader::new(process.stdout.take().ok_or_else(broken)?);
        let mut ready = String::new();
        outcomes.read_line(&mut ready).map_err(failed)?;
        if ready.trim_end() != READY {
            return Err(broken());
        }
        Ok(Self {
            process,
            orders,
            outcomes,
        })
    }

    /// Has an attempt made.
    pub(super) fn attempt(&mut self, technique: &str, ground: &Ground) -> Result<Outcome, SelftestError> {
        let order = Order {
            technique: technique.to_owned(),
            ground: ground.clone(),
        };
        self.exchange(&order).map_err(|source| SelftestError::Child {
            operation: "talk to",
            source,
        })
    }

    fn exchange(&mut self, order: &Order) -> io::Result<Outcome> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        self.orders
            .as_mut()
            .ok_or(io::ErrorKind::BrokenPipe)?
            .write_all(&line)?;
        let mut answer = String::new();
        self.outcomes.read_line(&mut answer)?;
        Ok(serde_json::from_str(&answer)?)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait()) {
            tracing::warn!(%error, "cannot end a child of the self-test");
        }
    }
}
