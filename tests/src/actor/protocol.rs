//! What is said between a test and its actors.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use crate::http::{Request, Response};

/// Address family of a socket.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Family {
    /// `AF_INET`
    V4,
    /// `AF_INET6`
    V6,
}

/// Whether a connect waits for its outcome.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Patience {
    /// Until it is connected or refused.
    Wait,
    /// No: started, and left going on.
    Leave,
}

/// How a datagram is sent.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum DatagramStyle {
    /// `connect`, then `send`.
    Connected,
    /// `sendto`
    Unconnected,
}

/// Who writes the IPv4 header of a raw packet.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum HeaderFrom {
    /// The kernel; the bytes are those of a UDP datagram, its header included.
    Kernel,
    /// The sender (`IP_HDRINCL`); the bytes are the packet.
    Sender,
}

/// A socket option that matters to the enforcer.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum SocketOption {
    /// `PACKET_QDISC_BYPASS`
    QdiscBypass,
    /// `PACKET_VNET_HDR`
    VnetHeader,
    /// `XDP_UMEM_REG`, on a socket that does not know it.
    XdpMemory,
    /// `SO_BINDTODEVICE` with a value longer than a page.
    Long,
}

/// A checksum the kernel is to write into a frame (`PACKET_VNET_HDR`).
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Checksum {
    /// It covers the frame from here.
    pub start: u16,
    /// Where it is written, counted from there.
    pub offset: u16,
}

/// A test's command. Sockets have numbers that the test chooses.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Command {
    Open {
        socket: u32,
        family: Family,
    },
    Limit {
        socket: u32,
        milliseconds: u32,
    },
    Connect {
        socket: u32,
        source: Option<SocketAddr>,
        to: SocketAddr,
        patience: Patience,
    },
    Exchange {
        socket: u32,
        request: Request,
    },
    Close {
        socket: u32,
    },
    Abort {
        socket: u32,
    },
    Datagram {
        to: SocketAddr,
        style: DatagramStyle,
    },
    Echo {
        to: SocketAddr,
    },
    Raw {
        to: Ipv4Addr,
        header: HeaderFrom,
        bytes: Vec<u8>,
    },
    Frame {
        interface: String,
        hardware: [u8; 6],
        carried: Vec<u8>,
        checksum: Option<Checksum>,
    },
    Overhear {
        socket: u32,
        interface: String,
    },
    TakeOver {
        overheard: u32,
        socket: u32,
        client: SocketAddrV4,
        server: SocketAddrV4,
    },
    Create {
        raw: bool,
        protocol: i32,
    },
    SetOption {
        option: SocketOption,
    },
    Join {
        cgroup: PathBuf,
    },
    Isolate,
    OpenDatagram {
        socket: u32,
        to: SocketAddr,
    },
    Send {
        socket: u32,
    },
    Crowd {
        to: SocketAddr,
        connections: u32,
        targets: Vec<String>,
    },
}

/// An actor's answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Done,
    Failed(i32),
    Response(Response),
    Counted(Vec<(Response, usize)>),
}

// === impl Family ===

impl Family {
    /// The family of the socket an address is written for; v4-mapped addresses are IPv6.
    #[must_use]
    pub const fn of(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(_) => Self::V4,
            SocketAddr::V6(_) => Self::V6,
        }
    }
}
