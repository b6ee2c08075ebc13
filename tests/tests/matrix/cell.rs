//! The cells: one technique in one mode, judged by what arrived and by what was recorded.

use std::io::{Write, stdout};

use anyhow::Result;
use enforcer_tests::{
    actor::{Actor, DatagramStyle},
    attacker::{Goal, Outcome, Technique, techniques},
    audit::Record,
    scene::{Builder, Scene},
    topology::IMDS_V4,
};

use super::{
    gap::Gap,
    mode::{ATTACKER, Spot},
};

/// Who asks for something that is refused between two attempts, so that records can be told apart.
const FENCE: &str = "fence";
const FIRST_FENCE: u16 = 10_000;

/// How often something may fail before it does not work: a packet may wait for a neighbor's address.
const TIMES: u32 = 3;

/// Begins the line of a cell; `cargo xtask` reads it.
const MARKER: &str = "matrix-cell";

/// What was seen of a technique.
#[derive(Debug)]
struct Cell {
    technique: Technique,
    /// Whether it gets there without the enforcer; for credentials that cannot be shown.
    is_real: Option<bool>,
    outcome: Outcome,
    /// What got there.
    leaked: u64,
    /// How many refusals the audit trail has.
    recorded: u64,
}

/// Tries everything from one place, prints the cells and judges them.
pub(crate) fn check(mode: &str, scene: Builder, settle: impl FnOnce(&Scene) -> Result<Spot>) {
    let mut scene = scene
        .task(ATTACKER)
        .task(super::mode::VICTIM)
        .task(FENCE)
        .prepare()
        .unwrap();
    let mut spot = settle(&scene).unwrap();
    let mut fence = Fence {
        actor: scene.bridge_container(FENCE).unwrap(),
        port: FIRST_FENCE,
    };
    let techniques = techniques().unwrap();
    let real: Vec<_> = techniques
        .iter()
        .map(|technique| works_unhindered(&mut scene, &mut spot, technique))
        .collect();
    await_silence(&mut scene);
    scene.enforcer().start().unwrap();
    let gap = Gap::look(&mut scene);
    let cells: Vec<_> = techniques
        .into_iter()
        .zip(real)
        .map(|(technique, is_real)| try_it(&mut scene, &mut spot, &mut fence, technique, is_real))
        .collect();
    for cell in &cells {
        cell.print(mode);
    }
    let problems: Vec<_> = cells
        .iter()
        .filter(|cell| !cell.is_fine() && !gap.explains(mode, &cell.technique.name))
        .collect();
    assert!(problems.is_empty(), "{mode}: {problems:#?}");
    let proven = cells.iter().filter(|cell| cell.is_real == Some(true)).count();
    assert!(
        proven > 30 || mode == "none",
        "{mode}: only {proven} techniques work without the enforcer"
    );
}

/// Connections made without the enforcer end some time later, and their last packets are nobody's leak.
fn await_silence(scene: &mut Scene) {
    const QUIET: usize = 200;
    let mut last = scene.imds_hits().unwrap();
    let mut unchanged = 0;
    while unchanged < QUIET {
        let hits = scene.imds_hits().unwrap();
        unchanged = if hits == last { unchanged + 1 } else { 0 };
        last = hits;
    }
}

/// Whether a technique gets to the metadata service while nobody enforces anything.
fn works_unhindered(scene: &mut Scene, spot: &mut Spot, technique: &Technique) -> Option<bool> {
    if technique.goal == Goal::Credentials {
        return None;
    }
    let before = scene.imds_hits().unwrap().packets;
    let works = (0..TIMES).any(|_| {
        spot.attacker.attempt(&technique.name, &spot.ground).unwrap();
        scene.imds_hits().unwrap().packets > before
    });
    Some(works)
}

fn try_it(scene: &mut Scene, spot: &mut Spot, fence: &mut Fence, technique: Technique, is_real: Option<bool>) -> Cell {
    let before = scene.imds_hits().unwrap().packets;
    let first = fence.raise(scene);
    let outcome = spot.attacker.attempt(&technique.name, &spot.ground).unwrap();
    let arrived = scene.imds_hits().unwrap().packets - before;
    let last = fence.raise(scene);
    let leaked = match technique.goal {
        Goal::Metadata | Goal::Silence { .. } => arrived,
        Goal::Credentials => u64::from(outcome == Outcome::Tried { errno: None }),
    };
    Cell {
        recorded: refusals(scene, first, last, &technique),
        technique,
        is_real,
        outcome,
        leaked,
    }
}

/// How many refusals were recorded between two fences. What the trail lost is told a moment later.
fn refusals(scene: &Scene, first: u64, last: u64, technique: &Technique) -> u64 {
    let expected = match technique.goal {
        Goal::Silence { attempts } => attempts,
        Goal::Metadata | Goal::Credentials => 0,
    };
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

/// Somebody whose refusals stand between those of the attacker.
struct Fence {
    actor: Actor,
    port: u16,
}

// === impl Fence ===

impl Fence {
    /// Is refused at a port of its own, and returns the number of the record. After a flood that record may be lost as
    /// well, so that another one is needed.
    fn raise(&mut self, scene: &Scene) -> u64 {
        let mut seen = scene.audit().records().unwrap().len();
        loop {
            self.port += 1;
            self.actor
                .datagram((IMDS_V4, self.port).into(), DatagramStyle::Unconnected)
                .unwrap();
            loop {
                let record = scene.audit().next_after(seen).unwrap();
                seen += 1;
                if self.is_ours(&record) {
                    return record.seq;
                }
                if record.lost.is_some() {
                    break;
                }
            }
        }
    }

    fn is_ours(&self, record: &Record) -> bool {
        record.is_of(FENCE)
            && record
                .destination
                .as_ref()
                .is_some_and(|to| to.port > FIRST_FENCE && to.port <= self.port)
    }
}

// === impl Cell ===

impl Cell {
    /// Nothing got through, and what was tried for real was recorded.
    fn is_fine(&self) -> bool {
        let is_tried = matches!(self.outcome, Outcome::Tried { .. });
        self.leaked == 0 && (self.recorded > 0 || !is_tried || self.is_real != Some(true))
    }

    /// Number of leaks, in parentheses where nothing gets there even without the enforcer; a dash where the kernel or
    /// the mode has no such thing.
    fn symbol(&self) -> String {
        match (&self.outcome, self.is_real) {
            (Outcome::Unavailable { .. }, _) if self.leaked == 0 => "–".to_owned(),
            (_, Some(false)) if self.leaked == 0 => "(0)".to_owned(),
            _ => self.leaked.to_string(),
        }
    }

    /// Tests' own output is captured; this line is for whoever runs them.
    fn print(&self, mode: &str) {
        writeln!(
            stdout(),
            "{MARKER}\t{mode}\t{}\t{}\t{}",
            self.technique.name,
            self.symbol(),
            match &self.outcome {
                Outcome::Tried { errno } => format!("errno {errno:?}, {} records", self.recorded),
                Outcome::Unavailable { why } => why.clone(),
            }
        )
        .unwrap();
    }
}
