//! Redaction: a credential ID leaves only as a prefix of its keyed hash, which tells equal IDs but not which.

use std::{
    fmt,
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use rustix::{
    fs::{Access, access},
    rand::{GetRandomFlags, getrandom},
};
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
        match Self::load(path)? {
            Some(redactor) => Ok(redactor),
            None => create(path).map(|key| Self { key }).map_err(failed("create", path)),
        }
    }

    /// Reads the key; none if there is no such file.
    fn load(path: &Path) -> Result<Option<Self>, AuditError> {
        // Whatever kind of file it is, nobody is waited for.
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        match opened {
            Ok(file) => Self::read(file, path).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", path)(error)),
        }
    }

    fn read(file: File, path: &Path) -> Result<Self, AuditError> {
        let mut bytes = Vec::with_capacity(KEY_BYTES);
        // One byte more than a key tells a longer file; nobody needs to read all of /dev/zero for that.
        let limit = u64::try_from(KEY_BYTES).unwrap_or(u64::MAX).saturating_add(1);
        file.take(limit).read_to_end(&mut bytes).map_err(failed("read", path))?;
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

/// Whether the key can be read, or made. Creates nothing.
pub fn check_key(path: &Path) -> Result<(), AuditError> {
    if Redactor::load(path)?.is_some() {
        return Ok(());
    }
    let existing = path.ancestors().skip(1).find(|directory| directory.exists());
    access(existing.unwrap_or(path), Access::WRITE_OK | Access::EXEC_OK)
        .map_err(io::Error::from)
        .map_err(failed("create", path))
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AuditError {
    move |source| AuditError::Key {
        operation,
        path: path.to_owned(),
        source,
    }
}

/// Writes a new key beside its final place and renames it, so that a crash leaves no half key.
fn create(path: &Path) -> io::Result<[u8; KEY_BYTES]> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let mut key = [0; KEY_BYTES];
    // `getrandom` gives up to 256 bytes at once, uninterrupted.
    getrandom(&mut key, GetRandomFlags::empty())?;
    let partial = path.with_extension("new");
    // What a crash left there may be anything, also somebody's link to another place.
    match std::fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
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
