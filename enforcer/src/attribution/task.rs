//! What is known of a task: its name, and what one source says of one of its containers.

use std::{fmt, path::Path, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::policy::CredentialId;

/// The longest name or ARN taken.
const MAX_NAME_BYTES: usize = 512;

/// A task's name; cheap to copy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskName(Arc<str>);

/// Who says something about tasks, most reliable first: what people and agents state explicitly, then the engine's own
/// state, then what the runtime below it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// Somebody registered it through the control socket.
    Registration,
    /// The configuration file.
    Config,
    /// The Docker engine.
    Docker,
    /// The OCI runtime's state: containerd, CRI-O, Podman, plain runc or crun.
    Oci,
}

/// What a source says of one container, or of a task that was stated as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What the source calls it: the container's ID, or the task's name. Unique within the source.
    pub id: Arc<str>,
    /// The task it belongs to.
    pub task: TaskName,
    /// Its cgroups. What is below them belongs to it too.
    pub cgroups: Box<[Cgroup]>,
    /// Since when there is such a container: of two that claim one credential ID, the older has it.
    pub created: Timestamp,
    /// The credential IDs it says it owns.
    pub credential_ids: Box<[CredentialId]>,
    /// Credential IDs of execution roles, which the container engine uses for it and the container never may.
    pub execution_ids: Box<[CredentialId]>,
    /// The role whose credentials it gets.
    pub role_arn: Option<Arc<str>>,
    /// What else there is to tell people.
    pub facts: Box<[(Fact, Box<str>)]>,
}

/// A cgroup of a task.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cgroup {
    /// Relative to the cgroup2 mount, with a leading slash, in its one spelling: without a final slash, `//`, `.` or `..`.
    pub path: Arc<Path>,
    /// Which one, if only the one with this ID is meant and not whatever comes to its path later.
    pub id: Option<u64>,
}

/// Kinds of facts that decide nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The container's name.
    Container,
    /// The network mode, as the engine calls it.
    NetworkMode,
    /// The namespace of a Kubernetes pod.
    Namespace,
    /// The name of a Kubernetes pod.
    Pod,
    /// The UID of a Kubernetes pod.
    PodUid,
    /// The service account of a Kubernetes pod.
    ServiceAccount,
    /// Why the container does not belong to the task its labels name.
    Forged,
}

/// Whether a text may be the name of what engines and agents name, or a role's ARN: people read it.
#[must_use]
pub fn is_name(text: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

// === impl TaskName ===

impl TaskName {
    /// A task's name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// Whether a name is one that sources make of what containers are called: no registered or configured task has one, or a
    /// container would be of it that somebody only called so.
    #[must_use]
    pub fn is_made_of_containers(name: &str) -> bool {
        ["docker/", "oci/", "kubernetes/"]
            .iter()
            .any(|made| name.starts_with(made))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same text, held once for both.
    #[must_use]
    pub fn as_id(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

// === impl SourceKind ===

impl SourceKind {
    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Registration => "registration",
            Self::Config => "config",
            Self::Docker => "docker",
            Self::Oci => "oci",
        }
    }

    /// Whether what it says holds for everything below a cgroup, whatever engines say of containers there.
    #[must_use]
    pub const fn is_explicit(self) -> bool {
        match self {
            Self::Registration | Self::Config => true,
            Self::Docker | Self::Oci => false,
        }
    }
}

impl fmt::Display for SourceKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

// === impl Fact ===

impl Fact {
    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::NetworkMode => "network_mode",
            Self::Namespace => "namespace",
            Self::Pod => "pod",
            Self::PodUid => "pod_uid",
            Self::ServiceAccount => "service_account",
            Self::Forged => "forged",
        }
    }
}
