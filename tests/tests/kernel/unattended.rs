//! What happens while no enforcer runs is told by the next one.

use enforcer_tests::{
    actor::DatagramStyle,
    audit::{Record, Unattended},
    topology::{IMDS, IMDS_OVER_V6},
};

use crate::{EPERM, scene};

#[test]
fn denials_while_nobody_runs_are_counted_and_recorded_by_the_next_start() {
    let mut scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    scene.enforcer().kill().unwrap();
    for _ in 0..10 {
        assert_eq!(web.connect(IMDS).unwrap(), EPERM);
        assert_eq!(web.connect(IMDS_OVER_V6).unwrap(), EPERM);
        assert_eq!(web.datagram(IMDS, DatagramStyle::Unconnected).unwrap(), EPERM);
    }
    scene.enforcer().start().unwrap();
    let told = scene.audit().wait_for(|record| record.unattended.is_some()).unwrap();
    let expected = Unattended {
        events: 30,
        denied: 30,
        dropped: 0,
        lost: 0,
    };
    assert_eq!((told.seq, told.unattended), (1, Some(expected)));
    assert!(scene.enforcer().terminate().unwrap().success());
    let records = scene.audit().records().unwrap();
    let denials = records.iter().filter(|record| record.is_verdict("deny"));
    assert_eq!((denials.count(), records.len()), (30, 31));
}

#[test]
fn an_orderly_restart_leaves_nothing_unattended() {
    let mut scene = scene();
    let mut web = scene.bridge_container("web").unwrap();
    assert_eq!(web.connect(IMDS).unwrap(), EPERM);
    scene.enforcer().restart().unwrap();
    assert_eq!(web.connect(IMDS).unwrap(), EPERM);
    let is_denial = |record: &Record| record.is_verdict("deny") && record.is_to(IMDS.ip());
    assert_eq!(scene.audit().wait_for(is_denial).unwrap().seq, 1);
}
