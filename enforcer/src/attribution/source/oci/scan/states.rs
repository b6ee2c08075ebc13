//! What runtimes say: the states they keep of containers, of which only those that are new or have changed are read.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use super::{Changes, read};
use crate::attribution::source::oci::{
    file::{Refused, Stamp, Trust},
    place::{Found, Kind},
    runtime::State,
};

/// What runtimes say, by their files.
#[derive(Debug, Default)]
pub(super) struct States(HashMap<PathBuf, Stated>);

/// What a runtime says of a container.
#[derive(Clone, Debug)]
pub(super) struct Stated {
    pub(super) stamp: Stamp,
    /// What its file is called by.
    pub(super) name: String,
    pub(super) state: State,
}

// === impl States ===

impl States {
    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&PathBuf, &Stated)> {
        self.0.iter()
    }

    /// Whether there is such a file.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.0.contains_key(path)
    }

    /// Reads those that are new, and forgets those that are gone.
    pub(super) fn update(&mut self, trust: Trust, found: Vec<Found>, changes: &mut Changes) {
        if changes.unlisted.is_none() {
            let paths: HashSet<_> = found.iter().map(|found| found.path.as_path()).collect();
            self.0.retain(|path, _| paths.contains(path.as_path()));
        }
        for Found {
            path,
            kind,
            stamp,
            name,
        } in found
        {
            if self.0.get(&path).is_some_and(|known| known.stamp == stamp) {
                continue;
            }
            match read_state(trust, &path, kind) {
                Ok(Some((stamp, state))) => {
                    self.0.insert(path, Stated { stamp, name, state });
                }
                Ok(None) => {
                    self.0.remove(&path);
                }
                Err(refused) => {
                    if !refused.may_pass() {
                        self.0.remove(&path);
                    }
                    changes.pass_over(path, refused);
                }
            }
        }
    }
}

fn read_state(trust: Trust, path: &Path, kind: Kind) -> Result<Option<(Stamp, State)>, Refused> {
    let Some(content) = read(trust, path)? else {
        return Ok(None);
    };
    let state = match kind {
        Kind::Crun => State::parse_crun(&content.bytes),
        Kind::Runc | Kind::Bundle => State::parse_runc(&content.bytes),
    };
    let malformed = |problem| Refused::Content {
        path: path.to_owned(),
        problem,
    };
    Ok(Some((content.stamp, state.map_err(malformed)?)))
}
