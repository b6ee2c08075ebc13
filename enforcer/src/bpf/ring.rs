//! Readers of what the hooks write: events for the audit feed, log lines for people.

use std::io;

use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use aya_log::EbpfLogger;
use enforcer_common::event::Event;
use tokio::io::unix::AsyncFd;

use super::{
    BpfError,
    maps::{map_error, take},
};
use crate::sys::readiness::readable;

/// Events handed over between two looks at whether others want to run.
const BATCH: usize = 4096;

/// Reads events.
pub struct EventRing {
    ring: AsyncFd<RingBuf<MapData>>,
}

// === impl EventRing ===

impl std::fmt::Debug for EventRing {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("EventRing").finish_non_exhaustive()
    }
}

impl EventRing {
    pub(super) fn try_new(ebpf: &mut Ebpf) -> Result<Self, BpfError> {
        let ring = RingBuf::try_from(take(ebpf, "EVENTS")?).map_err(map_error("open", "EVENTS"))?;
        let ring = readable(ring).map_err(|source| poll_error("EVENTS", source))?;
        Ok(Self { ring })
    }

    /// Waits for events and hands over, oldest first, what is there, up to a bound. Cancel safe: an event is taken
    /// from the ring only to be handed over.
    pub async fn read(&mut self, mut each: impl FnMut(&Event)) -> Result<(), BpfError> {
        let mut guard = self
            .ring
            .readable_mut()
            .await
            .map_err(|source| poll_error("EVENTS", source))?;
        if drain(guard.get_inner_mut(), &mut each) < BATCH {
            guard.clear_ready();
        }
        Ok(())
    }

    /// Hands over what is in the ring now, without waiting.
    pub fn drain(&mut self, mut each: impl FnMut(&Event)) {
        while drain(self.ring.get_mut(), &mut each) == BATCH {}
    }
}

fn drain(ring: &mut RingBuf<MapData>, each: &mut impl FnMut(&Event)) -> usize {
    let mut taken = 0;
    while taken < BATCH {
        let Some(item) = ring.next() else { break };
        taken += 1;
        if let Some(event) = decode(&item) {
            each(&event);
        } else {
            tracing::error!(length = item.len(), "the kernel side wrote a record of another length");
        }
    }
    taken
}

#[expect(unsafe_code, reason = "the one place that reads a shared record out of bytes")]
fn decode(bytes: &[u8]) -> Option<Event> {
    if bytes.len() != size_of::<Event>() {
        return None;
    }
    // SAFETY: `read_unaligned` requires a readable `Event` at the pointer; the length was just checked, and `Event` is
    // plain old data (`pod!`), so every bit pattern is one.
    Some(unsafe { bytes.as_ptr().cast::<Event>().read_unaligned() })
}

/// Reads what the hooks log through aya-log and passes it to the `log` facade.
pub struct KernelLog {
    logger: AsyncFd<EbpfLogger<&'static dyn log::Log>>,
}

// === impl KernelLog ===

impl std::fmt::Debug for KernelLog {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("KernelLog").finish_non_exhaustive()
    }
}

impl KernelLog {
    pub(super) fn try_new(ebpf: &mut Ebpf) -> Result<Self, BpfError> {
        let logger = EbpfLogger::init(ebpf).map_err(|error| poll_error("AYA_LOGS", io::Error::other(error)))?;
        let logger = readable(logger).map_err(|source| poll_error("AYA_LOGS", source))?;
        Ok(Self { logger })
    }

    /// Waits for log lines and passes them on.
    pub async fn forward(&mut self) -> Result<(), BpfError> {
        let mut guard = self
            .logger
            .readable_mut()
            .await
            .map_err(|source| poll_error("AYA_LOGS", source))?;
        guard.get_inner_mut().flush();
        guard.clear_ready();
        Ok(())
    }
}

fn poll_error(ring: &str, source: io::Error) -> BpfError {
    BpfError::Syscall {
        operation: format!("wait for ring buffer {ring}"),
        source,
    }
}
