//! The event: the fixed-size record a hook writes to the ring buffer, one per decision about a protected destination.

use crate::{address::Address, identity::Identity, pod, verdict::numbered};

numbered! {
    /// The hook that decided. The numbers and names are part of the ABI and of the audit schema.
    pub enum Hook {
        /// `cgroup/connect4`
        Connect4 = 1 "connect4",
        /// `cgroup/connect6`
        Connect6 = 2 "connect6",
        /// `cgroup/sendmsg4`
        Sendmsg4 = 3 "sendmsg4",
        /// `cgroup/sendmsg6`
        Sendmsg6 = 4 "sendmsg6",
        /// `cgroup/bind4`
        Bind4 = 5 "bind4",
        /// `cgroup/bind6`
        Bind6 = 6 "bind6",
        /// `cgroup/sock_create`
        SockCreate = 7 "sock_create",
        /// `cgroup/setsockopt`
        Setsockopt = 8 "setsockopt",
        /// `sock_ops` of guarded sockets
        SockOps = 10 "sock_ops",
        /// `sock_ops` of the enforcer's own sockets
        SockOpsOwn = 11 "sock_ops_own",
        /// `cgroup_skb` egress
        Egress = 20 "egress",
        /// TC ingress on the host side of a container's interface
        TcIngress = 21 "tc_ingress",
        /// TC egress of a host's own device
        TcUplink = 22 "tc_uplink",
        /// TC egress of a device inside a container's network namespace
        TcDevice = 23 "tc_device",
    }
}

numbered! {
    /// What was done. The numbers and names are part of the ABI and of the audit schema.
    pub enum Outcome {
        /// Let through.
        Allowed = 1 "allow",
        /// Taken to the enforcer.
        Steered = 2 "steer",
        /// Refused: the caller got EPERM.
        Denied = 3 "deny",
        /// Refused: the packet was dropped.
        Dropped = 4 "drop",
        /// Let through, because it is only observed; would have been refused.
        WouldDeny = 5 "would_deny",
        /// Let through, because it is only observed; the packet would have been dropped.
        WouldDrop = 6 "would_drop",
    }
}

// === impl Outcome ===

impl Outcome {
    /// What becomes of this where nothing is blocked.
    #[inline(always)]
    #[must_use]
    pub const fn observed(self) -> Self {
        match self {
            Self::Denied => Self::WouldDeny,
            Self::Dropped => Self::WouldDrop,
            other @ (Self::Allowed | Self::Steered | Self::WouldDeny | Self::WouldDrop) => other,
        }
    }

    /// Whether the attempt ends here.
    #[inline(always)]
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        matches!(self, Self::Denied | Self::Dropped)
    }
}

pod! {
    size: 136,
    /// One decision of one hook.
    pub struct Event {
        /// Time of the decision, nanoseconds of `CLOCK_MONOTONIC`.
        pub time_ns: u64,
        /// A [`Hook`].
        pub hook: u32,
        /// An [`Outcome`].
        pub outcome: u32,
        /// A [`crate::verdict::Reason`].
        pub reason: u32,
        /// A [`crate::address::target`].
        pub target: u32,
        /// Interface index a packet was seen on; 0 in socket hooks.
        pub ifindex: u32,
        /// IANA protocol number; 0 where it is not known.
        pub protocol: u32,
        /// The destination as the sender wrote it, IPv4 in v4-mapped form.
        pub destination: Address,
        /// Source address of a packet, IPv4 in v4-mapped form; zero in socket hooks.
        pub source: Address,
        /// Destination port in host byte order, as the sender wrote it; 0 where there is none.
        pub destination_port: u16,
        /// Source port in host byte order; 0 where it is not known yet.
        pub source_port: u16,
        /// Zero.
        pub reserved: u32,
        /// The sender.
        pub identity: Identity,
    }
}
