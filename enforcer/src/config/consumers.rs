//! Consumers: trusted host services that fetch credentials which are not their own.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{CgroupPattern, InvalidConfig, raw, validate};
use crate::host::treatment::Consumer;

/// Where systemd has its services unless told otherwise.
const SERVICES: &str = "/system.slice";

/// Those there are unless told otherwise: name, units, and whether they get credentials of execution roles and of tasks.
const BUILT_IN: [(&str, &[&str], bool, bool); 2] = [
    // Its log driver writes to CloudWatch with the execution role.
    ("docker", &["docker.service"], true, false),
    // They mount EFS and S3 Files with the task's role.
    (
        "efs",
        &["amazon-ecs-volume-plugin.service", "amazon-efs-mount-watchdog.service"],
        false,
        true,
    ),
];

/// A consumer, and its cgroups.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Who it is, and what it may ask for.
    pub consumer: Arc<Consumer>,
    /// Where it is.
    pub cgroups: Vec<CgroupPattern>,
}

/// Validates consumers, and adds those that are built in. One that is written replaces a built-in of its name.
pub(super) fn consumers(written: Vec<raw::Consumer>) -> Result<Vec<Placed>, InvalidConfig> {
    let mut names = HashSet::new();
    for consumer in &written {
        if consumer.name.is_empty() || !names.insert(consumer.name.clone()) {
            return Err(invalid(&consumer.name, "a name is not empty, and one consumer's alone"));
        }
    }
    let built_in = BUILT_IN.iter().filter(|(name, ..)| !names.contains(*name));
    let built_in = built_in.map(|(name, units, execution, task)| raw::Consumer {
        name: (*name).to_owned(),
        cgroups: Vec::new(),
        units: units.iter().map(|unit| (*unit).to_owned()).collect(),
        allow: [(*execution, raw::Kind::Execution), (*task, raw::Kind::Task)]
            .into_iter()
            .filter_map(|(is_allowed, kind)| is_allowed.then_some(kind))
            .collect(),
    });
    let all = built_in.chain(written).filter(|consumer| !consumer.allow.is_empty());
    all.collect::<Vec<_>>().into_iter().map(placed).collect()
}

fn placed(written: raw::Consumer) -> Result<Placed, InvalidConfig> {
    let name = written.name;
    let mut cgroups = Vec::new();
    for unit in &written.units {
        if unit.contains('/') || !unit.ends_with(".service") {
            return Err(invalid(
                &name,
                "a unit is the name of a service, such as docker.service",
            ));
        }
        cgroups.push(CgroupPattern::exactly(&Path::new(SERVICES).join(unit)));
    }
    for pattern in written.cgroups {
        cgroups.push(parse(pattern)?);
    }
    if cgroups.is_empty() {
        return Err(invalid(&name, "it has neither cgroups nor units"));
    }
    let consumer = Consumer {
        name: name.into(),
        execution: written.allow.contains(&raw::Kind::Execution),
        task: written.allow.contains(&raw::Kind::Task),
    };
    Ok(Placed {
        consumer: Arc::new(consumer),
        cgroups,
    })
}

fn parse(pattern: PathBuf) -> Result<CgroupPattern, InvalidConfig> {
    const KEY: &str = "consumer.cgroups";
    let pattern = validate::in_mount(KEY, pattern)?;
    CgroupPattern::parse(pattern.clone()).map_err(|source| InvalidConfig::Pattern {
        key: KEY,
        pattern,
        source,
    })
}

fn invalid(name: &str, problem: &'static str) -> InvalidConfig {
    InvalidConfig::Consumer {
        consumer: name.to_owned(),
        problem,
    }
}
