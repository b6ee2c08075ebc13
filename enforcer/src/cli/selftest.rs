//! `enforcer selftest`: every known bypass, tried on this host.

use std::{
    io::{self, Write as _},
    net::SocketAddrV4,
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;

use super::{Format, print_json};
use crate::{
    app::INTROSPECTION_PORT,
    bpf::{Mode, Pinned},
    config::{
        Upstream,
        load::{Flags, environment, load},
    },
    host::cgroupfs::CgroupFs,
    selftest::{Installed, child, report::Report, run, technique::TECHNIQUES},
};

/// Something got through, or nobody took notice of it.
const FAILED: u8 = 1;
/// It could not be run.
const NOT_RUN: u8 = 2;

#[derive(Debug, clap::Args)]
pub(super) struct Selftest {
    #[command(flatten)]
    flags: Flags,
    /// How to print the matrix
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Only list the techniques
    #[arg(long)]
    list: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct SelftestChild {
    /// Absolute path of the cgroup to enter
    #[arg(long)]
    cgroup: Option<PathBuf>,
    /// File of the network namespace to enter
    #[arg(long)]
    network: Option<PathBuf>,
}

// === impl Selftest ===

impl Selftest {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        if self.list {
            self.print_techniques()?;
            return Ok(ExitCode::SUCCESS);
        }
        match self.run() {
            Ok(report) => {
                self.print(&report)?;
                let code = if report.has_failed() { FAILED } else { 0 };
                Ok(code.into())
            }
            Err(error) => {
                tracing::error!("the self-test could not run: {error:#}");
                Ok(NOT_RUN.into())
            }
        }
    }

    fn run(&self) -> anyhow::Result<Report> {
        let config = load(&self.flags, &environment)?;
        let enforced = Pinned::open(&config.pin_dir)?.filter(|pinned| pinned.mode == Mode::Enforce);
        let pinned = enforced.with_context(|| {
            format!(
                "nothing is enforced with the pins in {}: start `enforcer run`, not in observe mode",
                config.pin_dir.display()
            )
        })?;
        let agent_ports = match config.upstream {
            Upstream::Embedded(_) => Vec::new(),
            Upstream::EcsAgent {
                address,
                introspection_blocked: true,
            } => vec![address.port(), INTROSPECTION_PORT],
            Upstream::EcsAgent { address, .. } => vec![address.port()],
        };
        if !config.cgroups.observe.is_empty() {
            tracing::warn!("containers below the roots in `cgroups.observe` are not blocked, whatever is found here");
        }
        let cgroups = CgroupFs::find(config.cgroups.root.as_deref())?;
        let own_cgroup = cgroups.absolute(&cgroups.own()?);
        let cgroup_root = config.cgroups.root.unwrap_or_else(|| cgroups.mount().to_owned());
        Ok(run(&Installed {
            cgroup_mount: cgroups.mount().to_owned(),
            cgroup_root,
            own_cgroup,
            endpoint: SocketAddrV4::new(config.endpoint.address, config.endpoint.port),
            steer_ports: [config.endpoint.steer_port, config.endpoint.packet_steer_port],
            agent_ports,
            pinned,
        })?)
    }

    fn print(&self, report: &Report) -> anyhow::Result<()> {
        let mut stdout = io::stdout().lock();
        match self.output {
            Format::Text => report.print(&mut stdout)?,
            Format::Json => print_json(&mut stdout, report)?,
        }
        Ok(())
    }

    fn print_techniques(&self) -> anyhow::Result<()> {
        let mut stdout = io::stdout().lock();
        match self.output {
            Format::Text => {
                for technique in TECHNIQUES {
                    writeln!(stdout, "{:<22} {}", technique.name, technique.what)?;
                }
            }
            Format::Json => print_json(&mut stdout, TECHNIQUES)?,
        }
        Ok(())
    }
}

// === impl SelftestChild ===

impl SelftestChild {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        child::run(self.cgroup.as_deref(), self.network.as_deref()).context("the self-test's child failed")?;
        Ok(ExitCode::SUCCESS)
    }
}
