//! `lab demo`: the enforcer at work, as a table and a live feed.

use std::{
    io::{self, Write},
    sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::{
    audit::{AuditFeed, Record},
    scene::Scene,
};

mod cast;
mod table;

use cast::Cast;
use table::Table;

/// How many batches of records may wait for the terminal.
const BACKLOG: usize = 64;
/// How often somebody in the scene tries something while the feed is shown.
const BEAT: Duration = Duration::from_secs(1);

/// What to show.
#[derive(Debug, clap::Args)]
pub struct Demo {
    /// End after the table; exit with 0 only if every line is as expected
    #[arg(long)]
    once: bool,
}

enum Happening {
    Records(Vec<Record>),
    FeedEnded,
    Beat,
    Interrupted,
}

/// Shows the table, then the feed; whether every line of the table was as expected.
pub fn run(demo: &Demo) -> Result<bool> {
    let (sender, happenings) = sync_channel(BACKLOG);
    report_interrupts(sender.clone())?;
    say("Building the lab: a host, two bridge containers, a host-mode container, a fake metadata service …")?;
    let mut scene = Scene::builder().task("web").task("batch").start()?;
    let mut cast = Cast::enter(&scene)?;
    say(&format!("To look around while it runs: {}\n", scene.shell_command()))?;

    let mut table = Table::begin()?;
    let was_interrupted = || !matches!(happenings.try_recv(), Err(TryRecvError::Empty));
    if !cast.play(&mut scene, &mut table, was_interrupted)? {
        return Ok(false);
    }
    let is_right = table.end()?;
    if !demo.once {
        say("\nThe audit feed, until Ctrl-C:")?;
        report_records(scene.audit().clone(), sender.clone());
        beat(sender);
        follow(&happenings, || cast.improvise(&scene))?;
    }
    Ok(is_right)
}

/// Shows records as they come; has somebody act at every beat.
fn follow(happenings: &Receiver<Happening>, mut act: impl FnMut() -> Result<()>) -> Result<()> {
    loop {
        match happenings.recv().context("nothing can happen any more")? {
            Happening::Records(records) => records.iter().try_for_each(|record| say(&compact(record)))?,
            Happening::Beat => act()?,
            Happening::Interrupted => return Ok(()),
            Happening::FeedEnded => bail!("the enforcer ended"),
        }
    }
}

/// From here on, Ctrl-C does not end the process; it is told, so that the scene is taken down in order.
fn report_interrupts(sender: SyncSender<Happening>) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot watch for signals")?;
    thread::spawn(move || {
        for _ in signals.forever() {
            if sender.send(Happening::Interrupted).is_err() {
                return;
            }
        }
    });
    Ok(())
}

fn report_records(feed: AuditFeed, sender: SyncSender<Happening>) {
    thread::spawn(move || {
        let mut seen = 0;
        loop {
            let records = feed.follow(seen);
            seen += records.len();
            let happening = if records.is_empty() {
                Happening::FeedEnded
            } else {
                Happening::Records(records)
            };
            let is_last = matches!(happening, Happening::FeedEnded);
            if sender.send(happening).is_err() || is_last {
                return;
            }
        }
    });
}

fn beat(sender: SyncSender<Happening>) {
    thread::spawn(move || {
        while sender.send(Happening::Beat).is_ok() {
            thread::sleep(BEAT);
        }
    });
}

/// A record on one line.
fn compact(record: &Record) -> String {
    let word = |word: &Option<String>| word.clone().unwrap_or_else(|| "-".into());
    let whither = match (&record.request, &record.destination) {
        (Some(request), _) => {
            let status = request.status.map(|status| status.to_string());
            let parts = [
                &request.method,
                &request.path,
                &request.credential.as_ref().map(|id| format!("#{id}")),
                &status,
            ];
            parts
                .map(|part| part.as_deref().unwrap_or_default().to_owned())
                .join(" ")
        }
        (None, Some(to)) => format!("{} {} port {}", word(&to.protocol), to.address, to.port),
        (None, None) => record.lost.as_ref().map(|lost| format!("{lost:?}")).unwrap_or_default(),
    };
    let who = record
        .sender
        .as_ref()
        .map(|sender| format!("{}[{}]", sender.comm, sender.pid));
    format!(
        "{:>5} {:<27} {:<8} {:<10} {:<7} {:<20} {:<6} {:<14} {whither}",
        record.seq,
        record.time,
        record.source,
        word(&record.hook),
        word(&record.verdict),
        word(&record.reason),
        word(&record.task),
        word(&who),
    )
}

fn say(line: &str) -> Result<()> {
    writeln!(io::stdout(), "{line}").context("cannot write to standard output")
}
