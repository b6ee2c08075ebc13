//! Signals that end the service.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for SIGTERM and SIGINT.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
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
        })
    }

    /// Waits for the next one and tells its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
