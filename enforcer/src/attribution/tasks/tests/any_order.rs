//! Whatever is said and taken back in whatever order, claims follow what is said.

use std::path::Path;

use proptest::{
    collection::vec,
    prelude::{Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest},
    sample::select,
};

use super::{container, holder, owner};
use crate::attribution::{Entry, SourceKind, Tasks, tests::entry};

const CGROUPS: [&str; 4] = ["/a", "/a/b", "/a/b/c", "/d"];
const IDS: [&str; 3] = ["id-1", "id-2", "id-3"];
const SOURCES: [SourceKind; 4] = [
    SourceKind::Registration,
    SourceKind::Config,
    SourceKind::Docker,
    SourceKind::Oci,
];

#[derive(Clone, Debug)]
enum Step {
    Put(SourceKind, Entry),
    Register(Entry),
    Remove(SourceKind, Entry),
    Sweep(&'static str),
}

fn said() -> impl Strategy<Value = Entry> {
    let cgroups = (select(&CGROUPS[..]), select(&CGROUPS[..]));
    let names = (select(&["one", "two"][..]), select(&IDS[..]), select(&IDS[..]));
    (cgroups, names, 0..3_i64).prop_map(|((first, second), (task, own, execution), created)| {
        let mut said = container(first, task, own, created);
        said.id = task.into();
        if first != second {
            let also = entry(second, "", "").cgroups[0].clone();
            said.cgroups = [said.cgroups[0].clone(), also].into();
        }
        if own != execution {
            said.execution_ids = entry("/", "", execution).credential_ids;
        }
        said
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (select(&SOURCES[..]), said()).prop_map(|(source, said)| Step::Put(source, said)),
        2 => said().prop_map(Step::Register),
        3 => (select(&SOURCES[..]), said()).prop_map(|(source, said)| Step::Remove(source, said)),
        1 => select(&CGROUPS[..]).prop_map(Step::Sweep),
    ]
}

proptest! {
    #[test]
    fn nothing_is_left_of_what_was_taken_back(steps in vec(step(), 1..24)) {
        let mut tasks = Tasks::default();
        for step in steps {
            match step {
                Step::Put(source, said) => drop(tasks.put(source, said)),
                Step::Register(said) => {
                    let (task, id) = (said.task.clone(), said.credential_ids[0].clone());
                    let is_new = !tasks.is_live(SourceKind::Registration, task.as_str());
                    if tasks.register(said).is_ok() && is_new {
                        // Unless its own engine says that it is an execution role's.
                        let holder = holder(&tasks, id.expose());
                        prop_assert!(holder == task.as_str() || holder == "execution", "{}", holder);
                    }
                }
                Step::Remove(source, said) => drop(tasks.remove(source, &said.id)),
                Step::Sweep(gone) => tasks.sweep(|cgroup| *cgroup.path == *Path::new(gone)),
            }
            for source in SOURCES {
                let live = tasks.said_by(source).filter(|said| !said.is_over).count();
                prop_assert_eq!(tasks.count(source), live);
            }
            for cgroup in CGROUPS {
                let is_said = SOURCES.iter().any(|source| tasks.is_said(*source, Path::new(cgroup)));
                prop_assert!(is_said || owner(&tasks, cgroup).is_none());
            }
        }
        for source in SOURCES {
            tasks.retain(source, |_| false);
        }
        prop_assert!(CGROUPS.iter().all(|cgroup| owner(&tasks, cgroup).is_none()));
        tasks.sweep(|_| true);
        prop_assert!(CGROUPS.iter().all(|cgroup| !tasks.knows(Path::new(cgroup))));
        prop_assert!(IDS.iter().all(|id| holder(&tasks, id) == "nobody"));
        prop_assert!(tasks.leaving().is_empty());
    }
}
