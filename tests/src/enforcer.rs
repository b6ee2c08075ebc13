//! The program under test: the real `enforcer`, in the place of a host service.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, ErrorKind},
    net::Shutdown,
    os::unix::net::UnixDatagram,
    path::PathBuf,
    process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustix::net::RecvFlags;

use crate::{
    audit::AuditFeed,
    enter::Place,
    manager::{Store, receive},
};

/// Where the enforcer tells that it is ready, as it sees it.
pub(crate) const NOTIFY_SOCKET: &str = "/run/notify.sock";

/// What is needed to start the program.
#[derive(Debug)]
pub(crate) struct Launch {
    /// The `lab` program.
    pub(crate) lab: PathBuf,
    /// The `enforcer` program, as the scene sees it.
    pub(crate) program: PathBuf,
    /// Where it runs.
    pub(crate) place: Place,
    /// [`NOTIFY_SOCKET`], as the test sees it.
    pub(crate) notify_socket: PathBuf,
}

/// The enforcer of a scene, running or not.
#[derive(Debug)]
pub struct Enforcer {
    launch: Launch,
    process: Option<Child>,
    feed: AuditFeed,
    log: Arc<Mutex<String>>,
    notifications: Option<Notifications>,
    /// Its error output, where nobody reads that.
    unread: Option<Unread>,
    /// Where sockets are kept that the enforcer leaves with its service manager; none keeps none.
    store: Option<Store>,
}

/// A log nobody reads, but that is open.
#[derive(Debug, Default)]
struct Unread {
    errors: Option<ChildStderr>,
}

/// The service manager's end of the notification socket; whoever reads from it stops when this is dropped.
#[derive(Debug)]
struct Notifications(UnixDatagram);

// === impl Enforcer ===

impl Enforcer {
    pub(crate) fn new(launch: Launch) -> Self {
        Self {
            launch,
            process: None,
            feed: AuditFeed::default(),
            log: Arc::default(),
            notifications: None,
            unread: None,
            store: None,
        }
    }

    /// From the next start on, keeps the sockets it leaves with its service manager, and gives them to each later start.
    pub fn keep_sockets(&mut self) {
        self.store = Some(Store::default());
    }

    /// From the next start on, has it log everything there is, and nobody reads it.
    pub fn leave_log_unread(&mut self) {
        self.unread = Some(Unread::default());
    }

    /// Starts `enforcer run` and waits until it is ready.
    pub fn start(&mut self) -> Result<()> {
        self.begin_start()?;
        self.feed
            .await_ready()
            .with_context(|| format!("its log:\n{}", self.log()))
    }

    /// Starts `enforcer run`.
    pub fn begin_start(&mut self) -> Result<()> {
        if self.process.is_some() {
            bail!("the enforcer is already running");
        }
        self.launch(&["run"])
    }

    /// Starts an enforcer that takes the place of the running one, and waits until it has: it is ready, and the other one
    /// has ended in order. Returns the feed of the other one.
    pub fn take_over(&mut self) -> Result<AuditFeed> {
        let mut predecessor = self.process.take().context("the enforcer is not running")?;
        let feed = self.feed.clone();
        self.launch(&["run", "--take-over"])?;
        self.feed
            .await_ready()
            .with_context(|| format!("its log:\n{}", self.log()))?;
        feed.await_end()?;
        let status = predecessor.wait().context("cannot wait for the predecessor")?;
        if !status.success() {
            bail!("the predecessor ended with {status}; the log:\n{}", self.log());
        }
        Ok(feed)
    }

    /// Asks it to read its configuration again.
    pub fn hang_up(&mut self) -> Result<()> {
        self.signal(Signal::SIGHUP)
    }

    fn launch(&mut self, arguments: &[&str]) -> Result<()> {
        let notifications = self.listen_for_readiness()?;
        let (mut command, input) = match &self.store {
            None => (self.command(arguments), Stdio::null()),
            Some(store) => (self.activated(arguments), store.give()?),
        };
        if self.unread.is_some() {
            command.env("ENFORCER_LOG", "trace");
        }
        let mut process = command
            .env("NOTIFY_SOCKET", NOTIFY_SOCKET)
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start the enforcer")?;
        self.feed = AuditFeed::collect(process.stdout.take().context("the enforcer has no output")?);
        let errors = process.stderr.take().context("the enforcer has no error output")?;
        self.process = Some(process);
        match &mut self.unread {
            Some(unread) => unread.errors = Some(errors),
            None => collect(errors, Arc::clone(&self.log)),
        }
        let (feed, store) = (self.feed.clone(), self.store.clone());
        thread::spawn(move || {
            let mut message = [0; 512];
            while let Ok((length @ 1.., sockets)) = receive(&notifications, &mut message, RecvFlags::CMSG_CLOEXEC) {
                let message = String::from_utf8_lossy(message.get(..length).unwrap_or_default());
                if message.lines().any(|line| line == "READY=1") {
                    feed.set_ready();
                }
                if let Some(store) = &store {
                    store.keep(sockets);
                }
            }
        });
        Ok(())
    }

    /// Kills it without warning.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.await_end().map(drop)
    }

    /// Asks it to stop and waits until it has.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.begin_termination()?;
        self.await_end()
    }

    /// Asks it to stop.
    pub fn begin_termination(&mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)
    }

    /// Waits until it has stopped.
    pub fn await_end(&mut self) -> Result<ExitStatus> {
        self.feed
            .await_end()
            .with_context(|| format!("its log:\n{}", self.log()))?;
        let mut process = self.process.take().context("the enforcer is not running")?;
        process.wait().context("cannot wait for the enforcer")
    }

    /// Stops it politely and starts it again.
    pub fn restart(&mut self) -> Result<()> {
        self.terminate()?;
        self.start()
    }

    /// Holds it still: connections reach its listener, but it accepts none.
    pub fn pause(&mut self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    pub fn resume(&mut self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Runs another subcommand in the same place.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<Output> {
        self.command(arguments).output().context("cannot run the enforcer")
    }

    /// Runs another subcommand in the same place, with a variable in its environment.
    pub fn run_with<A: AsRef<OsStr>>(
        &self,
        variable: &str,
        value: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Output> {
        let mut command = self.command(arguments);
        command.env(variable, value).output().context("cannot run the enforcer")
    }

    /// The audit feed of the latest start.
    #[must_use]
    pub fn audit(&self) -> &AuditFeed {
        &self.feed
    }

    /// Its process ID.
    pub fn pid(&self) -> Result<u32> {
        let process = self.process.as_ref().context("the enforcer is not running")?;
        Ok(process.id())
    }

    /// Everything it has logged since the scene began.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// As [`Self::command`], in the hands of a service manager.
    fn activated<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let Launch {
            lab, program, place, ..
        } = &self.launch;
        let mut command = place.command(lab, &program.with_file_name("lab"));
        command.args(["activate", "--"]).arg(program).args(arguments);
        command
    }

    fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.launch.place.command(&self.launch.lab, &self.launch.program);
        command.args(arguments);
        command
    }

    fn listen_for_readiness(&mut self) -> Result<UnixDatagram> {
        let path = &self.launch.notify_socket;
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
        let socket = UnixDatagram::bind(path).with_context(|| format!("cannot bind {}", path.display()))?;
        let listener = socket.try_clone().context("cannot share the notification socket")?;
        // The earlier start's listener, if there is one, ends with its socket.
        self.notifications = Some(Notifications(socket));
        Ok(listener)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.pid()?.cast_signed());
        kill(pid, signal).with_context(|| format!("cannot send {signal} to the enforcer"))
    }
}

fn collect(errors: ChildStderr, log: Arc<Mutex<String>>) {
    thread::spawn(move || {
        for line in BufReader::new(errors).lines().map_while(Result::ok) {
            log.lock().unwrap_or_else(PoisonError::into_inner).extend([&line, "\n"]);
        }
    });
}

impl Drop for Notifications {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown(Shutdown::Both) {
            eprintln!("lab: cannot stop listening for readiness: {error}");
        }
    }
}

impl Drop for Enforcer {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take()
            && let Err(error) = process.kill().and_then(|()| process.wait())
        {
            eprintln!("lab: cannot end the enforcer: {error}");
        }
        if thread::panicking() {
            eprintln!(
                "the enforcer's log:\n{}\nits audit feed:\n{}",
                self.log(),
                self.feed.text()
            );
        }
    }
}
