//! The self-test: tries every known technique against the installed enforcer, from a throwaway container of its own
//! against a metadata service of its own.
//!
//! ```text
//!   client netns                     host netns                     service netns
//!   eth0 ── veth ──────────────── selftest<pid> ··· macvlan ···· eth0 169.254.169.254, fd00:ec2::254
//!                                 (packet hooks)               every packet is counted
//! ```
//!
//! The host's routes, addresses and filters are never part of it: frames go from the veth to the macvlan device on top
//! of it. So the real metadata service is never addressed from a namespace that could reach it.
//!
//! - [`technique`] is the table of what is tried; [`child`] the process that tries it, from its [`ground`].
//! - `world` builds and removes all this, `witness` counts what arrives, [`report`] tells what came of it.

pub mod child;
pub mod ground;
pub mod network;
pub mod report;
pub mod technique;

mod packet;
mod socket;
mod witness;
mod world;

use std::{io, net::SocketAddrV4, os::unix::fs::MetadataExt as _, path::PathBuf, thread, time::Duration};

use enforcer_common::{cgroup::CgroupClass, counter::Counter};

use self::{
    child::Child,
    ground::{Endpoint, Ground},
    network::{Namespace, NetworkError},
    report::{Report, Row},
    technique::{Goal, TECHNIQUES, Technique},
    world::{Cgroups, Mode, World},
};
use crate::bpf::{BpfError, Counters, Pinned};

/// What keeps the self-test from running.
#[derive(Debug, thiserror::Error)]
pub enum SelftestError {
    /// The child failed.
    #[error("cannot {operation} the child that makes the attempts: {source}")]
    Child {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A throwaway cgroup could not be made or looked at.
    #[error("cannot use cgroup {path}: {source}; the self-test needs root")]
    Cgroup {
        /// The cgroup.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The enforcer does not block what is done in the throwaway cgroup.
    #[error(
        "what is done below {root} is not blocked, as it is trusted or only observed there: the self-test would prove nothing; see `cgroups` in the configuration"
    )]
    NotEnforced {
        /// The cgroup the throwaway one is in.
        root: PathBuf,
    },
    /// A namespace could not be made or entered.
    #[error("cannot make a network namespace: {source}; the self-test needs root")]
    Namespace {
        /// Why.
        source: io::Error,
    },
    /// A namespace could not be filled.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// What arrives could not be counted.
    #[error("cannot count what reaches the fake metadata service: {source}")]
    Witness {
        /// Why.
        source: io::Error,
    },
    /// The kernel's counters could not be read.
    #[error(transparent)]
    Bpf(#[from] BpfError),
}

/// What the self-test needs to know of the installed enforcer.
#[derive(Debug)]
pub struct Installed {
    /// Absolute path of the mount its cgroups are in.
    pub cgroup_mount: PathBuf,
    /// Absolute path of the cgroup its hooks are attached to.
    pub cgroup_root: PathBuf,
    /// Absolute path of the cgroup the self-test itself runs in.
    pub own_cgroup: PathBuf,
    /// The credential endpoint as containers write it.
    pub endpoint: SocketAddrV4,
    /// The ports behind it.
    pub steer_ports: [u16; 2],
    /// The guarded ports of the agent behind it.
    pub agent_ports: Vec<u16>,
    /// What its hooks go by and count.
    pub pinned: Pinned,
}

/// A credential ID that nobody has: whoever asks for it is refused.
const NOBODYS: &str = "/v2/credentials/00000000-5e1f-7e57-0000-000000000000";

/// How often it is looked whether a running enforcer has noticed a new interface, and the pause in between. It looks at
/// everything every 10 seconds, and a busy machine needs longer for that.
const NOTICE: (u32, Duration) = (1500, Duration::from_millis(20));

/// Tries everything.
pub fn run(installed: &Installed) -> Result<Report, SelftestError> {
    let cgroups = Cgroups::create(&installed.cgroup_root)?;
    require_enforcement(installed, &cgroups)?;
    let mut report = Report::default();
    for (mode, name) in [(Mode::Bridge, "bridge"), (Mode::Device, "device")] {
        let world = World::build(mode)?;
        let mut bench = Bench {
            ground: World::ground(&cgroups, &installed.own_cgroup),
            guarded: Child::start(Some(&cgroups.guarded), &world.client.path())?,
            control: Some(Child::start(None, &world.client.path())?),
            way: Some(&world),
            counters: &installed.pinned.counters,
        };
        world.connect()?;
        bench.await_packet_hooks()?;
        report.modes.insert(name, bench.rows(|goal| !goal.is_at_endpoint())?);
    }
    let host = Namespace::current().map_err(|source| SelftestError::Namespace { source })?;
    let mut bench = Bench {
        ground: host_ground(installed, &cgroups),
        guarded: Child::start(Some(&cgroups.guarded), &host.path())?,
        control: None,
        way: None,
        counters: &installed.pinned.counters,
    };
    let rows = bench.rows(Goal::is_at_endpoint)?;
    report.modes.insert("host", rows);
    Ok(report)
}

/// Guards may be told to only observe, by root of their containers; then nothing could be proven.
fn require_enforcement(installed: &Installed, cgroups: &Cgroups) -> Result<(), SelftestError> {
    let above = cgroups.guarded.ancestors();
    let lineage = above
        .take_while(|path| path.starts_with(&installed.cgroup_mount))
        .map(|path| {
            let metadata = path.metadata().map_err(|source| SelftestError::Cgroup {
                path: path.to_owned(),
                source,
            });
            metadata.map(|metadata| metadata.ino())
        });
    let mut lineage = lineage.collect::<Result<Vec<_>, _>>()?;
    lineage.reverse();
    let treatment = installed.pinned.treatment(&lineage)?;
    if treatment.class == CgroupClass::Guarded && !treatment.observed {
        return Ok(());
    }
    Err(SelftestError::NotEnforced {
        root: installed.cgroup_root.clone(),
    })
}

/// In the host's namespace only the enforcer's own endpoint is asked: what else is addressed there is the real thing.
fn host_ground(installed: &Installed, cgroups: &Cgroups) -> Ground {
    Ground {
        in_host_network: true,
        endpoint: Some(Endpoint {
            address: installed.endpoint,
            source: *installed.endpoint.ip(),
            steer_ports: installed.steer_ports,
            agent_ports: installed.agent_ports.clone(),
            foreign: NOBODYS.to_owned(),
        }),
        own: *installed.endpoint.ip(),
        ..Ground::nowhere(
            cgroups.guarded.clone(),
            cgroups.sibling.clone(),
            installed.own_cgroup.clone(),
        )
    }
}

/// Everything an attempt needs in one mode.
struct Bench<'a> {
    ground: Ground,
    guarded: Child,
    /// Where the self-test itself is, which may be trusted.
    control: Option<Child>,
    /// The way to the fake metadata service, where there is one.
    way: Option<&'a World>,
    counters: &'a Counters,
}

// === impl Bench ===

impl Bench<'_> {
    /// Tries what is after these goals.
    fn rows(&mut self, is_wanted: impl Fn(Goal) -> bool) -> Result<Vec<Row>, SelftestError> {
        let wanted = TECHNIQUES.iter().filter(|technique| is_wanted(technique.goal));
        wanted.map(|technique| self.row(technique)).collect()
    }

    fn row(&mut self, technique: &Technique) -> Result<Row, SelftestError> {
        let before = self.noticed(technique.goal)?;
        let outcome = self.guarded.attempt(technique.name, &self.ground)?;
        let arrived = self.arrived()?;
        let recorded = self.noticed(technique.goal)?.saturating_sub(before);
        let leaked = match technique.goal {
            Goal::Metadata | Goal::Silence { .. } => arrived,
            Goal::Credentials | Goal::Outage { .. } => u64::from(outcome.is_success()),
        };
        Ok(Row {
            technique: technique.name,
            what: technique.what,
            verdict: Row::verdict_of(technique.goal, &outcome, leaked, recorded),
            leaked,
            recorded,
            control: self.control(technique)?,
            outcome,
        })
    }

    /// The same attempt by a process in the self-test's own cgroup.
    fn control(&mut self, technique: &Technique) -> Result<Option<u64>, SelftestError> {
        let Some(control) = &mut self.control else {
            return Ok(None);
        };
        let cgroup = self.ground.outside.clone();
        control.attempt(
            technique.name,
            &Ground {
                cgroup,
                ..self.ground.clone()
            },
        )?;
        self.arrived().map(Some)
    }

    /// A running enforcer attaches packet hooks to our interface a moment after it appeared. Without a running one this
    /// is over when the time is, and frames show that they get through.
    fn await_packet_hooks(&mut self) -> Result<(), SelftestError> {
        let (times, pause) = NOTICE;
        for _ in 0..times {
            let before = self.refusals()?;
            self.guarded.attempt("packet-raw", &self.ground)?;
            if self.arrived()? == 0 && self.refusals()? > before {
                return Ok(());
            }
            thread::sleep(pause);
        }
        tracing::warn!("no packet hooks on the self-test's interface: does `enforcer run` run? New interfaces need it");
        Ok(())
    }

    fn arrived(&self) -> Result<u64, SelftestError> {
        let Some(world) = self.way else { return Ok(0) };
        let counted = world.witness.count(&world.client);
        counted.map_err(|source| SelftestError::Witness { source })
    }

    /// How much the kernel noticed. A connection it steered to the enforcer is refused there, with a record of its own.
    fn noticed(&self, goal: Goal) -> Result<u64, SelftestError> {
        let steered = match goal {
            Goal::Credentials => self.counters.read(Counter::Steered)?,
            Goal::Metadata | Goal::Silence { .. } | Goal::Outage { .. } => 0,
        };
        Ok(self.refusals()? + steered)
    }

    fn refusals(&self) -> Result<u64, SelftestError> {
        Ok(self.counters.read(Counter::Denied)? + self.counters.read(Counter::Dropped)?)
    }
}
