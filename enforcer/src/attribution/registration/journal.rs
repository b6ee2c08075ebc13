//! The journal: registrations in a file, so that the next enforcer knows them too.
//!
//! One JSON object per line, appended before the registration is answered. It needs to outlive the process and not the
//! host, whose cgroups do not either: nothing waits for a disk, and what another boot has left is not believed, because
//! IDs of cgroups are given out anew.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{
    super::task::{Cgroup, Entry, Fact, TaskName},
    RegistrationError,
};
use crate::{host::file::Trust, policy::CredentialId};

/// How large the file may be, in bytes: registrations of all tasks that a host has room for get nowhere near it.
const LIMIT: u64 = 256 << 20;

/// Lines that say nothing any more, before the file is written anew.
pub(super) const STALE_LINES: usize = 4096;

/// Where the kernel tells which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The file.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    length: u64,
    lines: usize,
}

/// What a journal said: entries by task, and whether they were taken back.
pub(super) type Kept = BTreeMap<Arc<str>, (Entry, bool)>;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Line {
    /// The first line: which boot the cgroup IDs are of.
    Boot(String),
    /// A task is registered, as a whole.
    Add(Written),
    /// It is taken back.
    Remove(String),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Written {
    task: String,
    cgroups: Vec<(PathBuf, u64)>,
    containers: Vec<String>,
    created: Timestamp,
    credential_ids: Vec<String>,
    role_arn: Option<String>,
    execution_ids: Vec<String>,
}

// === impl Journal ===

impl Journal {
    /// Reads what is kept in a file; nothing if there is none, or if it is another boot's. One that others can write is not
    /// believed.
    pub(super) fn read(path: &Path) -> Result<Kept, RegistrationError> {
        let read = Trust::own().read(path, LIMIT).map_err(io::Error::other);
        let Some(bytes) = read.map_err(failed("read", path))? else {
            return Ok(Kept::new());
        };
        if !bytes.contains(&b'\n') {
            warn!(path = %path.display(), "the file of registrations is cut off in its first line: nothing is registered \
                from it; if tasks were registered since the host started, register them again");
        }
        let boot = boot().map_err(failed("tell the boot for", path))?;
        let mut kept = Kept::new();
        // A last line that does not end was not finished, so nobody was answered.
        let whole = |line: &&[u8]| line.ends_with(b"\n");
        for (line, number) in bytes.split_inclusive(|byte| *byte == b'\n').filter(whole).zip(1..) {
            let damaged = || RegistrationError::Damaged {
                path: path.to_owned(),
                line: number,
            };
            let read = serde_json::from_slice(line).map_err(|_quotes_secrets| damaged())?;
            if number > 1 {
                apply(&mut kept, read).ok_or_else(damaged)?;
                continue;
            }
            let Line::Boot(of) = read else {
                return Err(damaged());
            };
            if of != boot {
                break;
            }
        }
        Ok(kept)
    }

    /// Writes a new file in place of the one there is.
    pub(super) fn write<'a>(
        path: &Path,
        entries: impl Iterator<Item = (&'a Entry, bool)>,
    ) -> Result<Self, RegistrationError> {
        let boot = boot().map_err(failed("tell the boot for", path))?;
        let mut lines = vec![Line::Boot(boot)];
        for (entry, is_over) in entries {
            lines.push(Line::Add(Written::from(entry)));
            lines.extend(is_over.then(|| Line::Remove(entry.task.as_str().to_owned())));
        }
        let mut bytes = Vec::new();
        for line in &lines {
            bytes.append(&mut render(line).map_err(failed("write", path))?);
        }
        let file = replace(path, &bytes).map_err(failed("write", path))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            length: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            lines: lines.len(),
        })
    }

    /// Keeps what is registered for a task, in place of what was.
    pub(super) fn add(&mut self, entry: &Entry) -> Result<(), RegistrationError> {
        self.append(&Line::Add(Written::from(entry)))
    }

    /// Keeps that a registration was taken back.
    pub(super) fn remove(&mut self, task: &str) -> Result<(), RegistrationError> {
        self.append(&Line::Remove(task.to_owned()))
    }

    /// Whether it should be written anew, where so many lines would do.
    pub(super) const fn is_stale(&self, needed: usize) -> bool {
        self.lines > 2 * needed + STALE_LINES
    }

    /// One whose disk is full.
    #[cfg(test)]
    pub(super) fn full() -> Self {
        let path = PathBuf::from("/dev/full");
        let file = OpenOptions::new().append(true).open(&path).unwrap();
        Self {
            path,
            file,
            length: 0,
            lines: 0,
        }
    }

    /// Whether its path still leads to it: what is appended to a file without a name is read by nobody.
    pub(super) fn is_in_place(&self) -> bool {
        let id = |file: fs::Metadata| (file.dev(), file.ino());
        let (file, path) = (self.file.metadata(), fs::metadata(&self.path));
        file.is_ok_and(|file| path.is_ok_and(|path| id(path) == id(file)))
    }

    /// The whole line or nothing: what is written in part is taken back.
    fn append(&mut self, line: &Line) -> Result<(), RegistrationError> {
        let bytes = render(line).map_err(failed("write", &self.path))?;
        if let Err(error) = self.file.write_all(&bytes) {
            self.file.set_len(self.length).map_err(failed("mend", &self.path))?;
            return Err(failed("write", &self.path)(error));
        }
        self.length += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.lines += 1;
        Ok(())
    }
}

/// Takes a line in; `None` if it makes no sense.
fn apply(kept: &mut Kept, line: Line) -> Option<()> {
    match line {
        Line::Boot(_) => return None,
        Line::Add(written) => {
            let entry = written.entry()?;
            kept.insert(Arc::clone(&entry.id), (entry, false));
        }
        Line::Remove(task) => kept.get_mut(&*task)?.1 = true,
    }
    Some(())
}

fn boot() -> io::Result<String> {
    Ok(fs::read_to_string(BOOT_ID)?.trim().to_owned())
}

fn render(line: &Line) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Writes a file beside its final place and renames it, so that there is always a whole one.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let partial = path.with_extension("new");
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .append(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)?;
    let placed = file.write_all(bytes).and_then(|()| fs::rename(&partial, path));
    if placed.is_err() {
        // The file system may be full of it.
        fs::remove_file(&partial)?;
    }
    placed.map(|()| file)
}

fn failed(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> RegistrationError {
    move |source| RegistrationError::Journal {
        operation,
        path: path.to_owned(),
        source,
    }
}

// === impl Written ===

impl Written {
    fn entry(self) -> Option<Entry> {
        let granted = |ids: Vec<String>| {
            let ids = ids.iter().map(|id| CredentialId::granted(id).ok());
            ids.collect::<Option<Box<[_]>>>()
        };
        let cgroup = |(path, id): (PathBuf, u64)| Cgroup {
            path: path.into(),
            id: Some(id),
        };
        let container = |id: String| (Fact::Container, id.into_boxed_str());
        let task = TaskName::new(&self.task);
        Some(Entry {
            id: task.as_id(),
            task,
            cgroups: self.cgroups.into_iter().map(cgroup).collect(),
            created: self.created,
            credential_ids: granted(self.credential_ids)?,
            execution_ids: granted(self.execution_ids)?,
            role_arn: self.role_arn.map(Into::into),
            facts: self.containers.into_iter().map(container).collect(),
        })
    }
}

impl From<&Entry> for Written {
    fn from(entry: &Entry) -> Self {
        let exposed = |ids: &[CredentialId]| ids.iter().map(|id| id.expose().to_owned()).collect();
        let id = |cgroup: &Cgroup| Some((cgroup.path.to_path_buf(), cgroup.id?));
        Self {
            task: entry.task.as_str().to_owned(),
            cgroups: entry.cgroups.iter().filter_map(id).collect(),
            containers: entry.facts.iter().map(|(_, id)| id.clone().into_string()).collect(),
            created: entry.created,
            credential_ids: exposed(&entry.credential_ids),
            role_arn: entry.role_arn.as_deref().map(str::to_owned),
            execution_ids: exposed(&entry.execution_ids),
        }
    }
}

#[cfg(test)]
mod tests;
