//! The techniques: one row each, one family of them per file. This table is the only list there is; the self-test and
//! the project's own matrix run the same rows.

mod carrier;
mod cgroup;
mod datagram;
mod endpoint;
mod flood;
mod forged;
mod frame;
mod namespace;
mod race;
mod stream;
mod xdp;

use std::io;

use super::ground::{Ground, Spelling};

/// A way somebody in a container could try to get past the enforcer.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Technique {
    /// Its name in reports.
    pub name: &'static str,
    /// What is done, for people.
    pub what: &'static str,
    /// What it would get.
    pub goal: Goal,
    #[serde(skip)]
    pub(super) run: fn(&Ground) -> io::Result<()>,
}

/// What a technique is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// A packet at the metadata service.
    Metadata,
    /// An answer to somebody else's credential request; the attempt itself knows whether it got it.
    Credentials,
    /// Nobody being served at the credential endpoint: this many attempts, of which each must be counted.
    Outage {
        /// How many.
        attempts: u32,
    },
    /// Records: this many attempts, of which each must be counted.
    Silence {
        /// How many.
        attempts: u32,
    },
}

const fn metadata(name: &'static str, what: &'static str, run: fn(&Ground) -> io::Result<()>) -> Technique {
    Technique {
        name,
        what,
        goal: Goal::Metadata,
        run,
    }
}

const fn credentials(name: &'static str, what: &'static str, run: fn(&Ground) -> io::Result<()>) -> Technique {
    Technique {
        name,
        what,
        goal: Goal::Credentials,
        run,
    }
}

// === impl Goal ===

impl Goal {
    /// Whether the credential endpoint is what is aimed at.
    pub(super) const fn is_at_endpoint(self) -> bool {
        matches!(self, Self::Credentials | Self::Outage { .. })
    }
}

/// Every technique.
pub const TECHNIQUES: &[Technique] = &[
    metadata("tcp", "TCP connect", stream::tcp),
    metadata("tcp-v6", "TCP connect over IPv6", stream::tcp_v6),
    metadata(
        "tcp-fast-open",
        "TCP Fast Open: data in the first packet",
        stream::fast_open,
    ),
    metadata("mptcp", "Multipath TCP connect", stream::mptcp),
    metadata("io-uring", "io_uring connect in the caller", stream::uring_inline),
    metadata(
        "io-uring-worker",
        "io_uring connect by a worker thread",
        stream::uring_worker,
    ),
    metadata(
        "io-uring-sqpoll",
        "io_uring connect by the polling thread",
        stream::uring_poller,
    ),
    metadata("sctp", "SCTP connect", stream::sctp),
    metadata("dccp", "DCCP connect", stream::dccp),
    metadata("udp-connected", "UDP connect and send", datagram::connected),
    metadata("udp", "UDP sendto without connect", datagram::unconnected),
    metadata("udp-v6", "UDP sendto over IPv6", datagram::unconnected_v6),
    metadata("udp-lite", "UDP-Lite sendto", datagram::udp_lite),
    metadata("ping-socket", "ICMP echo from a ping socket", datagram::ping),
    metadata("mapped-tcp", "::ffff:a.b.c.d, TCP", |ground| {
        stream::embedded(ground, Spelling::Mapped)
    }),
    metadata("mapped-udp", "::ffff:a.b.c.d, UDP", |ground| {
        datagram::embedded(ground, Spelling::Mapped)
    }),
    metadata("compatible", "::a.b.c.d, TCP", |ground| {
        stream::embedded(ground, Spelling::Compatible)
    }),
    metadata("6to4", "2002:a.b.c.d::, TCP", |ground| {
        stream::embedded(ground, Spelling::SixToFour)
    }),
    metadata("nat64", "64:ff9b::a.b.c.d, TCP", |ground| {
        stream::embedded(ground, Spelling::Nat64)
    }),
    metadata("raw", "raw socket, header by the kernel", forged::raw),
    metadata("raw-header", "raw socket, own header (IP_HDRINCL)", forged::raw_header),
    metadata("raw-icmp", "raw socket, ICMP", forged::raw_icmp),
    metadata("raw-v6", "raw IPv6 socket, header by the kernel", forged::raw_v6),
    metadata("raw-header-v6", "raw IPv6 socket, own header", forged::raw_header_v6),
    metadata(
        "source-route",
        "IP_OPTIONS: source route of a socket",
        forged::source_route,
    ),
    metadata(
        "source-route-raw",
        "handmade source route to a neighbor first",
        forged::source_route_raw,
    ),
    metadata(
        "routing-header-v6",
        "handmade IPv6 routing header",
        forged::routing_header,
    ),
    metadata("fragments", "handmade fragments", forged::fragments),
    metadata("fragments-v6", "handmade IPv6 fragment", forged::fragments_v6),
    metadata("spoofed", "another's source address", forged::spoofed),
    metadata(
        "reflected",
        "source address = metadata service, so that a neighbor answers there",
        forged::reflected,
    ),
    metadata("packet-raw", "packet socket, whole frame", frame::raw),
    metadata("packet-dgram", "packet socket, header by the kernel", frame::dgram),
    metadata("packet-v6", "packet socket, IPv6", frame::raw_v6),
    metadata(
        "packet-bypass",
        "packet socket with PACKET_QDISC_BYPASS",
        frame::raw_bypass,
    ),
    metadata(
        "packet-bypass-32bit",
        "the same by a 32-bit call: leaks without BPF LSM and host side",
        frame::raw_bypass_32bit,
    ),
    metadata(
        "packet-dgram-bypass",
        "PACKET_QDISC_BYPASS, header by the kernel",
        frame::dgram_bypass,
    ),
    metadata("packet-ring", "packet socket, PACKET_TX_RING", frame::ring),
    metadata("packet-vlan", "packet socket, VLAN tag", frame::vlan),
    metadata(
        "packet-vlan-stacked",
        "packet socket, two VLAN tags",
        frame::vlan_stacked,
    ),
    metadata("xdp", "AF_XDP socket", xdp::send),
    metadata(
        "socket-before-cgroup",
        "socket made before joining the cgroup",
        cgroup::socket_from_outside,
    ),
    metadata("nested-cgroup", "from a cgroup of its own below", cgroup::nested),
    metadata("sibling-cgroup", "moved to a sibling cgroup", cgroup::moved),
    metadata(
        "passed-socket",
        "SCM_RIGHTS: socket from another cgroup",
        carrier::from_sibling,
    ),
    metadata(
        "passed-host-socket",
        "SCM_RIGHTS: socket from the host",
        carrier::from_host,
    ),
    metadata(
        "race-connect",
        "another thread rewrites the address during connect",
        race::connect,
    ),
    metadata(
        "race-sendto",
        "another thread rewrites the address during sendto",
        race::send,
    ),
    metadata(
        "nested-network",
        "from a network namespace of its own, forwarded",
        namespace::forwarded,
    ),
    metadata(
        "nested-bridge",
        "from a nested network with a bridge, and NAT where iptables is",
        namespace::bridged,
    ),
    metadata(
        "route-replaced",
        "own route, own sysctls, qdiscs flushed, then TCP and frames",
        namespace::reconfigured,
    ),
    credentials("foreign-id", "another's credential ID", endpoint::foreign),
    credentials("steer-ports", "connecting to the steer ports", endpoint::steer_ports),
    credentials(
        "steer-forged",
        "forged first packets to the steer ports",
        endpoint::forged,
    ),
    credentials("agent-ports", "the ECS agent's own ports", endpoint::agent),
    credentials(
        "copied-address",
        "own user and network namespace with copied addresses",
        endpoint::copied_address,
    ),
    credentials(
        "replayed-tuple",
        "the same source port again right after close",
        endpoint::replayed,
    ),
    Technique {
        name: "flood-events",
        what: "many refused attempts at once",
        goal: Goal::Silence {
            attempts: flood::ATTEMPTS,
        },
        run: flood::events,
    },
    Technique {
        name: "flood-handshakes",
        what: "a SYN flood to the steer ports",
        goal: Goal::Outage {
            attempts: flood::HANDSHAKES,
        },
        run: flood::handshakes,
    },
];

/// The technique of a name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Technique> {
    TECHNIQUES.iter().find(|technique| technique.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::TECHNIQUES;

    #[test]
    fn every_name_is_given_once() {
        let names: BTreeSet<_> = TECHNIQUES.iter().map(|technique| technique.name).collect();
        assert_eq!(names.len(), TECHNIQUES.len());
    }
}
