//! `enforcer run`: the service.

use std::process::ExitCode;

use anyhow::anyhow;
use tokio::runtime;

use crate::{
    app,
    config::load::{Flags, environment, load},
};

#[derive(Debug, clap::Args)]
pub(super) struct Run {
    #[command(flatten)]
    flags: Flags,
}

// === impl Run ===

impl Run {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let config = load(&self.flags, &environment)?;
        let runtime = runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| anyhow!("cannot start the runtime: {error}"))?;
        let ended = runtime.block_on(app::run(&config));
        // Everything is stopped and told. Reading a credentials file may hang on its file system; nobody waits for that.
        runtime.shutdown_background();
        ended?;
        Ok(ExitCode::SUCCESS)
    }
}
