//! What the kernel says about a sender.

use crate::pod;

pod! {
    size: 64,
    /// What the kernel says about a sender. Nothing in here comes from memory the sender can write, except `comm`,
    /// which is a label for people and never decides.
    #[derive(Default)]
    pub struct Identity {
        /// Cgroup ID (64-bit file handle on the cgroup2 mount) of the process that called; 0 where only a packet was
        /// seen.
        pub cgroup_id: u64,
        /// Cgroup ID the socket was created in; 0 where no packet of it was seen yet.
        pub socket_cgroup_id: u64,
        /// Cookie of the sender's network namespace (`SO_NETNS_COOKIE`); 0 where only a packet was seen.
        pub netns_cookie: u64,
        /// Cookie of the socket (`SO_COOKIE`); 0 for a packet without a socket.
        pub socket_cookie: u64,
        /// Process ID (thread group) in the initial PID namespace; 0 where only a packet was seen.
        pub pid: u32,
        /// Thread ID in the initial PID namespace.
        pub tid: u32,
        /// User ID in the initial user namespace.
        pub uid: u32,
        /// Group ID in the initial user namespace.
        pub gid: u32,
        /// Thread name, NUL-padded.
        pub comm: [u8; 16],
    }
}

// === impl Identity ===

impl Identity {
    /// The cgroup that counts as the sender's: the caller's, or the socket's where only a packet was seen; 0 where
    /// neither is known.
    #[must_use]
    pub const fn sender_cgroup(&self) -> u64 {
        if self.cgroup_id == 0 {
            self.socket_cgroup_id
        } else {
            self.cgroup_id
        }
    }
}
