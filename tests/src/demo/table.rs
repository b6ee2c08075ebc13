//! The demo's table: who tried what, what should come of it, and what did.

use anyhow::Result;

use super::say;

/// A table that is printed line by line, as things happen.
#[derive(Debug)]
pub(super) struct Table {
    is_right: bool,
}

/// One line.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) who: &'a str,
    pub(super) tried: &'a str,
    pub(super) expected: &'a str,
    pub(super) got: &'a str,
}

// === impl Table ===

impl Table {
    pub(super) fn begin() -> Result<Self> {
        say(&row("who", "tried", "expected", "got", " "))?;
        Ok(Self { is_right: true })
    }

    pub(super) fn add(&mut self, line: &Line<'_>) -> Result<()> {
        let is_right = line.got == line.expected;
        self.is_right &= is_right;
        let mark = if is_right { "✓" } else { "✗" };
        say(&row(line.who, line.tried, line.expected, line.got, mark))
    }

    /// Prints the verdict; whether every line was as expected.
    pub(super) fn end(self) -> Result<bool> {
        let verdict = if self.is_right {
            "Every line is as expected."
        } else {
            "Lines marked ✗ are not as expected."
        };
        say(&format!("\n{verdict}"))?;
        Ok(self.is_right)
    }
}

fn row(who: &str, tried: &str, expected: &str, got: &str, mark: &str) -> String {
    format!("{mark} {who:<16} {tried:<36} {expected:<40} {got}")
}
