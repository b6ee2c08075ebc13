//! Which cgroups a container has that somebody registers, by the engine or runtime that runs it.

use std::path::PathBuf;

use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::{RegistrationError, Registrations};
use crate::attribution::{ContainerId, Entry, SourceKind};

/// Who knows containers.
const ENGINES: [SourceKind; 2] = [SourceKind::Docker, SourceKind::Oci];

impl Registrations {
    /// The cgroups of a container. Who runs it is asked only if nothing is said of it yet: that can take a while, and many
    /// containers may come with one command.
    pub(super) async fn container(&self, id: &ContainerId, until: Instant) -> Result<Vec<PathBuf>, RegistrationError> {
        let paths = |entry: &Entry| entry.cgroups.iter().map(|cgroup| cgroup.path.to_path_buf()).collect();
        let known = {
            let tasks = self.registry.read();
            let mut known = ENGINES.iter().filter_map(|source| tasks.container(*source, id));
            known.next().map(|entry| paths(entry))
        };
        if let Some(known) = known {
            return Ok(known);
        }
        let text = || id.as_str().to_owned();
        let mut late = None;
        for source in &*self.sources {
            match timeout_at(until, source.container(id)).await {
                Ok(Ok(Some(entry))) => return Ok(paths(&entry)),
                Ok(Ok(None)) => {}
                Ok(Err(error)) => warn!(source = source.kind().name(), %error, "cannot ask about a container"),
                Err(_late) => late = late.or(Some(source.kind())),
            }
        }
        Err(match late {
            Some(asked) => RegistrationError::Late { id: text(), asked },
            None => RegistrationError::UnknownContainer { id: text() },
        })
    }
}
