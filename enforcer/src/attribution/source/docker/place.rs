//! Where the engine puts a container's cgroup, computed as the engine does from what a container was made with. Pure.

use std::path::{Component, Path, PathBuf};

use super::super::super::cgroup_path::{ContainerId, slice};

/// Who makes cgroups for the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Driver {
    /// systemd: a scope in a slice.
    Systemd,
    /// The engine itself: a directory.
    Cgroupfs,
}

/// How the engine makes cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placing {
    pub(super) driver: Driver,
    /// Parent of those that were made without one: the daemon's `--cgroup-parent`, which it tells nobody.
    pub(super) default_parent: Option<String>,
}

// === impl Driver ===

impl Driver {
    /// By the engine's name for it.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "systemd" => Some(Self::Systemd),
            "cgroupfs" => Some(Self::Cgroupfs),
            _ => None,
        }
    }
}

// === impl Placing ===

impl Placing {
    /// The parent that holds for a container that was made with this one.
    pub(super) fn parent<'a>(&'a self, written: &'a str) -> &'a str {
        let written = Some(written).filter(|written| !written.is_empty());
        written.or(self.default_parent.as_deref()).unwrap_or(match self.driver {
            Driver::Systemd => "system.slice",
            Driver::Cgroupfs => "/docker",
        })
    }

    /// Path of a container's cgroup, relative to the cgroup2 mount. A parent relative to the engine's own cgroup leads
    /// nowhere: where that is, the engine does not tell.
    pub(super) fn cgroup(&self, written: &str, id: &ContainerId) -> Option<PathBuf> {
        let parent = self.parent(written);
        match self.driver {
            Driver::Systemd => {
                let slice = slice(parent)?;
                Some(PathBuf::from(format!("{slice}/docker-{}.scope", id.as_str())))
            }
            Driver::Cgroupfs => Some(absolute(parent)?.join(id.as_str())),
        }
    }

    /// Whether a parent is the cgroup that the ECS agent makes for a task.
    pub(super) fn is_of_ecs_task(&self, written: &str, task_id: &str) -> bool {
        let parent = self.parent(written);
        match self.driver {
            Driver::Systemd => parent == format!("ecstasks-{task_id}.slice"),
            Driver::Cgroupfs => absolute(parent).is_some_and(|path| path == Path::new("/ecs").join(task_id)),
        }
    }
}

/// An absolute path without detours; `..` at the root stays there.
fn absolute(path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    path.is_absolute().then(|| {
        path.components().fold(PathBuf::from("/"), |mut path, component| {
            match component {
                Component::ParentDir => drop(path.pop()),
                Component::Normal(name) => path.push(name),
                Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            }
            path
        })
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Driver, Placing};
    use crate::attribution::ContainerId;

    fn placing(driver: Driver, default_parent: Option<&str>) -> Placing {
        Placing {
            driver,
            default_parent: default_parent.map(str::to_owned),
        }
    }

    fn place(placing: &Placing, parent: &str) -> Option<String> {
        let id = ContainerId::parse(&"ab".repeat(32)).unwrap();
        let path = placing.cgroup(parent, &id)?;
        assert!(path.starts_with("/"));
        Some(path.to_str().unwrap().replace(id.as_str(), "ID"))
    }

    #[test]
    fn systemd_puts_scopes_into_nested_slices() {
        let systemd = placing(Driver::Systemd, None);
        for (parent, path) in [
            ("", "/system.slice/docker-ID.scope"),
            ("shop.slice", "/shop.slice/docker-ID.scope"),
            (
                "ecstasks-1-2.slice",
                "/ecstasks.slice/ecstasks-1.slice/ecstasks-1-2.slice/docker-ID.scope",
            ),
            ("-.slice", "/docker-ID.scope"),
        ] {
            assert_eq!(place(&systemd, parent).as_deref(), Some(path), "{parent}");
        }
        for parent in ["shop", "/shop.slice", "a/b.slice", "a--b.slice"] {
            assert_eq!(place(&systemd, parent), None, "{parent}");
        }
    }

    #[test]
    fn the_engine_itself_puts_directories_below_the_parent() {
        let cgroupfs = placing(Driver::Cgroupfs, None);
        for (parent, path) in [
            ("", "/docker/ID"),
            ("/ecs/1", "/ecs/1/ID"),
            ("/a//b/./c/", "/a/b/c/ID"),
            ("/../../a/../b", "/b/ID"),
            ("/", "/ID"),
        ] {
            assert_eq!(place(&cgroupfs, parent).as_deref(), Some(path), "{parent}");
        }
        assert_eq!(place(&cgroupfs, "relative/to/what"), None);
    }

    #[test]
    fn the_daemons_own_parent_holds_for_containers_without_one() {
        let cgroupfs = placing(Driver::Cgroupfs, Some("/own"));
        assert_eq!(place(&cgroupfs, "").as_deref(), Some("/own/ID"));
        assert_eq!(place(&cgroupfs, "/other").as_deref(), Some("/other/ID"));
        let systemd = placing(Driver::Systemd, Some("own.slice"));
        assert_eq!(place(&systemd, "").as_deref(), Some("/own.slice/docker-ID.scope"));
    }

    #[test]
    fn only_a_tasks_very_cgroup_is_of_it() {
        let systemd = placing(Driver::Systemd, None);
        assert!(systemd.is_of_ecs_task("ecstasks-1.slice", "1"));
        for parent in [
            "",
            "ecstasks-12.slice",
            "ecstasks-1-2.slice",
            "xecstasks-1.slice",
            "/ecs/1",
        ] {
            assert!(!systemd.is_of_ecs_task(parent, "1"), "{parent}");
        }
        let cgroupfs = placing(Driver::Cgroupfs, None);
        assert!(cgroupfs.is_of_ecs_task("/ecs/1", "1"));
        for parent in ["", "/ecs", "/ecs/12", "/x/ecs/1", "/ecs/1/2", "ecs/1", "/ecs/1/../2"] {
            assert!(!cgroupfs.is_of_ecs_task(parent, "1"), "{parent}");
        }
        assert!(Path::new("/ecs/..").is_absolute() && !cgroupfs.is_of_ecs_task("/ecs/..", ".."));
    }
}
