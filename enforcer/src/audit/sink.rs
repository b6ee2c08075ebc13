//! Where records go.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
};

use super::AuditError;
use crate::config::AuditOutput;

/// Opens the output. Neither kind has a buffer of its own: what it took, the kernel has.
pub(super) fn open(output: &AuditOutput) -> Result<Box<dyn Write + Send>, AuditError> {
    let failed = |path: &str| {
        let path = path.into();
        |source| AuditError::Open { path, source }
    };
    match output {
        AuditOutput::Stdout => {
            let stdout = io::stdout()
                .as_fd()
                .try_clone_to_owned()
                .map_err(failed("/dev/stdout"))?;
            Ok(Box::new(File::from(stdout)))
        }
        AuditOutput::File(path) => {
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(path)
                .map_err(failed(&path.to_string_lossy()))?;
            Ok(Box::new(file))
        }
    }
}
