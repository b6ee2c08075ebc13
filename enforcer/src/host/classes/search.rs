//! Which cgroups something is said about, and where more of them may appear.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    path::{Path, PathBuf},
};

use enforcer_common::cgroup::{CgroupClass, MAX_LEVEL, Treatment};

use crate::{
    config::CgroupPattern,
    host::{cgroupfs::CgroupFs, treatment::Rules},
};

/// How many of the cgroups below one that is trusted or a container's are looked at, and may be trusted: whoever may make
/// some there, a user in its session, must not take the room, the watches and the time that others need. The rest is guarded,
/// and otherwise treated as what is above it, which is where whoever made it comes from.
pub(super) const MOST_BELOW: usize = 1024;

/// What the rules are about at one moment.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// By ID.
    pub(super) cgroups: BTreeMap<u64, (PathBuf, Treatment)>,
    /// Directories in which something new could matter.
    pub(super) parents: BTreeSet<PathBuf>,
    /// One that has more below it than is looked at.
    pub(super) crowded: Option<PathBuf>,
    /// One that the kernel side does not see, so that it is guarded whatever is said about it.
    pub(super) too_deep: Option<PathBuf>,
}

/// Finds what the rules are about. What the kernel does anyway is not among it, unless it is said of one very cgroup.
pub(super) fn search(cgroups: &CgroupFs, rules: &Rules) -> Found {
    let mut search = Search {
        cgroups,
        rules,
        found: Found::default(),
        looked_at: BTreeMap::new(),
    };
    rules.paths().for_each(|path| search.exactly(path));
    rules.patterns().for_each(|pattern| search.along(pattern));
    let host = |(path, treatment): &(PathBuf, Treatment)| (treatment.class == CgroupClass::Host).then(|| path.clone());
    let trusted: Vec<_> = search.found.cgroups.values().filter_map(host).collect();
    for trusted in trusted {
        search.below(&trusted);
    }
    search.found
}

struct Search<'a> {
    cgroups: &'a CgroupFs,
    rules: &'a Rules,
    found: Found,
    /// By the outermost of the cgroups they are below, where whoever makes them is at home.
    looked_at: BTreeMap<PathBuf, BTreeSet<PathBuf>>,
}

// === impl Search ===

impl Search<'_> {
    fn exactly(&mut self, path: &Path) {
        let absolute = self.cgroups.absolute(path);
        let mut above: Vec<_> = absolute.ancestors().take(path.components().count()).collect();
        above.reverse();
        for directory in above {
            if !directory.is_dir() {
                return;
            }
            if directory != absolute {
                self.found.parents.insert(directory.to_owned());
            }
        }
        if is_too_deep(path) {
            self.found.too_deep = Some(path.to_owned());
        } else {
            self.insert(path, self.rules.treatment(path));
        }
    }

    /// Walks the tree along a pattern, component by component.
    fn along(&mut self, pattern: &CgroupPattern) {
        let mut level: Vec<PathBuf> = vec![self.cgroups.mount().to_owned()];
        for component in pattern.components() {
            let is_match = |child: &PathBuf| {
                let name = child.file_name().map(|name| name.to_string_lossy());
                name.is_some_and(|name| component.matches(&name))
            };
            let mut next = Vec::new();
            for directory in level {
                next.extend(self.children(&directory).into_iter().filter(is_match));
            }
            level = next;
        }
        for directory in level {
            if self.visit(&directory).is_none() {
                self.found.too_deep = self.cgroups.relative(&directory);
            }
        }
    }

    /// Finds what is below a trusted cgroup: the kernel trusts none of it unasked, because it may be a container's. The
    /// nearest are found first, because there may be more than are trusted.
    fn below(&mut self, trusted: &Path) {
        let mut left = VecDeque::from([self.cgroups.absolute(trusted)]);
        while let Some(directory) = left.pop_front() {
            for child in self.children(&directory) {
                if self.visit(&child) == Some(CgroupClass::Host) {
                    left.push_back(child);
                }
            }
        }
    }

    /// The subdirectories of a directory that are looked at.
    fn children(&mut self, directory: &Path) -> Vec<PathBuf> {
        self.found.parents.insert(directory.to_owned());
        let path = self.cgroups.relative(directory);
        let Some(outermost) = path.as_deref().and_then(|path| self.rules.outermost(path)) else {
            return subdirectories(directory).collect();
        };
        let looked_at = self.looked_at.entry(outermost.to_owned()).or_default();
        let mut children = Vec::new();
        for child in subdirectories(directory) {
            if looked_at.len() == MOST_BELOW && !looked_at.contains(&child) {
                self.found.crowded = Some(outermost.to_owned());
                break;
            }
            looked_at.insert(child.clone());
            children.push(child);
        }
        children
    }

    /// Takes a cgroup in, unless the kernel treats it like that anyway: like the one above it, but guarded. Tells its class,
    /// unless it is too deep.
    fn visit(&mut self, directory: &Path) -> Option<CgroupClass> {
        let path = self.cgroups.relative(directory).filter(|path| !is_too_deep(path))?;
        let treatment = self.rules.treatment(&path);
        let above = path.parent().map(|above| self.rules.treatment(above));
        if treatment != above.unwrap_or_default().guarded() {
            self.insert(&path, treatment);
        }
        Some(treatment.class)
    }

    /// One that vanished meanwhile is no more.
    fn insert(&mut self, path: &Path, treatment: Treatment) {
        if let Ok(Some(id)) = self.cgroups.id_of(path) {
            self.found.cgroups.insert(id, (path.to_owned(), treatment));
        }
    }
}

/// Whether the kernel side does not look at a cgroup.
fn is_too_deep(path: &Path) -> bool {
    path.components().count() > MAX_LEVEL as usize + 1
}

/// The subdirectories of a cgroup. One that vanishes meanwhile has none.
fn subdirectories(directory: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use enforcer_common::cgroup::CgroupClass;
    use tempfile::TempDir;

    use super::{Found, MOST_BELOW, search};
    use crate::{
        config::CgroupPattern,
        host::{
            cgroupfs::CgroupFs,
            treatment::{Rules, Says},
        },
    };

    const NOTHING: Says = Says {
        class: None,
        observed: None,
        exceptions: None,
        steered: None,
    };
    const HOST: Says = Says {
        class: Some(CgroupClass::Host),
        ..NOTHING
    };
    const GUARDED: Says = Says {
        class: Some(CgroupClass::Guarded),
        ..NOTHING
    };
    const EXCEPTED: Says = Says {
        exceptions: Some(1),
        ..NOTHING
    };
    const USER: &str = "/user.slice/user-1.slice/user@1.service";

    /// What is found in a tree of these cgroups.
    fn find(says: &[(&str, Says)], cgroups: impl IntoIterator<Item = String>) -> (TempDir, Found) {
        let tree = tempfile::tempdir().unwrap();
        for cgroup in cgroups {
            fs::create_dir_all(tree.path().join(&cgroup[1..])).unwrap();
        }
        let mut rules = Rules::default();
        for (pattern, says) in says {
            rules.add(&CgroupPattern::parse(pattern.into()).unwrap(), *says);
        }
        let found = search(&CgroupFs::pretend(tree.path()), &rules);
        (tree, found)
    }

    fn paths(found: &Found) -> Vec<&str> {
        let mut paths: Vec<_> = found.cgroups.values().map(|(path, _)| path.to_str().unwrap()).collect();
        paths.sort_unstable();
        paths
    }

    fn is_found(found: &Found, path: &str) -> bool {
        paths(found).contains(&path)
    }

    #[test]
    fn what_is_guarded_anyway_takes_no_room_below_a_trusted_cgroup() {
        let container = format!("{USER}/x/libpod-1");
        let other = format!("{USER}/x/docker-{}.scope", "0123456789abcdef".repeat(4));
        let part = format!("{USER}/x/part");
        let says = [
            ("/user.slice/*/user@*.service", HOST),
            ("/user.slice/*/*/*/libpod-*", GUARDED),
        ];
        let (_tree, found) = find(&says, [container, other, part.clone()]);
        assert_eq!(paths(&found), [USER, &format!("{USER}/x"), &part]);
    }

    #[test]
    fn what_is_treated_unlike_what_is_above_it_is_found() {
        let says = [
            ("/a", EXCEPTED),
            (
                "/a/*",
                Says {
                    exceptions: Some(0),
                    ..NOTHING
                },
            ),
            ("/a/*/*", GUARDED),
            ("/named", GUARDED),
        ];
        let (_tree, found) = find(&says, ["/a/b/c".to_owned(), "/named".to_owned()]);
        assert_eq!(paths(&found), ["/a", "/a/b", "/named"]);
    }

    #[test]
    fn a_crowd_takes_the_room_of_no_others_whatever_pattern_it_fits() {
        let says = [
            ("/user.slice/*/*/*/*.service", HOST),
            ("/user.slice/*/user@*.service", HOST),
            ("/user.slice/*/user@*.service/crowd/*", EXCEPTED),
            ("/user.slice/*/user@*.service/crowd/*/*", EXCEPTED),
            (&format!("{USER}/crowd/named"), HOST),
        ];
        let crowd = (0..MOST_BELOW).map(|number| format!("{USER}/crowd/{number}.service/x"));
        let other = "/user.slice/user-2.slice/user@2.service/part".to_owned();
        let named = format!("{USER}/crowd/named");
        let (_tree, found) = find(&says, crowd.chain([other.clone(), named.clone()]));
        assert_eq!(found.crowded.as_deref(), Some(Path::new(USER)));
        // Those above it, the other user's, and what is named.
        let at_most = MOST_BELOW + 10;
        assert!(found.cgroups.len() <= at_most, "{}", found.cgroups.len());
        assert!(found.parents.len() <= at_most, "{}", found.parents.len());
        assert!(is_found(&found, USER) && is_found(&found, &other) && is_found(&found, &named));
    }

    #[test]
    fn a_container_that_makes_a_crowd_takes_no_room_either() {
        let container = format!("/docker/{}", "0123456789abcdef".repeat(4));
        let crowd = (0..=MOST_BELOW).map(|number| format!("{container}/{number}"));
        let (_tree, found) = find(&[("/docker/*/*", EXCEPTED)], crowd);
        assert_eq!(found.crowded.as_deref(), Some(Path::new(&container)));
        assert_eq!(found.cgroups.len(), MOST_BELOW);
    }
}
