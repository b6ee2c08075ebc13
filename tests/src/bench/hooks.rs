//! Run time per hook, from the kernel's own statistics (which cost some 10 to 20 ns per run themselves).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
};

use anyhow::{Context, Result};
use aya::{
    programs::loaded_programs,
    sys::{Stats, enable_stats},
};

use super::{
    gauge::{Action, Gauge},
    say,
};
use crate::scene::Scene;

const TIMES: u32 = 50_000;
/// Nobody listens there, and nothing protects it.
const UNRELATED_V4: &str = "10.77.0.1:9";
const UNRELATED_V6: &str = "[fd77::1]:9";

/// Hook, what it may cost on unrelated traffic in nanoseconds, if there is a target.
const HOOKS: [(&str, Option<u32>); 9] = [
    ("connect4", Some(50)),
    ("connect6", Some(50)),
    ("sendmsg4", Some(50)),
    ("sendmsg6", Some(50)),
    ("sock_ops", Some(50)),
    ("egress", Some(25)),
    ("enforcer_in", Some(25)),
    ("enforcer_out", Some(25)),
    ("sock_ops_own", None),
];

/// Runs and nanoseconds of each hook so far.
type Totals = BTreeMap<String, (u64, u64)>;

pub(super) fn measure(scene: &mut Scene) -> Result<()> {
    let enforcer = scene.enforcer().pid()?;
    let _statistics = enable_stats(Stats::RunTime).context("cannot switch on the kernel's BPF statistics")?;
    let mut container = scene.in_bridge_container("web", Gauge::start)?;
    let before = totals(enforcer)?;
    for to in [UNRELATED_V4, UNRELATED_V6] {
        let to: SocketAddr = to.parse()?;
        for action in [Action::ConnectUdp, Action::SendUdp, Action::ConnectTcp] {
            container.repeat(action, to, TIMES)?;
        }
    }
    let after = totals(enforcer)?;
    say("Run time per hook on unrelated traffic of a bridge container (the statistics' own cost included)")?;
    say(&format!("  {:<14} {:>9} {:>8}  {}", "hook", "runs", "ns/run", "target"))?;
    for (hook, target) in HOOKS {
        let (runs, nanoseconds) = after.get(hook).copied().unwrap_or_default();
        let (earlier_runs, earlier) = before.get(hook).copied().unwrap_or_default();
        let runs = runs - earlier_runs;
        let each = (nanoseconds - earlier)
            .checked_div(runs)
            .map_or("-".to_owned(), |each| each.to_string());
        let target = target.map_or("-".to_owned(), |target| format!("<= {target}"));
        say(&format!("  {hook:<14} {runs:>9} {each:>8}  {target}"))?;
    }
    Ok(())
}

/// Sums over the enforcer's own programs only: another enforcer on this kernel has hooks of the same names.
fn totals(enforcer: u32) -> Result<Totals> {
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
