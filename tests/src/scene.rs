//! The scene: everything a test needs, in one guard.

use std::{
    fs,
    io::stdin,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;

use crate::{
    actor::{Actor, Attempt},
    audit::AuditFeed,
    cgroup,
    enforcer::Enforcer,
    enter::Place,
    imds::{Hits, Imds, MARKER_PORT},
    keeper::Keeper,
    namespace::NetNs,
    programs,
    topology::{Attachment, BRIDGE_V4, IMDS_V4, IMDS_V6, Topology, impostor},
};

mod builder;
mod task;

pub use builder::Builder;
pub use task::{Task, credential_id};

/// The cgroup the enforcer attaches to; paths of this kind are relative to the scene's own cgroup.
const ROOT: &str = "root";
/// Host services.
const HOST: &str = "root/host";
/// Where a container engine puts containers that nobody puts elsewhere.
const ENGINE: &str = "root/engine";
/// The enforcer itself.
const SERVICE: &str = "root/service";
/// Beside the enforcer's root: no cgroup hook sees what happens here.
const OUTSIDE: &str = "outside";
/// The lab's own: the metadata service, and the markers on their way to it. The enforcer is told to trust it, because it
/// is what would not be on a host.
const LAB: &str = "outside/lab";

/// The enforcer's configuration file, as it sees it.
const CONFIGURATION: &str = "/etc/enforcer/enforcer.toml";

/// How many markers may get lost, one after the other.
const MARKERS: u32 = 5;

/// A running scene. Its fields are dropped in this order: what runs first, then what it runs in.
#[derive(Debug)]
pub struct Scene {
    enforcer: Enforcer,
    imds: Imds,
    marker: Actor,
    topology: Topology,
    tasks: Vec<Task>,
    roles: Vec<Task>,
    directory: PathBuf,
    view: View,
    lab: PathBuf,
    containers: AtomicU32,
    keeper: Keeper,
}

/// How the host of a scene sees the scene's cgroups.
#[derive(Clone, Debug)]
enum View {
    /// As what they are: below the scene's own, which has this name with a leading slash.
    Below(PathBuf),
    /// As all there are, so that they can have the names that cgroups have on a host: this one is the root.
    All(PathBuf),
}

/// Starts a part that the `lab` program plays, in a place whose packets come from an address.
pub trait Start<T>: FnOnce(&Path, &Place, Ipv4Addr) -> Result<T> {}

impl<T, F: FnOnce(&Path, &Place, Ipv4Addr) -> Result<T>> Start<T> for F {}

// === impl View ===

impl View {
    /// What a cgroup of the scene is called on the host, with a leading slash.
    fn name(&self, cgroup: impl AsRef<Path>) -> PathBuf {
        let cgroup = cgroup.as_ref();
        match self {
            Self::Below(scene) => scene.join(cgroup),
            Self::All(_) => Path::new("/").join(cgroup.strip_prefix(ROOT).unwrap_or(cgroup)),
        }
    }

    /// The root of all, if it is another than the machine's.
    fn hierarchy(&self) -> Option<PathBuf> {
        match self {
            Self::Below(_) => None,
            Self::All(root) => Some(root.clone()),
        }
    }
}

// === impl Scene ===

impl Scene {
    /// An empty plan.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A task of the scene.
    pub fn task(&self, name: &str) -> Result<&Task> {
        self.tasks
            .iter()
            .find(|task| task.name == name)
            .with_context(|| format!("the scene has no task {name}"))
    }

    /// All tasks of the scene.
    #[must_use]
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// A role of the scene, with the credentials that whoever has it gets.
    pub fn role(&self, name: &str) -> Result<&Task> {
        let role = self.roles.iter().find(|role| role.name == name);
        role.with_context(|| format!("the scene has no role {name}"))
    }

    /// The cgroup of containers that are put nowhere else, in the hierarchy as the host sees it, with a leading slash.
    #[must_use]
    pub fn engine_cgroup(&self) -> PathBuf {
        self.view.name(ENGINE)
    }

    /// The enforcer.
    pub fn enforcer(&mut self) -> &mut Enforcer {
        &mut self.enforcer
    }

    /// The enforcer's configuration file.
    pub fn configuration(&self) -> Result<String> {
        let path = self.keeper.path(CONFIGURATION);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Rewrites the enforcer's configuration file. A running enforcer goes on by what it has read.
    pub fn configure(&self, edit: impl FnOnce(String) -> String) -> Result<()> {
        let path = self.keeper.path(CONFIGURATION);
        fs::write(&path, edit(self.configuration()?)).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The enforcer's audit feed.
    #[must_use]
    pub fn audit(&self) -> &AuditFeed {
        self.enforcer.audit()
    }

    /// Absolute path of a task's cgroup.
    pub fn cgroup_of(&self, task: &str) -> Result<PathBuf> {
        Ok(self.directory.join(&self.task(task)?.cgroup))
    }

    /// The scene's name: that of its cgroup in the hierarchy's root.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A file or directory of the scene, as the test sees it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.keeper.path(name)
    }

    /// The cgroup the enforcer attaches to.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.directory.join(ROOT)
    }

    /// The scene's cgroup in the hierarchy, with a leading slash.
    #[must_use]
    pub fn name(&self) -> PathBuf {
        Path::new("/").join(self.directory.file_name().unwrap_or_default())
    }

    /// The host's network namespace.
    #[must_use]
    pub fn host_network(&self) -> &NetNs {
        &self.topology.host
    }

    /// A program of this machine as a host service.
    #[must_use]
    pub fn host_command(&self, program: impl AsRef<Path>) -> Command {
        let place = Place {
            cgroup: self.directory.join(HOST),
            network: self.topology.host.path(),
            mounts: Some(self.keeper.mounts()),
            hierarchy: self.view.hierarchy(),
        };
        place.command(&self.lab, program.as_ref())
    }

    /// The command that gives a person a shell in the scene.
    #[must_use]
    pub fn shell_command(&self) -> String {
        self.keeper.shell_command()
    }

    /// A container of a task with a network namespace on the bridge.
    pub fn bridge_container(&self, task: &str) -> Result<Actor> {
        self.in_bridge_container(task, Actor::start)
    }

    /// A container of a task in the host's network namespace.
    pub fn host_container(&self, task: &str) -> Result<Actor> {
        self.in_host_container(task, Actor::start)
    }

    /// A host service.
    pub fn host_process(&self) -> Result<Actor> {
        self.on_host(Actor::start)
    }

    /// Starts something as a container of a task with a network namespace on the bridge.
    pub fn in_bridge_container<T>(&self, task: &str, start: impl Start<T>) -> Result<T> {
        let attachment = self.topology.bridged()?;
        self.start(
            &self.new_container(task)?,
            &attachment.namespace,
            attachment.address,
            start,
        )
    }

    /// Starts something as a container of a task in the host's network namespace.
    pub fn in_host_container<T>(&self, task: &str, start: impl Start<T>) -> Result<T> {
        self.start(&self.new_container(task)?, &self.topology.host, BRIDGE_V4, start)
    }

    /// Starts something as a container of a task in a network namespace.
    pub fn in_container<T>(&self, task: &str, network: &NetNs, address: Ipv4Addr, start: impl Start<T>) -> Result<T> {
        self.start(&self.new_container(task)?, network, address, start)
    }

    /// The network.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The cgroup of host services.
    #[must_use]
    pub fn trusted(&self) -> PathBuf {
        self.directory.join(HOST)
    }

    /// Starts something as a host service.
    pub fn on_host<T>(&self, start: impl Start<T>) -> Result<T> {
        self.start(&self.directory.join(HOST), &self.topology.host, BRIDGE_V4, start)
    }

    /// A container of a task on a link of its own, with an address that others may have too.
    pub fn routed_container(&self, task: &str, address: Ipv4Addr) -> Result<(Actor, Attachment)> {
        let attachment = self.topology.routed(address)?;
        Ok((
            self.start(&self.new_container(task)?, &attachment.namespace, address, Actor::start)?,
            attachment,
        ))
    }

    /// Sends the host's packets for a routed container's address to this one.
    pub fn route_to(&self, container: &Attachment) -> Result<()> {
        self.topology.route_to(container)
    }

    /// A container of a task that claims an address in a namespace without any link.
    pub fn impostor(&self, task: &str, address: Ipv4Addr) -> Result<Actor> {
        self.start(&self.new_container(task)?, &impostor(address)?, address, Actor::start)
    }

    /// What has reached the metadata service. All that was sent before has arrived when this returns.
    pub fn imds_hits(&mut self) -> Result<Hits> {
        for address in [IpAddr::V4(IMDS_V4), IpAddr::V6(IMDS_V6)] {
            self.await_echo((address, MARKER_PORT).into())?;
        }
        self.imds.hits()
    }

    /// Sends markers until one comes back: a new link on a busy machine loses datagrams, and markers are not counted.
    fn await_echo(&mut self, to: SocketAddr) -> Result<()> {
        for _ in 0..MARKERS {
            match self.marker.echo(to)? {
                Attempt::Done => return Ok(()),
                Attempt::Refused(Errno::EAGAIN) => {}
                Attempt::Refused(errno) => bail!("the lab's own way to the metadata service is broken: {errno}"),
            }
        }
        bail!("the lab's own way to the metadata service loses everything")
    }

    /// Starts something in any cgroup and network namespace.
    pub fn start<T>(&self, cgroup: &Path, network: &NetNs, address: Ipv4Addr, start: impl Start<T>) -> Result<T> {
        let place = Place {
            cgroup: cgroup.to_owned(),
            network: network.path(),
            mounts: None,
            hierarchy: None,
        };
        start(&self.lab, &place, address)
    }

    /// As container engines do, each container gets a cgroup below its task's.
    pub fn new_container(&self, task: &str) -> Result<PathBuf> {
        let number = self.containers.fetch_add(1, Ordering::Relaxed);
        let cgroup = self.cgroup_of(task)?.join(format!("container-{number}"));
        cgroup::create(&cgroup)?;
        Ok(cgroup)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if thread::panicking() && programs::failed_scenes_are_held() {
            eprintln!(
                "The scene is held until you press Enter. A shell in it: {}",
                self.shell_command()
            );
            if let Err(error) = stdin().read_line(&mut String::new()) {
                eprintln!("lab: cannot wait for Enter: {error}");
            }
        }
    }
}
