//! `enforcer task`: the registration API from the shell, and what is known of tasks.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::anyhow;
use clap::Subcommand;
use serde::de::DeserializeOwned;

use super::{Format, print_json, printable};
use crate::{
    config::load::{Flags, environment, load},
    control::{
        Command, MAX_COMMAND, ask,
        task::{Added, Details, Holder, NewTask, Secret, Statement, Summary},
    },
};

/// How many bytes of tasks are registered with one command to the enforcer; the rest is for what is around them.
const AT_ONCE: usize = MAX_COMMAND - 1024;

#[derive(Debug, clap::Args)]
pub(super) struct Task {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Register a task, or more of one that is; prints what its containers get as `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`
    ///
    /// This is the one place where a credential ID is printed: whoever registers a task has to tell its containers. No
    /// other command prints one, because whoever learns it could try to use it; where a task's IDs are told apart, it is
    /// by the start of their keyed hash, as in the audit feed.
    Add(Add),
    /// Take the registration of a task back; its credential IDs are nobody else's as long as its cgroups exist
    Remove(Remove),
    /// List all tasks there are, and who knows them
    List(List),
    /// Tell everything about a task: what is said by whom, and whose the credential IDs are that it claims
    Show(Show),
}

#[derive(Debug, clap::Args)]
struct Add {
    /// Name of the task
    #[arg(required_unless_present = "from")]
    task: Option<String>,
    /// A cgroup of it, as a path within the cgroup2 mount; what is below belongs to it too
    #[arg(long = "cgroup", value_name = "PATH")]
    cgroups: Vec<PathBuf>,
    /// A container of it, by its full ID
    #[arg(long = "container", value_name = "ID")]
    containers: Vec<String>,
    /// A credential ID of it; other users of the host can see arguments, so better use --from
    #[arg(long = "credential-id", value_name = "ID")]
    credential_ids: Vec<String>,
    /// Its role; without a credential ID, one is made
    #[arg(long, value_name = "ARN")]
    role_arn: Option<String>,
    /// The credential ID of its execution role, which its engine may use and the task may not
    #[arg(long = "execution-id", value_name = "ID")]
    execution_ids: Vec<String>,
    /// Register the tasks of this file ("-" is standard input): JSON objects with the keys `task`, `cgroups`, `containers`,
    /// `credential-ids`, `role-arn` and `execution-ids`, one after the other
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "task", "cgroups", "containers", "credential_ids", "role_arn", "execution_ids"
    ])]
    from: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct Remove {
    /// Name of the task
    task: String,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// Name of the task
    task: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct Common {
    #[command(flatten)]
    flags: Flags,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

// === impl Task ===

impl Task {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        match self.action {
            Action::Add(add) => add.execute(),
            Action::Remove(Remove { task, flags }) => {
                let config = load(&flags, &environment)?;
                ask(&config.control_socket, &Command::TaskRemove { task })?;
                Ok(ExitCode::SUCCESS)
            }
            Action::List(List { common }) => {
                let tasks: Vec<Summary> = common.told(&Command::TaskList)?;
                common.print(&tasks, |output| print_list(output, &tasks))
            }
            Action::Show(Show { task, common }) => {
                let details: Details = common.told(&Command::TaskShow { task })?;
                common.print(&details, |output| print_details(output, &details))
            }
        }
    }
}

// === impl Add ===

impl Add {
    fn execute(self) -> anyhow::Result<ExitCode> {
        let secrets = |ids: Vec<String>| ids.into_iter().map(Secret).collect();
        let tasks = match (&self.from, self.task) {
            (Some(from), _) => read(from)?,
            (None, task) => vec![NewTask {
                task: task.unwrap_or_default(),
                cgroups: self.cgroups,
                containers: self.containers,
                credential_ids: secrets(self.credential_ids),
                role_arn: self.role_arn,
                execution_ids: secrets(self.execution_ids),
            }],
        };
        let is_one = self.from.is_none();
        let (added, errors) = add_all(chunks(tasks, AT_ONCE)?, |tasks| {
            self.common.told(&Command::TaskAdd { tasks })
        });
        print_warnings(&mut io::stderr().lock(), &added)?;
        self.common
            .print(&added, |output| print_added(output, &added, is_one))?;
        if errors.is_empty() {
            Ok(ExitCode::SUCCESS)
        } else {
            Err(anyhow!("not registered: {}", errors.join("\n")))
        }
    }
}

// === impl Common ===

impl Common {
    fn told<T: DeserializeOwned>(&self, command: &Command) -> anyhow::Result<T> {
        let config = load(&self.flags, &environment)?;
        let told = ask(&config.control_socket, command)?;
        serde_json::from_value(told).map_err(|error| anyhow!("the running enforcer is of another version: {error}"))
    }

    fn print(
        &self,
        what: &impl serde::Serialize,
        text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> anyhow::Result<ExitCode> {
        let mut stdout = io::stdout().lock();
        match self.output {
            Format::Text => text(&mut stdout)?,
            Format::Json => print_json(&mut stdout, what)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn read(from: &Path) -> anyhow::Result<Vec<NewTask>> {
    let mut text = String::new();
    let read = if from == Path::new("-") {
        io::stdin().read_to_string(&mut text).map(drop)
    } else {
        fs::read_to_string(from).map(|read| text = read)
    };
    let name = from.display();
    read.map_err(|error| anyhow!("cannot read {name}: {error}"))?;
    let tasks = serde_json::Deserializer::from_str(&text).into_iter();
    let tasks: Result<_, _> = tasks.collect();
    tasks.map_err(|error| anyhow!("{name} is no list of tasks: {error}"))
}

/// Tasks in commands of a length that the enforcer takes. A task that is longer by itself is refused there.
fn chunks(tasks: Vec<NewTask>, length: usize) -> Result<Vec<Vec<NewTask>>, serde_json::Error> {
    let mut chunks = Vec::new();
    let (mut chunk, mut left) = (Vec::new(), length);
    for task in tasks {
        let needed = serde_json::to_vec(&task)?.len() + ",".len();
        if needed > left && !chunk.is_empty() {
            chunks.push(std::mem::take(&mut chunk));
            left = length;
        }
        left = left.saturating_sub(needed);
        chunk.push(task);
    }
    chunks.extend((!chunk.is_empty()).then_some(chunk));
    Ok(chunks)
}

/// Registers tasks, command by command. Tells what came of those that were answered, and what went wrong: after a command
/// that fails there is no other, but credential IDs that were made before it are told nowhere else.
fn add_all(
    chunks: Vec<Vec<NewTask>>,
    mut add: impl FnMut(Vec<NewTask>) -> anyhow::Result<Vec<Added>>,
) -> (Vec<Added>, Vec<String>) {
    let mut added = Vec::new();
    let mut failed = None;
    for tasks in chunks {
        let first = tasks.first().map(|task| task.task.clone()).unwrap_or_default();
        match add(tasks) {
            Ok(mut told) => added.append(&mut told),
            Err(error) => {
                failed = Some(format!("{first} and what follows it: {error:#}"));
                break;
            }
        }
    }
    let refused = |added: &Added| Some(format!("{}: {}", added.task, added.error.as_deref()?));
    let errors = added.iter().filter_map(refused).chain(failed).collect();
    (added, errors)
}

fn print_added(output: &mut dyn Write, added: &[Added], is_one: bool) -> io::Result<()> {
    for added in added {
        match &added.relative_uri {
            Some(Secret(uri)) if is_one => writeln!(output, "{uri}")?,
            Some(Secret(uri)) => writeln!(output, "{} {uri}", added.task)?,
            None => {}
        }
    }
    Ok(())
}

fn print_warnings(output: &mut dyn Write, added: &[Added]) -> io::Result<()> {
    for added in added {
        if let Some(warning) = &added.warning {
            writeln!(output, "warning: {}: {warning}", printable(&added.task))?;
        }
    }
    Ok(())
}

/// What follows a role.
const fn mark(no_credentials: bool) -> &'static str {
    if no_credentials { " NO CREDENTIALS" } else { "" }
}

fn print_list(output: &mut dyn Write, tasks: &[Summary]) -> io::Result<()> {
    writeln!(
        output,
        "{:<40} {:<20} {:>10} {:>8}  {:<20} role",
        "task", "known from", "containers", "cgroups", "credential IDs"
    )?;
    for task in tasks {
        let sources: Vec<_> = task.sources.iter().map(|source| source.name()).collect();
        let claims = match (task.leaving, task.granted, task.refused) {
            (true, ..) => "leaving".to_owned(),
            (false, 0, 0) => "-".to_owned(),
            (false, granted, 0) => format!("{granted} own"),
            (false, granted, refused) => format!("{granted} own, {refused} REFUSED"),
        };
        writeln!(
            output,
            "{:<40} {:<20} {:>10} {:>8}  {claims:<20} {}{}",
            printable(&task.task),
            sources.join(","),
            task.containers,
            task.cgroups,
            printable(task.role_arn.as_deref().unwrap_or("-")),
            mark(task.no_credentials)
        )?;
    }
    Ok(())
}

fn print_details(output: &mut dyn Write, details: &Details) -> io::Result<()> {
    writeln!(output, "{}", printable(&details.task))?;
    for said in &details.said {
        print_statement(output, &details.task, said)?;
    }
    for claim in &details.claims {
        let whose = match &claim.holder {
            Holder::Own => "its own".to_owned(),
            Holder::Task(other) => format!("REFUSED: it is that of {}", printable(other)),
            Holder::Execution => "REFUSED: it is an execution role's".to_owned(),
        };
        writeln!(output, "  credential #{}: {whose}", claim.credential)?;
        if !claim.refused.is_empty() {
            writeln!(
                output,
                "    also claimed, and refused, by {}",
                printable(&claim.refused.join(", "))
            )?;
        }
    }
    Ok(())
}

fn print_statement(output: &mut dyn Write, task: &str, said: &Statement) -> io::Result<()> {
    let leaving = if said.leaving { ", taken back" } else { "" };
    writeln!(
        output,
        "  {} says of {}{leaving}, since {}:",
        said.source,
        printable(&said.id),
        said.created
    )?;
    if said.named != task {
        writeln!(
            output,
            "    task {}, which something more reliable overrules",
            printable(&said.named)
        )?;
    }
    for (path, id) in &said.cgroups {
        let id = id.map_or_else(String::new, |id| format!(" (only the one with ID {id})"));
        writeln!(output, "    cgroup {}{id}", printable(path))?;
    }
    if let Some(role_arn) = &said.role_arn {
        writeln!(output, "    role {}{}", printable(role_arn), mark(said.no_credentials))?;
    }
    for (fact, value) in &said.facts {
        writeln!(output, "    {fact} {}", printable(value))?;
    }
    writeln!(
        output,
        "    {} credential IDs, {} of execution roles",
        said.credential_ids, said.execution_ids
    )
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::{AT_ONCE, Added, Command, MAX_COMMAND, NewTask, Secret, add_all, chunks};

    #[test]
    fn what_was_registered_before_a_command_failed_is_told() {
        let task = |name: &str| NewTask {
            task: name.to_owned(),
            ..NewTask::default()
        };
        let commands = ["web", "bad", "batch", "late"].map(|name| vec![task(name)]);
        let (added, errors) = add_all(commands.into(), |tasks| {
            let name = &*tasks[0].task;
            assert_ne!(name, "late", "nothing is registered after a failure");
            if name == "batch" {
                return Err(anyhow!("no answer"));
            }
            Ok(vec![Added {
                task: name.to_owned(),
                relative_uri: Some(Secret("/v2/credentials/made".to_owned())),
                error: (name == "bad").then(|| "no cgroup".to_owned()),
                warning: None,
            }])
        });
        let told: Vec<_> = added.iter().map(|added| &*added.task).collect();
        assert_eq!(told, ["web", "bad"]);
        assert_eq!(errors, ["bad: no cgroup", "batch and what follows it: no answer"]);
    }

    #[test]
    fn no_command_is_longer_than_the_enforcer_takes() {
        let task = |number: usize| NewTask {
            task: format!("{number}"),
            cgroups: vec!["/x".repeat(number).into()],
            ..NewTask::default()
        };
        let tasks: Vec<_> = (0..2000).map(task).collect();
        let chunks = chunks(tasks.clone(), AT_ONCE).unwrap();
        assert!(chunks.len() > 1);
        for tasks in &chunks {
            let command = Command::TaskAdd { tasks: tasks.clone() };
            let length = serde_json::to_vec(&command).unwrap().len() + "\n".len();
            assert!(length <= MAX_COMMAND, "{length}");
        }
        assert_eq!(chunks.concat(), tasks);
    }
}
