//! Containers of plain runc or crun in a scene, as who needs no engine makes them: a bundle in a directory of its own, under
//! any name. They are actors in the host's network.

use std::fs;

use anyhow::{Context, Result};
use serde_json::json;

use crate::{actor::Actor, keeper::Keeper, rootfs::Rootfs, scene::Scene};

/// Where bundles are made, in the scene.
const BUNDLES: &str = "/run/bundles";

/// Which runtime it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// runc.
    Runc,
    /// crun.
    Crun,
}

/// A runtime, and files for containers.
#[derive(Debug)]
pub struct Runc {
    program: Program,
    rootfs: Rootfs,
}

// === impl Program ===

impl Program {
    const fn name(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Crun => "crun",
        }
    }
}

// === impl Runc ===

impl Runc {
    /// Makes the files in a scene.
    pub fn set_up(scene: &Scene, program: Program) -> Result<Self> {
        Ok(Self {
            program,
            rootfs: Rootfs::make(scene)?,
        })
    }

    /// Runs a container with a variable and an annotation. Its cgroup has another name than the container.
    pub fn run(&self, scene: &Scene, name: &str, variable: &str, (key, value): (&str, &str)) -> Result<Actor> {
        let bind =
            |(from, to)| json!({ "source": from, "destination": to, "type": "bind", "options": ["rbind", "ro"] });
        let mut mounts: Vec<_> = self.rootfs.mounts().into_iter().map(bind).collect();
        mounts.push(json!({ "source": "proc", "destination": "/proc", "type": "proc" }));
        mounts.push(json!({ "source": "tmpfs", "destination": "/dev", "type": "tmpfs" }));
        let config = json!({
            "ociVersion": "1.0.2",
            "process": { "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": ["/lab", "actor"], "env": [variable] },
            "root": { "path": self.rootfs.directory() },
            "mounts": mounts,
            "annotations": { key: value },
            "linux": {
                "cgroupsPath": scene.engine_cgroup().join(format!("of-{name}")),
                "namespaces": [{ "type": "pid" }, { "type": "mount" }],
            },
        });
        let bundle = format!("{BUNDLES}/{name}");
        let directory = scene.path(&bundle);
        fs::create_dir_all(&directory)
            .and_then(|()| fs::write(directory.join("config.json"), config.to_string()))
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let mut command = scene.host_command(Keeper::program("lab"));
        command.args(["engine", "--", self.program.name(), "run", "--bundle", &bundle, name]);
        Actor::from_command(command)
    }
}
