//! The matrix of techniques, modes and kernels: what the tests say of each cell, as the table in the documentation.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context as _, Result, ensure};

use crate::step;

/// Where the table is.
pub(crate) const DOCUMENT: &str = "docs/bypass-matrix.md";

/// Begins the line of a cell in the tests' output; mode, technique and what was seen follow, separated by tabs.
pub(crate) const CELL: &str = "matrix-cell\t";

const HEAD: &str = "# The bypass matrix

What reaches the instance metadata service, or somebody else's credentials, by each known technique, in each network mode, on
each kernel line. Written by `cargo xtask test`, which runs all of it; the techniques are those of `enforcer selftest --list`.

- `0`: nothing got through. Without the enforcer the same attempt does, in the same place.
- `(0)`: nothing got through, and without the enforcer it does not either: the technique does not work there.
- `–`: this kernel or this mode has no such thing.
- any other number: what got through.
";

/// What is known of the cells: by mode and technique, what was seen on which kernel line.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Matrix {
    cells: BTreeMap<String, BTreeMap<String, BTreeMap<Line, String>>>,
}

/// A kernel line, in the order of its numbers.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Line(Vec<u32>);

// === impl Matrix ===

impl Matrix {
    /// Reads one line of the output of tests on a kernel (its release).
    pub(crate) fn read(&mut self, release: &str, line: &str) {
        let Some((_, cell)) = line.split_once(CELL) else {
            return;
        };
        let mut fields = cell.trim_end().split('\t').map(str::to_owned);
        if let (Some(mode), Some(technique), Some(seen)) = (fields.next(), fields.next(), fields.next()) {
            let techniques = self.cells.entry(mode).or_default();
            techniques.entry(technique).or_default().insert(Line::of(release), seen);
        }
    }

    /// Writes the document. Returns whether it says something else now.
    pub(crate) fn write(&self) -> Result<bool> {
        ensure!(!self.cells.is_empty(), "no test has told a cell of the matrix");
        let path = step::workspace_root().join(DOCUMENT);
        let before = fs::read_to_string(&path).unwrap_or_default();
        let after = self.render();
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
        }
        fs::write(&path, &after).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(before != after)
    }

    fn render(&self) -> String {
        let mut text = HEAD.to_owned();
        for (mode, techniques) in &self.cells {
            let lines: BTreeSet<_> = techniques.values().flat_map(BTreeMap::keys).collect();
            let heads = lines.iter().map(|line| line.name()).collect::<Vec<_>>().join(" | ");
            let rules = "---|".repeat(lines.len());
            text.extend([
                format!("\n## {mode}\n\n"),
                format!("| technique | {heads} |\n|---|{rules}\n"),
            ]);
            text.extend(techniques.iter().map(|(technique, seen)| {
                let cells = lines.iter().map(|line| seen.get(line).map_or("", String::as_str));
                format!("| {technique} | {} |\n", cells.collect::<Vec<_>>().join(" | "))
            }));
        }
        text
    }
}

// === impl Line ===

impl Line {
    /// `6.1.0-56-cloud-amd64` is of the line 6.1.
    fn of(release: &str) -> Self {
        let numbers = release.split(['.', '-', '+']);
        Self(numbers.map_while(|number| number.parse().ok()).take(2).collect())
    }

    fn name(&self) -> String {
        self.0.iter().map(u32::to_string).collect::<Vec<_>>().join(".")
    }
}

#[cfg(test)]
mod tests {
    use super::Matrix;

    #[test]
    fn cells_of_several_kernels_share_a_table() {
        let mut matrix = Matrix::default();
        matrix.read("6.12.117+deb12-cloud-amd64", "matrix-cell\tbridge\ttcp\t0\terrno 1\r");
        matrix.read("6.12.117+deb12-cloud-amd64", "test bridge ... ok");
        matrix.read("6.1.0-56-cloud-amd64", "matrix-cell\tbridge\ttcp\t2\terrno 1");
        let text = matrix.render();
        assert!(
            text.contains("| technique | 6.1 | 6.12 |\n|---|---|---|\n| tcp | 2 | 0 |\n"),
            "{text}"
        );
    }

    #[test]
    fn a_technique_that_was_not_tried_on_a_kernel_has_an_empty_cell() {
        let mut matrix = Matrix::default();
        matrix.read("6.1.0", "matrix-cell\tbridge\ttcp\t0");
        matrix.read("6.12.0", "matrix-cell\tbridge\tudp\t0");
        assert!(matrix.render().contains("| tcp | 0 |  |\n"));
    }
}
