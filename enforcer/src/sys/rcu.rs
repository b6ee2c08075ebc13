//! Waiting for who reads in the kernel.

use std::{thread, time::Duration};

/// `MEMBARRIER_CMD_GLOBAL` of linux/membarrier.h: the kernel waits for an RCU grace period. Linux 4.3.
const GLOBAL: libc::c_int = 1;

/// How long no program runs, by far.
const LONG: Duration = Duration::from_millis(100);

/// Waits until no BPF program that runs now is running any more, some tens of milliseconds: what was removed from a map
/// before is read by none of them afterwards.
#[expect(unsafe_code, reason = "membarrier(2) has no safe wrapper")]
pub(crate) fn wait_for_readers() {
    // SAFETY: it takes three numbers and writes to no memory.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if result != 0 {
        // Kernels that leave some CPUs without a tick (`nohz_full`) refuse.
        thread::sleep(LONG);
    }
}
