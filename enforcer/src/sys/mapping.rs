//! Memory shared with the kernel: rings of packet sockets, and the frames `AF_XDP` sends from.

use std::{
    ffi::c_void,
    io,
    os::fd::BorrowedFd,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// A mapping, unmapped when it is dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<c_void>,
    length: usize,
}

const ACCESS: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

// === impl Mapping ===

impl Mapping {
    /// Private memory, page-aligned and zeroed.
    #[expect(unsafe_code, reason = "mmap(2) hands out raw memory")]
    pub(crate) fn anonymous(length: usize) -> io::Result<Self> {
        // SAFETY: the kernel chooses an address where nothing else lies.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), length, ACCESS, MapFlags::PRIVATE) }?;
        Self::own(start, length)
    }

    /// Private memory with an address of 32 bits, zeroed.
    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "mmap(2) hands out raw memory")]
    pub(crate) fn low(length: usize) -> io::Result<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::from_bits_retain(libc::MAP_32BIT.cast_unsigned());
        // SAFETY: as above.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), length, ACCESS, flags) }?;
        Self::own(start, length)
    }

    /// What a socket offers to map at `offset`.
    #[expect(unsafe_code, reason = "mmap(2) hands out raw memory")]
    pub(crate) fn of_socket(socket: BorrowedFd<'_>, offset: u64, length: usize) -> io::Result<Self> {
        // SAFETY: as above.
        let start = unsafe { mmap(ptr::null_mut(), length, ACCESS, MapFlags::SHARED, socket, offset) }?;
        Self::own(start, length)
    }

    fn own(start: *mut c_void, length: usize) -> io::Result<Self> {
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, length })
    }

    /// Where it lies, for structures that name memory by its address.
    pub(crate) fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    /// Copies bytes to an offset.
    #[expect(
        unsafe_code,
        reason = "the memory is the kernel's too, so there is no reference to it"
    )]
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let to = self.at(offset, bytes.len())?;
        // SAFETY: `at` has checked that all the bytes lie in the mapping; `bytes` is not part of it.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }

    /// Publishes a number: what was written before is seen by who reads it.
    #[expect(unsafe_code, reason = "as in `write`")]
    pub(crate) fn publish(&self, offset: usize, value: u32) -> io::Result<()> {
        if !offset.is_multiple_of(size_of::<u32>()) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        #[expect(
            clippy::cast_ptr_alignment,
            reason = "mappings begin at pages, and the offset was just checked"
        )]
        let to = self.at(offset, size_of::<u32>())?.cast::<u32>();
        // SAFETY: inside the mapping, aligned, and accessed by atomic operations only, here and in the kernel.
        unsafe { AtomicU32::from_ptr(to) }.store(value, Ordering::Release);
        Ok(())
    }

    #[expect(unsafe_code, reason = "as in `write`")]
    fn at(&self, offset: usize, length: usize) -> io::Result<*mut u8> {
        if offset.checked_add(length).is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: the offset lies within the mapping, as was just checked.
        Ok(unsafe { self.start.as_ptr().cast::<u8>().add(offset) })
    }
}

impl Drop for Mapping {
    #[expect(unsafe_code, reason = "munmap(2) takes raw memory")]
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference into it is ever handed out.
        if let Err(error) = unsafe { munmap(self.start.as_ptr(), self.length) } {
            tracing::debug!(%error, "cannot unmap");
        }
    }
}
