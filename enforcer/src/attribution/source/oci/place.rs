//! Where runtimes keep their files: paths with `*` for a namespace or a container's name. Never deeper than said: a
//! bundle also holds the container's own files, which can look like anything.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    path::{Component, Path, PathBuf},
};

use super::file::{Directory, Refused, Stamp, Trust};

/// What stands for any name.
const ANY: &str = "*";

/// What a kind of files tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `config.json`: a container's configuration.
    Bundle,
    /// `state.json`: what runc keeps.
    Runc,
    /// `status`: what crun keeps.
    Crun,
}

/// Where files of a kind are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    written: PathBuf,
    kind: Kind,
    /// The directory before the first `*`.
    root: PathBuf,
    /// The components from the first `*` on, without the file's name.
    below: Vec<OsString>,
}

/// A place that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected an absolute path with one or two `*` in place of a name, ending in `config.json`, `state.json` or `status`"
)]
pub struct InvalidPlace;

/// A file that is there.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
    pub(super) stamp: Stamp,
    /// What its `*` stand for, with slashes between.
    pub(super) name: String,
}

/// What came of looking.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) found: Vec<Found>,
    /// What was passed over, and why.
    pub(super) refused: Vec<(PathBuf, Refused)>,
    /// Whether there is any of the directories to look in.
    pub(super) is_present: bool,
    /// Why a directory could not be listed: there may be more.
    pub(super) unlisted: Option<String>,
}

// === impl Kind ===

impl Kind {
    /// The name of such a file.
    #[must_use]
    pub(super) const fn file(self) -> &'static str {
        match self {
            Self::Bundle => "config.json",
            Self::Runc => "state.json",
            Self::Crun => "status",
        }
    }
}

// === impl Place ===

impl Place {
    /// A place as it is written.
    pub fn parse(path: &Path) -> Result<Self, InvalidPlace> {
        let clean = |component| matches!(component, Component::RootDir | Component::Normal(_));
        if !path.is_absolute() || !path.components().all(clean) {
            return Err(InvalidPlace);
        }
        let file = path.file_name().ok_or(InvalidPlace)?;
        let kinds = [Kind::Bundle, Kind::Runc, Kind::Crun];
        let kind = kinds.into_iter().find(|kind| file == kind.file()).ok_or(InvalidPlace)?;
        let directories = path.parent().unwrap_or(Path::new("/"));
        let is_fixed = |component: &Component<'_>| component.as_os_str() != ANY;
        let root = directories.components().take_while(is_fixed).collect();
        let below: Vec<_> = directories.components().skip_while(is_fixed).collect();
        if !(1..=2).contains(&below.iter().filter(|component| !is_fixed(component)).count()) {
            return Err(InvalidPlace);
        }
        Ok(Self {
            written: path.to_owned(),
            kind,
            root,
            below: below.iter().map(|component| component.as_os_str().to_owned()).collect(),
        })
    }

    /// Looks what is there, except of the namespaces to be `skipped`.
    pub(super) fn look(&self, trust: Trust, skipped: &[&str], findings: &mut Findings) {
        match trust.open(&self.root) {
            Ok(Some(root)) => {
                findings.is_present = true;
                let names = Names {
                    names: Vec::new(),
                    skipped,
                };
                self.descend(&root, &self.below, &names, findings);
            }
            Ok(None) => {}
            Err(refused) => findings.incomplete(self.root.clone(), refused),
        }
    }

    fn descend(&self, directory: &Directory, below: &[OsString], names: &Names<'_>, findings: &mut Findings) {
        let Some((first, rest)) = below.split_first() else {
            self.inspect(directory, names, findings);
            return;
        };
        let listed = if first == ANY {
            directory.names()
        } else {
            Ok(vec![first.clone()])
        };
        let listed = match listed {
            Ok(listed) => listed,
            Err(refused) => return findings.incomplete(directory.path().to_owned(), refused),
        };
        for name in listed {
            let mut names = names.clone();
            if first == ANY {
                let Some(text) = name.to_str() else {
                    let path = directory.path().join(&name);
                    findings.refused.push((path.clone(), Refused::Name(path)));
                    continue;
                };
                if names.is_skipped(text, rest) {
                    continue;
                }
                names.names.push(text.to_owned());
            }
            match directory.directory(&name) {
                Ok(Some(inner)) => self.descend(&inner, rest, &names, findings),
                // A file beside the containers' directories, or one that is gone.
                Ok(None) => {}
                Err(refused) => findings.pass_over(directory.path().join(&name), refused),
            }
        }
    }

    fn inspect(&self, directory: &Directory, names: &Names<'_>, findings: &mut Findings) {
        let path = directory.path().join(self.kind.file());
        match directory.stamp(OsStr::new(self.kind.file())) {
            Ok(Some(stamp)) => findings.found.push(Found {
                path,
                kind: self.kind,
                stamp,
                name: names.names.join("/"),
            }),
            Ok(None) => {}
            Err(refused) => findings.pass_over(path, refused),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.written.display().fmt(formatter)
    }
}

// === impl Findings ===

impl Findings {
    fn pass_over(&mut self, path: PathBuf, refused: Refused) {
        if refused.is_failure() {
            self.incomplete(path, refused);
        } else {
            self.refused.push((path, refused));
        }
    }

    fn incomplete(&mut self, path: PathBuf, refused: Refused) {
        self.unlisted = Some(refused.to_string());
        self.refused.push((path, refused));
    }
}

/// What the `*` above a directory stand for.
#[derive(Clone)]
struct Names<'a> {
    names: Vec<String>,
    skipped: &'a [&'a str],
}

// === impl Names ===

impl Names<'_> {
    /// Whether a name is that of a namespace to be skipped: one with containers below it.
    fn is_skipped(&self, name: &str, rest: &[OsString]) -> bool {
        self.skipped.contains(&name) && rest.iter().any(|component| component == OsStr::new(ANY))
    }
}

#[cfg(test)]
mod tests {
    use std::{io, path::Path};

    use super::{Findings, InvalidPlace, Kind, Place, Refused};

    #[test]
    fn what_fails_to_be_looked_at_may_be_there() {
        let (path, mut findings) = (Path::new("/run/x"), Findings::default());
        findings.pass_over(path.to_owned(), Refused::NotRoots(path.to_owned()));
        assert_eq!(findings.unlisted, None);
        let refused = Refused::Io {
            operation: "open",
            path: path.to_owned(),
            source: io::ErrorKind::OutOfMemory.into(),
        };
        findings.pass_over(path.to_owned(), refused);
        assert!(findings.unlisted.is_some());
        assert_eq!(findings.refused.len(), 2);
    }

    #[test]
    fn the_files_name_tells_what_it_is() {
        for (path, kind) in [
            ("/run/x/*/*/config.json", Kind::Bundle),
            ("/run/containers/*/userdata/config.json", Kind::Bundle),
            ("/run/runc/*/state.json", Kind::Runc),
            ("/run/crun/*/status", Kind::Crun),
        ] {
            assert_eq!(Place::parse(Path::new(path)).unwrap().kind, kind, "{path}");
        }
    }

    #[test]
    fn other_paths_are_no_places() {
        for path in [
            "",
            "/",
            "run/*/status",
            "/run/../*/status",
            "/run/x/status",
            "/*/*/*/status",
            "/run/*/other",
        ] {
            assert_eq!(Place::parse(Path::new(path)), Err(InvalidPlace), "{path}");
        }
    }
}
