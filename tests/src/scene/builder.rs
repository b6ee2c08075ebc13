//! What a scene is to have, and building it.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};

use super::{CONFIGURATION, HOST, LAB, OUTSIDE, ROOT, SERVICE, Scene, Task, View, task};
use crate::{
    actor::Actor,
    cgroup,
    enforcer::{Enforcer, Launch, NOTIFY_SOCKET},
    enter::Place,
    imds::Imds,
    keeper::Keeper,
    namespace::NetNs,
    programs,
    topology::{BRIDGE_V4, Topology},
};

/// What a scene is to have.
#[derive(Debug, Default)]
pub struct Builder {
    tasks: Vec<(String, PathBuf, &'static str)>,
    roles: Vec<String>,
    first_lines: &'static str,
    audit_file: Option<String>,
    upstream: Option<&'static str>,
    is_all_there_is: bool,
}

// === impl Builder ===

impl Builder {
    /// Adds a task.
    #[must_use]
    pub fn task(mut self, name: &str) -> Self {
        self.add(name, ROOT, "");
        self
    }

    /// Adds a task whose cgroup is not below the one the enforcer attaches to.
    #[must_use]
    pub fn outside_task(mut self, name: &str) -> Self {
        self.add(name, OUTSIDE, "");
        self
    }

    /// Adds a task that is only observed.
    #[must_use]
    pub fn observed_task(mut self, name: &str) -> Self {
        self.add(name, ROOT, "observe = true");
        self
    }

    /// Adds a task that may use the metadata service.
    #[must_use]
    pub fn excepted_task(mut self, name: &str) -> Self {
        self.add(name, ROOT, r#"allow = ["imds"]"#);
        self
    }

    /// Adds a role that tasks may have which the configuration does not name.
    #[must_use]
    pub fn role(mut self, name: &str) -> Self {
        self.roles.push(name.to_owned());
        self
    }

    /// Has the enforcer only observe, whoever it is.
    #[must_use]
    pub fn observing(mut self) -> Self {
        self.first_lines = r#"mode = "observe""#;
        self
    }

    /// Has the enforcer stand in front of an ECS agent, which the lab does not have.
    #[must_use]
    pub fn in_front_of_ecs_agent(mut self) -> Self {
        self.upstream = Some("ecs-agent");
        self
    }

    /// Has the host see the cgroup that the enforcer attaches to as the root of all, with the names below it that cgroups
    /// have on a host. The lab's own processes are not on that host.
    #[must_use]
    pub fn with_cgroups_of_its_own(mut self) -> Self {
        self.is_all_there_is = true;
        self
    }

    /// Sends the audit trail to a file of the scene instead of [`Scene::audit`].
    #[must_use]
    pub fn audit_to(mut self, file: &str) -> Self {
        self.audit_file = Some(file.to_owned());
        self
    }

    fn add(&mut self, name: &str, parent: &str, line: &'static str) {
        let cgroup = Path::new(parent).join("tasks").join(name);
        self.tasks.push((name.to_owned(), cgroup, line));
    }

    /// Builds the scene and starts the enforcer.
    pub fn start(self) -> Result<Scene> {
        let mut scene = self.prepare()?;
        scene.enforcer.start()?;
        Ok(scene)
    }

    /// Builds the scene; the enforcer is not started yet.
    pub fn prepare(self) -> Result<Scene> {
        static SCENES: AtomicU32 = AtomicU32::new(0);
        let number = SCENES.fetch_add(1, Ordering::Relaxed);
        let name = format!("enforcer-lab-{}-{number}", process::id());
        let mount = cgroup::mount()?;
        let directory = mount.join(&name);
        let programs = programs::directory()?;
        let lab = programs.join("lab");

        let keeper = Keeper::start(&lab, &directory, &programs)?;
        let topology = Topology::build(keeper.network()?)?;
        let tasks = self
            .tasks
            .iter()
            .map(|(name, cgroup, line)| Task::generate(name, cgroup.clone(), line))
            .collect::<Result<Vec<_>>>()?;
        let roles = self.roles.iter().map(|name| Task::generate(name, PathBuf::new(), ""));
        let roles = roles.collect::<Result<Vec<_>>>()?;
        for cgroup in [HOST, SERVICE, OUTSIDE, LAB]
            .map(Path::new)
            .into_iter()
            .chain(tasks.iter().map(|t| &*t.cgroup))
        {
            cgroup::create(&directory.join(cgroup))?;
        }
        let audit = self.audit_file.as_deref().unwrap_or("-");
        let upstream = self.upstream.unwrap_or("embedded");
        let root = directory.join(ROOT);
        let (view, seen_root) = if self.is_all_there_is {
            (View::All(root), Path::new(cgroup::USUAL).to_owned())
        } else {
            (View::Below(Path::new("/").join(&name)), root)
        };
        let cgroups = task::configuration(&seen_root, &view, [&tasks, &roles], [audit, upstream]);
        let configuration = format!("{}\n{cgroups}", self.first_lines);
        write_configuration(&keeper, &configuration, tasks.iter().chain(&roles))?;

        let of_lab = |network: &NetNs| Place {
            cgroup: directory.join(LAB),
            network: network.path(),
            mounts: None,
            hierarchy: None,
        };
        let imds = Imds::start(&lab, &of_lab(&topology.imds))?;
        let marker = Actor::start(&lab, &of_lab(&topology.host), BRIDGE_V4)?;
        let enforcer = Enforcer::new(Launch {
            lab: lab.clone(),
            program: Keeper::program("enforcer"),
            place: Place {
                cgroup: directory.join(SERVICE),
                network: topology.host.path(),
                mounts: Some(keeper.mounts()),
                hierarchy: view.hierarchy(),
            },
            notify_socket: keeper.path(NOTIFY_SOCKET),
        });
        let containers = AtomicU32::new(0);
        let mut scene = Scene {
            enforcer,
            imds,
            marker,
            topology,
            tasks,
            roles,
            directory,
            view,
            lab,
            containers,
            keeper,
        };
        // The host finds its way to the metadata service now, so that later packets wait for nothing.
        scene.imds_hits()?;
        Ok(scene)
    }
}

fn write_configuration<'a>(
    keeper: &Keeper,
    configuration: &str,
    mut tasks: impl Iterator<Item = &'a Task>,
) -> Result<()> {
    let directory = keeper.path("/etc/enforcer");
    fs::create_dir(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let write = |name: &str, text: &str| {
        let path = keeper.path(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    write(CONFIGURATION, configuration)?;
    tasks.try_for_each(|task| write(&task.credentials_file(), &task.credentials()))
}
