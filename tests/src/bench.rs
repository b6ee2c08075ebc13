//! `lab bench`: what the enforcer costs, measured on the running kernel.
//!
//! The machine may be noisy, so everything is compared in pairs within one run: with the hooks and without them, the
//! enforcer and a bare hyper server. The figures to quote are the medians of the ratios.

use std::io::{self, Write};

use anyhow::{Context, Result};

use crate::scene::Scene;

mod bulk;
mod connects;
mod endpoint;
pub mod gauge;
mod hooks;
mod reference;
mod start;
mod tasks;

pub use reference::run as run_reference;

/// Where the enforcer of a measured scene writes its audit trail: a tmpfs of the scene.
const AUDIT_FILE: &str = "/var/log/audit.jsonl";

/// How thoroughly to measure.
#[derive(Debug, clap::Args)]
pub struct Bench {
    /// Pairs of measurements per comparison
    #[arg(long, default_value_t = 7)]
    rounds: u32,
    /// How long each measurement of the endpoint takes, in seconds
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// How long containers come and go, in seconds
    #[arg(long, default_value_t = 60)]
    churn_seconds: u32,
    /// Measure only this
    #[arg(long, value_enum)]
    only: Option<Subject>,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Subject {
    /// Hooks, connections and the endpoint
    Traffic,
    /// 10,000 tasks
    Tasks,
}

/// Measures everything and prints one table per subject.
pub fn run(bench: &Bench) -> Result<()> {
    if bench.only != Some(Subject::Tasks) {
        traffic(bench)?;
    }
    if bench.only != Some(Subject::Traffic) {
        tasks::measure(bench.rounds, bench.churn_seconds)?;
    }
    Ok(())
}

fn traffic(bench: &Bench) -> Result<()> {
    let mut scene = Scene::builder()
        .task("web")
        .outside_task("free")
        .audit_to(AUDIT_FILE)
        .start()?;
    hooks::measure(&mut scene)?;
    connects::measure(&scene, bench.rounds)?;
    bulk::measure(&scene, bench.rounds)?;
    endpoint::measure(&scene, bench.rounds, bench.seconds)?;
    start::measure(&mut scene, bench.rounds)
}

/// Median, smallest and largest of some figures.
#[derive(Clone, Copy, Debug, Default)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

/// Two measurements, taken in turn.
struct Pairs {
    one: Spread,
    other: Spread,
    /// Of one by the other, within each pair.
    ratio: Spread,
}

// === impl Pairs ===

impl Pairs {
    fn measure(
        rounds: u32,
        mut one: impl FnMut() -> Result<f64>,
        mut other: impl FnMut() -> Result<f64>,
    ) -> Result<Self> {
        let mut pairs = Vec::new();
        for round in 0..rounds {
            // Who goes first changes, so that a drift of the machine favors nobody.
            pairs.push(if round % 2 == 0 {
                let first = one()?;
                (first, other()?)
            } else {
                let second = other()?;
                (one()?, second)
            });
        }
        let spread = |figure: fn(&(f64, f64)) -> f64| Spread::of(pairs.iter().map(figure).collect());
        Ok(Self {
            one: spread(|(one, _)| *one),
            other: spread(|(_, other)| *other),
            ratio: spread(|(one, other)| one / other),
        })
    }
}

// === impl Spread ===

impl Spread {
    fn of(mut figures: Vec<f64>) -> Self {
        figures.sort_by(f64::total_cmp);
        Self {
            median: figures.get(figures.len() / 2).copied().unwrap_or_default(),
            least: figures.first().copied().unwrap_or_default(),
            most: figures.last().copied().unwrap_or_default(),
        }
    }

    fn text(self, decimals: usize) -> String {
        let Self { median, least, most } = self;
        format!("{median:.decimals$} ({least:.decimals$} to {most:.decimals$})")
    }
}

fn say(line: &str) -> Result<()> {
    writeln!(io::stdout(), "{line}").context("cannot write to standard output")
}
