//! Where the programs are that a scene runs, and what else the environment says of a test run.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// Names the directory of the programs, if they are not beside the test.
const OVERRIDE: &str = "ENFORCER_TEST_BIN_DIR";

/// Says how often the hammer test is to act.
const HAMMER_ACTIONS: &str = "ENFORCER_TEST_HAMMER_ACTIONS";

/// Says how slow the machine is.
const SLOWNESS: &str = "ENFORCER_TEST_SLOWNESS";

/// Says how many containers are to start in a row.
const STARTS: &str = "ENFORCER_TEST_STARTS";

/// Whether a person wants to look around in a failed scene before it goes: set, with a terminal on standard input.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "how a test run is called is said by its environment"
)]
pub fn failed_scenes_are_held() -> bool {
    env::var_os("ENFORCER_LAB_HOLD").is_some()
}

/// How often the enforcer is interfered with under load: 200 times, or what the environment says. Emulated machines, where
/// a start takes seconds, say less.
pub fn hammer_actions() -> Result<u32> {
    number(HAMMER_ACTIONS, 200)
}

/// How many times as long as usual everything may take: once, or what the environment says. Emulated machines say more.
pub fn slowness() -> Result<u32> {
    number(SLOWNESS, 1)
}

/// How many containers a real engine starts in a row: 10, or what the environment says.
pub fn container_starts() -> Result<u32> {
    number(STARTS, 10)
}

#[expect(
    clippy::disallowed_methods,
    reason = "how a test run is called is said by its environment"
)]
fn number(variable: &str, usual: u32) -> Result<u32> {
    match env::var(variable) {
        Ok(number) => number
            .parse()
            .with_context(|| format!("{variable}={number} is no number")),
        Err(_) => Ok(usual),
    }
}

/// The directory that holds `lab` and `enforcer`: what the environment says, or where Cargo puts them relative to the
/// running program, be that a test (`deps/`) or `lab` itself.
#[expect(
    clippy::disallowed_methods,
    reason = "how a test run is called is said by its environment"
)]
pub fn directory() -> Result<PathBuf> {
    if let Some(directory) = env::var_os(OVERRIDE) {
        return Ok(directory.into());
    }
    let current = env::current_exe().context("cannot find the running program")?;
    current
        .ancestors()
        .skip(1)
        .take(2)
        .find(|directory| directory.join("lab").is_file())
        .map(Path::to_owned)
        .with_context(|| format!("no `lab` program beside {}; set {OVERRIDE}", current.display()))
}
