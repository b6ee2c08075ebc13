//! Run time per hook, from the kernel's own statistics (which cost some 10 to 20 ns per run themselves).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context, Result};
use aya::{
    maps::{HashMap, Map, MapData},
    programs::loaded_programs,
    sys::{Stats, enable_stats},
};
use enforcer_common::{ABI_VERSION, cgroup::Treatment};

use super::{
    gauge::{Action, Gauge},
    say,
};
use crate::scene::Scene;

/// How many cgroups are classified: hooks must cost the same with many.
const CLASSES: [usize; 3] = [1, 1_000, 100_000];

/// Hook, what it may cost on unrelated traffic in nanoseconds, if there is a target.
const HOOKS: [(&str, Option<u32>); 13] = [
    ("connect4", Some(50)),
    ("connect6", Some(50)),
    ("sendmsg4", Some(50)),
    ("sendmsg6", Some(50)),
    ("sock_create", Some(50)),
    ("setsockopt", Some(50)),
    ("sock_ops", Some(50)),
    ("egress", Some(25)),
    ("enforcer_in", Some(25)),
    ("enforcer_out", Some(25)),
    ("enforcer_uplink", Some(25)),
    ("enforcer_device", Some(25)),
    ("sock_ops_own", None),
];

/// Runs and nanoseconds of each hook so far.
type Totals = BTreeMap<String, (u64, u64)>;

/// The enforcer's class map.
type Classes = HashMap<MapData, u64, u32>;

/// What a container does over and over.
struct Traffic {
    title: &'static str,
    to: [&'static str; 2],
    actions: &'static [Action],
    times: u32,
    /// Whether the targets are for this.
    has_targets: bool,
}

const TRAFFIC: [Traffic; 2] = [
    Traffic {
        title: "unrelated traffic of a bridge container",
        // Nobody listens there, and nothing protects it.
        to: ["10.77.0.1:9", "[fd77::1]:9"],
        actions: &[
            Action::ConnectUdp,
            Action::SendUdp,
            Action::ConnectTcp,
            Action::SetOption,
        ],
        times: 50_000,
        has_targets: true,
    },
    Traffic {
        title: "what is refused to it: the sender is classified, the attempt recorded",
        to: ["169.254.169.254:80", "[fd00:ec2::254]:80"],
        actions: &[Action::SendUdp, Action::ConnectTcp],
        times: 10_000,
        has_targets: false,
    },
];

pub(super) fn measure(scene: &mut Scene) -> Result<()> {
    let enforcer = scene.enforcer().pid()?;
    let _statistics = enable_stats(Stats::RunTime).context("cannot switch on the kernel's BPF statistics")?;
    let mut container = scene.in_bridge_container("web", Gauge::start)?;
    let mut classes = open_classes(scene)?;
    let mut counts = Vec::new();
    let mut phases: [Vec<(Totals, Totals)>; TRAFFIC.len()] = <[Vec<_>; TRAFFIC.len()]>::default();
    for wanted in CLASSES {
        counts.push(fill(&mut classes, wanted)?);
        for (traffic, phases) in TRAFFIC.iter().zip(&mut phases) {
            let before = run_totals(enforcer)?;
            traffic.send(&mut container)?;
            phases.push((before, run_totals(enforcer)?));
        }
    }
    say("Run time per hook by number of classified cgroups, in nanoseconds (the statistics' own cost included)")?;
    TRAFFIC
        .iter()
        .zip(&phases)
        .try_for_each(|(traffic, phases)| traffic.report(&counts, phases))
}

// === impl Traffic ===

impl Traffic {
    fn send(&self, container: &mut Gauge) -> Result<()> {
        for to in self.to {
            for action in self.actions {
                container.repeat(*action, to.parse()?, self.times)?;
            }
        }
        Ok(())
    }

    /// Prints a row for each hook that ran.
    fn report(&self, counts: &[usize], phases: &[(Totals, Totals)]) -> Result<()> {
        let heads = columns(counts.iter().map(ToString::to_string));
        say(&format!("  on {}", self.title))?;
        say(&format!("  {:<16}{:>9}{heads}  {}", "hook", "runs", "target"))?;
        for (hook, target) in HOOKS {
            let figures = phases.iter().map(|(before, after)| between(before, after, hook));
            let (runs, each): (Vec<_>, Vec<_>) = figures.unzip();
            let runs = runs.iter().sum::<u64>();
            if runs == 0 {
                continue;
            }
            let cells = columns(
                each.into_iter()
                    .map(|each| each.map_or("-".to_owned(), |each| each.to_string())),
            );
            let target = target.filter(|_| self.has_targets);
            let target = target.map_or("-".to_owned(), |target| format!("<= {target}"));
            say(&format!("  {hook:<16}{runs:>9}{cells}  {target}"))?;
        }
        Ok(())
    }
}

fn columns(cells: impl Iterator<Item = String>) -> String {
    cells.map(|cell| format!("{cell:>9}")).collect::<Vec<_>>().concat()
}

fn open_classes(scene: &Scene) -> Result<Classes> {
    let pin = scene.path(&format!("/sys/fs/bpf/enforcer/{ABI_VERSION}/maps/CLASSES"));
    let map = MapData::from_pin(&pin).with_context(|| format!("cannot open {}", pin.display()))?;
    Ok(HashMap::try_from(Map::HashMap(map))?)
}

/// Adds entries of cgroups that do not exist until there are as many as wanted, and gives their number: those that exist
/// stay.
fn fill(classes: &mut Classes, wanted: usize) -> Result<usize> {
    let there = classes.keys().count();
    let class = Treatment::default().to_raw();
    // The IDs of real cgroups are small numbers.
    for id in (u64::MAX / 2..)
        .step_by(1 << 20)
        .skip(there)
        .take(wanted.saturating_sub(there))
    {
        classes.insert(id, class, 0).context("cannot add a class")?;
    }
    Ok(wanted.max(there))
}

/// How often a hook ran between two moments, and the nanoseconds of one run.
fn between(earlier: &Totals, later: &Totals, hook: &str) -> (u64, Option<u64>) {
    let total = |totals: &Totals| totals.get(hook).copied().unwrap_or_default();
    let ((runs_before, time_before), (runs, time)) = (total(earlier), total(later));
    let runs = runs - runs_before;
    (runs, (time - time_before).checked_div(runs))
}

/// Sums over the enforcer's own programs only: another enforcer on this kernel has hooks of the same names.
fn run_totals(enforcer: u32) -> Result<Totals> {
    let own = program_ids(enforcer)?;
    let mut totals = Totals::new();
    for program in loaded_programs() {
        let program = program.context("cannot list BPF programs")?;
        if !own.contains(&program.id()) {
            continue;
        }
        let Some(name) = program.name_as_str() else { continue };
        let total: &mut (u64, u64) = totals.entry(name.to_owned()).or_default();
        total.0 += program.run_count();
        total.1 += u64::try_from(program.run_time().as_nanos())?;
    }
    Ok(totals)
}

/// The BPF programs a process holds descriptors of.
fn program_ids(pid: u32) -> Result<BTreeSet<u32>> {
    let directory = format!("/proc/{pid}/fdinfo");
    let mut ids = BTreeSet::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("cannot list {directory}"))? {
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let id = text.lines().find_map(|line| line.strip_prefix("prog_id:"));
        ids.extend(id.and_then(|id| id.trim().parse::<u32>().ok()));
    }
    Ok(ids)
}
