//! ECS: tasks of an agent, whose containers are made as it makes them, in cgroups as it makes them, and told of as it
//! tells of them.

use anyhow::Result;
use enforcer_tests::{
    actor::{Actor, Attempt, DatagramStyle},
    agent::{Agent, AgentTask},
    cgroup,
    docker::{Container, Docker, Iptables},
    scene::{Scene, credential_id},
    topology::{BRIDGE_V4, IMDS},
};
use nix::errno::Errno;

use crate::REFUSAL;

/// What the credentials of every task begin with; then comes its own.
const CREDENTIALS: &str =
    r#"{"RoleArn":"arn:aws:iam::111122223333:role/app","AccessKeyId":"ASIALAB","SecretAccessKey":"lab","Token":"#;

/// The service that fetches credentials for log drivers.
const ENGINE: &str = r#"
[[consumer]]
name = "engine"
cgroups = ["/host/engine"]
allow = ["execution"]
"#;

/// A host with an enforcer in front of an agent, and with an engine.
struct Host {
    agent: Agent,
    docker: Docker,
    scene: Scene,
}

/// A task of the agent.
struct Task {
    arn: String,
    credential_id: String,
    credentials: String,
    /// Its cgroup's path.
    cgroup: String,
    /// The IDs of its containers, and of those that the agent does not list.
    containers: Vec<String>,
    internal: Vec<String>,
}

/// Who makes a container with a task's labels.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Maker {
    /// The agent, for the task's definition.
    Agent,
    /// The agent, for itself.
    AgentForItself,
    /// The agent, as part of a task that it tells nobody of.
    AgentInSecret,
    /// Somebody else.
    Forger,
}

// === impl Host ===

impl Host {
    fn start() -> Self {
        let mut scene = Scene::builder()
            .in_front_of_ecs_agent()
            .with_cgroups_of_its_own()
            .prepare()
            .unwrap();
        scene
            .configure(|text| text.replace("host = [", r#"host = ["/ecs-agent/*", "#) + ENGINE)
            .unwrap();
        cgroup::create(&scene.trusted().join("engine")).unwrap();
        scene.enforcer().start().unwrap();
        Self {
            agent: scene.on_host(Agent::start).unwrap(),
            docker: Docker::start(&scene, Iptables::Nft).unwrap(),
            scene,
        }
    }

    /// A task with a role, which the agent has credentials for.
    fn task(&mut self, id: &str) -> Task {
        let task = Task::with_arn(&format!("arn:aws:ecs:us-west-2:111122223333:task/shop/{id}"), id);
        self.agent.know(&task.as_known()).unwrap();
        task
    }

    /// A container with a task's labels and credential ID, in the task's cgroup.
    fn run(&mut self, task: &mut Task, name: &str, options: &[&str], maker: Maker) -> Container {
        let parent = format!("--cgroup-parent={}", task.cgroup);
        self.run_anywhere(task, name, &[options, &[&*parent]].concat(), maker)
    }

    /// One in the engine's own cgroup.
    fn run_anywhere(&mut self, task: &mut Task, name: &str, options: &[&str], maker: Maker) -> Container {
        let claim = task.claim();
        let labels = task.labels();
        let mut made: Vec<_> = labels.iter().map(String::as_str).collect();
        made.extend([&*claim].iter().chain(options));
        let agent = &mut self.agent;
        let tell = |id: &str| -> Result<()> {
            match maker {
                Maker::Agent => task.containers.push(id.to_owned()),
                Maker::AgentForItself => task.internal.push(id.to_owned()),
                Maker::AgentInSecret | Maker::Forger => return Ok(()),
            }
            agent.know(&task.as_known())
        };
        self.docker.run_once_known(name, &made, tell).unwrap()
    }
}

// === impl Task ===

impl Task {
    fn with_arn(arn: &str, id: &str) -> Self {
        let credential_id = credential_id().unwrap();
        Self {
            arn: arn.to_owned(),
            credentials: format!(r#"{CREDENTIALS}"{id}","Expiration":"2099-01-02T03:04:05Z"}}"#),
            credential_id,
            cgroup: format!("/ecs/{id}"),
            containers: Vec::new(),
            internal: Vec::new(),
        }
    }

    fn as_known(&self) -> AgentTask {
        AgentTask {
            arn: self.arn.clone(),
            containers: self.containers.clone(),
            internal: self.internal.clone(),
            unaware: 0,
            credential_id: self.credential_id.clone(),
            credentials: self.credentials.clone(),
        }
    }

    fn path(&self) -> String {
        format!("/v2/credentials/{}", self.credential_id)
    }

    fn claim(&self) -> String {
        format!("--env=AWS_CONTAINER_CREDENTIALS_RELATIVE_URI={}", self.path())
    }

    fn labels(&self) -> [String; 5] {
        [
            format!("--label=com.amazonaws.ecs.task-arn={}", self.arn),
            "--label=com.amazonaws.ecs.container-name=app".to_owned(),
            "--label=com.amazonaws.ecs.task-definition-family=fam".to_owned(),
            "--label=com.amazonaws.ecs.task-definition-version=7".to_owned(),
            "--label=com.amazonaws.ecs.cluster=shop".to_owned(),
        ]
    }
}

#[track_caller]
fn assert_gets(container: &mut Actor, task: &Task) {
    let answer = container.get(&task.path()).unwrap();
    assert_eq!((answer.status, answer.body_text()), (200, task.credentials.clone()));
}

#[track_caller]
fn assert_is_refused(container: &mut Actor, task: &Task) {
    assert_eq!(container.get(&task.path()).unwrap().body_text(), REFUSAL);
}

#[test]
fn all_containers_of_a_task_share_its_credentials_and_others_do_not() {
    let mut host = Host::start();
    let mut shop = host.task("0123456789abcdef0123456789abcdef");
    let mut bank = host.task("fedcba9876543210fedcba9876543210");
    let mut app = host.run(&mut shop, "ecs-fam-7-app", &["--network=bridge"], Maker::Agent);
    let mut sidecar = host.run(&mut shop, "ecs-fam-7-sidecar", &["--network=host"], Maker::Agent);
    let mut other = host.run(&mut bank, "ecs-fam-7-other", &["--network=host"], Maker::Agent);
    for member in [&mut app, &mut sidecar] {
        assert_gets(member, &shop);
        assert_is_refused(member, &bank);
    }
    assert_gets(&mut other, &bank);
    assert_is_refused(&mut other, &shop);
}

#[test]
fn containers_in_the_network_of_a_pause_container_are_still_their_own_tasks() {
    let mut host = Host::start();
    let mut shop = host.task("0123456789abcdef0123456789abcdef");
    let mut bank = host.task("fedcba9876543210fedcba9876543210");
    let network = ["--network=bridge"];
    let mut pause = host.run(&mut shop, "internal-ecs-pause", &network, Maker::AgentForItself);
    let joined = ["--network=container:internal-ecs-pause"];
    let mut app = host.run(&mut shop, "ecs-fam-7-app", &joined, Maker::Agent);
    let mut guest = host.run(&mut bank, "ecs-fam-7-guest", &joined, Maker::Agent);
    for member in [&mut pause, &mut app] {
        assert_gets(member, &shop);
    }
    assert_gets(&mut guest, &bank);
    assert_is_refused(&mut guest, &shop);
}

#[test]
fn tasks_that_the_agent_makes_for_itself_are_known_by_their_cgroups() {
    let mut host = Host::start();
    let id = "service-connect-relay-d8f91d60-f0c6-4160-b32b-3f61089b625a";
    let mut relay = Task::with_arn(&format!("arn:::::/{id}"), id);
    host.agent.know(&relay.as_known()).unwrap();
    let network = ["--network=host"];
    let mut container = host.run(&mut relay, "relay", &network, Maker::AgentInSecret);
    assert_gets(&mut container, &relay);
    let mut forger = host.run_anywhere(&mut relay, "forger", &network, Maker::Forger);
    assert_is_refused(&mut forger, &relay);
}

#[test]
fn where_tasks_have_no_cgroups_the_agent_tells_whose_a_container_is() {
    let mut host = Host::start();
    let mut shop = host.task("0123456789abcdef0123456789abcdef");
    let mut app = host.run_anywhere(&mut shop, "ecs-fam-7-app", &["--network=bridge"], Maker::Agent);
    assert_gets(&mut app, &shop);
}

#[test]
fn a_task_id_with_dashes_is_told_by_the_agent_wherever_its_slices_are() {
    let mut host = Host::start();
    let id = "d8f91d60-f0c6-4160-b32b-3f61089b625a";
    let mut shop = host.task(id);
    // As systemd nests slices: one for each dash.
    let dashes = id.match_indices('-').map(|(at, _)| at).chain([id.len()]);
    let slices = dashes.fold("/ecstasks.slice".to_owned(), |path, end| {
        format!("{path}/ecstasks-{}.slice", &id[..end])
    });
    let parent = format!("--cgroup-parent={slices}");
    let options = ["--network=host", &*parent];
    let mut app = host.run_anywhere(&mut shop, "ecs-fam-7-app", &options, Maker::Agent);
    let cgroup = cgroup::of_process(app.pid()).unwrap();
    assert!(
        cgroup.starts_with(host.scene.root().join(slices.trim_start_matches('/'))),
        "{}",
        cgroup.display()
    );
    assert_gets(&mut app, &shop);
}

#[test]
fn forged_labels_of_a_task_give_nothing_of_it_in_its_cgroup_either() {
    let mut host = Host::start();
    let mut shop = host.task("0123456789abcdef0123456789abcdef");
    let mut app = host.run(&mut shop, "ecs-fam-7-app", &["--network=bridge"], Maker::Agent);
    assert_gets(&mut app, &shop);
    let mut forger = host.run(&mut shop, "forger", &["--network=bridge"], Maker::Forger);
    assert_is_refused(&mut forger, &shop);
    assert_gets(&mut app, &shop);
    let alarm = host
        .scene
        .audit()
        .wait_for(|record| record.source == "attribution" && record.reason.as_deref() == Some("forged"))
        .unwrap();
    assert_eq!(alarm.task.as_deref(), Some("docker/forger"));
}

#[test]
fn the_engine_gets_a_log_drivers_credentials_before_the_container_starts() {
    let mut host = Host::start();
    let mut shop = host.task("0123456789abcdef0123456789abcdef");
    let execution = Task::with_arn("arn:aws:ecs:us-west-2:111122223333:task/shop/execution", "execution");
    host.agent.know(&execution.as_known()).unwrap();
    let (labels, parent) = (shop.labels(), format!("--cgroup-parent={}", shop.cgroup));
    let endpoint = format!("--log-opt=awslogs-credentials-endpoint={}", execution.path());
    let log = [
        "--log-driver=awslogs",
        "--log-opt=awslogs-region=us-west-2",
        "--log-opt=awslogs-group=shop",
    ];
    let labels: Vec<_> = labels.iter().map(String::as_str).collect();
    let id = host
        .docker
        .create(&[&labels[..], &log, &[&endpoint, &parent]].concat())
        .unwrap();
    shop.containers.push(id);
    let is_told_late = AgentTask {
        unaware: 5,
        ..shop.as_known()
    };
    host.agent.know(&is_told_late).unwrap();
    let (cgroup, network) = (host.scene.trusted().join("engine"), host.scene.host_network());
    let mut engine = host.scene.start(&cgroup, network, BRIDGE_V4, Actor::start).unwrap();
    assert_gets(&mut engine, &execution);
}

#[test]
fn the_agents_own_container_is_the_hosts() {
    let mut host = Host::start();
    let mut shop = host.task("0123456789abcdef0123456789abcdef");
    let options = ["--cgroup-parent=/ecs-agent"];
    let mut agent = host.docker.run_named("ecs-agent", "host", &options).unwrap();
    let mut app = host.run(&mut shop, "ecs-fam-7-app", &["--network=host"], Maker::Agent);
    // Nothing answers: the lab's metadata service is not on this host.
    for (container, attempt) in [(&mut agent, Attempt::Done), (&mut app, Attempt::Refused(Errno::EPERM))] {
        assert_eq!(container.datagram(IMDS, DatagramStyle::Unconnected).unwrap(), attempt);
    }
}
