//! Where an attempt is made from and what it aims at: all a technique knows of the world.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

/// What a technique needs to know. Whoever starts the child writes it, and it goes there as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ground {
    /// The interface that leads to the metadata service.
    pub interface: String,
    /// Hardware address of the next hop there.
    pub next_hop: [u8; 6],
    /// The attempt's own address.
    pub own: Ipv4Addr,
    /// The same in IPv6.
    pub own_v6: Ipv6Addr,
    /// The metadata service's protected address.
    pub metadata: Ipv4Addr,
    /// The same in IPv6.
    pub metadata_v6: Ipv6Addr,
    /// An unprotected address behind the same next hop, of somebody who forwards.
    pub bystander: Ipv4Addr,
    /// The same in IPv6.
    pub bystander_v6: Ipv6Addr,
    /// Whether the attempt is made in the host's own network namespace.
    pub in_host_network: bool,
    /// The credential endpoint, if there is one this place can reach.
    pub endpoint: Option<Endpoint>,
    /// Absolute path of the cgroup the child was put into.
    pub cgroup: PathBuf,
    /// Another guarded cgroup.
    pub sibling: PathBuf,
    /// A cgroup that is not guarded.
    pub outside: PathBuf,
    /// File of the host's network namespace, where it leads to the metadata service too.
    pub host_network: Option<PathBuf>,
}

/// The credential endpoint, and what it must not answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    /// As containers write it.
    pub address: SocketAddrV4,
    /// Address that connections from here come from.
    pub source: Ipv4Addr,
    /// Ports the enforcer listens on, which nobody is to know.
    pub steer_ports: [u16; 2],
    /// Ports of the agent behind it, on the host's loopback address, that nobody is to reach.
    pub agent_ports: Vec<u16>,
    /// Path of credentials that are another's.
    pub foreign: String,
}

/// Port of the metadata service.
const PORT: u16 = 80;

// === impl Ground ===

impl Ground {
    /// A place from where nothing leads to a metadata service.
    pub(super) fn nowhere(cgroup: PathBuf, sibling: PathBuf, outside: PathBuf) -> Self {
        Self {
            interface: "lo".to_owned(),
            next_hop: [0; 6],
            own: Ipv4Addr::LOCALHOST,
            own_v6: Ipv6Addr::LOCALHOST,
            metadata: Ipv4Addr::LOCALHOST,
            metadata_v6: Ipv6Addr::LOCALHOST,
            bystander: Ipv4Addr::LOCALHOST,
            bystander_v6: Ipv6Addr::LOCALHOST,
            in_host_network: false,
            endpoint: None,
            cgroup,
            sibling,
            outside,
            host_network: None,
        }
    }

    /// The metadata service.
    pub(super) fn service(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.metadata, PORT)
    }

    /// The metadata service over IPv6.
    pub(super) fn service_v6(&self) -> SocketAddrV6 {
        over_v6(self.metadata_v6)
    }

    /// The metadata service's IPv4 address in one of its IPv6 spellings.
    pub(super) fn embedded(&self, spelling: Spelling) -> SocketAddrV6 {
        over_v6(spelling.of(self.metadata))
    }

    /// The same port of the unprotected neighbor.
    pub(super) fn neighbor(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.bystander, PORT)
    }

    /// The credential endpoint.
    pub(super) fn endpoint(&self) -> io::Result<&Endpoint> {
        self.endpoint
            .as_ref()
            .ok_or_else(|| unavailable("no credential endpoint can be reached from here"))
    }
}

/// The IPv6 forms that carry an IPv4 address.
#[derive(Clone, Copy, Debug)]
pub enum Spelling {
    /// `::ffff:a.b.c.d`: the kernel itself takes it for IPv4.
    Mapped,
    /// `::a.b.c.d`
    Compatible,
    /// `2002:a.b.c.d::`, taken to IPv4 by a relay.
    SixToFour,
    /// `64:ff9b::a.b.c.d`, taken to IPv4 by a translator.
    Nat64,
}

// === impl Spelling ===

impl Spelling {
    /// The form of an address.
    #[must_use]
    pub const fn of(self, address: Ipv4Addr) -> Ipv6Addr {
        let [a, b, c, d] = address.octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        match self {
            Self::Mapped => address.to_ipv6_mapped(),
            Self::Compatible => Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
            Self::SixToFour => Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 0),
            Self::Nat64 => Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
        }
    }
}

fn over_v6(address: Ipv6Addr) -> SocketAddrV6 {
    SocketAddrV6::new(address, PORT, 0, 0)
}

/// An attempt that cannot even be made here, and why.
pub(super) fn unavailable(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, why)
}
