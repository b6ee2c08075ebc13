//! What runtimes and those above them write down of a container: its configuration, by the OCI runtime specification, and
//! the state runc or crun keeps while there is such a container. Only what is needed is read. Pure.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use jiff::Timestamp;
use serde::Deserialize;

use crate::attribution::cgroup_path::slice;

/// Where cgroups are to a runtime, always; and where the unified ones are if there are others, too.
const CGROUPS: &str = "/sys/fs/cgroup";
const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// What runc's state begins a label with that names the bundle.
const BUNDLE_LABEL: &str = "bundle=";

/// The slice of a scope that is put into none.
const DEFAULT_SLICE: &str = "system.slice";

/// A container's configuration, `config.json`. There is no way to print it: its environment holds secrets.
#[derive(Default, Deserialize)]
pub(super) struct Spec {
    #[serde(default)]
    process: Process,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    linux: Linux,
}

#[derive(Default, Deserialize)]
struct Process {
    #[serde(default, rename = "env")]
    environment: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    #[serde(default)]
    cgroups_path: String,
}

/// What a runtime says of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// The directory of its configuration.
    pub(super) bundle: PathBuf,
    /// Its cgroup, relative to the mount, with a leading slash; none if it shares its maker's.
    pub(super) cgroup: Option<PathBuf>,
    /// Since when there is such a container.
    pub(super) created: Timestamp,
}

/// runc's `state.json`.
#[derive(Deserialize)]
struct Runc {
    created: Timestamp,
    cgroup_paths: BTreeMap<String, PathBuf>,
    config: RuncConfig,
}

#[derive(Deserialize)]
struct RuncConfig {
    labels: Vec<String>,
}

/// crun's `status`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Crun {
    created: Timestamp,
    #[serde(default)]
    cgroup_path: String,
    bundle: PathBuf,
}

// === impl Spec ===

impl Spec {
    /// Reads a configuration. The error does not quote it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| unquoted(&error))
    }

    /// Its environment as it was made with.
    pub(super) fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        self.process
            .environment
            .iter()
            .filter_map(|variable| variable.split_once('='))
    }

    /// An annotation.
    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }

    /// Where a runtime puts it, if the configuration alone tells: `slice:prefix:name` for systemd, or an absolute path.
    /// Where a relative one leads depends on where the runtime ran.
    pub(super) fn cgroup(&self) -> Option<PathBuf> {
        let path = self.linux.cgroups_path.as_str();
        if path.starts_with('/') {
            return clean(Path::new(path));
        }
        let mut parts = path.splitn(3, ':');
        let (parent, prefix, name) = (parts.next()?, parts.next()?, parts.next()?);
        let parent = match parent {
            "" => Cow::Borrowed(DEFAULT_SLICE),
            "-" => Cow::Borrowed("-.slice"),
            parent => Cow::Borrowed(parent),
        };
        if name.strip_suffix(".slice").is_some() {
            return slice(name).map(PathBuf::from);
        }
        if prefix.contains('/') || name.contains('/') {
            return None;
        }
        // Runtimes make different names of an empty prefix.
        let unit = (!prefix.is_empty()).then(|| format!("{prefix}-{name}.scope"))?;
        clean(Path::new(&format!("{}/{unit}", slice(&parent)?)))
    }
}

// === impl State ===

impl State {
    /// Reads what runc keeps.
    pub(super) fn parse_runc(bytes: &[u8]) -> Result<Self, String> {
        let state: Runc = serde_json::from_slice(bytes).map_err(|error| unquoted(&error))?;
        let bundle = state
            .config
            .labels
            .iter()
            .rev()
            .find_map(|label| label.strip_prefix(BUNDLE_LABEL));
        // The unified hierarchy has no name. On a host with others besides, it is mounted elsewhere.
        let mount = if state.cgroup_paths.len() > 1 { UNIFIED } else { CGROUPS };
        let unified = state.cgroup_paths.get("");
        let relative = unified.and_then(|path| path.strip_prefix(mount).ok());
        Ok(Self {
            bundle: bundle.ok_or("it names no bundle")?.into(),
            cgroup: relative.and_then(|path| clean(&Path::new("/").join(path))),
            created: state.created,
        })
    }

    /// Reads what crun keeps.
    pub(super) fn parse_crun(bytes: &[u8]) -> Result<Self, String> {
        let state: Crun = serde_json::from_slice(bytes).map_err(|error| unquoted(&error))?;
        let cgroup = Path::new("/").join(&state.cgroup_path);
        Ok(Self {
            bundle: state.bundle,
            cgroup: clean(&cgroup),
            created: state.created,
        })
    }
}

/// An absolute path that stays where it says. The root is nobody's: who is there is in no cgroup of its own.
fn clean(path: &Path) -> Option<PathBuf> {
    let stays = |component| matches!(component, Component::RootDir | Component::Normal(_));
    let is_clean = path.is_absolute() && path.parent().is_some() && path.components().all(stays);
    is_clean.then(|| path.components().collect())
}

/// What is wrong and where, without what is there: that may be a secret.
fn unquoted(error: &serde_json::Error) -> String {
    let kind = match error.classify() {
        serde_json::error::Category::Io => "unreadable",
        serde_json::error::Category::Syntax => "no JSON",
        serde_json::error::Category::Data => "not of the expected form",
        serde_json::error::Category::Eof => "cut off",
    };
    format!("{kind} at line {} column {}", error.line(), error.column())
}

#[cfg(test)]
mod tests;
