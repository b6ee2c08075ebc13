//! The cells: one technique in one mode, judged by what arrived and by what was recorded.

use std::io::{Write, stdout};

use enforcer_tests::{
    attacker::{Goal, Outcome, Technique, techniques},
    audit::Record,
    scene::{Builder, Scene},
};

use super::{
    fence::{FENCE, Fence},
    gap::Gap,
    spot::{ATTACKER, Spot, VICTIM},
    status::Counters,
    together,
};

/// How often something may fail before it does not work: a packet may wait for a neighbor's address.
const TIMES: u32 = 3;

/// Begins the line of a cell; `cargo xtask` reads it.
const MARKER: &str = "matrix-cell";

/// Everything an attempt did succeeded.
pub(crate) const DONE: Outcome = Outcome::Tried { errno: None };

/// What was seen of a technique.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) technique: String,
    /// Whether it gets there without the enforcer; for credentials, whether their owner gets them there.
    pub(crate) is_real: bool,
    pub(crate) outcome: Outcome,
    /// What got there.
    pub(crate) leaked: u64,
    /// How many refusals were recorded.
    pub(crate) recorded: u64,
    /// What else is wrong.
    pub(crate) problem: Option<String>,
}

/// A scene with everybody whom attempts need, without an enforcer yet.
pub(crate) fn prepare(scene: Builder) -> Scene {
    scene.task(ATTACKER).task(VICTIM).task(FENCE).prepare().unwrap()
}

/// Whether a technique can be tried in every scene: only an ECS agent has ports of its own.
pub(crate) fn needs_no_agent(technique: &str) -> bool {
    technique != "agent-ports"
}

/// Tries what is wanted from one place, without the enforcer and with it, prints the cells and judges them.
pub(crate) fn check(mode: &str, scene: &mut Scene, spot: Spot, is_wanted: impl Fn(&str) -> bool) {
    let mut trial = Trial {
        fence: Fence::start(scene),
        scene,
        spot,
    };
    let mut techniques = techniques().unwrap();
    techniques.retain(|technique| is_wanted(&technique.name));
    let real: Vec<_> = techniques.iter().map(|one| trial.works_unhindered(one)).collect();
    let old = together::Established::open(&mut trial);
    await_silence(trial.scene, 200);
    trial.scene.enforcer().start().unwrap();
    let gap = Gap::look(trial.scene);
    let mut cells = old.cells(&mut trial);
    cells.push(together::claimed(&mut trial));
    cells.retain(|cell| is_wanted(&cell.technique));
    let tried = techniques.into_iter().zip(real);
    cells.extend(tried.map(|(technique, is_real)| trial.try_it(&technique, is_real)));
    for cell in &cells {
        cell.print(mode, gap.explains(mode, &cell.technique));
    }
    let problems: Vec<_> = cells
        .iter()
        .filter(|cell| !cell.is_fine() && !gap.explains(mode, &cell.technique))
        .collect();
    assert!(problems.is_empty(), "{mode}: {problems:#?}");
    let proven = cells.iter().filter(|cell| cell.is_real).count();
    assert!(
        proven * 2 > cells.len() || mode == "none",
        "{mode}: only {proven} of {} techniques work without the enforcer",
        cells.len()
    );
}

/// Connections made without the enforcer end some time later, and their last packets are nobody's leak.
fn await_silence(scene: &mut Scene, quiet: usize) {
    let mut last = scene.imds_hits().unwrap();
    let mut unchanged = 0;
    while unchanged < quiet {
        let hits = scene.imds_hits().unwrap();
        unchanged = if hits == last { unchanged + 1 } else { 0 };
        last = hits;
    }
}

/// A scene with everybody in place.
pub(crate) struct Trial<'a> {
    pub(crate) scene: &'a mut Scene,
    pub(crate) spot: Spot,
    fence: Fence,
}

// === impl Trial ===

impl Trial<'_> {
    /// How many packets have arrived at the metadata service.
    pub(crate) fn arrived(&mut self) -> u64 {
        self.scene.imds_hits().unwrap().packets
    }

    /// Whether the owner of credentials gets them in the attacker's place.
    pub(crate) fn is_owner_served(&mut self) -> bool {
        let task = self.scene.task(ATTACKER).unwrap();
        let response = self.spot.owner.get(&task.path());
        response.is_ok_and(|response| task.is_served_by(&response))
    }

    /// Whether a technique gets what it is after while nobody enforces anything.
    fn works_unhindered(&mut self, technique: &Technique) -> bool {
        // Or what is left of the technique before would prove this one.
        await_silence(self.scene, 10);
        let before = self.arrived();
        (0..TIMES).any(|_| {
            let outcome = self.spot.attempt(&technique.name);
            match technique.goal {
                Goal::Metadata | Goal::Silence { .. } => self.arrived() > before,
                Goal::Credentials | Goal::Outage { .. } => outcome == DONE,
            }
        })
    }

    fn try_it(&mut self, technique: &Technique, is_real: bool) -> Cell {
        let is_served = self.is_owner_served();
        let (mut outcome, mut leaked, mut problem) = (DONE, 0, None);
        let recorded = self.recorded(|trial| {
            let before = trial.arrived();
            let counted = match technique.goal {
                Goal::Outage { .. } => Some(Counters::read(trial.scene)),
                Goal::Metadata | Goal::Credentials | Goal::Silence { .. } => None,
            };
            outcome = trial.spot.attempt(&technique.name);
            leaked = match technique.goal {
                Goal::Metadata | Goal::Silence { .. } => trial.arrived() - before,
                Goal::Credentials | Goal::Outage { .. } => u64::from(outcome == DONE),
            };
            let (Goal::Silence { attempts } | Goal::Outage { attempts }) = technique.goal else {
                return 0;
            };
            if matches!(outcome, Outcome::Unavailable { .. }) {
                return 0;
            }
            problem = counted.and_then(|counted| counted.differ(&Counters::read(trial.scene), attempts));
            attempts
        });
        if is_served && !self.is_owner_served() {
            problem = Some("the owner of credentials does not get them any more".to_owned());
        }
        Cell {
            technique: technique.name.clone(),
            is_real: match technique.goal {
                Goal::Metadata | Goal::Silence { .. } => is_real,
                Goal::Credentials | Goal::Outage { .. } => is_real || is_served,
            },
            outcome,
            leaked,
            recorded,
            problem,
        }
    }

    /// How many refusals are recorded of what is done, which tells how many there must be at least.
    pub(crate) fn recorded(&mut self, attempt: impl FnOnce(&mut Self) -> u64) -> u64 {
        let first = self.fence.raise(self.scene);
        let expected = attempt(self);
        let last = self.fence.raise(self.scene);
        refusals(self.scene, (first, last), expected)
    }
}

/// How many refusals were recorded between two fences. What the trail lost is told a moment later.
fn refusals(scene: &Scene, (first, last): (u64, u64), expected: u64) -> u64 {
    loop {
        let records = scene.audit().records().unwrap();
        let later = || records.iter().filter(|record| record.seq > first);
        let refused = later().filter(|record| record.seq < last && is_refusal(record)).count() as u64;
        let missed = later()
            .filter_map(|record| record.lost.as_ref())
            .map(|lost| lost.ring + lost.queue);
        let counted = refused + missed.sum::<u64>();
        if counted >= expected {
            return if expected == 0 { refused } else { counted };
        }
        scene.audit().next_after(records.len()).unwrap();
    }
}

fn is_refusal(record: &Record) -> bool {
    record.is_verdict("deny") || record.is_verdict("drop")
}

// === impl Cell ===

impl Cell {
    /// Nothing got through, and what was tried for real was recorded.
    fn is_fine(&self) -> bool {
        let is_tried = matches!(self.outcome, Outcome::Tried { .. });
        self.problem.is_none() && self.leaked == 0 && (self.recorded > 0 || !is_tried || !self.is_real)
    }

    /// A zero, in parentheses where nothing gets there even without the enforcer; a dash where the kernel or the mode has
    /// no such thing. How many packets a leak lets through is chance, and so may be whether it did this time.
    const fn symbol(&self, is_gap: bool) -> &'static str {
        match (&self.outcome, self.is_real) {
            _ if self.leaked > 0 => "**leak**",
            (Outcome::Unavailable { .. }, _) => "–",
            _ if is_gap => "**leak**",
            (_, false) => "(0)",
            _ => "0",
        }
    }

    /// Tests' own output is captured; this line is for whoever runs them.
    fn print(&self, mode: &str, is_gap: bool) {
        writeln!(
            stdout(),
            "{MARKER}\t{mode}\t{}\t{}\t{}",
            self.technique,
            self.symbol(is_gap),
            match &self.outcome {
                Outcome::Tried { errno } => format!("errno {errno:?}, {} records", self.recorded),
                Outcome::Unavailable { why } => why.clone(),
            }
        )
        .unwrap();
    }
}
