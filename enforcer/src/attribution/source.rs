//! Sources: where tasks are learned from. One file each; what they have in common is here.
//!
//! A source keeps the registry up to date by itself ([`Source::run`]), and can be asked about a cgroup that is not there yet
//! ([`Source::find`]). It answers from the state of an engine or runtime that only root can write, never from anything a
//! workload can: no environment of a running process, no mount, no path.

use std::path::Path;

use super::task::{Entry, SourceKind};

/// A source.
#[derive(Debug)]
pub enum Source {}

/// A source could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {}

// === impl Source ===

impl Source {
    /// Which one it is.
    #[must_use]
    pub const fn kind(&self) -> SourceKind {
        match *self {}
    }

    /// What it knows of the containers that a cgroup is at or below of. Nothing, if it surely knows none.
    pub async fn find(&self, _cgroup: &Path) -> Result<Vec<Entry>, SourceError> {
        match *self {}
    }
}
