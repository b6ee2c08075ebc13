//! Which devices have packet hooks: those of the host, those inside containers' network namespaces, sooner or later made.
//!
//! The device is a bridge, which every kernel here can make; to the hooks it is like any other with Ethernet headers.

use std::{collections::BTreeSet, fs, net::SocketAddrV4, path::PathBuf};

use enforcer_common::{
    event::{Hook, Outcome},
    verdict::Reason,
};
use enforcer_tests::{
    actor::{
        Actor, Attempt,
        packet::{udp_packet, untagged},
    },
    imds::Hits,
    namespace::NetNs,
    netlink::configure,
    scene::Scene,
    topology::{BRIDGE_HARDWARE, IMDS_V4},
};
use nix::errno::Errno;

use crate::{assert_nothing_reached_the_metadata_service, recorded};

const DEVICE: &str = "extra0";

/// Makes a device in a process's network namespace.
fn add_device(pid: u32) {
    let namespace = NetNs::of_process(pid).unwrap();
    configure(&namespace, async |net| {
        net.add_bridge(DEVICE, [0x02, 0, 0, 0x77, 9, 9]).await
    })
    .unwrap();
}

/// What a packet hook's drop at egress looks like to who sent from a packet socket.
const DROPPED: Attempt = Attempt::Refused(Errno::ENOBUFS);

/// Sends a frame to the metadata service past all socket hooks.
fn send(actor: &mut Actor, device: &str) -> Attempt {
    let packet = udp_packet(
        SocketAddrV4::new(actor.address(), 4000),
        SocketAddrV4::new(IMDS_V4, 80),
        b"lab!",
    );
    actor.frame(device, BRIDGE_HARDWARE, untagged(&packet)).unwrap()
}

/// Sends frames until one is dropped: a device that has just come is noticed a moment later.
fn send_until_dropped(actor: &mut Actor) {
    assert!((0..100_000).any(|_| send(actor, DEVICE) == DROPPED));
}

/// Waits for the record of a frame that a hook dropped.
fn await_drop(scene: &Scene, hook: Hook) {
    recorded(scene, hook, Outcome::Dropped, Reason::RawPacket, "web");
}

#[test]
fn a_device_inside_a_container_has_its_hook_when_the_enforcer_is_ready_and_keeps_it() {
    let mut scene = Scene::builder().task("web").prepare().unwrap();
    let mut web = scene.bridge_container("web").unwrap();
    add_device(web.pid());
    assert_eq!(send(&mut web, DEVICE), Attempt::Done);
    scene.enforcer().start().unwrap();
    assert_eq!(send(&mut web, DEVICE), DROPPED);
    await_drop(&scene, Hook::TcDevice);
    scene.enforcer().restart().unwrap();
    assert_eq!(send(&mut web, DEVICE), DROPPED);
    scene.enforcer().kill().unwrap();
    assert_eq!(send(&mut web, DEVICE), DROPPED);
    scene.enforcer().start().unwrap();
    assert_eq!(send(&mut web, DEVICE), DROPPED);
}

#[test]
fn a_device_that_appears_inside_a_container_gets_its_hook_and_so_does_the_next_of_that_name() {
    let scene = crate::scene();
    let mut web = scene.bridge_container("web").unwrap();
    let namespace = NetNs::of_process(web.pid()).unwrap();
    for _ in 0..3 {
        add_device(web.pid());
        send_until_dropped(&mut web);
        await_drop(&scene, Hook::TcDevice);
        configure(&namespace, async |net| net.remove(DEVICE).await).unwrap();
    }
}

#[test]
fn a_device_that_is_moved_into_a_container_gets_its_hook_there() {
    let scene = crate::scene();
    let mut web = scene.bridge_container("web").unwrap();
    let namespace = NetNs::of_process(web.pid()).unwrap();
    scene.topology().direct(scene.host_network(), DEVICE).unwrap();
    configure(scene.host_network(), async |net| {
        net.hand_over(DEVICE, &namespace).await
    })
    .unwrap();
    configure(&namespace, async |net| net.up(DEVICE).await).unwrap();
    send_until_dropped(&mut web);
    // Where the hook it had on the host goes with it, that one may be the first to drop.
    let is_drop =
        |record: &enforcer_tests::audit::Record| record.is_verdict(Outcome::Dropped.name()) && record.is_of("web");
    scene.audit().wait_for(is_drop).unwrap();
}

#[test]
fn a_device_where_only_a_thread_is_has_its_hook_and_so_has_one_that_is_moved_there() {
    let mut scene = Scene::builder().task("web").prepare().unwrap();
    let mut web = scene.bridge_container("web").unwrap();
    let process = NetNs::of_process(web.pid()).unwrap();
    let thread = web.isolate().unwrap();
    configure(&thread, async |net| {
        net.add_bridge("extra1", [0x02, 0, 0, 0x77, 9, 8]).await
    })
    .unwrap();
    assert_eq!(send(&mut web, "extra1"), Attempt::Done);
    scene.enforcer().start().unwrap();
    assert_eq!(send(&mut web, "extra1"), DROPPED);
    await_drop(&scene, Hook::TcDevice);
    scene.topology().direct(&process, DEVICE).unwrap();
    configure(&process, async |net| net.hand_over(DEVICE, &thread).await).unwrap();
    configure(&thread, async |net| net.up(DEVICE).await).unwrap();
    send_until_dropped(&mut web);
}

#[test]
fn a_name_that_no_namespace_is_behind_is_passed_over() {
    let mut scene = Scene::builder().prepare().unwrap();
    let names = scene.path("/run/netns");
    fs::create_dir(&names).unwrap();
    fs::write(names.join("left-behind"), "").unwrap();
    scene.enforcer().start().unwrap();
    let log = scene.enforcer().log();
    assert!(!log.contains("left-behind"), "{log}");
}

#[test]
fn nothing_stays_pinned_for_a_device_that_is_gone() {
    let mut scene = crate::scene();
    let mut web = scene.bridge_container("web").unwrap();
    let namespace = NetNs::of_process(web.pid()).unwrap();
    scene.enforcer().restart().unwrap();
    let before = pinned_devices(&scene);
    add_device(web.pid());
    send_until_dropped(&mut web);
    configure(&namespace, async |net| net.remove(DEVICE).await).unwrap();
    scene.enforcer().restart().unwrap();
    assert_eq!(pinned_devices(&scene), before);
}

/// The directories of the pins of devices; there are none on kernels that have filters instead.
fn pinned_devices(scene: &Scene) -> BTreeSet<PathBuf> {
    let children = |directory: PathBuf| {
        let entries = fs::read_dir(directory).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path())
    };
    children(scene.path("/sys/fs/bpf/enforcer/links/tc"))
        .flat_map(children)
        .collect()
}

#[test]
fn a_container_in_host_mode_reaches_nobody_through_the_hosts_devices() {
    let mut scene = crate::scene();
    let mut web = scene.host_container("web").unwrap();
    assert_eq!(send(&mut web, "br0"), DROPPED);
    await_drop(&scene, Hook::TcUplink);
    add_device(web.pid());
    send_until_dropped(&mut web);
    assert_nothing_reached_the_metadata_service(&mut scene);
}

#[test]
fn detach_takes_the_hooks_from_every_device() {
    let mut scene = Scene::builder().task("web").prepare().unwrap();
    let mut web = scene.bridge_container("web").unwrap();
    add_device(web.pid());
    scene.enforcer().start().unwrap();
    assert_eq!(send(&mut web, DEVICE), DROPPED);
    assert_eq!(send(&mut web, "eth0"), Attempt::Done);
    await_drop(&scene, Hook::TcIngress);
    assert!(scene.enforcer().terminate().unwrap().success());
    for _ in 0..2 {
        let detach = scene.enforcer().run(["detach"]).unwrap();
        assert!(detach.status.success(), "{}", String::from_utf8_lossy(&detach.stderr));
    }
    assert_eq!(send(&mut web, DEVICE), Attempt::Done);
    assert_eq!(scene.imds_hits().unwrap(), Hits::default());
    assert_eq!(send(&mut web, "eth0"), Attempt::Done);
    assert_ne!(scene.imds_hits().unwrap(), Hits::default());
}
