//! What a reload may not change.

use std::fs;

use super::fixed_keys;
use crate::config::{
    Config,
    load::{Flags, Variables, load},
};

fn config(text: &str) -> Config {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("enforcer.toml");
    fs::write(&file, text).unwrap();
    let flags = Flags {
        config: Some(file),
        ..Flags::default()
    };
    load(&flags, &Variables::default).unwrap()
}

#[test]
fn the_agent_that_tells_whose_containers_are_stays_the_same() {
    let embedded = config("");
    let ecs = config("[endpoint]\nupstream = \"ecs-agent\"");
    let moved = config("[endpoint]\nupstream = \"ecs-agent\"\nagent = \"127.0.0.2:51679\"");
    assert_eq!(fixed_keys(&embedded, &ecs), ["endpoint.upstream"]);
    assert_eq!(fixed_keys(&ecs, &embedded), ["endpoint.upstream"]);
    assert_eq!(fixed_keys(&ecs, &moved), ["endpoint.agent"]);
    assert_eq!(fixed_keys(&ecs, &ecs), [""; 0]);
}

#[test]
fn where_nobody_asks_the_agent_it_may_change() {
    let without_sources = "[sources.docker]\nenabled = false\n[sources.oci]\nenabled = false\n";
    let embedded = config(without_sources);
    let ecs = config(&format!("{without_sources}[endpoint]\nupstream = \"ecs-agent\""));
    assert_eq!(fixed_keys(&embedded, &ecs), [""; 0]);
}
