//! The command line.

mod check;
mod detach;
mod explain;
mod mode;
mod reload;
mod run;
mod selftest;
mod status;
mod task;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand, ValueEnum};
use serde::Serialize;

use crate::telemetry::Way;

/// Keeps instance and task credentials from containers that do not own them.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Guard this host until stopped; enforcement stays in place after that
    Run(run::Run),
    /// Tell what this host offers and lacks; exits with 0 only if `run` would work
    Check(check::Check),
    /// Tell how it goes; exits with 0 only if every hook is attached, blocks, and the service answers
    Status(status::Status),
    /// Tell what would be decided about a connection or a request, and why
    Explain(explain::Explain),
    /// Register tasks, and tell what is known of them
    Task(task::Task),
    /// Have the running enforcer read its configuration again
    Reload(reload::Reload),
    /// Have the running enforcer block what is refused, or only record it
    Mode(mode::SetMode),
    /// Remove hooks, pins and the endpoint's address
    Detach(detach::Detach),
    /// Try every known bypass against the installed enforcer, in a throwaway container; exits with 0 only without a leak
    Selftest(selftest::Selftest),
    /// Make the self-test's attempts on command
    #[command(hide = true)]
    SelftestChild(selftest::SelftestChild),
}

/// How what is told is printed.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

// === impl Cli ===

impl Cli {
    /// How its log gets to who reads it.
    #[must_use]
    pub const fn log(&self) -> Way {
        match self.command {
            Command::Run(_) => Way::Behind,
            Command::Check(_)
            | Command::Status(_)
            | Command::Explain(_)
            | Command::Task(_)
            | Command::Reload(_)
            | Command::Mode(_)
            | Command::Detach(_)
            | Command::Selftest(_)
            | Command::SelftestChild(_) => Way::Direct,
        }
    }

    /// Does what was asked for.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Run(run) => run.execute(),
            Command::Check(check) => check.execute(),
            Command::Status(status) => status.execute(),
            Command::Explain(explain) => explain.execute(),
            Command::Task(task) => task.execute(),
            Command::Reload(reload) => reload.execute(),
            Command::Mode(mode) => mode.execute(),
            Command::Detach(detach) => detach.execute(),
            Command::Selftest(selftest) => selftest.execute(),
            Command::SelftestChild(child) => child.execute(),
        }
    }
}

/// A text of somebody else's, such as the name of a cgroup, on one line and without what a terminal would obey.
fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            // They do no harm, and names of systemd's have many of them.
            '"' | '\'' | '\\' => printable.push(character),
            other => printable.extend(other.escape_debug()),
        }
    }
    printable
}

/// Prints for programs.
fn print_json(output: &mut impl Write, what: &(impl Serialize + ?Sized)) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *output, what)?;
    writeln!(output)
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn a_name_cannot_command_the_terminal_or_pass_for_another_line() {
        for (name, shown) in [
            (r"/system.slice/a\x2db.service", r"/system.slice/a\x2db.service"),
            ("/ü", "/ü"),
            ("a\nhealthy", r"a\nhealthy"),
            ("\u{1b}]0;title\u{7}", r"\u{1b}]0;title\u{7}"),
            ("\u{9b}2J\u{7f}", r"\u{9b}2J\u{7f}"),
            ("\u{202e}gpj", r"\u{202e}gpj"),
        ] {
            assert_eq!(printable(name), shown);
        }
    }
}
