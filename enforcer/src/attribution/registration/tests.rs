//! What can be registered, and what is refused.

mod kept;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    os::unix::net::UnixListener,
    path::Path,
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;

use super::{
    super::tests::{Tree, entry},
    RegistrationError, Registrations, Wanted,
};
use crate::{
    attribution::{Docker, DockerConfig, Holder, Registry, Source, SourceKind},
    policy::CredentialId,
};

const ID: &str = "d8f91d60-f0c6-4160-b32b-3f61089b625a";
const CONTAINER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const WAIT: Duration = Duration::from_secs(1);

/// A tree, a file, and who registers.
struct World {
    directory: TempDir,
    tree: Tree,
    registry: Arc<Registry>,
    registrations: Registrations,
}

impl World {
    fn new() -> Self {
        Self::of(Registry::default())
    }

    fn of(registry: Registry) -> Self {
        let tree = Tree::of(&[
            (1, "/"),
            (10, "/web"),
            (11, "/web-2"),
            (20, "/batch"),
            (30, "/system.slice/ssh.service"),
        ]);
        let directory = tempfile::tempdir().unwrap();
        let registry = Arc::new(registry);
        let registrations = open(&directory, &registry, &tree).unwrap();
        Self {
            directory,
            tree,
            registry,
            registrations,
        }
    }

    /// What the next enforcer makes of the file.
    fn again(mut self) -> Self {
        self.registry = Arc::default();
        self.registrations = open(&self.directory, &self.registry, &self.tree).unwrap();
        self
    }

    async fn add(&mut self, wanted: Wanted) -> Result<Option<CredentialId>, RegistrationError> {
        let trusts = |path: &Path| path.starts_with("/system.slice");
        let until = self.registrations.deadline();
        let outcome = self.registrations.add(wanted, until, trusts).await;
        if let Err(error) = &outcome {
            assert!(!error.to_string().contains(ID), "{error}");
        }
        outcome
    }

    async fn refused(&mut self, wanted: Wanted) -> String {
        self.add(wanted).await.unwrap_err().to_string()
    }

    fn owner(&self, path: &str) -> Option<String> {
        let is_this = |path: &Path, id| {
            let tree = self.tree.0.lock().unwrap();
            tree.get(&id).is_some_and(|known| Path::new(known) == path)
        };
        let owner = self.registry.read().owner(Path::new(path), is_this)?;
        Some(owner.task.as_str().to_owned())
    }

    fn has(&self, credential: &CredentialId) -> String {
        match self.registry.read().claims().holder(credential) {
            Holder::Task(task) => task.as_str().to_owned(),
            other @ (Holder::Execution | Holder::Nobody) => format!("{other:?}"),
        }
    }

    /// Something else comes to the path of a cgroup.
    fn recreate(&self, id: u64, later: u64) {
        let mut tree = self.tree.0.lock().unwrap();
        let path = tree.remove(&id).unwrap();
        tree.insert(later, path);
    }

    fn file(&self) -> std::path::PathBuf {
        self.directory.path().join("state/registrations.json")
    }

    fn edit(&self, edit: impl FnOnce(String) -> String) {
        fs::write(self.file(), edit(fs::read_to_string(self.file()).unwrap())).unwrap();
    }
}

fn open(directory: &TempDir, registry: &Arc<Registry>, tree: &Tree) -> Result<Registrations, RegistrationError> {
    let path = directory.path().join("state/registrations.json");
    Registrations::open(&path, Arc::clone(registry), tree.clone(), Arc::new([]), WAIT)
}

fn at(task: &str, cgroups: &[&str]) -> Wanted {
    Wanted {
        task: task.to_owned(),
        cgroups: cgroups.iter().map(Into::into).collect(),
        containers: Vec::new(),
        credential_ids: Vec::new(),
        role_arn: None,
        execution_ids: Vec::new(),
    }
}

fn with_role(task: &str, cgroups: &[&str]) -> Wanted {
    Wanted {
        role_arn: Some("arn:role".to_owned()),
        ..at(task, cgroups)
    }
}

fn with_id(task: &str, cgroups: &[&str]) -> Wanted {
    Wanted {
        credential_ids: vec![id()],
        ..at(task, cgroups)
    }
}

fn id() -> CredentialId {
    CredentialId::requested(ID)
}

#[tokio::test]
async fn a_task_with_a_role_gets_an_id_made_and_keeps_it() {
    let mut world = World::new();
    let made = world.add(with_role("web", &["/web"])).await.unwrap().unwrap();
    assert_eq!(made.expose().len(), 32);
    let changes = world.registry.changes();
    assert_eq!(world.add(with_role("web", &["/web"])).await.unwrap().unwrap(), made);
    assert_eq!(world.registry.changes(), changes);
    assert_eq!(
        (world.owner("/web/deep").unwrap(), world.has(&made)),
        ("web".into(), "web".into())
    );
    let other = world.add(with_role("batch", &["/batch"])).await.unwrap().unwrap();
    assert_ne!(other, made);
}

#[tokio::test]
async fn registering_more_for_a_task_adds_to_it() {
    let mut world = World::new();
    let made = world.add(with_role("web", &["/web"])).await.unwrap();
    assert_eq!(world.add(at("web", &["/web-2"])).await.unwrap(), made);
    for cgroup in ["/web", "/web-2"] {
        assert_eq!(world.owner(cgroup).unwrap(), "web");
    }
    let other = Wanted {
        role_arn: Some("arn:other".to_owned()),
        ..at("web", &["/web"])
    };
    assert!(world.refused(other).await.contains("with another role"));
}

#[tokio::test]
async fn what_is_another_tasks_is_refused_with_the_reason() {
    let mut world = World::new();
    let configured = entry("/batch", "batch", "configured");
    world.registry.put(SourceKind::Config, configured).unwrap();
    world.add(with_id("web", &["/web"])).await.unwrap();
    assert_eq!(
        world.refused(at("other", &["/batch"])).await,
        "cgroup /batch belongs to task \"batch\" already, by config"
    );
    assert_eq!(
        world.refused(with_id("other", &["/web-2"])).await,
        "a credential ID named for it belongs to task \"web\" already"
    );
    let execution = Wanted {
        execution_ids: vec![id()],
        ..at("other", &["/web-2"])
    };
    assert!(world.refused(execution).await.contains("belongs to task \"web\""));
    assert_eq!((world.owner("/web-2"), world.has(&id())), (None, "web".to_owned()));
}

#[tokio::test]
async fn an_execution_roles_id_is_nobodys_also_if_a_container_claims_it() {
    let mut world = World::new();
    let claiming = entry("/docker/x", "claiming", ID);
    world.registry.put(SourceKind::Docker, claiming).unwrap();
    let execution = Wanted {
        execution_ids: vec![id()],
        ..at("web", &["/web"])
    };
    assert_eq!(world.add(execution).await.unwrap(), None);
    assert_eq!(world.has(&id()), "Execution");
    assert!(
        world
            .refused(with_id("batch", &["/batch"]))
            .await
            .contains("execution role's")
    );
}

#[tokio::test]
async fn what_a_container_was_merely_given_goes_to_whom_it_is_registered_for() {
    let mut world = World::new();
    let claiming = entry("/docker/x", "claiming", ID);
    world.registry.put(SourceKind::Docker, claiming).unwrap();
    world.add(with_id("web", &["/web"])).await.unwrap();
    assert_eq!(world.has(&id()), "web");
}

#[tokio::test]
async fn only_cgroups_that_exist_and_are_guarded_can_be_registered() {
    let mut world = World::new();
    for (path, problem) in [
        ("/nowhere", "there is no cgroup"),
        ("/", "no path of a cgroup"),
        ("web", "no path of a cgroup"),
        ("/web/../batch", "no path of a cgroup"),
        ("/system.slice/ssh.service", "is trusted"),
    ] {
        let refused = world.refused(at("web", &[path])).await;
        assert!(refused.contains(problem), "{refused}");
    }
    assert!(world.refused(at("web", &[])).await.contains("at least one"));
    assert!(world.refused(at("a\nb", &["/web"])).await.contains("control character"));
}

#[tokio::test]
async fn no_task_is_registered_under_a_containers_name_or_with_what_is_no_role() {
    let mut world = World::new();
    for name in ["docker/web", "oci/container/default/web", "kubernetes/shop/web/uid"] {
        let refused = world.refused(with_role(name, &["/web"])).await;
        assert!(refused.contains("take another one"), "{refused}");
    }
    for arn in ["", "a b", "a\n"] {
        let wanted = Wanted {
            role_arn: Some(arn.to_owned()),
            ..at("web", &["/web"])
        };
        let refused = world.refused(wanted).await;
        assert!(refused.contains("a role's ARN"), "{refused}");
    }
    assert_eq!(world.owner("/web"), None);
}

#[tokio::test]
async fn a_container_is_registered_by_the_cgroup_its_engine_gives_it() {
    let mut world = World::new();
    let of = |id: &str| Wanted {
        containers: vec![id.to_owned()],
        ..with_role("web", &[])
    };
    assert!(world.refused(of(CONTAINER)).await.contains("no source knows"));
    assert!(world.refused(of("0123")).await.contains("64 characters"));
    let mut known = entry("/web", "docker's", "other");
    known.id = CONTAINER.into();
    world.registry.put(SourceKind::Docker, known).unwrap();
    world.add(of(CONTAINER)).await.unwrap();
    assert_eq!(world.owner("/web").unwrap(), "web");
}

#[tokio::test]
async fn a_container_that_a_runtimes_file_was_found_of_is_registered_without_asking() {
    let mut world = World::new();
    let bundle = |name: &str| format!("/run/containerd/io.containerd.runtime.v2.task/default/{name}/config.json");
    for (cgroup, container) in [("/batch", "other"), ("/web", CONTAINER)] {
        let mut known = entry(cgroup, "oci's", "other");
        known.id = bundle(container).into();
        world.registry.put(SourceKind::Oci, known).unwrap();
    }
    let of_container = || Wanted {
        containers: vec![CONTAINER.to_owned()],
        ..at("web", &[])
    };
    world.add(of_container()).await.unwrap();
    assert_eq!(world.owner("/web").unwrap(), "web");
    world.registry.remove(SourceKind::Oci, &bundle(CONTAINER));
    assert!(world.refused(of_container()).await.contains("no source knows"));
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_hangs_is_waited_for_once_by_a_command() {
    let mut world = World::new();
    let socket = world.directory.path().join("docker.sock");
    let _hanging = UnixListener::bind(&socket).unwrap();
    let docker = Docker::new(DockerConfig {
        socket,
        states: Vec::new(),
        cgroup_parent: None,
        labels: false,
        endpoint: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 80),
        introspection: None,
    });
    world.registrations.sources = Arc::new([Source::Docker(Arc::new(docker))]);
    let until = world.registrations.deadline();
    for task in ["web", "batch"] {
        let wanted = Wanted {
            containers: vec![CONTAINER.to_owned()],
            ..at(task, &[])
        };
        let error = world.registrations.add(wanted, until, |_| false).await.unwrap_err();
        let asked = SourceKind::Docker;
        assert!(
            matches!(&error, RegistrationError::Late { asked: late, .. } if *late == asked),
            "{error}"
        );
    }
    assert!(until.elapsed() < WAIT / 2, "{:?}", until.elapsed());
}
