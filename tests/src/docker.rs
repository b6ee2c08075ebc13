//! A real Docker engine in a scene: its daemon is a trusted host service there, its containers are in tasks' cgroups.
//!
//! The engine has the scene's host namespace to itself, so its bridges and iptables rules are the scene's. Containers
//! are actors. There is no registry: their image has only links into `/usr`, which is this machine's, read-only.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{actor::Actor, image, keeper::Keeper, scene::Scene, topology::write_sysctl};

mod container;
pub mod engine;

pub use container::{Container, Link};

/// Where the engine looks for programs: which iptables it uses is chosen there.
const PROGRAMS: &str = "/run/engine";
/// The engine's socket.
const SOCKET: &str = "/run/docker.sock";
/// What the daemon logs when it is ready.
const READY: &str = "API listen on";
/// What the image's links lead to, as options of `docker run`.
const PROGRAMS_OF_THIS_MACHINE: [&str; 2] = ["--volume", "/usr:/usr:ro"];

/// Which kind of iptables the engine writes its rules with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Iptables {
    /// By nftables, as current distributions do.
    Nft,
    /// By the kernel's old interface.
    Legacy,
}

/// A running engine. It ends when this is dropped, or with the scene's cgroups.
#[derive(Debug)]
pub struct Docker {
    daemon: Child,
    /// The engine's socket, as the test sees it.
    socket: PathBuf,
    /// The cgroup of each task in the hierarchy.
    tasks: BTreeMap<String, PathBuf>,
    containers: AtomicU32,
}

// === impl Iptables ===

impl Iptables {
    /// What the names of its programs end with.
    const fn suffix(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        }
    }
}

// === impl Docker ===

impl Docker {
    /// Starts an engine and waits until it is ready. Packets between a bridge's ports pass iptables, as they do
    /// wherever Docker's own tools set up the host.
    pub fn start(scene: &Scene, iptables: Iptables) -> Result<Self> {
        scene
            .host_network()
            .run(|| write_sysctl("bridge/bridge-nf-call-iptables", "1"))?;
        let programs = scene.path(PROGRAMS);
        fs::create_dir(&programs).with_context(|| format!("cannot create {}", programs.display()))?;
        for family in ["iptables", "ip6tables"] {
            let program = format!("/usr/sbin/{family}-{}", iptables.suffix());
            symlink(&program, programs.join(family)).with_context(|| format!("cannot link {program}"))?;
        }
        let docker = Self {
            daemon: start_daemon(scene)?,
            socket: scene.path(SOCKET),
            tasks: scene
                .tasks()
                .iter()
                .map(|task| (task.name.clone(), scene.name().join(&task.cgroup)))
                .collect(),
            containers: AtomicU32::new(0),
        };
        docker.load_image(scene)?;
        Ok(docker)
    }

    /// Ends the daemon. Its containers go on.
    pub fn stop(&mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        self.daemon.wait().map(drop).context("cannot wait for the engine")
    }

    /// Has the daemon not answer until [`Self::go_on`]. Its containers go on.
    pub fn hold(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Has the daemon go on after [`Self::hold`].
    pub fn go_on(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.daemon.id().try_into().context("the engine has no process ID")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot send {signal} to the engine"))
    }

    /// Starts the daemon again, after [`Self::stop`].
    pub fn start_again(&mut self, scene: &Scene) -> Result<()> {
        self.daemon = start_daemon(scene)?;
        Ok(())
    }

    /// Makes a user-defined bridge network, with options of `docker network create`, and returns the bridge's name.
    pub fn network_create(&self, name: &str, options: &[&str]) -> Result<String> {
        let arguments = ["network", "create", name].into_iter().chain(options.iter().copied());
        let id = self.call(arguments)?;
        let beginning = id.get(..12).with_context(|| format!("{id} is no network"))?;
        Ok(format!("br-{beginning}"))
    }

    /// Runs a container of a task in a network (`bridge`, `host`, `none`, `container:<name>` or one that was created),
    /// with further options of `docker run`.
    pub fn run(&self, task: &str, network: &str, options: &[&str]) -> Result<Container> {
        let cgroup = self
            .tasks
            .get(task)
            .with_context(|| format!("the scene has no task {task}"))?;
        let number = self.containers.fetch_add(1, Ordering::Relaxed);
        let parent = format!("--cgroup-parent={}", cgroup.display());
        let options: Vec<_> = [&*parent].into_iter().chain(options.iter().copied()).collect();
        self.run_named(&format!("{task}-{number}"), network, &options)
    }

    /// Runs a container of nobody's task, which is called `name`.
    pub fn run_named(&self, name: &str, network: &str, options: &[&str]) -> Result<Container> {
        let mut command = self.client();
        command
            .args(["run", "--rm", "--interactive", "--log-driver", "none", "--name", name])
            .args(["--network", network, "--volume"])
            .arg(format!("{}:/lab:ro", Keeper::program("lab").display()))
            .args(PROGRAMS_OF_THIS_MACHINE)
            .args(options)
            .args([image::NAME, "/lab", "actor"]);
        self.inspected(Actor::from_command(command)?, name)
    }

    fn inspected(&self, actor: Actor, name: &str) -> Result<Container> {
        let said = self.call(["inspect", "--format", "{{json .}}", name])?;
        Container::inspected(actor, name.to_owned(), &said)
    }

    /// Makes a container, and runs it once others have been told its ID, as who makes containers for others does.
    pub fn run_once_known(
        &self,
        name: &str,
        options: &[&str],
        tell: impl FnOnce(&str) -> Result<()>,
    ) -> Result<Container> {
        let create = [
            "create",
            "--rm",
            "--interactive",
            "--log-driver",
            "none",
            "--name",
            name,
        ];
        let program = format!("--volume={}:/lab:ro", Keeper::program("lab").display());
        let arguments = create.iter().chain(&PROGRAMS_OF_THIS_MACHINE).chain(options);
        let id = self.call(arguments.chain(&[&*program, image::NAME, "/lab", "actor"]))?;
        tell(id.trim())?;
        let mut command = self.client();
        command.args(["start", "--attach", "--interactive", name]);
        self.inspected(Actor::from_command(command)?, name)
    }

    /// Makes a container with options of `docker create`, does not start it, and returns its ID.
    pub fn create(&self, options: &[&str]) -> Result<String> {
        let create = ["create"].iter().chain(options);
        let id = self.call(create.chain(&[image::NAME, "true"]))?;
        Ok(id.trim().to_owned())
    }

    /// Runs a script with options of `docker run`, and returns what it, or with `--detach` the engine, writes.
    pub fn run_script(&self, options: &[&str], script: &str) -> Result<String> {
        let run = ["run"].iter().chain(&PROGRAMS_OF_THIS_MACHINE).chain(options);
        self.call(run.chain(&[image::NAME, "bash", "-c", script]))
    }

    /// Runs a script in a container there is, with options of `docker exec`, and returns what it writes.
    pub fn execute(&self, options: &[&str], container: &str, script: &str) -> Result<String> {
        self.call(["exec"].iter().chain(options).chain(&[container, "bash", "-c", script]))
    }

    /// Makes the image of later containers of a container, with its labels.
    pub fn commit(&self, container: &str) -> Result<()> {
        self.call(["commit", container, image::NAME]).map(drop)
    }

    fn load_image(&self, scene: &Scene) -> Result<()> {
        let image = scene.path(image::make(scene)?);
        let image = image.to_str().context("the image has no name")?;
        self.call(["load", "--input", image]).map(drop)
    }

    /// What a command of the engine's client writes; that it fails is an error.
    pub fn call<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<String> {
        run(self.client().args(arguments))
    }

    /// The client, without anything of its user's configuration.
    fn client(&self) -> Command {
        let mut command = Command::new("docker");
        command
            .env_remove("DOCKER_CONTEXT")
            .env("DOCKER_CONFIG", "/nonexistent")
            .arg("--host")
            .arg(format!("unix://{}", self.socket.display()));
        command
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if let Err(error) = self.daemon.kill().and_then(|()| self.daemon.wait()) {
            eprintln!("lab: cannot end the engine: {error}");
        }
    }
}

/// Starts the daemon and waits until it is ready.
fn start_daemon(scene: &Scene) -> Result<Child> {
    let mut daemon = scene
        .host_command(Keeper::program("lab"))
        .arg("engine")
        .arg("--")
        .args(["dockerd", "--host", &format!("unix://{SOCKET}"), "--cgroup-parent"])
        .arg(scene.engine_cgroup())
        .args([
            "--exec-opt",
            "native.cgroupdriver=cgroupfs",
            "--storage-driver",
            "overlay2",
            "--live-restore",
        ])
        .env("PATH", format!("{PROGRAMS}:/usr/sbin:/usr/bin:/sbin:/bin"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start the engine")?;
    let log = daemon.stderr.take().context("the engine has no log")?;
    await_ready(BufReader::new(log), READY)?;
    Ok(daemon)
}

/// Reads the log until the daemon is ready, then lets the rest go.
pub(crate) fn await_ready(log: BufReader<impl std::io::Read + Send + 'static>, ready: &str) -> Result<()> {
    let mut lines = log.lines().map_while(Result::ok);
    let mut said = String::new();
    for line in lines.by_ref() {
        said.extend([&line, "\n"]);
        if line.contains(ready) {
            thread::spawn(move || lines.for_each(drop));
            return Ok(());
        }
    }
    bail!("the engine did not start:\n{said}")
}

pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
