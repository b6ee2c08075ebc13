//! Where records go.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Write},
    os::{
        fd::AsFd,
        unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{Access, OFlags, access, fcntl_getfl, fcntl_setfl};

use super::AuditError;
use crate::config::AuditOutput;

/// The file that has a path, whichever that is: one that is renamed or removed, to rotate it, is left after the line that is
/// being written.
struct Appended {
    path: PathBuf,
    file: File,
    /// Device and inode.
    identity: (u64, u64),
    /// Whether it ends within a line: somebody was killed while writing it.
    torn: bool,
    /// Whether it ends within a line of ours, which goes on with the next write.
    unfinished: bool,
}

/// Opens the output. Neither kind has a buffer of its own: what it took, the kernel has.
pub(super) fn open(output: &AuditOutput) -> Result<Box<dyn Write + Send>, AuditError> {
    match output {
        AuditOutput::Stdout => {
            let stdout = io::stdout().as_fd().try_clone_to_owned();
            let stdout = stdout.map_err(failed(Path::new("/dev/stdout")))?;
            Ok(Box::new(File::from(stdout)))
        }
        AuditOutput::File(path) => {
            let file = Appended::open(path.clone()).map_err(failed(path))?;
            Ok(Box::new(file))
        }
    }
}

/// Whether the output could be opened. Creates nothing.
pub fn check_output(output: &AuditOutput) -> Result<(), AuditError> {
    let AuditOutput::File(path) = output else {
        return Ok(());
    };
    let opened = match append(path, false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = path.parent().unwrap_or(path);
            access(directory, Access::WRITE_OK | Access::EXEC_OK).map_err(io::Error::from)
        }
        opened => opened.map(drop),
    };
    opened.map_err(failed(path))
}

fn failed(path: &Path) -> impl Fn(io::Error) -> AuditError {
    |source| {
        let path = path.to_owned();
        // What opening a pipe gives; waiting for a reader could take forever.
        if source.raw_os_error() == Some(libc::ENXIO) {
            return AuditError::NoReader { path };
        }
        AuditError::Open { path, source }
    }
}

/// Opens without waiting, then writes as slowly as it must be.
fn append(path: &Path, create: bool) -> io::Result<File> {
    let file = OpenOptions::new()
        .create(create)
        .append(true)
        .mode(0o600)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}

fn is_torn(path: &Path) -> io::Result<bool> {
    let metadata = path.metadata()?;
    if !metadata.is_file() || metadata.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    File::open(path)?.read_exact_at(&mut last, metadata.len() - 1)?;
    Ok(last != *b"\n")
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

// === impl Appended ===

impl Appended {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = append(&path, true)?;
        Ok(Self {
            identity: identity(&file.metadata()?),
            torn: is_torn(&path)?,
            unfinished: false,
            path,
            file,
        })
    }

    fn has_its_path(&self) -> bool {
        let there = self.path.metadata();
        there.is_ok_and(|there| identity(&there) == self.identity)
    }
}

impl Write for Appended {
    /// Ends a torn line first, so that it does not swallow a record.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.unfinished && !self.has_its_path() {
            *self = Self::open(self.path.clone())?;
        }
        if self.torn {
            self.file.write_all(b"\n")?;
            self.torn = false;
        }
        let written = self.file.write(bytes)?;
        if let Some(last) = bytes.get(..written).and_then(<[u8]>::last) {
            self.unfinished = *last != b'\n';
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
