//! Reading what only root can have written.
//!
//! Every directory on the way is opened by itself, never through a symbolic link, and must be root's and nobody else's to
//! write: what is below a directory that others can write is theirs to exchange. Only in a sticky one, such as `/tmp`, what
//! is root's stays root's.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{fd::OwnedFd, unix::ffi::OsStringExt},
    path::{Component, Path, PathBuf},
};

use jiff::Timestamp;
use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, StatxFlags, fstat, openat, readlinkat, statat, statx},
    io::Errno,
};

pub(super) use crate::host::file::Trust;
use crate::host::{
    cgroupfs::CgroupError,
    file::{self, Unfit},
};

/// How large a file may be: no container's configuration gets anywhere near it.
const LIMIT: u64 = 8 << 20;

/// A directory that only root can have written.
#[derive(Debug)]
pub(super) struct Directory {
    descriptor: OwnedFd,
    path: PathBuf,
    trust: Trust,
}

/// A file's content.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    pub(super) stamp: Stamp,
    /// Since when there is its directory; where the file system does not tell, since when the file is as it is.
    pub(super) since: Timestamp,
}

/// What differs when a file is another one, or has other content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    size: i64,
    changed: (i64, i64),
}

/// A file or directory is not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// It cannot be.
    #[error("cannot {operation} {}: {source}", .path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It is a symbolic link.
    #[error("{} is or leads through a symbolic link; name the place it leads to", .0.display())]
    Link(PathBuf),
    /// Others than root can write it.
    #[error("{} can be written by others than root: let root own it, and take write permission from all others", .0.display())]
    NotRoots(PathBuf),
    /// It is something else than a file.
    #[error("{} is no regular file", .0.display())]
    NoFile(PathBuf),
    /// It is too large.
    #[error("{} is larger than {LIMIT} bytes", .0.display())]
    TooLarge(PathBuf),
    /// Its path has `..`, or is relative.
    #[error("{} is no absolute path without `..`", .0.display())]
    Malformed(PathBuf),
    /// Its name is not UTF-8.
    #[error("the name {:?} is not UTF-8", .0)]
    Name(PathBuf),
    /// It does not say what it must.
    #[error("{} is not complete, or malformed: {problem}", .path.display())]
    Content { path: PathBuf, problem: String },
    /// The cgroup it names cannot be looked at.
    #[error("of the container of {}: {source}", .path.display())]
    Cgroup {
        path: PathBuf,
        #[source]
        source: CgroupError,
    },
    /// The configuration it names is not there.
    #[error("{} names {}, which is not there, or not for this service to see", .state.display(), .bundle.display())]
    NoBundle { state: PathBuf, bundle: PathBuf },
}

// === impl Refused ===

impl Refused {
    fn of(unfit: Unfit, path: PathBuf) -> Self {
        match unfit {
            Unfit::Io { operation, source } => Self::Io {
                operation,
                path,
                source,
            },
            Unfit::Link => Self::Link(path),
            Unfit::NoFile => Self::NoFile(path),
            Unfit::NotRoots => Self::NotRoots(path),
            Unfit::TooLarge { .. } => Self::TooLarge(path),
        }
    }

    /// Whether the system has failed, and nothing is told of the file.
    pub(super) fn is_failure(&self) -> bool {
        if let Self::Cgroup {
            source: CgroupError::File { source, .. },
            ..
        } = self
        {
            // No cgroup can be at such a path.
            use io::ErrorKind::{InvalidFilename, InvalidInput, NotADirectory};
            return ![InvalidFilename, InvalidInput, NotADirectory].contains(&source.kind());
        }
        matches!(self, Self::Io { .. } | Self::Cgroup { .. })
    }

    /// Whether it may be read another time, and what it said before still holds.
    pub(super) fn may_pass(&self) -> bool {
        self.is_failure() || matches!(self, Self::Cgroup { .. } | Self::Content { .. } | Self::NoBundle { .. })
    }
}

// === impl Trust ===

impl Trust {
    /// Opens a directory by its absolute path; `None` if there is none.
    pub(super) fn open(self, path: &Path) -> Result<Option<Directory>, Refused> {
        if !path.is_absolute() {
            return Err(Refused::Malformed(path.to_owned()));
        }
        let descriptor = openat(CWD, "/", directory(), Mode::empty()).map_err(io("open", Path::new("/")))?;
        let mut opened = Directory {
            descriptor,
            path: PathBuf::from("/"),
            trust: self,
        };
        for component in path.components() {
            match component {
                Component::RootDir => {}
                Component::Normal(name) => match opened.directory(name)? {
                    Some(next) => opened = next,
                    None => return Ok(None),
                },
                Component::Prefix(_) | Component::CurDir | Component::ParentDir => {
                    return Err(Refused::Malformed(path.to_owned()));
                }
            }
        }
        Ok(Some(opened))
    }

    fn require(self, stat: &Stat, path: &Path) -> Result<(), Refused> {
        if self.believes(stat) {
            return Ok(());
        }
        Err(Refused::NotRoots(path.to_owned()))
    }
}

// === impl Directory ===

impl Directory {
    /// Its absolute path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A directory in it; `None` if there is none.
    pub(super) fn directory(&self, name: &OsStr) -> Result<Option<Self>, Refused> {
        let path = self.path.join(name);
        let Some(descriptor) = self.open(name, directory(), &path)? else {
            return Ok(None);
        };
        let stat = fstat(&descriptor).map_err(io("inspect", &path))?;
        self.trust.require(&stat, &path)?;
        Ok(Some(Self {
            descriptor,
            path,
            trust: self.trust,
        }))
    }

    /// The names of what is in it.
    pub(super) fn names(&self) -> Result<Vec<OsString>, Refused> {
        let failed = || io("list", &self.path);
        let entries = Dir::read_from(&self.descriptor).map_err(failed())?;
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed())?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        Ok(names)
    }

    /// What tells a file in it from another; `None` if there is none.
    pub(super) fn stamp(&self, name: &OsStr) -> Result<Option<Stamp>, Refused> {
        match statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Stamp::of(&stat))),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(io("inspect", &self.path.join(name))(errno)),
        }
    }

    /// Where a symbolic link in it leads; `None` if there is none.
    pub(super) fn link(&self, name: &OsStr) -> Result<Option<OsString>, Refused> {
        match readlinkat(&self.descriptor, name, Vec::new()) {
            Ok(to) => Ok(Some(OsString::from_vec(to.into_bytes()))),
            // There is something else of this name.
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(errno) => Err(io("read", &self.path.join(name))(errno)),
        }
    }

    /// A file's content; `None` if there is no such file.
    pub(super) fn read(&self, name: &OsStr) -> Result<Option<Content>, Refused> {
        self.read_if(name, |stat| self.trust.believes(stat))
    }

    /// The content of a file, whoever may have written it.
    pub(super) fn read_of_anyone(&self, name: &OsStr) -> Result<Option<Content>, Refused> {
        self.read_if(name, |_| true)
    }

    fn read_if(&self, name: &OsStr, is_believed: impl FnOnce(&Stat) -> bool) -> Result<Option<Content>, Refused> {
        let path = self.path.join(name);
        let Some(descriptor) = self.open(name, file::FLAGS, &path)? else {
            return Ok(None);
        };
        let (bytes, stat) = file::read(descriptor, LIMIT, is_believed).map_err(|unfit| Refused::of(unfit, path))?;
        Ok(Some(Content {
            bytes,
            stamp: Stamp::of(&stat),
            since: self.born()?.unwrap_or_else(|| modified(&stat)),
        }))
    }

    /// Since when there is such a directory, if the file system tells. Nobody can change it.
    fn born(&self) -> Result<Option<Timestamp>, Refused> {
        let stat = statx(&self.descriptor, "", AtFlags::EMPTY_PATH, StatxFlags::BTIME);
        let stat = stat.map_err(io("inspect", &self.path))?;
        let is_told = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
        let nanoseconds = i32::try_from(stat.stx_btime.tv_nsec).unwrap_or_default();
        Ok(Timestamp::new(stat.stx_btime.tv_sec, nanoseconds)
            .ok()
            .filter(|_| is_told))
    }

    fn open(&self, name: &OsStr, flags: OFlags, path: &Path) -> Result<Option<OwnedFd>, Refused> {
        match openat(&self.descriptor, name, flags, Mode::empty()) {
            Ok(descriptor) => Ok(Some(descriptor)),
            // Of a link the kernel says that it is no directory, if it was to be one.
            Err(Errno::LOOP) => Err(Refused::Link(path.to_owned())),
            Err(Errno::NOTDIR) if self.is_link(name) => Err(Refused::Link(path.to_owned())),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(io("open", path)(errno)),
        }
    }

    fn is_link(&self, name: &OsStr) -> bool {
        let stat = statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW);
        stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
    }
}

/// To the nanosecond: of two containers the older is asked for.
fn modified(stat: &Stat) -> Timestamp {
    let nanoseconds = i32::try_from(stat.st_mtime_nsec).unwrap_or_default();
    Timestamp::new(stat.st_mtime, nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

// === impl Stamp ===

impl Stamp {
    fn of(stat: &Stat) -> Self {
        Self {
            inode: stat.st_ino,
            size: stat.st_size,
            changed: (stat.st_ctime, stat.st_ctime_nsec.cast_signed()),
        }
    }
}

fn directory() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn io(operation: &'static str, path: &Path) -> impl Fn(Errno) -> Refused {
    let path = path.to_owned();
    move |errno| Refused::Io {
        operation,
        path: path.clone(),
        source: errno.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        ffi::OsStr,
        fs::{self, File, Permissions},
        os::unix::fs::{PermissionsExt, symlink},
        path::Path,
    };

    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use tempfile::TempDir;

    use super::{Directory, Refused, Trust};

    fn opened(directory: &TempDir) -> Directory {
        Trust::own().open(directory.path()).unwrap().unwrap()
    }

    fn refused(directory: &TempDir, name: &str) -> Refused {
        opened(directory).read(OsStr::new(name)).unwrap_err()
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_is_there_is_read() {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("a"), "b").unwrap();
        let content = opened(&directory).read(OsStr::new("a")).unwrap().unwrap();
        assert_eq!(content.bytes, b"b");
        assert_eq!(Some(content.stamp), opened(&directory).stamp(OsStr::new("a")).unwrap());
        assert!(opened(&directory).read(OsStr::new("x")).unwrap().is_none());
        assert!(Trust::own().open(&directory.path().join("x/y")).unwrap().is_none());
    }

    #[test]
    fn links_are_not_followed() {
        let directory = TempDir::new().unwrap();
        fs::create_dir(directory.path().join("inside")).unwrap();
        fs::write(directory.path().join("inside/a"), "b").unwrap();
        symlink("inside", directory.path().join("around")).unwrap();
        symlink("inside/a", directory.path().join("a")).unwrap();
        assert!(matches!(refused(&directory, "a"), Refused::Link(_)));
        let around = Trust::own().open(&directory.path().join("around"));
        assert!(matches!(around, Err(Refused::Link(_))));
        for path in ["/..", "a", "/usr/../usr"] {
            assert!(
                matches!(Trust::own().open(Path::new(path)), Err(Refused::Malformed(_))),
                "{path}"
            );
        }
    }

    #[test]
    fn what_others_can_write_is_not_believed() {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("a");
        fs::write(&file, "b").unwrap();
        for mode in [0o620, 0o602] {
            set_mode(&file, mode);
            assert!(matches!(refused(&directory, "a"), Refused::NotRoots(_)));
        }
        set_mode(&file, 0o600);
        set_mode(directory.path(), 0o777);
        assert!(matches!(Trust::own().open(directory.path()), Err(Refused::NotRoots(_))));
        set_mode(directory.path(), 0o1777);
        assert!(opened(&directory).read(OsStr::new("a")).unwrap().is_some());
    }

    #[test]
    fn what_is_no_file_or_too_large_is_not_read() {
        let directory = TempDir::new().unwrap();
        let large = File::create(directory.path().join("large")).unwrap();
        large.set_len(64 << 20).unwrap();
        assert!(matches!(refused(&directory, "large"), Refused::TooLarge(_)));
        let pipe = directory.path().join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(matches!(refused(&directory, "pipe"), Refused::NoFile(_)));
        fs::create_dir(directory.path().join("directory")).unwrap();
        assert!(matches!(refused(&directory, "directory"), Refused::NoFile(_)));
    }
}
