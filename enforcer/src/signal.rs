//! Signals: those that end the service, and the one that has it read its configuration again.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for SIGTERM, SIGINT and SIGHUP.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The end, by the signal of this name.
    Stop(&'static str),
    /// The configuration is to be read again.
    Reload,
}

/// The process cannot listen for signals.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for signals: {source}")]
pub struct SignalError {
    /// Why.
    source: io::Error,
}

// === impl Signals ===

impl Signals {
    /// Starts listening; from here on these signals do not kill the process.
    pub fn listen() -> Result<Self, SignalError> {
        let listen = |kind| signal(kind).map_err(|source| SignalError { source });
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Wanted {
        tokio::select! {
            _ = self.terminate.recv() => Wanted::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Wanted::Stop("SIGINT"),
            _ = self.hangup.recv() => Wanted::Reload,
        }
    }

    /// Waits for the next one that asks for the end, and tells its name.
    pub async fn stop(&mut self) -> &'static str {
        loop {
            match self.next().await {
                Wanted::Stop(signal) => return signal,
                Wanted::Reload => {}
            }
        }
    }
}
