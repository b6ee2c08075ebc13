//! Redaction: a credential ID leaves only as a prefix of its keyed hash, which tells equal IDs but not which.

use std::{
    fmt,
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Serialize, Serializer};

use super::AuditError;
use crate::policy::CredentialId;

const KEY_BYTES: usize = 32;

/// Turns credential IDs into [`CredentialHash`]es.
pub(super) struct Redactor {
    key: [u8; KEY_BYTES],
}

/// The first 16 hexadecimal digits of a credential ID's keyed hash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct CredentialHash([u8; 8]);

// === impl Redactor ===

impl Redactor {
    /// Reads the key, or makes one if there is no such file.
    pub(super) fn load_or_create(path: &Path) -> Result<Self, AuditError> {
        let failed = |operation| {
            move |source| AuditError::Key {
                operation,
                path: path.to_owned(),
                source,
            }
        };
        match File::open(path) {
            Ok(file) => Self::read(file, path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = create(path).map_err(failed("create"))?;
                Ok(Self { key })
            }
            Err(error) => Err(failed("read")(error)),
        }
    }

    fn read(file: File, path: &Path) -> Result<Self, AuditError> {
        let mut bytes = Vec::with_capacity(KEY_BYTES);
        // One byte more than a key tells a longer file; nobody needs to read all of /dev/zero for that.
        let limit = u64::try_from(KEY_BYTES).unwrap_or(u64::MAX).saturating_add(1);
        file.take(limit)
            .read_to_end(&mut bytes)
            .map_err(|source| AuditError::Key {
                operation: "read",
                path: path.to_owned(),
                source,
            })?;
        match <[u8; KEY_BYTES]>::try_from(bytes.as_slice()) {
            Ok(key) => Ok(Self { key }),
            Err(_wrong_length) => Err(AuditError::KeyLength {
                path: path.to_owned(),
                found: bytes.len(),
            }),
        }
    }

    pub(super) fn hash(&self, credential: &CredentialId) -> CredentialHash {
        let hash = blake3::keyed_hash(&self.key, credential.expose().as_bytes());
        CredentialHash(hash.as_bytes().first_chunk().copied().unwrap_or_default())
    }
}

/// Writes a new key beside its final place and links it there, so that a crash leaves no half key.
fn create(path: &Path) -> io::Result<[u8; KEY_BYTES]> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let mut key = [0; KEY_BYTES];
    // `getrandom` gives up to 256 bytes at once, uninterrupted.
    getrandom(&mut key, GetRandomFlags::empty())?;
    let partial = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)?;
    file.write_all(&key)?;
    file.sync_all()?;
    std::fs::rename(&partial, path)?;
    Ok(key)
}

impl fmt::Debug for Redactor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Redactor(…)")
    }
}

// === impl CredentialHash ===

impl fmt::Display for CredentialHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for CredentialHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Serialize for CredentialHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
