//! cgroup/sendmsg4 and cgroup/sendmsg6, and datagrams through connect4 and connect6.

use enforcer_common::{
    event::{Hook, Outcome},
    verdict::Reason,
};
use enforcer_tests::{
    actor::{Actor, Attempt, DatagramStyle},
    scene::Scene,
    topology::{ENDPOINT, IMDS, IMDS_MAPPED, IMDS_OVER_V6},
};

use crate::{EPERM, assert_nothing_reached_the_metadata_service, recorded, scene};

fn cannot_send_to_the_metadata_service(scene: &mut Scene, actor: &mut Actor) {
    use DatagramStyle::{Connected, Unconnected};

    for (address, style, hook) in [
        (IMDS, Unconnected, Hook::Sendmsg4),
        (IMDS_MAPPED, Unconnected, Hook::Sendmsg4),
        (IMDS_OVER_V6, Unconnected, Hook::Sendmsg6),
        (IMDS, Connected, Hook::Connect4),
        (IMDS_MAPPED, Connected, Hook::Connect6),
        (IMDS_OVER_V6, Connected, Hook::Connect6),
    ] {
        let before = scene.audit().records().unwrap().len();
        assert_eq!(actor.datagram(address, style).unwrap(), EPERM, "{address} {style:?}");
        let record = scene.audit().next_after(before).unwrap();
        assert!(record.is_kernel(hook, Reason::ImdsBlocked), "{record:?}");
        assert!(record.is_verdict(Outcome::Denied.name()) && record.is_of("web") && record.is_to(address.ip()));
        assert_eq!(record.destination.unwrap().protocol.as_deref(), Some("udp"));
    }
    assert_nothing_reached_the_metadata_service(scene);
}

#[test]
fn a_bridge_container_cannot_send_to_the_metadata_service() {
    let mut scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    cannot_send_to_the_metadata_service(&mut scene, &mut web);
}

#[test]
fn a_host_mode_container_cannot_send_to_the_metadata_service() {
    let mut scene = scene();
    let mut web = scene.host_container("web").unwrap();
    cannot_send_to_the_metadata_service(&mut scene, &mut web);
}

#[test]
fn a_host_process_sends_to_the_metadata_service_and_is_recorded() {
    let mut scene = scene();
    let mut host = scene.host_process().unwrap();
    for (address, hook) in [(IMDS, Hook::Sendmsg4), (IMDS_OVER_V6, Hook::Sendmsg6)] {
        assert_eq!(
            host.datagram(address, DatagramStyle::Unconnected).unwrap(),
            Attempt::Done
        );
        let record = scene
            .audit()
            .wait_for(|record| record.is_kernel(hook, Reason::HostCgroup))
            .unwrap();
        assert!(record.is_verdict(Outcome::Allowed.name()) && record.is_to(address.ip()));
    }
    assert_eq!(scene.imds_hits().unwrap().datagrams, 2);
}

#[test]
fn the_endpoint_takes_no_datagrams() {
    let scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    for (style, hook) in [
        (DatagramStyle::Unconnected, Hook::Sendmsg4),
        (DatagramStyle::Connected, Hook::Connect4),
    ] {
        assert_eq!(web.datagram(ENDPOINT, style).unwrap(), EPERM, "{style:?}");
        recorded(&scene, hook, Outcome::Denied, Reason::EndpointProtocol, "web");
    }
}
