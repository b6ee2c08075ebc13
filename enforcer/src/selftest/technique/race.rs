//! Races: the address changes while the kernel looks at it.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::OwnedFd,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use rustix::{
    fs::{OFlags, fcntl_setfl},
    net::{AddressFamily, SendFlags, sendto},
};

use crate::{
    selftest::{
        ground::Ground,
        socket::{inet, tcp, udp},
    },
    sys::sockaddr::SharedAddress,
};

/// How often it is tried.
const ROUNDS: u32 = 2_000;
/// Every so many rounds the protected address is there at the beginning, also where the other thread hardly ever runs.
const PROTECTED: u32 = 32;

pub(super) fn connect(ground: &Ground) -> io::Result<()> {
    raced(ground, |address| {
        let socket = tcp(AddressFamily::INET)?;
        fcntl_setfl(&socket, OFlags::NONBLOCK)?;
        Ok(rustix::net::connect(&socket, address)?)
    })
}

pub(super) fn send(ground: &Ground) -> io::Result<()> {
    let socket: OwnedFd = udp(AddressFamily::INET)?;
    raced(ground, |address| {
        Ok(sendto(&socket, b"selftest", SendFlags::empty(), address).map(drop)?)
    })
}

/// Tries again and again while another thread changes the address between an unprotected and the protected one. Tells
/// the refusal, if there was one.
fn raced(ground: &Ground, attempt: impl Fn(&SharedAddress) -> io::Result<()>) -> io::Result<()> {
    let words: Vec<u32> = inet(ground.neighbor())
        .bytes()
        .as_chunks()
        .0
        .iter()
        .map(|word| u32::from_ne_bytes(*word))
        .collect();
    let words = words.try_into().map_err(|_words| io::ErrorKind::InvalidData)?;
    let (address, done) = (SharedAddress::new(words), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            // Once around for each address, for it to be interrupted with either of them in place.
            let mut addresses = [ground.metadata, ground.bystander];
            while !done.load(Ordering::Relaxed) {
                address.set(in_memory(addresses[0]));
                addresses.reverse();
            }
        });
        let mut outcome = Ok(());
        for round in 0..ROUNDS {
            // On a single CPU the other thread hardly ever comes in between.
            if round.is_multiple_of(16) {
                thread::yield_now();
            }
            if round.is_multiple_of(PROTECTED) {
                address.set(in_memory(ground.metadata));
            }
            if let Err(error) = attempt(&address)
                && error.raw_os_error() == Some(libc::EPERM)
            {
                outcome = Err(error);
            }
        }
        done.store(true, Ordering::Relaxed);
        outcome
    })
}

fn in_memory(address: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(address.octets())
}
