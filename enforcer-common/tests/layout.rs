//! Pins the layout of every record shared with the kernel side. A change here needs a new `ABI_VERSION`.

use core::mem::offset_of;

use enforcer_common::{
    ABI_VERSION,
    address::{Address, AddressRule},
    event::Event,
    handshake::{Handshake, HandshakeKey},
    identity::Identity,
    settings::Settings,
};

/// `(type, size, [(field, offset)])`
macro_rules! layout {
    ($type:ty: $($field:ident),*) => {
        (stringify!($type), size_of::<$type>(), vec![$((stringify!($field), offset_of!($type, $field))),*])
    };
}

#[test]
fn records_have_the_layout_of_abi_version_2() {
    assert_eq!(ABI_VERSION, 2);
    let layouts = [
        layout!(Address: words),
        layout!(AddressRule: target, scope, ports, protocols, group),
        layout!(Identity: cgroup_id, socket_cgroup_id, netns_cookie, socket_cookie, pid, tid, uid, gid, comm),
        layout!(HandshakeKey: client, server, client_port, server_port),
        layout!(Handshake: identity, state, reserved),
        layout!(Settings: abi_version, endpoint_address, host_netns_cookie, endpoint_port, steer_port,
            packet_steer_port, introspection_port, mode, raw_sockets_denied, denied_protocols),
        layout!(Event: time_ns, hook, outcome, reason, target, ifindex, protocol, destination, source,
            destination_port, source_port, reserved, identity),
    ];
    let lines: Vec<String> = layouts.iter().map(|layout| format!("{layout:?}")).collect();
    let pinned: Vec<&str> = include_str!("layout.txt").lines().collect();
    assert_eq!(lines, pinned);
}
