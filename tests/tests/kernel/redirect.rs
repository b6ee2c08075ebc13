//! Frames that no hook has seen where they came to the host: their device is newer than the enforcer's last look, or the
//! container takes them past it.

use std::net::SocketAddrV4;

use anyhow::Result;
use enforcer_common::{
    event::{Hook, Outcome},
    verdict::Reason,
};
use enforcer_tests::{
    actor::{
        Actor, Attempt,
        packet::{udp_packet, untagged},
    },
    audit::Record,
    namespace::NetNs,
    netlink::{Netlink, configure},
    scene::Scene,
    topology::{BRIDGE_HARDWARE, IMDS_V4},
};

use crate::{assert_nothing_reached_the_metadata_service, scene};

/// What packet hooks write into `tc_index` of what may pass; a filter sets it to the class.
const JUDGED: u16 = 0xe4f0;

/// Changes what a container with `CAP_NET_ADMIN` can change itself.
fn configure_own(actor: &Actor, change: impl AsyncFnOnce(&Netlink) -> Result<()> + Send) {
    let namespace = NetNs::of_process(actor.pid()).unwrap();
    configure(&namespace, change).unwrap();
}

fn send(actor: &mut Actor, interface: &str) {
    let (from, to) = (SocketAddrV4::new(actor.address(), 4000), SocketAddrV4::new(IMDS_V4, 80));
    let frame = untagged(&udp_packet(from, to, b"lab!"));
    assert_eq!(actor.frame(interface, BRIDGE_HARDWARE, frame).unwrap(), Attempt::Done);
}

/// What was sent while no enforcer ran has come as far as where it leaves the host, and the next one tells of it.
fn assert_was_dropped_where_it_leaves(scene: &mut Scene) {
    assert_nothing_reached_the_metadata_service(scene);
    scene.enforcer().start().unwrap();
    let is_wanted = |record: &Record| {
        record.is_kernel(Hook::TcUplink, Reason::RawPacket)
            && record.is_verdict(Outcome::Dropped.name())
            && record.is_to(IMDS_V4)
    };
    scene.audit().wait_for(is_wanted).unwrap();
}

#[test]
fn frames_of_a_container_that_came_while_no_enforcer_ran_do_not_leave_the_host() {
    let mut scene = scene();
    scene.enforcer().kill().unwrap();
    let mut web = scene.bridge_container("web").unwrap();
    send(&mut web, "eth0");
    assert_was_dropped_where_it_leaves(&mut scene);
}

#[test]
fn frames_that_pass_for_judged_do_not_leave_the_host() {
    let mut scene = scene();
    scene.enforcer().kill().unwrap();
    let mut web = scene.bridge_container("web").unwrap();
    configure_own(&web, async |net| net.classify("eth0", JUDGED).await);
    send(&mut web, "eth0");
    assert_was_dropped_where_it_leaves(&mut scene);
}

/// An `ifb` device has the next filter pass over what it sends, and only that one. So the filter that takes packets of
/// `eth0` there must not match them when they come back: it takes only what has come from yet another device.
#[test]
fn frames_that_are_taken_past_the_hook_of_the_hosts_side_do_not_leave_the_host() {
    let mut scene = Scene::builder().task("web").prepare().unwrap();
    let mut web = scene.bridge_container("web").unwrap();
    scene.enforcer().start().unwrap();
    scene.enforcer().kill().unwrap();
    configure_own(&web, async |net| {
        net.add_ifb("ifb0").await?;
        net.classify("ifb0", JUDGED).await?;
        net.add_bridge("extra0", [0x02, 0, 0, 0x77, 9, 9]).await?;
        net.redirect("eth0", Some("extra0"), "ifb0").await?;
        net.redirect("extra0", None, "eth0").await
    });
    send(&mut web, "extra0");
    assert_was_dropped_where_it_leaves(&mut scene);
}
