//! Socket addresses no crate knows how to write, and one that changes while the kernel reads it.

use std::sync::atomic::{AtomicU32, Ordering};

use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};

/// `struct sockaddr` of any family, as the bytes the kernel expects.
#[derive(Clone, Debug)]
pub(crate) struct RawAddress(pub(crate) Vec<u8>);

/// A `struct sockaddr_in` that other threads rewrite while a system call reads it.
#[derive(Debug)]
pub(crate) struct SharedAddress {
    words: [AtomicU32; 4],
}

// === impl RawAddress ===

impl RawAddress {
    /// The bytes, for calls that take a pointer.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[expect(unsafe_code, reason = "an address is whatever the kernel takes for one")]
// SAFETY: the pointer and the length are those of the vector, which lives as long as the call; the kernel copies that
// many bytes and refuses what is no address.
unsafe impl SocketAddrArg for RawAddress {
    unsafe fn with_sockaddr<R>(&self, call: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        call(
            self.0.as_ptr().cast(),
            SocketAddrLen::try_from(self.0.len()).unwrap_or(0),
        )
    }
}

// === impl SharedAddress ===

impl SharedAddress {
    /// An address with these words: family and port, IPv4 address, padding; all as they lie in memory.
    pub(crate) fn new(words: [u32; 4]) -> Self {
        Self {
            words: words.map(AtomicU32::new),
        }
    }

    /// Replaces the IPv4 address (as it lies in memory).
    pub(crate) fn set(&self, address: u32) {
        if let Some(word) = self.words.get(1) {
            word.store(address, Ordering::Relaxed);
        }
    }
}

#[expect(unsafe_code, reason = "the kernel reads while others write: that is the point")]
// SAFETY: the pointer and the length are those of the words, which live as long as the call. They are atomics, so that
// somebody else's store meanwhile is no data race; any value of them is an address.
unsafe impl SocketAddrArg for SharedAddress {
    unsafe fn with_sockaddr<R>(&self, call: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        call(self.words.as_ptr().cast(), 16)
    }
}
