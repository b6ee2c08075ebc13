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
    /// Socket of the Docker engine; none if it is not asked.
    pub docker: Option<PathBuf>,
}

/// Validates what is said about sources.
pub(super) fn sources(raw: &raw::Sources) -> Result<Sources, InvalidConfig> {
    let wait = match raw.wait_milliseconds {
        None => WAIT,
        Some(wait) => Duration::from_millis(wait.into()),
    };
    let docker = raw.docker.socket.clone().unwrap_or_else(|| DOCKER_SOCKET.into());
    let docker = raw.docker.enabled.unwrap_or(true).then_some(docker);
    Ok(Sources {
        wait,
        docker: docker
            .map(|socket| absolute("sources.docker.socket", socket))
            .transpose()?,
    })
}
