//! `AF_XDP`: frames that go from user memory to the driver, past every queueing discipline.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use rustix::net::{AddressFamily, SendFlags, SocketType, bind};

use super::frame::{HARDWARE, packet};
use crate::{
    selftest::{
        ground::Ground,
        packet::{IPV4, frame},
        socket::{interface_index, open},
    },
    sys::{
        mapping::Mapping,
        sockaddr::RawAddress,
        socket::{get_option, set_option},
    },
};

const SOL_XDP: libc::c_int = 283;
const XDP_MMAP_OFFSETS: libc::c_int = 1;
const XDP_TX_RING: libc::c_int = 3;
const XDP_UMEM_REG: libc::c_int = 4;
const XDP_UMEM_FILL_RING: libc::c_int = 5;
const XDP_UMEM_COMPLETION_RING: libc::c_int = 6;
const XDP_PGOFF_TX_RING: u64 = 0x8000_0000;
/// Through the ordinary transmit function, which every driver has.
const XDP_COPY: u16 = 1 << 1;

const FRAMES: u32 = 4;
const FRAME_SIZE: u32 = 2048;
/// struct `xdp_mmap_offsets`: four rings of four numbers each; of the second ring, that of frames to send, the first
/// number says where its producer is and the third one where its descriptors begin.
const OFFSETS: usize = 4 * 4 * 8;
const PRODUCER: usize = 4 * 8;
const DESCRIPTORS: usize = 6 * 8;
const RING_LENGTH: usize = 4096;

pub(super) fn send(ground: &Ground) -> io::Result<()> {
    let socket = open(AddressFamily::from_raw(44), SocketType::RAW, 0)?;
    let memory = Mapping::anonymous((FRAMES * FRAME_SIZE) as usize)?;
    register(&socket, &memory)?;
    for ring in [XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_TX_RING] {
        set_option(socket.as_fd(), (SOL_XDP, ring), &FRAMES.to_ne_bytes())?;
    }
    let ring = Mapping::of_socket(socket.as_fd(), XDP_PGOFF_TX_RING, RING_LENGTH)?;
    bind(&socket, &address(ground)?)?;
    let frame = frame(ground.next_hop, HARDWARE, IPV4, &packet(ground));
    memory.write(0, &frame)?;
    // struct xdp_desc: where in the memory, how long, options.
    let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
    let [producer, descriptors] = offsets(&socket)?;
    ring.write(descriptors, &[0; 8])?;
    ring.write(descriptors + 8, &length.to_ne_bytes())?;
    ring.publish(producer, 1)?;
    Ok(rustix::net::send(&socket, &[], SendFlags::DONTWAIT).map(drop)?)
}

/// Where in the ring its producer and its descriptors are.
fn offsets(socket: &OwnedFd) -> io::Result<[usize; 2]> {
    let mut offsets = [0; OFFSETS];
    get_option(socket.as_fd(), (SOL_XDP, XDP_MMAP_OFFSETS), &mut offsets)?;
    let number = |at: usize| {
        let (number, _) = offsets.get(at..)?.split_first_chunk()?;
        usize::try_from(u64::from_ne_bytes(*number)).ok()
    };
    let both = number(PRODUCER).zip(number(DESCRIPTORS));
    let (producer, descriptors) = both.ok_or(io::ErrorKind::InvalidData)?;
    Ok([producer, descriptors])
}

/// struct `xdp_umem_reg`: address, length, size of a frame, headroom, flags, length of metadata.
fn register(socket: &OwnedFd, memory: &Mapping) -> io::Result<()> {
    let length = u64::from(FRAMES * FRAME_SIZE);
    let request = [
        &memory.address().to_ne_bytes()[..],
        &length.to_ne_bytes(),
        &FRAME_SIZE.to_ne_bytes(),
        &[0; 12],
    ]
    .concat();
    set_option(socket.as_fd(), (SOL_XDP, XDP_UMEM_REG), &request)
}

/// struct `sockaddr_xdp`: family, flags, interface, queue 0, nobody's memory shared.
fn address(ground: &Ground) -> io::Result<RawAddress> {
    let index = interface_index(&ground.interface)?;
    let family = 44_u16.to_ne_bytes();
    Ok(RawAddress(
        [&family[..], &XDP_COPY.to_ne_bytes(), &index.to_ne_bytes(), &[0; 8]].concat(),
    ))
}
