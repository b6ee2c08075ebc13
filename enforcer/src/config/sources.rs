//! Sources: where tasks are learned from besides this file.

use std::{path::PathBuf, time::Duration};

use super::{InvalidConfig, raw, validate::absolute};
use crate::attribution::Place;

/// How long a request waits for the sources unless told otherwise; SDKs wait for about a second and then ask again.
const WAIT: Duration = Duration::from_secs(2);
const DOCKER_SOCKET: &str = "/run/docker.sock";
const KUBELET: &str = "/var/lib/kubelet";

/// Where the usual engines and runtimes keep their files: containerd, that of k3s and of Docker, and CRI-O; then what runc
/// and crun keep for these, for Podman, and on their own. Podman's configurations are those its runtime's state names:
/// they stay when a container has ended.
const OCI_PLACES: [&str; 9] = [
    "/run/containerd/io.containerd.runtime.v2.task/*/*/config.json",
    "/run/k3s/containerd/io.containerd.runtime.v2.task/*/*/config.json",
    "/run/docker/containerd/daemon/io.containerd.runtime.v2.task/*/*/config.json",
    "/run/containers/storage/overlay-containers/*/userdata/config.json",
    "/run/containerd/runc/*/*/state.json",
    "/run/containerd/runc/*/*/status",
    "/run/docker/runtime-runc/*/*/state.json",
    "/run/runc/*/state.json",
    "/run/crun/*/status",
];

/// Where tasks are learned from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// How long a request of a container nobody knows may wait for them.
    pub wait: Duration,
    /// The Docker engine; none if it is not asked.
    pub docker: Option<DockerSource>,
    /// The OCI runtimes' state; none if it is not looked at.
    pub oci: Option<OciSource>,
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

/// How the OCI runtimes' state is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciSource {
    /// Where it is.
    pub places: Vec<Place>,
    /// Whether annotations of pods may name their roles.
    pub pod_annotations: bool,
    /// Whether annotations of Podman's containers may: before Podman 4.6 those of their images are among them.
    pub podman_annotations: bool,
    /// The kubelet's directory.
    pub kubelet: PathBuf,
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
        oci: raw.oci.enabled.unwrap_or(true).then(|| oci(&raw.oci)).transpose()?,
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

fn oci(raw: &raw::Oci) -> Result<OciSource, InvalidConfig> {
    let default = || OCI_PLACES.map(PathBuf::from).to_vec();
    let places = raw.roots.clone().unwrap_or_else(default).into_iter().map(|path| {
        Place::parse(&path).map_err(|cause| InvalidConfig::Place {
            path: path.clone(),
            cause,
        })
    });
    Ok(OciSource {
        places: places.collect::<Result<_, _>>()?,
        pod_annotations: raw.pod_annotations.unwrap_or(false),
        podman_annotations: raw.podman_annotations.unwrap_or(false),
        kubelet: absolute(
            "sources.oci.kubelet",
            raw.kubelet.clone().unwrap_or_else(|| KUBELET.into()),
        )?,
    })
}
