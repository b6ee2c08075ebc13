//! A real Podman in a scene. There is no daemon: each command is a trusted host service for as long as it runs. Containers
//! are actors in the host's network, with cgroups below the one the enforcer guards.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{actor::Actor, docker::run, image, keeper::Keeper, rootfs::Rootfs, scene::Scene};

/// The configuration: no systemd, no limits that this machine's hierarchies or rights do not allow, and Debian's runc.
const CONFIGURATION: &str = r#"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
pids_limit = 0
log_driver = "none"

[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "runc"
"#;

/// Whose images are run: everybody's.
const POLICY: &str = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;

/// Podman, set up.
#[derive(Debug)]
pub struct Podman {
    rootfs: Rootfs,
    /// Where containers' cgroups are made, in the hierarchy.
    parent: PathBuf,
}

// === impl Podman ===

impl Podman {
    /// Sets Podman up in a scene.
    pub fn set_up(scene: &Scene) -> Result<Self> {
        let directory = scene.path("/etc/containers");
        fs::create_dir(&directory)
            .and_then(|()| fs::write(directory.join("containers.conf"), CONFIGURATION))
            .and_then(|()| fs::write(directory.join("policy.json"), POLICY))
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let podman = Self {
            rootfs: Rootfs::make(scene)?,
            parent: scene.engine_cgroup(),
        };
        let image = image::make(scene)?;
        run(podman_command(scene).args(["load", "--input", image]))?;
        Ok(podman)
    }

    /// Runs a container, with further options of `podman run`. When the actor is dropped it ends, and is kept.
    pub fn run(&self, scene: &Scene, name: &str, options: &[&str]) -> Result<Actor> {
        let mut command = podman_command(scene);
        command
            .args(["run", "--interactive"])
            .args(["--network", "host", "--name", name, "--cgroup-parent"])
            .arg(&self.parent);
        for (from, to) in self.rootfs.mounts() {
            command.args(["--volume", &format!("{from}:{to}:ro")]);
        }
        command.args(options).args([image::NAME, "/lab", "actor"]);
        Actor::from_command(command)
    }

    /// Has the image of later containers be annotated.
    pub fn annotate_image(&self, scene: &Scene, annotation: &str) -> Result<()> {
        let directory = scene.path("/run/annotated");
        let text = format!("FROM {}\n", image::NAME);
        fs::create_dir(&directory)
            .and_then(|()| fs::write(directory.join("Containerfile"), text))
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let mut command = podman_command(scene);
        command.args(["build", "--pull=never", "--annotation", annotation]);
        run(command.args(["--tag", image::NAME, "/run/annotated"])).map(drop)
    }

    /// Stops a container.
    pub fn stop(&self, scene: &Scene, name: &str, container: Actor) -> Result<()> {
        run(podman_command(scene).args(["stop", "--time", "0", name]))?;
        drop(container);
        Ok(())
    }

    /// Starts a container that was stopped.
    pub fn start_again(&self, scene: &Scene, name: &str) -> Result<Actor> {
        let mut command = podman_command(scene);
        command.args(["start", "--attach", "--interactive", name]);
        Actor::from_command(command)
    }
}

fn podman_command(scene: &Scene) -> Command {
    let mut command = scene.host_command(Keeper::program("lab"));
    command.args(["engine", "--", "podman"]);
    command
}
