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
`bridge` is a Linux bridge; Docker's, its default one and a user-defined one, are those of a real engine with its firewall rules,
and the attempts are made where a container of it is, with all capabilities.

- `0`: nothing got through. Without the enforcer the same attempt does, in the same place.
- `(0)`: nothing got through, and without the enforcer it does not either: the technique does not work there.
- `–`: this kernel or this mode has no such thing.
- nothing: it was not tried on this kernel line. Docker's bridges are tried on the host's only: the virtual machines have no engine.
- **leak**: it gets through where the device has no host side: `packet-bypass-32bit` where the BPF LSM cannot be used, and
  `route-replaced`, if it is fast, before Linux 6.6.
";

/// What is known of the cells: by mode and technique, what was seen on which kernel line.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Matrix {
    cells: BTreeMap<String, BTreeMap<String, BTreeMap<Line, String>>>,
}

/// A kernel line, in the order of its numbers.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Line(Vec<u32>);

/// What the document says; nothing where there is none yet.
pub(crate) fn document() -> String {
    fs::read_to_string(step::workspace_root().join(DOCUMENT)).unwrap_or_default()
}

/// Whether two versions of the document say the same of the kernel lines both know: another host has another line.
pub(crate) fn agree(one: &str, other: &str) -> bool {
    let [one, other] = [one, other].map(Matrix::parse);
    let both = |line: &Line| {
        [&one, &other]
            .iter()
            .all(|matrix| matrix.lines().any(|known| known == line))
    };
    one.of_lines(both) == other.of_lines(both)
}

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

    /// Writes the document; what it said of kernel lines that were not tested now, it goes on saying. Returns whether it
    /// says something else now.
    pub(crate) fn write(&self) -> Result<bool> {
        ensure!(!self.cells.is_empty(), "no test has told a cell of the matrix");
        let path = step::workspace_root().join(DOCUMENT);
        let before = document();
        let after = Self::parse(&before).updated(self).render();
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
        }
        fs::write(&path, &after).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(before != after)
    }

    /// Every kernel line of which a cell is known.
    fn lines(&self) -> impl Iterator<Item = &Line> {
        self.cells.values().flat_map(BTreeMap::values).flat_map(BTreeMap::keys)
    }

    /// What is known of some kernel lines.
    fn of_lines(&self, is_wanted: impl Fn(&Line) -> bool) -> Self {
        let mut cells = self.cells.clone();
        for techniques in cells.values_mut() {
            for seen in techniques.values_mut() {
                seen.retain(|line, _| is_wanted(line));
            }
            techniques.retain(|_, seen| !seen.is_empty());
        }
        cells.retain(|_, techniques| !techniques.is_empty());
        Self { cells }
    }

    /// The same with all that is known of the lines of a newer one replaced.
    fn updated(&self, newer: &Self) -> Self {
        let tested: BTreeSet<_> = newer.lines().collect();
        let mut all = self.of_lines(|line| !tested.contains(line));
        for (mode, techniques) in &newer.cells {
            for (technique, seen) in techniques {
                let known = all.cells.entry(mode.clone()).or_default();
                known.entry(technique.clone()).or_default().extend(seen.clone());
            }
        }
        all
    }

    /// Reads the document.
    fn parse(text: &str) -> Self {
        let mut matrix = Self::default();
        let (mut mode, mut lines) = (String::new(), Vec::new());
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("## ") {
                name.clone_into(&mut mode);
            }
            let Some(row) = line.strip_prefix("| ").and_then(|row| row.strip_suffix(" |")) else {
                continue;
            };
            let mut fields = row.split(" | ");
            let technique = fields.next().unwrap_or_default();
            if technique == "technique" {
                lines = fields.map(Line::of).collect();
                continue;
            }
            let seen = lines.iter().cloned().zip(fields.map(str::to_owned));
            let seen = seen.filter(|(_, cell)| !cell.is_empty()).collect();
            let techniques = matrix.cells.entry(mode.clone()).or_default();
            techniques.insert(technique.to_owned(), seen);
        }
        matrix
    }

    fn render(&self) -> String {
        let mut text = HEAD.to_owned();
        let lines: BTreeSet<_> = self.lines().collect();
        for (mode, techniques) in &self.cells {
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
    use super::{Matrix, agree};

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
    fn a_document_says_what_it_was_written_from() {
        let mut matrix = Matrix::default();
        for (release, cell) in [
            ("6.1.0", "bridge\ttcp\t0"),
            ("6.12.0", "bridge\tudp\t(0)"),
            ("6.12.0", "host\ttcp\t–"),
        ] {
            matrix.read(release, &format!("matrix-cell\t{cell}"));
        }
        assert_eq!(Matrix::parse(&matrix.render()), matrix);
    }

    #[test]
    fn lines_that_were_not_tested_now_keep_their_column() {
        let (mut before, mut now) = (Matrix::default(), Matrix::default());
        before.read("6.1.0", "matrix-cell\tbridge\ttcp\t1");
        before.read("6.12.0", "matrix-cell\tbridge\ttcp\t2");
        before.read("6.12.0", "matrix-cell\tbridge\tgone\t2");
        now.read("6.12.0", "matrix-cell\tbridge\ttcp\t0");
        let text = before.updated(&now).render();
        assert!(text.contains("| tcp | 1 | 0 |\n") && !text.contains("gone"), "{text}");
    }

    #[test]
    fn versions_agree_if_they_say_the_same_of_the_lines_both_know() {
        let written = |cells: [(&str, &str); 2]| {
            let mut matrix = Matrix::default();
            for (release, seen) in cells {
                matrix.read(release, &format!("matrix-cell\tbridge\ttcp\t{seen}"));
            }
            matrix.render()
        };
        let ours = written([("6.1.0", "0"), ("6.18.0", "4")]);
        assert!(agree(&ours, &written([("6.1.0", "0"), ("6.14.0", "1")])));
        assert!(!agree(&ours, &written([("6.1.0", "1"), ("6.14.0", "1")])));
    }

    #[test]
    fn a_mode_that_was_not_tried_on_a_kernel_has_an_empty_column_beside_its_kind() {
        let mut matrix = Matrix::default();
        for mode in ["bridge", "container"] {
            matrix.read("6.1.0", &format!("matrix-cell\t{mode}\ttcp\t0"));
        }
        matrix.read("6.18.0", "matrix-cell\tbridge, Docker's default\ttcp\t0");
        let text = matrix.render();
        let docker = "## bridge, Docker's default\n\n| technique | 6.1 | 6.18 |\n|---|---|---|\n| tcp |  | 0 |\n\n## container\n";
        assert!(text.contains(docker), "{text}");
        assert_eq!(Matrix::parse(&text), matrix);
    }

    #[test]
    fn a_technique_that_was_not_tried_on_a_kernel_has_an_empty_cell() {
        let mut matrix = Matrix::default();
        matrix.read("6.1.0", "matrix-cell\tbridge\ttcp\t0");
        matrix.read("6.12.0", "matrix-cell\tbridge\tudp\t0");
        assert!(matrix.render().contains("| tcp | 0 |  |\n"));
    }
}
