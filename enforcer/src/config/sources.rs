//! Sources: where tasks are learned from besides this file.

use std::{path::PathBuf, time::Duration};

use super::{InvalidConfig, raw, validate::absolute};

/// How long a request waits for the sources unless told otherwise; SDKs wait for about a second and then ask again.
const WAIT: Duration = Duration::from_secs(2);
const DOCKER_SOCKET: &str = "/run/docker.sock";

/// Where tasks are learned from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// How long a request of a container nobody knows may wait for them.
    pub wait: Duration,
    /// The Docker engine; none if it is not asked.
    pub docker: Option<DockerSource>,
}

/// How the Docker engine is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerSource {
    /// Its socket.
    pub socket: PathBuf,
    /// The daemon's own `--cgroup-parent`, if it has one: it tells nobody.
    pub cgroup_parent: Option<String>,
    /// Whether containers' labels may name their tasks and roles.
    pub labels: bool,
}

/// Validates what is said about sources.
pub(super) fn sources(raw: &raw::Sources) -> Result<Sources, InvalidConfig> {
    let wait = match raw.wait_milliseconds {
        None => WAIT,
        Some(wait) => Duration::from_millis(wait.into()),
    };
    let docker = raw.docker.enabled.unwrap_or(true).then(|| docker(&raw.docker));
    Ok(Sources {
        wait,
        docker: docker.transpose()?,
    })
}

fn docker(raw: &raw::Docker) -> Result<DockerSource, InvalidConfig> {
    let socket = raw.socket.clone().unwrap_or_else(|| DOCKER_SOCKET.into());
    Ok(DockerSource {
        socket: absolute("sources.docker.socket", socket)?,
        cgroup_parent: raw.cgroup_parent.clone(),
        labels: raw.labels.unwrap_or(true),
    })
}
