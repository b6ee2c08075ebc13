//! `enforcer check`: what this host offers and lacks.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use super::{Format, print_json, printable};
use crate::{
    app::preflight::{Finding, Problem, State, check, finding},
    config::load::{Flags, environment, load},
};

#[derive(Debug, clap::Args)]
pub(super) struct Check {
    #[command(flatten)]
    flags: Flags,
    /// How to print the findings
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

// === impl Check ===

impl Check {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let findings = self.findings();
        let mut stdout = io::stdout().lock();
        match self.output {
            Format::Text => print(&mut stdout, &findings)?,
            Format::Json => print_json(&mut stdout, &findings)?,
        }
        let fine = findings.iter().all(|finding| finding.state < State::Fail);
        Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn findings(&self) -> Vec<Finding> {
        const NAME: &str = "configuration";
        match load(&self.flags, &environment) {
            Ok(config) => {
                let valid = finding(NAME, Ok(format!("{} tasks", config.tasks.len())));
                let host = check(&config);
                std::iter::once(valid).chain(host).collect()
            }
            Err(error) => vec![finding(NAME, Err(Problem::told(&error)))],
        }
    }
}

fn print(output: &mut impl Write, findings: &[Finding]) -> io::Result<()> {
    for Finding {
        name,
        state,
        means,
        advice,
    } in findings
    {
        let mark = match state {
            State::Ok => "ok  ",
            State::Warn => "warn",
            State::Fail => "FAIL",
        };
        writeln!(output, "{mark}  {name:<18} {}", printable(means))?;
        if let Some(advice) = advice {
            writeln!(output, "      {:<18} -> {}", "", printable(advice))?;
        }
    }
    Ok(())
}
