//! Sums of test results, read from what libtest prints: the same lines on this host and on a serial console.

use std::iter::Sum;

use anyhow::Result;

use super::print_line;
use crate::matrix::CELL;

/// How many tests ran, and which ones failed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Tally {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    ignored: u32,
    /// Names of failed tests, and runs that ended without a result.
    failures: Vec<String>,
    /// What tests told of the matrix of techniques, line by line.
    pub(crate) cells: Vec<String>,
    /// What the run being read has reported: `None` before its closing line.
    reported_failures: Option<u32>,
}

/// Prints a line per tier, what failed, and the total alone on the last line.
pub(crate) fn print(tiers: &[(String, Tally)]) -> Result<()> {
    print_line("")?;
    let width = tiers.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, tally) in tiers {
        print_line(&format!("{name:width$}  {}", tally.describe()))?;
        for failure in &tally.failures {
            print_line(&format!("    FAILED {failure}"))?;
        }
    }
    let total: Tally = tiers.iter().map(|(_, tally)| tally.clone()).sum();
    print_line("")?;
    print_line(&format!("{} passed, {} failed", total.passed, total.failed))
}

// === impl Tally ===

impl Tally {
    /// Reads one line of output.
    pub(crate) fn read(&mut self, line: &str) {
        let line = line.trim_end();
        if line.contains(CELL) {
            self.cells.push(line.to_owned());
        }
        if let Some(name) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            self.failures.push(name.to_owned());
        }
        let Some(counts) = line.strip_prefix("test result: ") else {
            return;
        };
        let count = |what| {
            let (before, _) = counts.split_once(what)?;
            before
                .rsplit([' ', '.', ';'])
                .find(|word| !word.is_empty())?
                .parse::<u32>()
                .ok()
        };
        let (passed, failed, ignored) = (count("passed"), count("failed"), count("ignored"));
        self.passed += passed.unwrap_or(0);
        self.failed += failed.unwrap_or(0);
        self.ignored += ignored.unwrap_or(0);
        self.reported_failures = failed.map(|new| new + self.reported_failures.unwrap_or(0));
    }

    /// Ends a run. One that failed without saying which test failed counts as a failure itself, and so does one that
    /// ended without a result.
    pub(crate) fn finish(&mut self, success: bool, what: &str) {
        match (success, self.reported_failures.take()) {
            (true, Some(0)) | (false, Some(1..)) => {}
            (true, Some(_)) => self.fail(format!("{what}: a test failed, but the run claims success")),
            (false, Some(_)) => self.fail(format!("{what}: all tests passed, but the run failed")),
            (_, None) => self.fail(format!("{what}: ended without a result")),
        }
    }

    /// Counts a failure that is not a test's own.
    pub(crate) fn fail(&mut self, what: String) {
        self.failed += 1;
        self.failures.push(what);
    }

    /// How many tests came to an end.
    pub(crate) fn ran(&self) -> u32 {
        self.passed + self.failed
    }

    fn describe(&self) -> String {
        let ignored = if self.ignored == 0 {
            String::new()
        } else {
            format!(", {} ignored", self.ignored)
        };
        format!("{} passed, {} failed{ignored}", self.passed, self.failed)
    }
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |mut sum, tally| {
            sum.passed += tally.passed;
            sum.failed += tally.failed;
            sum.ignored += tally.ignored;
            sum.failures.extend(tally.failures);
            sum.cells.extend(tally.cells);
            sum
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    const GREEN: &str =
        "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s";
    const RED: &str =
        "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s\r";

    #[test]
    fn results_of_several_runs_add_up() {
        let mut tally = Tally::default();
        tally.read(GREEN);
        tally.finish(true, "first");
        tally.read("test a::b ... FAILED");
        tally.read(RED);
        tally.finish(false, "second");
        assert_eq!((tally.passed, tally.failed, tally.ignored), (16, 2, 1));
        assert_eq!(tally.failures, ["a::b"]);
    }

    #[test]
    fn a_run_without_a_result_is_a_failure() {
        let mut tally = Tally::default();
        tally.read("running 3 tests");
        tally.finish(true, "crashed");
        assert_eq!((tally.passed, tally.failed), (0, 1));
        assert_eq!(tally.failures, ["crashed: ended without a result"]);
    }

    #[test]
    fn an_exit_code_that_contradicts_the_result_is_a_failure() {
        for (line, success) in [(GREEN, false), (RED, true)] {
            let mut tally = Tally::default();
            tally.read(line);
            let before = tally.failed;
            tally.finish(success, "odd");
            assert_eq!(tally.failed, before + 1, "{line}");
        }
    }

    #[test]
    fn one_run_does_not_vouch_for_the_next() {
        let mut tally = Tally::default();
        tally.read(GREEN);
        tally.finish(true, "first");
        tally.finish(true, "second");
        assert_eq!(tally.failed, 1);
    }
}
