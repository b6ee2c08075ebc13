//! Provider `file`: credentials that something else writes, in the JSON of the AWS `credential_process` contract.
//!
//! The file is best replaced by renaming; what is half written is not valid JSON, and is looked at again when it
//! changes. Until then the earlier credentials are served, as long as they last. No error quotes the content.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
};

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::{error, info};

use crate::config::Role;

/// The largest file read; real ones are about 2 KiB.
const MAX_BYTES: u64 = 64 * 1024;

/// One task's file, and what it said when it was last looked at.
#[derive(Debug)]
pub(super) struct CredentialsFile {
    path: PathBuf,
    role_arn: String,
    /// Plain data, never held longer than a copy.
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Which version of the file this is; none if there was none.
    version: Option<Version>,
    /// The last ones that could be read; none if there never were any.
    credentials: Option<Rendered>,
    /// Whether it was logged that there are no credentials, and that is still so.
    reported: bool,
}

/// Tells one version of a file from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

/// An answer ready to be sent.
#[derive(Clone)]
struct Rendered {
    body: Bytes,
    expires: Timestamp,
}

/// The file, as `credential_process` defines it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Written {
    version: Option<u32>,
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    session_token: Option<String>,
    expiration: Option<String>,
}

/// The answer, as the ECS agent writes it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<'a> {
    role_arn: &'a str,
    access_key_id: &'a str,
    secret_access_key: &'a str,
    token: &'a str,
    expiration: &'a str,
}

/// Why a file gives no credentials.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("{source}")]
    Read { source: io::Error },
    #[error("it is not a regular file")]
    NotAFile,
    #[error("it is larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("line {line}, column {column}: not JSON as credential_process defines it")]
    Parse { line: usize, column: usize },
    #[error("Version must be 1")]
    Version,
    #[error("{field} is missing or empty")]
    Missing { field: &'static str },
    #[error("Expiration must be a time like 2030-01-02T03:04:05Z")]
    Expiration,
    #[error("its credentials expired at {at}")]
    Expired { at: Timestamp },
    #[error("cannot render the answer")]
    Render,
}

// === impl CredentialsFile ===

impl CredentialsFile {
    /// Reads a role's file; one that cannot be used is reported and looked at again when it changes.
    pub(super) fn load(role: &Role) -> Self {
        let file = Self {
            path: role.credentials_file.clone(),
            role_arn: role.arn.clone(),
            state: RwLock::default(),
        };
        file.reload();
        file
    }

    /// Whether it is this role's.
    pub(super) fn is_of(&self, role: &Role) -> bool {
        self.path == role.credentials_file && self.role_arn == role.arn
    }

    /// The answer at this time; none if there are no credentials or they have expired.
    pub(super) fn current(&self, now: Timestamp) -> Option<Bytes> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let credentials = state.credentials.as_ref()?;
        (now < credentials.expires).then(|| credentials.body.clone())
    }

    /// Looks whether there is another file, and reads it if so. Reports credentials that have expired.
    pub(super) fn reload_if_changed(&self) {
        let (known, expired) = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            let end = state.credentials.as_ref().map(|credentials| credentials.expires);
            let expired = end.filter(|end| *end <= Timestamp::now() && !state.reported);
            (state.version, expired)
        };
        if Version::of(&self.path).ok() != known {
            self.reload();
        } else if let Some(at) = expired {
            self.report(&FileError::Expired { at });
        }
    }

    fn reload(&self) {
        // Before reading: a change in between is then found by the next look.
        let version = Version::of(&self.path).ok();
        let read = read(&self.path, &self.role_arn);
        let expires = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            state.version = version;
            state.reported = false;
            if let Ok(credentials) = &read {
                state.credentials = Some(credentials.clone());
            }
            state.credentials.as_ref().map(|credentials| credentials.expires)
        };
        let valid = expires.filter(|expires| Timestamp::now() < *expires);
        match (read, valid) {
            (Ok(_), Some(expires)) => {
                info!(file = %self.path.display(), role = self.role_arn, %expires, "credentials loaded");
            }
            (Ok(Rendered { expires: at, .. }), None) => self.report(&FileError::Expired { at }),
            (Err(error), Some(expires)) => {
                error!(file = %self.path.display(), role = self.role_arn, %error, %expires,
                    "cannot use the file; serving the credentials it had before until they expire");
            }
            (Err(error), None) => self.report(&error),
        }
    }

    fn report(&self, error: &FileError) {
        error!(file = %self.path.display(), role = self.role_arn, %error, "no usable credentials in file");
        self.state.write().unwrap_or_else(PoisonError::into_inner).reported = true;
    }
}

// === impl Version ===

impl Version {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            inode: metadata.ino(),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

impl fmt::Debug for Rendered {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Rendered")
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Why a role's file gives no credentials now; none if it gives some.
#[must_use]
pub fn unusable(role: &Role) -> Option<String> {
    match read(&role.credentials_file, &role.arn) {
        Ok(Rendered { expires: at, .. }) => (at <= Timestamp::now()).then(|| FileError::Expired { at }.to_string()),
        Err(error) => Some(error.to_string()),
    }
}

/// Never waits for a writer, whatever kind of file it is, and never reads more than it may.
fn read(path: &Path, role_arn: &str) -> Result<Rendered, FileError> {
    let failed = |source| FileError::Read { source };
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(FileError::NotAFile);
    }
    let mut text = Vec::new();
    let mut limited = file.take(MAX_BYTES + 1);
    limited.read_to_end(&mut text).map_err(failed)?;
    if limited.limit() == 0 {
        return Err(FileError::TooLarge);
    }
    render(&text, role_arn)
}

/// The answer for a file's content.
fn render(text: &[u8], role_arn: &str) -> Result<Rendered, FileError> {
    // serde's own message may quote a value.
    let written: Written = serde_json::from_slice(text).map_err(|error| FileError::Parse {
        line: error.line(),
        column: error.column(),
    })?;
    if written.version != Some(1) {
        return Err(FileError::Version);
    }
    let expiration = required("Expiration", written.expiration.as_deref())?;
    let expires = expiration.parse().map_err(|_not_a_time| FileError::Expiration)?;
    let answer = Answer {
        role_arn,
        access_key_id: required("AccessKeyId", written.access_key_id.as_deref())?,
        secret_access_key: required("SecretAccessKey", written.secret_access_key.as_deref())?,
        token: required("SessionToken", written.session_token.as_deref())?,
        expiration,
    };
    let json = serde_json::to_string(&answer).map_err(|_error| FileError::Render)?;
    Ok(Rendered {
        body: as_go_writes_it(&json).into(),
        expires,
    })
}

fn required<'a>(field: &'static str, value: Option<&'a str>) -> Result<&'a str, FileError> {
    value
        .filter(|value| !value.is_empty())
        .ok_or(FileError::Missing { field })
}

/// Go escapes three characters that JSON does not need escaped. They occur within strings only.
fn as_go_writes_it(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

#[cfg(test)]
mod tests;
