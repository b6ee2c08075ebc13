//! What a device does for the kernel.

use std::{io, os::fd::AsRawFd};

use anyhow::{Context, Result};
use nix::libc;
use socket2::{Domain, Socket, Type};

/// `ETHTOOL_STXCSUM` of `linux/ethtool.h`.
const SET_SENT_CHECKSUMS: u32 = 0x17;

/// `struct ethtool_value` of `linux/ethtool.h`.
#[repr(C)]
struct Setting {
    command: u32,
    value: u32,
}

/// Has the kernel write the checksums of what a device of the calling thread's namespace sends. A veth would leave them
/// to whoever needs them, which is nobody; a real device writes them.
pub(super) fn write_checksums(name: &str) -> Result<()> {
    let mut setting = Setting {
        command: SET_SENT_CHECKSUMS,
        value: 0,
    };
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: (&raw mut setting).cast(),
        },
    };
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = libc::c_char::from_ne_bytes([byte]);
    }
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    #[expect(unsafe_code, reason = "ioctl(2) has no safe wrapper")]
    // SAFETY: the request and the setting it points to have the layout that this ioctl reads and writes, and outlive the
    // call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error()).with_context(|| format!("cannot have checksums of {name} written"))
    }
}
