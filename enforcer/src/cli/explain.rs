//! `enforcer explain`: what would be decided, and why, by the running enforcer.

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
};

use anyhow::anyhow;

use super::{Format, print_json, printable};
use crate::{
    config::load::{Flags, environment, load},
    control::{
        Command, ask,
        explain::{Decided, Explanation, Question, Who},
        task::Secret,
    },
};

#[derive(Debug, clap::Args)]
#[group(id = "who", required = true, multiple = false, args = ["pid", "cgroup"])]
pub(super) struct Explain {
    /// About this process
    #[arg(long)]
    pid: Option<i32>,
    /// About a process of this cgroup, a path within the cgroup2 mount, in the host's network namespace
    #[arg(long, value_name = "PATH")]
    cgroup: Option<PathBuf>,
    /// What if it made a TCP connection to there?
    #[arg(long, value_name = "ADDR:PORT")]
    to: Option<SocketAddr>,
    /// What if it asked the credential endpoint for this, such as /v2/credentials/self?
    #[arg(long)]
    path: Option<String>,
    #[command(flatten)]
    flags: Flags,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

// === impl Explain ===

impl Explain {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let who = match (self.pid, self.cgroup) {
            (Some(pid), _) => Who::Pid(pid),
            (None, cgroup) => Who::Cgroup(cgroup.unwrap_or_default()),
        };
        let question = Question {
            who,
            to: self.to,
            path: self.path.map(Secret),
        };
        let config = load(&self.flags, &environment)?;
        let told = ask(&config.control_socket, &Command::Explain { question })?;
        let explanation: Explanation = serde_json::from_value(told)
            .map_err(|error| anyhow!("the running enforcer is of another version: {error}"))?;
        let mut stdout = io::stdout().lock();
        match self.output {
            Format::Text => print(&mut stdout, &explanation)?,
            Format::Json => print_json(&mut stdout, &explanation)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print(output: &mut impl Write, explanation: &Explanation) -> io::Result<()> {
    let Explanation {
        cgroup,
        cgroup_id,
        is_guarded,
        is_observed,
        may_use,
        task,
        consumer,
        known_from,
        connection,
        request,
    } = explanation;
    let class = if *is_guarded { "guarded" } else { "trusted" };
    let observed = if *is_observed { ", only observed" } else { "" };
    writeln!(
        output,
        "cgroup      {} (ID {cgroup_id}): {class}{observed}",
        printable(cgroup)
    )?;
    let sources: Vec<_> = known_from.iter().map(|source| source.name()).collect();
    match task {
        Some(task) => writeln!(
            output,
            "task        {}, known from {}",
            printable(task),
            sources.join(" and ")
        )?,
        None => writeln!(output, "task        none that any source knows")?,
    }
    if let Some(consumer) = consumer {
        writeln!(output, "consumer    {consumer}")?;
    }
    if !may_use.is_empty() {
        writeln!(output, "may use     {}", may_use.join(" "))?;
    }
    for (name, decided) in [("connection", connection), ("request", request)] {
        if let Some(Decided { verdict, reason }) = decided {
            writeln!(output, "{name:<11} {verdict}: {reason}")?;
        }
    }
    Ok(())
}
