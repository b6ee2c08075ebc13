//! `enforcer reload`: has the running enforcer read its configuration again.

use std::process::ExitCode;

use crate::{
    config::load::{Flags, environment, load},
    control::{Command, ask},
};

#[derive(Debug, clap::Args)]
pub(super) struct Reload {
    #[command(flatten)]
    flags: Flags,
}

// === impl Reload ===

impl Reload {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        // This one's configuration only says where the socket is; the running enforcer reads its own.
        let config = load(&self.flags, &environment)?;
        ask(&config.control_socket, &Command::Reload)?;
        tracing::info!("the running enforcer goes by the configuration as it is now");
        Ok(ExitCode::SUCCESS)
    }
}
