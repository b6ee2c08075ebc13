//! `enforcer status`: what is attached and blocked, and how the service goes. Works also when no service runs: hooks and
//! counters are the kernel's.

use std::{
    io::{self, Write},
    os::unix::fs::MetadataExt as _,
    process::ExitCode,
};

use serde::Serialize;

use super::{Format, print_json, printable};
use crate::{
    attribution::{SourceState, SourceStatus},
    bpf::{self, AttachedTo, HookStatus, Kernel, Mode, Pinned},
    config::{
        Config,
        load::{Flags, environment, load},
    },
    control::{self, report::Report},
    host::cgroupfs::CgroupFs,
};

/// How many reasons for passing something over are printed of a source.
const REASONS: usize = 5;

#[derive(Debug, clap::Args)]
pub(super) struct Status {
    #[command(flatten)]
    flags: Flags,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Everything there is to tell.
#[derive(Debug, Serialize)]
struct Whole {
    /// Whether all is as it should be.
    healthy: bool,
    /// What is not.
    problems: Vec<String>,
    hooks: Vec<HookStatus>,
    /// None if nothing is pinned.
    kernel: Option<Kernel>,
    /// None if no service answers.
    service: Option<Report>,
}

// === impl Status ===

impl Status {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let whole = Whole::look(&load(&self.flags, &environment)?)?;
        let mut stdout = io::stdout().lock();
        match self.output {
            Format::Text => whole.print(&mut stdout)?,
            Format::Json => print_json(&mut stdout, &whole)?,
        }
        Ok(if whole.healthy {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

// === impl Whole ===

impl Whole {
    fn look(config: &Config) -> anyhow::Result<Self> {
        let mut problems = Vec::new();
        let cgroups = CgroupFs::find(config.cgroups.root.as_deref())?;
        let root = config.cgroups.root.as_deref().unwrap_or_else(|| cgroups.mount());
        let hooks = bpf::status(&config.pin_dir)?;
        let missing = bpf::missing_hooks(root.metadata()?.ino(), &hooks);
        if !missing.is_empty() {
            let (missing, root) = (missing.join(", "), root.display());
            problems.push(format!(
                "hooks not attached to {root}: {missing}; `enforcer run` attaches them"
            ));
        }
        let kernel = Pinned::open(&config.pin_dir)?.map(|maps| maps.read()).transpose()?;
        if kernel.as_ref().is_some_and(|kernel| kernel.mode == Mode::Observe) {
            problems.push("nothing is blocked, only recorded: the mode is observe".to_owned());
        }
        let service = match service(config) {
            Ok(report) => Some(report),
            Err(error) => {
                problems.push(format!("no credentials are served: {error}"));
                None
            }
        };
        Ok(Self {
            healthy: problems.is_empty(),
            problems,
            hooks,
            kernel,
            service,
        })
    }

    fn print(&self, output: &mut impl Write) -> io::Result<()> {
        writeln!(output, "{}", if self.healthy { "healthy" } else { "NOT healthy" })?;
        for problem in &self.problems {
            writeln!(output, "  {}", printable(problem))?;
        }
        if let Some(service) = &self.service {
            print_service(output, service)?;
        }
        writeln!(
            output,
            "\n{:<18} {:<34} {:>8} {:>9} {:>12}  pin",
            "hook", "attached to", "program", "age", "runs"
        )?;
        for hook in &self.hooks {
            let place = match hook.attached_to {
                AttachedTo::Cgroup(id) => format!("cgroup {id}"),
                AttachedTo::Device { namespace, index } => format!("device {index} of namespace {namespace}"),
            };
            let runs = hook.run_count.map_or_else(|| "-".to_owned(), |runs| runs.to_string());
            let (age, program, pin) = (hook.age.as_secs(), hook.program_id, hook.pin.display());
            writeln!(
                output,
                "{:<18} {place:<34} {program:>8} {age:>7} s {runs:>12}  {pin}",
                hook.hook
            )?;
        }
        let Some(kernel) = &self.kernel else {
            return writeln!(output, "\nnothing is pinned");
        };
        writeln!(output, "\n{:<24} {:>12}", "counter", "so far")?;
        for (name, value) in &kernel.counters {
            writeln!(output, "{name:<24} {value:>12}")?;
        }
        Ok(())
    }
}

fn service(config: &Config) -> anyhow::Result<Report> {
    let told = control::ask(&config.control_socket, &control::Command::Status)?;
    Ok(serde_json::from_value(told)?)
}

fn print_service(output: &mut impl Write, service: &Report) -> io::Result<()> {
    let Report {
        version,
        pid,
        mode,
        listening,
        upstream,
        host,
        guarded,
        observed,
        protected,
        consumers,
        sources,
        tasks,
        conflicts,
        unclaimed,
        unclaimed_first,
        classified,
        cgroups: _,
        audit,
    } = service;
    writeln!(
        output,
        "  service            {version}, pid {pid}, mode {mode}, upstream {upstream}"
    )?;
    let listening: Vec<_> = listening.iter().map(ToString::to_string).collect();
    for (name, list) in [
        ("listening", &listening),
        ("blocked", protected),
        ("host cgroups", host),
        ("guarded below", guarded),
        ("only observed", observed),
        ("consumers", consumers),
    ] {
        writeln!(output, "  {name:<18} {}", list.join(" "))?;
    }
    writeln!(output, "  cgroups            {classified} that something is said about")?;
    writeln!(
        output,
        "  audit records      {} emitted, {} delivered, {} dropped; {} events lost in the kernel",
        audit.emitted, audit.delivered, audit.dropped, audit.ring
    )?;
    writeln!(
        output,
        "  tasks              {tasks}; {conflicts} claims of credential IDs refused (`enforcer task list`)"
    )?;
    for source in sources {
        writeln!(output, "  source {:<11} {}", source.source.name(), state(source))?;
        for line in passed_over(source) {
            writeln!(output, "    {line}")?;
        }
    }
    if *unclaimed > 0 {
        writeln!(
            output,
            "  guarded, and without credentials because no source knows them: {unclaimed}"
        )?;
        for cgroup in unclaimed_first {
            writeln!(output, "    {}", printable(cgroup))?;
        }
    }
    Ok(())
}

fn state(source: &SourceStatus) -> String {
    let containers = source.containers;
    match &source.state {
        SourceState::Ready => format!("ready, {containers} containers"),
        SourceState::Absent => "not on this host".to_owned(),
        SourceState::Retrying { since, error } => {
            format!(
                "no answer since {since:.0}, {containers} containers known before: {}",
                printable(error)
            )
        }
    }
}

/// What of a source is passed over, and why. The names in it are those of others.
fn passed_over(source: &SourceStatus) -> impl Iterator<Item = String> {
    let count = source.passed_over.len();
    let first = (count > 0).then(|| format!("at least {count} files or directories are passed over:"));
    let reasons = source.passed_over.iter().take(REASONS);
    first
        .into_iter()
        .chain(reasons.map(|reason| format!("  {}", printable(reason))))
}

#[cfg(test)]
mod tests {
    use super::{SourceState, SourceStatus, passed_over};
    use crate::attribution::SourceKind;

    #[test]
    fn what_a_source_passes_over_is_told_and_names_in_it_change_no_terminal() {
        let status = |passed_over| SourceStatus {
            source: SourceKind::Oci,
            state: SourceState::Ready,
            containers: 0,
            passed_over,
        };
        assert_eq!(passed_over(&status(Vec::new())).count(), 0);
        let lines: Vec<_> = passed_over(&status(vec!["/run/\u{1b}[2J is open".to_owned(); 9])).collect();
        assert_eq!(lines.len(), 6);
        assert!(
            lines[0].contains('9') && lines[1].contains(r"/run/\u{1b}[2J is open"),
            "{lines:?}"
        );
    }
}
