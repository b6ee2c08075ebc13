//! Tasks, as they are written on the control socket.

use std::{fmt, path::PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, de::Error};

use crate::attribution::SourceKind;

/// A task to be registered, or more of one that is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct NewTask {
    /// Its name.
    pub task: String,
    /// Its cgroups: absolute paths within the cgroup2 mount.
    #[serde(default)]
    pub cgroups: Vec<PathBuf>,
    /// IDs of its containers, in full.
    #[serde(default)]
    pub containers: Vec<String>,
    /// Its credential IDs.
    #[serde(default, deserialize_with = "secrets")]
    pub credential_ids: Vec<Secret>,
    /// Its role.
    #[serde(default)]
    pub role_arn: Option<String>,
    /// IDs of execution roles.
    #[serde(default, deserialize_with = "secrets")]
    pub execution_ids: Vec<Secret>,
}

/// What came of a registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Added {
    /// The task's name.
    pub task: String,
    /// What its containers get as `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`; none if it has no credentials.
    #[serde(default)]
    pub relative_uri: Option<Secret>,
    /// Why it is not registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What is wrong although it is registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// A task, in a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Its name.
    pub task: String,
    /// Who knows it.
    pub sources: Vec<SourceKind>,
    /// How many containers engines and runtimes know of it.
    pub containers: usize,
    /// How many cgroups.
    pub cgroups: usize,
    /// Its role.
    pub role_arn: Option<String>,
    /// Whether nobody has credentials for this role.
    pub no_credentials: bool,
    /// How many credential IDs it owns.
    pub granted: usize,
    /// How many it claims and does not get.
    pub refused: usize,
    /// Whether it was taken back, and only its credential IDs are still kept from others.
    pub leaving: bool,
}

/// A task, in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    /// Its name.
    pub task: String,
    /// What is said of it, by whom.
    pub said: Vec<Statement>,
    /// The credential IDs it claims.
    pub claims: Vec<Claim>,
}

/// What one source says of a container, or of the task as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// Who says it.
    pub source: SourceKind,
    /// What the source calls it: a container's ID, or the task's name.
    pub id: String,
    /// The task it names; another one than the task's if that is stated by somebody more reliable.
    pub named: String,
    /// Its cgroups, and their IDs where only those are meant.
    pub cgroups: Vec<(String, Option<u64>)>,
    /// Since when there is such a container.
    pub created: Timestamp,
    /// Its role.
    pub role_arn: Option<String>,
    /// Whether nobody has credentials for this role.
    pub no_credentials: bool,
    /// How many credential IDs it claims.
    pub credential_ids: usize,
    /// How many IDs of execution roles it names.
    pub execution_ids: usize,
    /// What else there is to tell.
    pub facts: Vec<(String, String)>,
    /// Whether it was taken back.
    pub leaving: bool,
}

/// A credential ID that a task claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The start of its keyed hash, as in the audit feed.
    pub credential: String,
    /// Whose it is.
    pub holder: Holder,
    /// Others that claim it and do not get it.
    pub refused: Vec<String>,
}

/// Whose a credential ID is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holder {
    /// The task's own.
    Own,
    /// Another task's.
    Task(String),
    /// An execution role's.
    Execution,
}

/// A text that goes over the socket and nowhere else.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

// === impl Secret ===

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

/// A list of secrets. Goes through an untyped value, because serde's own message for a wrong type quotes what it found.
fn secrets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Secret>, D::Error> {
    let wrong = || D::Error::custom("credential IDs must be a list of strings");
    let serde_json::Value::Array(items) = serde_json::Value::deserialize(deserializer)? else {
        return Err(wrong());
    };
    let secret = |item| {
        if let serde_json::Value::String(text) = item {
            Ok(Secret(text))
        } else {
            Err(wrong())
        }
    };
    items.into_iter().map(secret).collect()
}
