//! The enforcer's kernel side. One file per hook family in `hooks`; what they share is beside it.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(
    internal_features,
    reason = "atomic_xadd: the BPF target lacks `AtomicU64::fetch_add`"
)]
#![expect(
    unsafe_code,
    reason = "BPF contexts and helpers are raw pointers; the verifier checks every access at load"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the program macros hand the context over by value"
)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "the kernel's contexts hold 16-bit ports in 32-bit fields, and its helpers take C integers"
)]

mod budget;
mod emit;
mod handshakes;
mod hooks;
mod inspect;
mod maps;
mod observed;
mod origin;
mod packet;
mod rules;
mod sender;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
