//! `enforcer detach`: removes enforcement.

use std::process::ExitCode;

use anyhow::anyhow;
use tokio::runtime;
use tracing::info;

use crate::{
    bpf,
    config::load::{Flags, environment, load},
    host::{address, links},
};

#[derive(Debug, clap::Args)]
pub(super) struct Detach {
    #[command(flatten)]
    flags: Flags,
}

// === impl Detach ===

impl Detach {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let config = load(&self.flags, &environment)?;
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| anyhow!("cannot start the runtime: {error}"))?;
        // First the pins: they are locked by an enforcer that still runs, and then nothing must be removed.
        if !bpf::detach(&config.pin_dir)? {
            info!(pin_dir = %config.pin_dir.display(), "nothing is pinned here, so nothing is removed");
            return Ok(ExitCode::SUCCESS);
        }
        for interface in runtime.block_on(links::container_interfaces())? {
            bpf::detach_interface(&interface)?;
        }
        runtime.block_on(address::remove(config.endpoint.address))?;
        info!("nothing is guarded any more");
        Ok(ExitCode::SUCCESS)
    }
}
