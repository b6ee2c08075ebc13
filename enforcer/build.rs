//! Builds the kernel side for the BPF target (nightly, `rust-src`, `bpf-linker`) and leaves the object in `OUT_DIR`.

use aya_build::{Package, Toolchain};

#[expect(
    unsafe_code,
    clippy::disallowed_methods,
    reason = "there is no other way to reach aya-build's cargo"
)]
fn main() -> aya_build::Result<()> {
    // aya-build turns every line of the inner cargo into a warning; its progress is not one.
    // SAFETY: a build script's main is the only thread, so nobody reads the environment meanwhile.
    unsafe { std::env::set_var("CARGO_TERM_QUIET", "true") };
    println!("cargo:rerun-if-changed=../enforcer-common/src");
    let hooks = Package {
        name: "enforcer-ebpf",
        root_dir: concat!(env!("CARGO_MANIFEST_DIR"), "/../enforcer-ebpf"),
        ..Package::default()
    };
    aya_build::build_ebpf([hooks], Toolchain::default())
}
