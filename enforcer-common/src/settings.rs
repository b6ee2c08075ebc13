//! Settings: what the controller tells the hooks before it attaches them.

use crate::pod;

pod! {
    size: 32,
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
        /// Zero.
        pub reserved: u16,
        /// Zero.
        pub reserved2: u64,
    }
}

impl Settings {
    /// Whether this is one of the steer ports (host byte order).
    #[inline(always)]
    #[must_use]
    pub const fn is_steer_port(&self, port: u16) -> bool {
        port == self.steer_port || port == self.packet_steer_port
    }
}
