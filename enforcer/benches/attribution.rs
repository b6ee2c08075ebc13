//! What attribution costs with 10,000 tasks of three containers each: how long their statements take, and what it takes to
//! tell whose a cgroup is. `cargo xtask bench` prints it before what it measures on the running kernel.

use std::{
    hint::black_box,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use enforcer::{
    attribution::{Attributed, Attributor, Cgroup, CgroupPaths, Entry, Fact, Places, Registry, SourceKind, TaskName},
    host::cgroupfs::CgroupError,
    policy::CredentialId,
};
use enforcer_common::{
    handshake::{Handshake, state},
    identity::Identity,
};
use jiff::Timestamp;
use tokio::time::Instant;

const TASKS: u64 = 10_000;
const CONTAINERS: u64 = 3;

/// The cgroup tree: container number `n` has ID `n + 1`.
#[derive(Debug)]
struct Tree;

impl CgroupPaths for Tree {
    fn path_of(&self, id: u64) -> Result<Option<PathBuf>, CgroupError> {
        Ok(id.checked_sub(1).map(path))
    }

    fn id_of(&self, _path: &Path) -> Result<Option<u64>, CgroupError> {
        Ok(None)
    }
}

fn main() -> anyhow::Result<()> {
    let mut stdout = io::stdout();
    let registry = Arc::new(Registry::default());
    let entries = (0..TASKS * CONTAINERS).map(entry).collect();
    let taken_in = time(|| registry.put_all(SourceKind::Docker, entries));
    let again = (0..TASKS * CONTAINERS).map(entry).collect();
    let nothing_new = time(|| registry.put_all(SourceKind::Docker, again));
    writeln!(
        stdout,
        "Attribution with {TASKS} tasks of {CONTAINERS} containers each\n"
    )?;
    writeln!(
        stdout,
        "  {:<52} {:>12}",
        "taking in what a source says of all of them",
        millis(taken_in)
    )?;
    writeln!(
        stdout,
        "  {:<52} {:>12}",
        "the same when nothing has changed",
        millis(nothing_new)
    )?;

    let attributor = Attributor::new(Tree, Arc::clone(&registry), Places::default());
    writeln!(
        stdout,
        "\n  {:<52} {:>12} {:>12}   target",
        "telling whose a connection is", "ns", "allocations"
    )?;
    for (what, change, target) in [
        ("of a cgroup that was not known yet", false, ""),
        ("of a known cgroup", false, "0 allocations"),
        ("of a known cgroup, after a change elsewhere", true, "0 allocations"),
    ] {
        if change {
            registry.put(SourceKind::Docker, entry(TASKS * CONTAINERS))?;
        }
        let mut took = Duration::ZERO;
        let allocations = allocation_counter::measure(|| took = time(|| attribute_all(&attributor)));
        let each = took.as_nanos() / u128::from(TASKS * CONTAINERS);
        let allocations = allocations.count_total.div_ceil(TASKS * CONTAINERS);
        writeln!(stdout, "  {what:<52} {each:>12} {allocations:>12}   {target}")?;
    }
    Ok(())
}

fn attribute_all(attributor: &Attributor) {
    for number in 0..TASKS * CONTAINERS {
        let handshake = Handshake {
            identity: Identity {
                cgroup_id: number + 1,
                socket_cgroup_id: number + 1,
                ..Identity::default()
            },
            state: state::CONFIRMED,
            reserved: 0,
        };
        let attributed = black_box(attributor.attribute(Some(&handshake)));
        assert!(matches!(attributed, Attributed::Task(_)), "{attributed:?}");
    }
}

/// What Docker's source says of a container of an ECS task.
fn entry(number: u64) -> Entry {
    let task = number / CONTAINERS;
    Entry {
        id: format!("{number:064x}").into(),
        task: TaskName::new(&format!("arn:aws:ecs:us-west-2:111122223333:task/bench/{task:032x}")),
        cgroups: [Cgroup {
            path: path(number).into(),
            id: None,
        }]
        .into(),
        created: Timestamp::UNIX_EPOCH,
        credential_ids: [CredentialId::requested(&format!("00000000-0000-4000-8000-{task:012x}"))].into(),
        execution_ids: [].into(),
        role_arn: None,
        facts: [
            (Fact::Container, format!("ecs-bench-1-app-{number:020x}").into()),
            (Fact::NetworkMode, "bridge".into()),
        ]
        .into(),
    }
}

fn path(number: u64) -> PathBuf {
    let task = number / CONTAINERS;
    format!("/ecstasks.slice/ecstasks-{task:032x}.slice/docker-{number:064x}.scope").into()
}

fn time(act: impl FnOnce()) -> Duration {
    let began = Instant::now();
    act();
    began.elapsed()
}

fn millis(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}
