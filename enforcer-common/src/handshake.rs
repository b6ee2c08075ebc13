//! The handshake: how an identity travels from `connect()` to the accepted socket.
//!
//! ```text
//! connect4/6     identity -> storage of the client socket
//! CONNECT_CB     storage  -> handshakes[tuple], state Claimed; a second network namespace makes it Ambiguous
//! egress, tc     the SYN's socket is the claimant: Confirmed, its cgroup added; no claimant: drop
//! PASSIVE_CB     handshakes[tuple] -> storage of the accepted socket, entry deleted
//! STATE_CB       client socket closed without having been accepted: entry deleted
//! ```

use crate::{identity::Identity, pod};

pod! {
    size: 12,
    /// The connection's tuple. The endpoint is IPv4 only, so a v4-mapped client appears here as IPv4 too.
    #[derive(Hash)]
    pub struct HandshakeKey {
        /// Client address in network byte order.
        pub client: u32,
        /// Server address in network byte order.
        pub server: u32,
        /// Client port in host byte order.
        pub client_port: u16,
        /// Server port (a steer port) in host byte order.
        pub server_port: u16,
    }
}

/// How many connections of one cgroup may be on their way at once. A connection is on its way for a round trip, so that
/// this is far above what anybody needs, and far below the number of entries the handshake map has.
pub const MAX_IN_FLIGHT: i64 = 1_024;

/// States of a handshake. The numbers are part of the ABI.
pub mod state {
    /// One network namespace announced the connection.
    pub const CLAIMED: u32 = 1;
    /// A packet of the connection was seen leaving the announced socket.
    pub const CONFIRMED: u32 = 2;
    /// Two network namespaces announced the same tuple, and no packet told which one is real.
    pub const AMBIGUOUS: u32 = 3;
}

pod! {
    size: 72,
    /// A connection on its way: who announced it. The storage of an accepted socket holds it as it was when the
    /// connection was established; an ambiguous one must be refused.
    pub struct Handshake {
        /// Who announced it; the first one, if it is ambiguous.
        pub identity: Identity,
        /// One of [`state`].
        pub state: u32,
        /// Zero.
        pub reserved: u32,
    }
}
