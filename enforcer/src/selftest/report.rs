//! What came of it: for people and for programs.

use std::{collections::BTreeMap, io};

use serde::Serialize;

use super::{child::Outcome, technique::Goal};

/// How a technique fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing got through.
    Blocked,
    /// Something did.
    Leak,
    /// Nothing got through, but nobody took notice either.
    Unrecorded,
    /// It could not be tried here.
    Unavailable,
}

/// One technique in one mode.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The technique.
    pub technique: &'static str,
    /// What is done.
    pub what: &'static str,
    /// How it fared.
    pub verdict: Verdict,
    /// Packets that reached the fake metadata service, or 1 for an answer that must not come.
    pub leaked: u64,
    /// By how much the kernel's counters of refusals grew, and of connections steered to the enforcer where that refuses.
    pub recorded: u64,
    /// How many packets the same attempt gets through from where the self-test itself runs; none if it was not made.
    /// 0 means that the row proves nothing: either the technique does not work here, or that place is guarded as well.
    pub control: Option<u64>,
    /// What the attempt itself saw.
    pub outcome: Outcome,
}

/// All of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Rows by mode.
    pub modes: BTreeMap<&'static str, Vec<Row>>,
}

// === impl Row ===

impl Row {
    /// The verdict on what was seen.
    #[must_use]
    pub fn verdict_of(goal: Goal, outcome: &Outcome, leaked: u64, recorded: u64) -> Verdict {
        let expected = match goal {
            Goal::Metadata | Goal::Credentials => 1,
            Goal::Silence { attempts } | Goal::Outage { attempts } => u64::from(attempts),
        };
        match outcome {
            _ if leaked > 0 => Verdict::Leak,
            Outcome::Unavailable { .. } => Verdict::Unavailable,
            Outcome::Tried { .. } if recorded < expected => Verdict::Unrecorded,
            Outcome::Tried { .. } => Verdict::Blocked,
        }
    }
}

// === impl Report ===

impl Report {
    /// Whether something got through, or was stopped without a record.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        let mut rows = self.rows();
        rows.any(|row| matches!(row.verdict, Verdict::Leak | Verdict::Unrecorded))
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.modes.values().flatten()
    }

    /// Prints a table.
    pub fn print(&self, output: &mut impl io::Write) -> io::Result<()> {
        for (mode, rows) in &self.modes {
            writeln!(output, "{mode}")?;
            for row in rows {
                let mark = match row.verdict {
                    Verdict::Blocked => "ok  ",
                    Verdict::Leak => "LEAK",
                    Verdict::Unrecorded => "FAIL",
                    Verdict::Unavailable => "-   ",
                };
                writeln!(
                    output,
                    "{mark}  {:<22} {:<62} {}",
                    row.technique,
                    row.what,
                    row.explain()
                )?;
            }
        }
        let count = |verdict| self.rows().filter(|row| row.verdict == verdict).count();
        let [blocked, leaks] = [Verdict::Blocked, Verdict::Leak].map(count);
        let [unrecorded, unavailable] = [Verdict::Unrecorded, Verdict::Unavailable].map(count);
        writeln!(
            output,
            "{blocked} blocked, {leaks} leaks, {unrecorded} blocked without a record, {unavailable} not possible here"
        )
    }
}

impl Row {
    fn explain(&self) -> String {
        match (&self.outcome, self.verdict) {
            (Outcome::Unavailable { why }, _) => why.clone(),
            (_, Verdict::Leak) => format!("{} got through", self.leaked),
            (_, Verdict::Unrecorded) => "the kernel counted no refusal".to_owned(),
            (_, Verdict::Blocked | Verdict::Unavailable) if self.control == Some(0) => {
                "nothing got through, but it does not work from a trusted place either".to_owned()
            }
            (_, Verdict::Blocked | Verdict::Unavailable) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Goal, Outcome, Row, Verdict};

    const REFUSED: Outcome = Outcome::Tried { errno: Some(1) };

    #[test]
    fn one_packet_is_a_leak_whatever_the_attempt_saw() {
        let unavailable = Outcome::Unavailable { why: String::new() };
        for outcome in [REFUSED, unavailable] {
            assert_eq!(Row::verdict_of(Goal::Metadata, &outcome, 1, 9), Verdict::Leak);
        }
    }

    #[test]
    fn a_refusal_nobody_counted_is_not_one() {
        assert_eq!(Row::verdict_of(Goal::Metadata, &REFUSED, 0, 0), Verdict::Unrecorded);
        assert_eq!(Row::verdict_of(Goal::Metadata, &REFUSED, 0, 1), Verdict::Blocked);
        let flood = Goal::Silence { attempts: 5 };
        assert_eq!(Row::verdict_of(flood, &REFUSED, 0, 4), Verdict::Unrecorded);
        assert_eq!(Row::verdict_of(flood, &REFUSED, 0, 5), Verdict::Blocked);
    }
}
