//! `lab engine`: makes the mounts a container engine expects, in a mount namespace of its own, and becomes the engine.

use std::{ffi::OsString, os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result, anyhow};

use crate::cgroup;

/// Runs the command line; returns only if that fails.
pub fn run(command_line: &[OsString]) -> Result<()> {
    let (program, arguments) = command_line.split_first().context("there is no engine to run")?;
    cgroup::mount_alone()?;
    let error = Command::new(program).args(arguments).exec();
    Err(anyhow!(error).context(format!("cannot run {}", program.display())))
}
