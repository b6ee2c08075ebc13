//! Settings: what the controller tells the hooks before it attaches them.

use crate::{cgroup::Treatment, pod};

/// What is done about what is refused. The numbers are part of the ABI.
pub mod mode {
    /// It is blocked.
    pub const ENFORCE: u32 = 0;
    /// It is recorded only.
    pub const OBSERVE: u32 = 1;
}

pod! {
    size: 64,
    /// The one entry of the settings map.
    pub struct Settings {
        /// [`crate::ABI_VERSION`] of the loader that wrote this.
        pub abi_version: u32,
        /// Address of the credential endpoint in network byte order.
        pub endpoint_address: u32,
        /// Cookie of the host's network namespace (`SO_NETNS_COOKIE`).
        pub host_netns_cookie: u64,
        /// Port of the credential endpoint as containers write it, host byte order.
        pub endpoint_port: u16,
        /// Where socket hooks steer to, host byte order.
        pub steer_port: u16,
        /// Where TC steers to what no socket hook saw, host byte order. A port of its own, because replies from it
        /// must be rewritten on the way back and those from `steer_port` must not.
        pub packet_steer_port: u16,
        /// The ECS agent's introspection port, host byte order; 0 if containers may use it. The agent listens on every
        /// address of the host, and the host may get new ones, so this holds for any destination.
        pub introspection_port: u16,
        /// One of [`mode`], for all cgroups together.
        pub mode: u32,
        /// Not 0: guarded cgroups get no raw IP sockets.
        pub raw_sockets_denied: u32,
        /// IP protocols guarded cgroups get no sockets of: bit `n % 64` of word `n / 64` stands for IANA number `n`.
        pub denied_protocols: [u64; 4],
    }
}

impl Settings {
    /// Whether this is one of the steer ports (host byte order).
    #[inline(always)]
    #[must_use]
    pub const fn is_steer_port(&self, port: u16) -> bool {
        port == self.steer_port || port == self.packet_steer_port
    }

    /// Whether what a sender is refused is let through and recorded only.
    #[inline(always)]
    #[must_use]
    pub const fn observes(&self, sender: Treatment) -> bool {
        self.mode == mode::OBSERVE || sender.observed
    }

    /// Whether guarded cgroups get no sockets of this protocol.
    #[inline(always)]
    #[must_use]
    pub const fn denies_protocol(&self, protocol: u8) -> bool {
        let [a, b, c, d] = self.denied_protocols;
        let word = match protocol / 64 {
            0 => a,
            1 => b,
            2 => c,
            _ => d,
        };
        word & (1 << (protocol % 64)) != 0
    }
}
