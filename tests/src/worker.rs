//! Workers: child processes that take commands as JSON lines and answer each with one JSON line.

use std::{
    io::{self, BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde::{Serialize, de::DeserializeOwned};

/// A worker, seen from its parent. It ends when this is dropped.
#[derive(Debug)]
pub struct Worker {
    process: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

// === impl Worker ===

impl Worker {
    /// Starts a worker and waits until it takes commands.
    pub fn start(mut command: Command) -> Result<Self> {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let commands = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().context("the worker has no output")?);
        let mut worker = Self {
            process,
            commands,
            answers,
        };
        let READY = worker
            .read::<u32>()
            .with_context(|| format!("{command:?} did not start"))?
        else {
            bail!("{command:?} is no worker");
        };
        Ok(worker)
    }

    /// The worker's process ID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Gives a command and waits for the answer.
    pub fn call<C: Serialize, A: DeserializeOwned>(&mut self, command: &C) -> Result<A> {
        let mut line = serde_json::to_vec(command).context("cannot encode a command")?;
        line.push(b'\n');
        let commands = self.commands.as_mut().context("the worker was told to end")?;
        commands.write_all(&line).context("the worker is gone")?;
        self.read()
    }

    fn read<A: DeserializeOwned>(&mut self) -> Result<A> {
        let mut line = String::new();
        self.answers
            .read_line(&mut line)
            .context("cannot read from the worker")?;
        if line.is_empty() {
            bail!("the worker ended; it said why on standard error");
        }
        serde_json::from_str(&line).with_context(|| format!("cannot decode the answer {line}"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait()) {
            eprintln!("lab: cannot end a worker: {error}");
        }
    }
}

/// What a worker says first.
const READY: u32 = 1;

/// The worker's side: answers commands until its input ends.
pub fn serve<C: DeserializeOwned, A: Serialize>(mut answer: impl FnMut(C) -> A) -> Result<()> {
    let mut output = io::stdout().lock();
    reply(&mut output, &READY)?;
    for line in io::stdin().lock().lines() {
        let line = line.context("cannot read a command")?;
        let command = serde_json::from_str(&line).with_context(|| format!("cannot decode the command {line}"))?;
        reply(&mut output, &answer(command))?;
    }
    Ok(())
}

fn reply(output: &mut impl Write, answer: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(answer).context("cannot encode an answer")?;
    line.push(b'\n');
    output
        .write_all(&line)
        .and_then(|()| output.flush())
        .context("cannot answer")
}
