//! `enforcer detach`: removes enforcement.

use std::process::ExitCode;

use anyhow::anyhow;
use tokio::runtime;
use tracing::info;

use crate::{
    bpf::Removal,
    config::load::{Flags, environment, load},
    host::{address, cgroupfs::CgroupFs, coverage},
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
        // Locked by an enforcer that still runs, and then nothing must be removed.
        let Some(pins) = Removal::begin(&config.pin_dir)? else {
            info!(pin_dir = %config.pin_dir.display(), "nothing is pinned here, so nothing is removed");
            return Ok(ExitCode::SUCCESS);
        };
        let cgroups = CgroupFs::find(config.cgroups.root.as_deref())?;
        let root = config.cgroups.root.as_deref().unwrap_or_else(|| cgroups.mount());
        coverage::detach(&cgroups, root)?;
        // The pins go last: as long as they are there, this can be done again.
        runtime.block_on(address::remove(config.endpoint.address))?;
        pins.finish()?;
        info!("nothing is guarded any more");
        Ok(ExitCode::SUCCESS)
    }
}
