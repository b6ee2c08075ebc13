//! `enforcer selftest` on the scene's host: what a user runs.

use std::{collections::BTreeSet, fs};

use enforcer_tests::{attacker::techniques, scene::Scene};
use serde_json::Value;

use super::gap::Gap;

fn report(scene: &mut Scene) -> (Option<i32>, Value) {
    let output = scene.enforcer().run(["selftest", "--output", "json"]).unwrap();
    let report = serde_json::from_slice(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    (
        output.status.code(),
        report.unwrap_or_else(|error| panic!("no report: {error}\n{said}")),
    )
}

fn rows(report: &Value) -> Vec<&Value> {
    let modes = report["modes"].as_object().unwrap();
    modes.values().flat_map(|rows| rows.as_array().unwrap()).collect()
}

/// Mode and technique of what got through or left no record.
fn failures(report: &Value) -> Vec<(&str, &str)> {
    let failed = |row: &&Value| row["verdict"] == "leak" || row["verdict"] == "unrecorded";
    let modes = report["modes"].as_object().unwrap().iter();
    modes
        .flat_map(|(mode, rows)| {
            let failed = rows.as_array().unwrap().iter().filter(failed);
            failed.map(move |row| (mode.as_str(), row["technique"].as_str().unwrap()))
        })
        .collect()
}

#[test]
fn the_self_test_tries_everything_and_finds_no_leak() {
    let mut scene = Scene::builder().start().unwrap();
    let (code, report) = report(&mut scene);
    let rows = rows(&report);
    let gap = Gap::look(&mut scene);
    let (known, unknown): (Vec<_>, Vec<_>) = failures(&report)
        .into_iter()
        .partition(|(mode, technique)| gap.explains(mode, technique));
    assert!(unknown.is_empty(), "{unknown:?}");
    assert_eq!(code, Some(i32::from(!known.is_empty())));
    let tried: BTreeSet<_> = rows.iter().map(|row| row["technique"].as_str().unwrap()).collect();
    let all = techniques().unwrap();
    assert_eq!(tried, all.iter().map(|technique| technique.name.as_str()).collect());
    // From the place of a host service the same attempts do arrive, so the zeros mean something.
    let proven = rows.iter().filter(|row| row["control"].as_u64() > Some(0)).count();
    assert!(proven > 50, "only {proven} rows are proven");
}

#[test]
fn the_self_test_leaves_nothing() {
    let mut scene = Scene::builder().start().unwrap();
    report(&mut scene);
    let root = scene.directory().join("root");
    let left = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left
        .filter(|name| name.to_string_lossy().starts_with("enforcer-selftest"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_self_test_refuses_to_run_where_nothing_is_enforced() {
    let mut scene = Scene::builder().prepare().unwrap();
    let output = scene.enforcer().run(["selftest"]).unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("nothing is enforced"), "{said}");
}

#[test]
fn the_self_test_refuses_to_run_where_containers_are_only_observed() {
    let mut scene = Scene::builder().prepare().unwrap();
    let root = scene.name().join("root");
    let observed = format!("observe = [\"{}\"]\nguarded = []", root.display());
    scene.configure(|text| text.replace("guarded = []", &observed)).unwrap();
    scene.enforcer().start().unwrap();
    let output = scene.enforcer().run(["selftest"]).unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("is not blocked"), "{said}");
}
