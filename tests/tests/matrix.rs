//! The matrix: every technique of the enforcer's own table in every network mode. First without the enforcer, which
//! shows that the technique works there, then with it, and then nothing may arrive and everything must be recorded.
//!
//! Each cell goes to standard output as a line that `cargo xtask test` makes the project's table from.

#![cfg(test)]

/// The directory beside this file.
mod matrix {
    pub(super) mod cell;
    mod fence;
    mod gap;
    pub(super) mod mode;
    mod selftest;
    pub(super) mod spot;
    mod status;
    mod together;
}

use anyhow::Result;
use enforcer_tests::scene::{Builder, Scene};
use matrix::{cell, mode, spot::Spot};

#[test]
fn nothing_gets_past_from_a_bridge() {
    check("bridge", Scene::builder(), mode::bridge);
}

#[test]
fn nothing_gets_past_from_the_host_network() {
    check("host", Scene::builder(), mode::host);
}

#[test]
fn nothing_gets_past_to_the_agents_own_ports() {
    let scene = Scene::builder().in_front_of_ecs_agent();
    check_some("host", scene, mode::host_with_agent, |technique| {
        !cell::needs_no_agent(technique)
    });
}

#[test]
fn nothing_gets_past_from_a_network_card_of_its_own() {
    check("awsvpc", Scene::builder(), mode::awsvpc);
}

#[test]
fn nothing_gets_past_from_a_network_without_links() {
    check("none", Scene::builder(), mode::none);
}

#[test]
fn nothing_gets_past_from_another_containers_network() {
    check("container", Scene::builder(), mode::container);
}

#[test]
fn nothing_gets_past_by_a_second_interface() {
    check("second interface", Scene::builder(), mode::second_interface);
}

/// Tries everything from one place.
fn check(mode: &str, scene: Builder, settle: impl FnOnce(&Scene) -> Result<Spot>) {
    check_some(mode, scene, settle, cell::needs_no_agent);
}

/// The same for some techniques.
fn check_some(
    mode: &str,
    scene: Builder,
    settle: impl FnOnce(&Scene) -> Result<Spot>,
    is_wanted: impl Fn(&str) -> bool,
) {
    let mut scene = cell::prepare(scene);
    let spot = settle(&scene).unwrap();
    cell::check(mode, &mut scene, spot, is_wanted);
}
