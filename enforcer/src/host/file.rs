//! Reading files that are believed only if nobody but root can have written them.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    path::Path,
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, Stat, Uid, fstat, openat},
    io::Errno,
    process::geteuid,
};

/// How such a file is opened: never through a symbolic link, and a named pipe without a writer is not waited for.
pub(crate) const FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// Whose files are believed, besides root's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trust {
    owner: Uid,
}

/// A file's content is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    /// It cannot be.
    #[error("cannot {operation} it: {source}")]
    Io {
        operation: &'static str,
        #[source]
        source: io::Error,
    },
    /// It is a symbolic link.
    #[error("it is a symbolic link: name the place it leads to")]
    Link,
    /// It is something else than a file.
    #[error("it is no regular file: remove it")]
    NoFile,
    /// Others than root can write it.
    #[error(
        "it can be written by others than root: remove it, or, if what it says is true, let root own it and take write permission from all others"
    )]
    NotRoots,
    /// It is too large.
    #[error("it is larger than {limit} bytes: remove it")]
    TooLarge { limit: u64 },
}

// === impl Trust ===

impl Trust {
    /// Root's files only.
    pub(crate) const ROOT: Self = Self { owner: Uid::ROOT };

    /// Also the files of whom this process runs as.
    pub(crate) fn own() -> Self {
        Self { owner: geteuid() }
    }

    /// Whether nobody else can write what is like this. What lies in a sticky directory stays whose it is, whoever else can
    /// write there.
    pub(crate) fn believes(self, stat: &Stat) -> bool {
        let mode = Mode::from_raw_mode(stat.st_mode);
        let is_sticky = FileType::from_raw_mode(stat.st_mode) == FileType::Directory && mode.contains(Mode::SVTX);
        let is_owned = [Uid::ROOT, self.owner].contains(&Uid::from_raw(stat.st_uid));
        is_owned && (is_sticky || !mode.intersects(Mode::WGRP | Mode::WOTH))
    }

    /// The content of the file at a path; `None` if there is none.
    pub(crate) fn read(self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Unfit> {
        match openat(CWD, path, FLAGS, Mode::empty()) {
            Ok(file) => read(file, limit, |stat| self.believes(stat)).map(|(bytes, _)| Some(bytes)),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP) => Err(Unfit::Link),
            Err(errno) => Err(failed("open")(errno.into())),
        }
    }
}

/// The content of an open file, if that is believed and has no more than so many bytes.
pub(crate) fn read(
    file: OwnedFd,
    limit: u64,
    is_believed: impl FnOnce(&Stat) -> bool,
) -> Result<(Vec<u8>, Stat), Unfit> {
    let stat = fstat(&file).map_err(io::Error::from).map_err(failed("inspect"))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Unfit::NoFile);
    }
    if !is_believed(&stat) {
        return Err(Unfit::NotRoots);
    }
    if u64::try_from(stat.st_size).is_ok_and(|size| size > limit) {
        return Err(Unfit::TooLarge { limit });
    }
    let mut bytes = Vec::new();
    // It may grow meanwhile.
    let mut limited = File::from(file).take(limit + 1);
    limited.read_to_end(&mut bytes).map_err(failed("read"))?;
    if limited.limit() == 0 {
        return Err(Unfit::TooLarge { limit });
    }
    Ok((bytes, stat))
}

fn failed(operation: &'static str) -> impl Fn(io::Error) -> Unfit {
    move |source| Unfit::Io { operation, source }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File, Permissions},
        os::unix::fs::{PermissionsExt, symlink},
        path::Path,
    };

    use rustix::{
        fs::{CWD, FileType, Mode, mknodat},
        process::geteuid,
    };

    use super::{Trust, Unfit};

    const LIMIT: u64 = 16;

    fn refused(path: &Path) -> Unfit {
        Trust::own().read(path, LIMIT).unwrap_err()
    }

    #[test]
    fn a_file_of_root_or_ones_own_is_read_and_a_missing_one_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        assert!(Trust::own().read(&path, LIMIT).unwrap().is_none());
        fs::write(&path, "0123456789abcdef").unwrap();
        assert_eq!(Trust::own().read(&path, LIMIT).unwrap().unwrap(), b"0123456789abcdef");
        let of_root = Trust::own().read(Path::new("/etc/passwd"), 1 << 20).unwrap();
        assert!(of_root.unwrap().starts_with(b"root:"));
    }

    #[test]
    fn a_file_that_others_own_or_can_write_is_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "x").unwrap();
        for mode in [0o620, 0o602] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert!(matches!(refused(&path), Unfit::NotRoots), "{mode:o}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let stat = rustix::fs::stat(&path).unwrap();
        assert!(Trust::own().believes(&stat));
        let mut of_another = stat;
        of_another.st_uid = geteuid().as_raw() + 1;
        assert!(!Trust::own().believes(&of_another));
    }

    #[test]
    fn what_is_no_regular_file_or_too_large_is_not_read_nor_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        mknodat(CWD, path("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(matches!(refused(&path("pipe")), Unfit::NoFile));
        assert!(matches!(refused(directory.path()), Unfit::NoFile));
        File::create(path("large")).unwrap().set_len(LIMIT + 1).unwrap();
        assert!(matches!(refused(&path("large")), Unfit::TooLarge { limit: LIMIT }));
        symlink("large", path("link")).unwrap();
        assert!(matches!(refused(&path("link")), Unfit::Link));
    }
}
