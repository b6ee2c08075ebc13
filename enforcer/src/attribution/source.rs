//! Sources: where tasks are learned from. One file each; what they have in common is here.
//!
//! A source keeps the registry up to date by itself ([`Source::run`]), and can be asked to hurry because of a cgroup that is
//! not there yet ([`Source::find`]); nobody else states what it knows, so nobody states anew what it has taken back. It tells
//! from the state of an engine or runtime that only root can write, never from anything a
//! workload can: no environment of a running process, no mount, no path.

mod backoff;
mod docker;
mod oci;
mod told;

use std::{path::Path, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::{
    docker::{Config as DockerConfig, Docker, DockerError, STATES as DOCKER_STATES},
    oci::{Config as OciConfig, InvalidPlace, Oci, OciError, Place},
    told::Believed,
};
use super::{
    cgroup_path::ContainerId,
    registry::Registry,
    task::{Entry, SourceKind},
};
use crate::drain::Watcher;

/// A source; cheap to copy.
#[derive(Clone, Debug)]
pub enum Source {
    /// The Docker engine.
    Docker(Arc<Docker>),
    /// The OCI runtimes' state.
    Oci(Oci),
}

/// A source could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The Docker engine.
    #[error(transparent)]
    Docker(#[from] DockerError),
    /// The OCI runtimes' state.
    #[error(transparent)]
    Oci(#[from] OciError),
}

/// How it goes with a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Which one.
    pub source: SourceKind,
    /// Whether it can be asked.
    #[serde(flatten)]
    pub state: SourceState,
    /// How many containers it has told of.
    pub containers: usize,
    /// What of it is passed over, and why; some of it if there is much.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<String>,
}

/// Whether a source can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum SourceState {
    /// It answers.
    Ready,
    /// There is no such engine or runtime on this host.
    Absent,
    /// It does not answer, and is asked again and again.
    Retrying {
        /// Since when.
        since: Timestamp,
        /// What went wrong last.
        error: String,
    },
}

// === impl Source ===

impl Source {
    /// Which one it is.
    #[must_use]
    pub const fn kind(&self) -> SourceKind {
        match self {
            Self::Docker(_) => SourceKind::Docker,
            Self::Oci(_) => SourceKind::Oci,
        }
    }

    /// Has everything said in the registry that it knows of the containers a cgroup is at or below of. Whether there is such
    /// a container.
    pub async fn find(&self, cgroup: &Path, registry: &Registry) -> Result<bool, SourceError> {
        match self {
            Self::Docker(docker) => Ok(docker.find(cgroup, registry).await?),
            Self::Oci(oci) => Ok(oci.find(cgroup).await?),
        }
    }

    /// What it knows of a container; `None` if it surely knows none of this ID.
    pub async fn container(&self, id: &ContainerId) -> Result<Option<Entry>, SourceError> {
        match self {
            Self::Docker(docker) => Ok(docker.container(id).await?),
            Self::Oci(oci) => Ok(oci.container(id).await?),
        }
    }

    /// Keeps the registry up to date until the drain.
    pub async fn run(self, registry: Arc<Registry>, drain: Watcher) {
        match self {
            Self::Docker(docker) => docker.run(&registry, drain).await,
            Self::Oci(oci) => oci.run(drain).await,
        }
    }

    /// How it goes with it.
    #[must_use]
    pub fn status(&self) -> SourceStatus {
        match self {
            Self::Docker(docker) => docker.status(),
            Self::Oci(oci) => oci.status(),
        }
    }
}
