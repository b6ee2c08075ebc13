//! `enforcer run`: the service.

use std::process::ExitCode;

use anyhow::anyhow;
use tokio::runtime;

use crate::{
    app::{
        self, Launch,
        preflight::{own_cgroup, registrations},
        sockets::{Offered, inherited},
    },
    audit::check_output,
    bpf::Prepared,
    config::load::{Flags, environment, load},
    control,
    host::cgroupfs::CgroupFs,
};

#[derive(Debug, clap::Args)]
pub(super) struct Run {
    #[command(flatten)]
    flags: Flags,
    /// Decide and record, but block nothing
    #[arg(long)]
    observe: bool,
    /// Take the place of the running enforcer: its listening sockets, and with them whoever waits for an answer
    #[arg(long)]
    take_over: bool,
}

// === impl Run ===

impl Run {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let flags = Flags {
            observe: self.observe,
            ..self.flags
        };
        let config = load(&flags, &environment)?;
        let (offered, prepared) = if self.take_over {
            // Once the other one has let go, nobody serves until this one does: what takes long or can fail comes before.
            own_cgroup(&CgroupFs::find(config.cgroups.root.as_deref())?)?;
            check_output(&config.audit.output)?;
            registrations(&config)?;
            let prepared = Prepared::load(&config.pin_dir)?;
            let sockets = control::take_over(&config.control_socket)?;
            (Offered::ByPredecessor(sockets), Some(prepared))
        } else {
            (Offered::ByManager(inherited()), None)
        };
        let launch = Launch {
            flags,
            config,
            offered,
            prepared,
        };
        let runtime = runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| anyhow!("cannot start the runtime: {error}"))?;
        let ended = runtime.block_on(app::run(launch));
        // Everything is stopped and told. Reading a credentials file may hang on its file system; nobody waits for that.
        runtime.shutdown_background();
        ended?;
        Ok(ExitCode::SUCCESS)
    }
}
