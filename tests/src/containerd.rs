//! A real containerd in a scene: its daemon is a trusted host service there. Containers are made as `ctr` makes them, with
//! cgroups below the one the enforcer guards, and are actors in the host's network.

use std::{
    io::BufReader,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};

use crate::{
    actor::Actor,
    docker::{await_ready, run},
    image,
    keeper::Keeper,
    rootfs::Rootfs,
    scene::Scene,
};

/// Its client.
const CLIENT: &str = "/usr/bin/ctr";
/// What the daemon logs when it is ready.
const READY: &str = "containerd successfully booted";

/// A running daemon. It ends when this is dropped, or with the scene's cgroups; its containers go on.
#[derive(Debug)]
pub struct Containerd {
    daemon: Child,
    rootfs: Rootfs,
    /// Where containers' cgroups are made, in the hierarchy.
    parent: PathBuf,
}

// === impl Containerd ===

impl Containerd {
    /// Starts a daemon and waits until it is ready.
    pub fn start(scene: &Scene) -> Result<Self> {
        let containerd = Self {
            daemon: start_daemon(scene)?,
            rootfs: Rootfs::make(scene)?,
            parent: scene.engine_cgroup(),
        };
        let image = image::make(scene)?;
        // Nothing but the scene's own daemon is there to unpack it.
        run(scene.host_command(CLIENT).args(["image", "import", image]))?;
        Ok(containerd)
    }

    /// Starts the daemon again after its end.
    pub fn start_again(&mut self, scene: &Scene) -> Result<()> {
        self.daemon = start_daemon(scene)?;
        Ok(())
    }

    /// Runs a container, with further options of `ctr run`. It ends with the scene, if not before.
    pub fn run(&self, scene: &Scene, id: &str, options: &[&str]) -> Result<Actor> {
        let mut command = scene.host_command(CLIENT);
        // No limits of processor time: hosts with several hierarchies have them elsewhere.
        command
            .args(["run", "--net-host", "--cpu-shares", "0", "--cgroup"])
            .arg(self.parent.join(id));
        for (from, to) in self.rootfs.mounts() {
            command
                .arg("--mount")
                .arg(format!("type=bind,src={from},dst={to},options=rbind:ro"));
        }
        command.args(options).args([image::NAME, id, "/lab", "actor"]);
        Actor::from_command(command)
    }

    /// Ends a container; nothing is left of it then.
    pub fn remove(&self, scene: &Scene, id: &str, container: Actor) -> Result<()> {
        // Without its client, nobody else removes it.
        drop(container);
        for what in [&["task", "delete", "--force"][..], &["container", "delete"]] {
            run(scene.host_command(CLIENT).args(what).arg(id))?;
        }
        Ok(())
    }

    /// Ends the daemon at once; its containers go on.
    pub fn end(&mut self) -> Result<()> {
        let ended = self.daemon.kill().and_then(|()| self.daemon.wait());
        ended.map(drop).context("cannot end containerd")
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("lab: {error:#}");
        }
    }
}

fn start_daemon(scene: &Scene) -> Result<Child> {
    let mut command: Command = scene.host_command(Keeper::program("lab"));
    let mut daemon = command
        .args(["engine", "--", "containerd"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start containerd")?;
    let log = daemon.stderr.take().context("containerd has no log")?;
    await_ready(BufReader::new(log), READY)?;
    Ok(daemon)
}
