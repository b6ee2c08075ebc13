//! Kernel counters: per-CPU numbers that cannot be dropped. Userspace sums them over the CPUs.

use crate::verdict::numbered;

numbered! {
    /// Index into the counter map, and the metric's name.
    pub enum Counter {
        /// Events emitted, those included that found no room.
        EventsEmitted = 0 "events_emitted",
        /// Events that found no room in the ring buffer.
        EventsDropped = 1 "events_dropped",
        /// Attempts at protected destinations let through.
        Allowed = 2 "allowed",
        /// Connections steered to the enforcer.
        Steered = 3 "steered",
        /// Attempts refused with EPERM.
        Denied = 4 "denied",
        /// Packets dropped.
        Dropped = 5 "dropped",
        /// Packets dropped that a socket hook should have refused.
        SocketLayerMissed = 6 "socket_layer_missed",
        /// Handshakes recorded.
        HandshakesRecorded = 7 "handshakes_recorded",
        /// Handshakes handed over to an accepted socket.
        HandshakesAccepted = 8 "handshakes_accepted",
        /// Handshakes removed because the client gave up first.
        HandshakesAbandoned = 9 "handshakes_abandoned",
        /// Handshakes two network namespaces claimed.
        HandshakesAmbiguous = 10 "handshakes_ambiguous",
        /// Handshakes the map or the socket storage had no room for.
        HandshakesNotStored = 11 "handshakes_not_stored",
        /// Connections accepted without a handshake.
        HandshakesMissing = 12 "handshakes_missing",
        /// How many of the dropped events the audit trail has been told of. Written by the user side only, and kept here
        /// so that what is dropped while no enforcer runs is told by the next one.
        EventsDroppedTold = 13 "events_dropped_told",
        /// Attempts let through that would have been refused, were they not only observed.
        Observed = 14 "observed",
    }
}
