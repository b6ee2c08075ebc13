//! The witness at the fake metadata service: counts every packet that wants to go there, whoever sent it.

use std::{
    cell::Cell,
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4},
    ops::Range,
    os::fd::{AsFd as _, OwnedFd},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, sendto, sockopt},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

use super::{
    ground::Spelling,
    network::Namespace,
    packet::{IPV4, IPV6, IPV6_ROUTING},
    socket::{open, udp},
};
use crate::sys::socket::set_option;

/// `SOL_PACKET` and its option, of `linux/if_packet.h`. Linux 4.20.
const PACKET_IGNORE_OUTGOING: (libc::c_int, libc::c_int) = (263, 23);
/// Port of the markers: an address nobody protects, a port nobody else uses.
const MARKER_PORT: u16 = 7;
/// How long a marker may take until it is sent again, and how often it is: a flood before it fills the queues of the way.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};
const TIMES: u32 = 25;
/// Where a frame with a marker says which one it is.
const MARKER: Range<usize> = ETHERNET_HEADER + 28..ETHERNET_HEADER + 36;
/// Room for what arrives between two questions, in bytes.
const BUFFER: usize = 8 << 20;
const ETHERNET_HEADER: usize = 14;

/// A packet socket in the service's namespace.
#[derive(Debug)]
pub(super) struct Witness {
    socket: OwnedFd,
    metadata: Ipv4Addr,
    metadata_v6: Vec<Ipv6Addr>,
    marker: Ipv4Addr,
    /// How often something was counted.
    rounds: Cell<u32>,
}

// === impl Witness ===

impl Witness {
    /// Begins to count in a namespace. `marker` is an address of the namespace that nobody protects.
    pub(super) fn start(
        service: &Namespace,
        (metadata, metadata_v6): (Ipv4Addr, Ipv6Addr),
        marker: Ipv4Addr,
    ) -> io::Result<Self> {
        let socket = service.run(|| open(AddressFamily::PACKET, SocketType::RAW, every_protocol()))??;
        sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER)?;
        // Or frames would count twice that the namespace hands on between its own devices.
        set_option(socket.as_fd(), PACKET_IGNORE_OUTGOING, &1_u32.to_ne_bytes())?;
        let spellings = [Spelling::Compatible, Spelling::SixToFour, Spelling::Nat64];
        let metadata_v6 = spellings
            .map(|spelling| spelling.of(metadata))
            .into_iter()
            .chain([metadata_v6]);
        Ok(Self {
            socket,
            metadata,
            metadata_v6: metadata_v6.collect(),
            marker,
            rounds: Cell::new(0),
        })
    }

    /// What has arrived since the last question. Each CPU of the sender's namespace sends a marker behind all that was
    /// sent before, and the count is over when all of them are here.
    pub(super) fn count(&self, sender: &Namespace) -> io::Result<u64> {
        let round = self.rounds.get().wrapping_add(1);
        self.rounds.set(round);
        let to = SocketAddrV4::new(self.marker, MARKER_PORT);
        let all = sched_getaffinity(None)?;
        let cpus = (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu));
        let mut missing: BTreeSet<u32> = cpus.filter_map(|cpu| u32::try_from(cpu).ok()).collect();
        let (mut packets, mut frame) = (0, [0_u8; 2048]);
        for _ in 0..TIMES {
            sender.run(|| send_markers(to, round, &missing))??;
            while !missing.is_empty() {
                let mut watched = [PollFd::new(&self.socket, PollFlags::IN)];
                if poll(&mut watched, Some(&PATIENCE))? == 0 {
                    break;
                }
                let (length, _) = recv(&self.socket, frame.as_mut_slice(), RecvFlags::DONTWAIT)?;
                let frame = frame.get(..length).unwrap_or_default();
                match self.marker_of(frame) {
                    Some((of, cpu)) if of == round => drop(missing.remove(&cpu)),
                    Some(_earlier) => {}
                    None => packets += u64::from(self.is_hit(frame)),
                }
            }
            if missing.is_empty() {
                return Ok(packets);
            }
        }
        Err(io::Error::other(
            "packets to the fake metadata service get lost on the way",
        ))
    }

    /// Round and CPU of a marker, if a frame has one.
    fn marker_of(&self, frame: &[u8]) -> Option<(u32, u32)> {
        let port = frame.get(ETHERNET_HEADER + 22..ETHERNET_HEADER + 24);
        let is_marker = kind(frame) == Some(IPV4)
            && frame.get(ETHERNET_HEADER + 16..ETHERNET_HEADER + 20) == Some(&self.marker.octets())
            && port == Some(&MARKER_PORT.to_be_bytes());
        let (round, cpu) = frame.get(MARKER)?.split_first_chunk()?;
        let (cpu, _) = cpu.split_first_chunk()?;
        is_marker.then(|| (u32::from_be_bytes(*round), u32::from_be_bytes(*cpu)))
    }

    /// Whether a frame's packet is for the metadata service, at once or as a later station.
    fn is_hit(&self, frame: &[u8]) -> bool {
        let Some(packet) = frame.get(ETHERNET_HEADER..) else {
            return false;
        };
        match kind(frame) {
            Some(IPV4) => {
                let header = usize::from(packet.first().copied().unwrap_or(0) & 0xf) * 4;
                names(packet, 16..header, &self.metadata.octets())
            }
            Some(IPV6) => {
                let end = if packet.get(6) == Some(&IPV6_ROUTING) { 80 } else { 40 };
                let named = |address: &Ipv6Addr| names(packet, 24..end, &address.octets());
                self.metadata_v6.iter().any(named)
            }
            _ => false,
        }
    }
}

fn send_markers(to: SocketAddrV4, round: u32, cpus: &BTreeSet<u32>) -> io::Result<()> {
    let socket = udp(AddressFamily::INET)?;
    for cpu in cpus {
        let mut one = CpuSet::new();
        one.set(usize::try_from(*cpu).unwrap_or(CpuSet::MAX_CPU));
        // The thread is thrown away, and its CPUs with it.
        sched_setaffinity(None, &one)?;
        let marker = [round.to_be_bytes(), cpu.to_be_bytes()].concat();
        sendto(&socket, &marker, SendFlags::empty(), &to)?;
    }
    Ok(())
}

fn kind(frame: &[u8]) -> Option<u16> {
    let (kind, _) = frame.get(12..)?.split_first_chunk()?;
    Some(u16::from_be_bytes(*kind))
}

/// Whether an address is in a part of a packet.
fn names(packet: &[u8], range: Range<usize>, address: &[u8]) -> bool {
    let end = range.end.min(packet.len());
    let part = packet.get(range.start..end).unwrap_or_default();
    part.windows(address.len()).any(|window| window == address)
}

/// `ETH_P_ALL`, in the byte order packet sockets want.
fn every_protocol() -> u32 {
    u16::to_be(3).into()
}
