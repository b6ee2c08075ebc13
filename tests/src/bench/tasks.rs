//! What many tasks cost: how fast the real enforcer learns of 10,000 of them, from whomever, and how much memory it needs.

use std::{
    fs,
    ops::Sub,
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{AUDIT_FILE, Spread, say};
use crate::{cgroup, programs, scene::Scene, stub::Stub};

/// How many tasks there are, and containers of each that an engine tells of.
const TASKS: u32 = 10_000;
const CONTAINERS: u32 = 3;

/// How many containers start and stop in a second.
const CHURN: u32 = 200;

/// What the service may need besides [`KIB_PER_TASK`].
const MIB: f64 = 20.0;
const KIB_PER_TASK: f64 = 1.0;

/// How long something may take before it counts as not happening at all, and how often one looks.
const PATIENCE: Duration = Duration::from_mins(2);
const PAUSE: Duration = Duration::from_millis(20);

/// How long it takes at most until the enforcer gives back memory that it does not need any more.
const REST: Duration = Duration::from_secs(32);

/// What the enforcer logs when it has learned of all there are.
const DOCKER: &str = "following the Docker engine";
const OCI: &str = "containers of OCI runtimes found";

/// Where OCI runtimes keep containers, in the scene.
const BUNDLES: &str = "/run/containerd/io.containerd.runtime.v2.task/bench";

pub(super) fn measure(rounds: u32, churn_seconds: u32) -> Result<()> {
    docker(rounds, churn_seconds)?;
    registration()?;
    oci(rounds)
}

/// The engine is a stub that has every answer at hand, so that the time is the enforcer's.
fn docker(rounds: u32, churn_seconds: u32) -> Result<()> {
    let mut scene = Scene::builder().audit_to(AUDIT_FILE).prepare()?;
    let lab = programs::directory()?.join("lab");
    let mut stub = Stub::start(&lab, &scene.path("/run/docker.sock"))?;
    start(&mut scene, DOCKER, 0)?;
    let without = memory(&mut scene)?;
    scene.enforcer().terminate()?;
    stub.fill(TASKS, CONTAINERS)?;
    let containers = TASKS * CONTAINERS;
    let mut lists = Vec::new();
    for _ in 0..rounds {
        lists.push(start(&mut scene, DOCKER, containers)?);
        if lists.len() < usize::try_from(rounds)? {
            scene.enforcer().terminate()?;
        }
    }
    say(&format!(
        "\n{TASKS} tasks with {CONTAINERS} containers each, of an engine that answers from memory"
    ))?;
    row("learning of all of them, ms", &Spread::of(lists).text(0), "<= 1000")?;
    row("resident memory without any, MiB", &without.text(), "")?;
    row(
        "resident memory with all of them, MiB",
        &memory(&mut scene)?.text(),
        &target(),
    )?;

    let ecs = tasks(&mut scene)?.len();
    stub.churn(CHURN, churn_seconds)?;
    let names = stub.names()?;
    let expected: Vec<_> = names.iter().map(|name| format!("docker/{name}")).collect();
    let began = Instant::now();
    let passing = loop {
        let mut passing = tasks(&mut scene)?;
        passing.retain(|task| {
            task["task"]
                .as_str()
                .is_some_and(|name| name.starts_with("docker/passing-"))
        });
        let is_right = |task: &Value| task["granted"] == 1 && task["refused"] == 0 && task["leaving"] == false;
        if passing.len() == expected.len() && passing.iter().all(is_right) || began.elapsed() > PATIENCE {
            break passing;
        }
        sleep(PAUSE);
    };
    let is_told = |name: &String| passing.iter().any(|task| task["task"] == name.as_str());
    let missed = expected.iter().filter(|name| !is_told(name)).count();
    let stale = (passing.len() + missed).sub(expected.len());
    let refused = passing.iter().filter(|task| task["granted"] != 1).count();
    say(&format!(
        "  after {churn_seconds} s of {CHURN} container starts and stops per second, with {ecs} other tasks"
    ))?;
    row("containers missed", &missed.to_string(), "0")?;
    row(
        "tasks that are still there without a container",
        &stale.to_string(),
        "0",
    )?;
    row("tasks without their own credential ID", &refused.to_string(), "0")?;
    row("resident memory, MiB", &memory(&mut scene)?.text(), &target())
}

/// Tasks that somebody registers for cgroups that are there.
fn registration() -> Result<()> {
    let mut scene = Scene::builder().audit_to(AUDIT_FILE).start()?;
    let mut lines = String::new();
    for (number, cgroup) in (0..).zip(make_cgroups(&scene)?) {
        let task = json!({
            "task": format!("arn:aws:ecs:us-west-2:111122223333:task/bench/{number:032x}"), "cgroups": [cgroup],
            "credential-ids": [format!("00000000-0000-4000-8000-{number:012x}")],
            "role-arn": format!("arn:aws:iam::111122223333:role/bench-{}", number % 100),
        });
        lines = lines + &task.to_string() + "\n";
    }
    fs::write(scene.path("/run/tasks.json"), lines).context("cannot write the tasks")?;
    let began = Instant::now();
    let added = scene
        .enforcer()
        .run(["task", "add", "--from", "/run/tasks.json", "-o", "json"])?;
    let took = began.elapsed();
    ensure!(
        added.status.success(),
        "tasks are not registered: {}",
        String::from_utf8_lossy(&added.stderr)
    );
    let registered = tasks(&mut scene)?.len();
    say(&format!(
        "\n{registered} tasks that are registered with `enforcer task add`"
    ))?;
    row("registering them, ms", &took.as_millis().to_string(), "<= 1000")?;
    row("resident memory, MiB", &memory(&mut scene)?.text(), &target())
}

/// Containers of an OCI runtime, whose files are in memory.
fn oci(rounds: u32) -> Result<()> {
    let mut scene = Scene::builder().audit_to(AUDIT_FILE).prepare()?;
    for (number, cgroup) in (0..).zip(make_cgroups(&scene)?) {
        let directory = scene.path(&format!("{BUNDLES}/{number:064x}"));
        fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let spec = spec(number, &cgroup).to_string();
        fs::write(directory.join("config.json"), spec).context("cannot write a bundle")?;
    }
    let mut scans = Vec::new();
    for _ in 0..rounds {
        scans.push(start(&mut scene, OCI, TASKS)?);
        if scans.len() < usize::try_from(rounds)? {
            scene.enforcer().terminate()?;
        }
    }
    say(&format!("\n{TASKS} containers of an OCI runtime"))?;
    row("finding all of them, ms", &Spread::of(scans).text(0), "<= 1000")?;
    row("resident memory, MiB", &memory(&mut scene)?.text(), &target())
}

/// A container's configuration, in size and form as containerd writes it.
fn spec(number: u32, cgroup: &Path) -> Value {
    let settings = (0..12).map(|setting| format!("BENCH_SETTING_{setting}=a value of usual length, number {setting}"));
    let uri = format!("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=/v2/credentials/00000000-0000-4000-8000-{number:012x}");
    let capabilities: Vec<_> = (0..14)
        .map(|capability| format!("CAP_OF_USUAL_LENGTH_{capability}"))
        .collect();
    let mount = |at: &u32| {
        json!({"destination": format!("/mount/{at}"), "type": "tmpfs", "source": "tmpfs",
               "options": ["nosuid", "noexec", "nodev", "mode=755", "size=65536k"]})
    };
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0}, "args": ["/usr/local/bin/app"], "cwd": "/", "noNewPrivileges": true,
            "env": settings.chain([uri]).collect::<Vec<_>>(),
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        },
        "root": {"path": "rootfs"}, "mounts": (0..10).collect::<Vec<_>>().iter().map(mount).collect::<Vec<_>>(),
        "annotations": {"nerdctl/name": format!("bench-{number}")},
        "linux": {"cgroupsPath": cgroup, "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "mount"}]},
    })
}

/// Makes a cgroup for each task, and tells where they are in the hierarchy.
fn make_cgroups(scene: &Scene) -> Result<Vec<PathBuf>> {
    let parent = scene.engine_cgroup();
    let mount = cgroup::mount()?;
    let cgroups: Vec<_> = (0..TASKS).map(|number| parent.join(format!("{number:032x}"))).collect();
    for path in &cgroups {
        cgroup::create(&mount.join(path.strip_prefix("/").unwrap_or(path)))?;
    }
    Ok(cgroups)
}

/// Starts the enforcer, and tells how many milliseconds it says that it took until it knew so many containers.
fn start(scene: &mut Scene, message: &str, containers: u32) -> Result<f64> {
    let wanted = format!("containers={containers}");
    let earlier = scene.enforcer().log().len();
    scene.enforcer().start()?;
    let began = Instant::now();
    loop {
        let log = scene.enforcer().log();
        let log = log.get(earlier..).unwrap_or_default();
        let is_it = |line: &&str| line.contains(message) && line.split(' ').any(|field| field == wanted);
        if let Some(line) = log.lines().find(is_it) {
            let took = line.split(' ').find_map(|field| field.strip_prefix("milliseconds="));
            return took
                .context("it does not say how long it took")?
                .parse()
                .context("that is no time");
        }
        ensure!(
            began.elapsed() < PATIENCE,
            "the enforcer does not know {containers} containers; its log:\n{log}"
        );
        sleep(PAUSE);
    }
}

fn tasks(scene: &mut Scene) -> Result<Vec<Value>> {
    let listed = scene.enforcer().run(["task", "list", "-o", "json"])?;
    serde_json::from_slice(&listed.stdout).context("that is no list of tasks")
}

/// What the enforcer has in memory, in KiB.
struct Memory {
    now: f64,
    /// What of it is not the program's and its libraries' files, nor the kernel's ring buffers, which count twice.
    own: f64,
    most: f64,
}

// === impl Memory ===

impl Memory {
    fn text(&self) -> String {
        let [now, own, most] = [self.now, self.own, self.most].map(|figure| figure / 1024.0);
        format!("{now:.1} ({own:.1} its own; at most {most:.1})")
    }
}

/// What it has in memory at rest: now and then it gives back what it does not need any more.
fn memory(scene: &mut Scene) -> Result<Memory> {
    sleep(REST);
    let path = format!("/proc/{}/status", scene.enforcer().pid()?);
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let figure = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let figure = line.and_then(|line| line.split_whitespace().next());
        figure
            .and_then(|figure| figure.parse().ok())
            .with_context(|| format!("{path} has no {name}"))
    };
    Ok(Memory {
        now: figure("VmRSS:")?,
        own: figure("RssAnon:")?,
        most: figure("VmHWM:")?,
    })
}

fn target() -> String {
    format!("<= {:.1}", MIB + f64::from(TASKS) * KIB_PER_TASK / 1024.0)
}

fn row(what: &str, figure: &str, target: &str) -> Result<()> {
    say(&format!("  {what:<48} {figure:<40} {target}"))
}
