//! `enforcer mode`: has the running enforcer block, or only record.

use std::process::ExitCode;

use crate::{
    bpf::Mode,
    config::load::{Flags, environment, load},
    control::{Command, ask},
};

#[derive(Debug, clap::Args)]
pub(super) struct SetMode {
    /// enforce or observe, until the next reload or start
    mode: Mode,
    #[command(flatten)]
    flags: Flags,
}

// === impl SetMode ===

impl SetMode {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let config = load(&self.flags, &environment)?;
        ask(&config.control_socket, &Command::Mode { mode: self.mode })?;
        tracing::info!(mode = self.mode.name(), "switched");
        Ok(ExitCode::SUCCESS)
    }
}
