//! What the allocator keeps of freed memory. glibc gives each thread a heap of its own, as many as eight for each CPU, and
//! returns next to nothing of them: what one thread has needed once, at start or for a long list, would stay.

/// Has all threads use one heap. To be called before there are any.
#[expect(unsafe_code, reason = "mallopt(3) is a C function")]
pub fn use_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes any two numbers, and no other thread is there whose allocations it could disturb.
    if unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) } == 0 {
        tracing::debug!("the allocator goes on with a heap for each thread");
    }
}

/// Gives memory back to the kernel that is not needed any more.
#[expect(unsafe_code, reason = "malloc_trim(3) is a C function")]
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes any number, and may be called at any time by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
