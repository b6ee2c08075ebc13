//! Whose file is believed, and what is said of one that is not as it was left.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

use super::{Journal, LIMIT};

fn written() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registrations.json");
    Journal::write(&path, std::iter::empty()).unwrap();
    assert!(Journal::read(&path).unwrap().is_empty());
    (directory, path)
}

fn refused(path: &Path) -> String {
    let error = Journal::read(path).unwrap_err().to_string();
    let begin = format!("cannot read the file of registrations {}: it ", path.display());
    assert!(error.starts_with(&begin), "{error}");
    error
}

/// What is logged when a file is read.
fn logged(path: &Path) -> String {
    let log = tempfile::NamedTempFile::new().unwrap();
    let writer = Arc::new(log.reopen().unwrap());
    let subscriber = tracing_subscriber::fmt().with_writer(writer).finish();
    tracing::subscriber::with_default(subscriber, || assert!(Journal::read(path).unwrap().is_empty()));
    io::read_to_string(log).unwrap()
}

#[test]
fn a_file_that_others_can_write_is_not_believed() {
    let (_directory, path) = written();
    for mode in [0o666, 0o620, 0o602] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let error = refused(&path);
        assert!(error.contains("written by others than root: remove it"), "{error}");
    }
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    assert!(Journal::read(&path).unwrap().is_empty());
}

#[test]
fn a_pipe_a_link_or_an_endless_file_is_named_and_keeps_nobody_waiting() {
    let (directory, path) = written();
    OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(LIMIT + 1)
        .unwrap();
    assert!(refused(&path).contains("larger than"));
    let link = directory.path().join("link.json");
    symlink("/dev/zero", &link).unwrap();
    assert!(refused(&link).contains("symbolic link"));
    let pipe = directory.path().join("pipe.json");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    assert!(refused(&pipe).contains("no regular file"));
}

#[test]
fn a_file_without_a_whole_first_line_is_told_of() {
    let (directory, path) = written();
    assert_eq!(logged(&path), "");
    assert_eq!(logged(&directory.path().join("missing.json")), "");
    OpenOptions::new().write(true).open(&path).unwrap().set_len(12).unwrap();
    assert!(logged(&path).contains("cut off in its first line"));
    File::create(&path).unwrap();
    assert!(logged(&path).contains("register them again"));
}
