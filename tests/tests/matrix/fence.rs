//! The fence: records between which those of an attempt are.

use enforcer_tests::{
    actor::{Actor, DatagramStyle},
    audit::Record,
    scene::Scene,
    topology::IMDS_V4,
};

/// Who asks for something that is refused between two attempts, so that records can be told apart.
pub(crate) const FENCE: &str = "fence";
const FIRST_PORT: u16 = 10_000;

/// Somebody whose refusals stand between those of the attacker.
pub(crate) struct Fence {
    actor: Actor,
    port: u16,
}

// === impl Fence ===

impl Fence {
    pub(crate) fn start(scene: &Scene) -> Self {
        Self {
            actor: scene.bridge_container(FENCE).unwrap(),
            port: FIRST_PORT,
        }
    }

    /// Is refused at a port of its own, and returns the number of the record. After a flood that record may be lost as
    /// well, so that another one is needed.
    pub(crate) fn raise(&mut self, scene: &Scene) -> u64 {
        let mut seen = scene.audit().records().unwrap().len();
        loop {
            self.port += 1;
            self.actor
                .datagram((IMDS_V4, self.port).into(), DatagramStyle::Unconnected)
                .unwrap();
            loop {
                let record = scene.audit().next_after(seen).unwrap();
                seen += 1;
                if self.is_ours(&record) {
                    return record.seq;
                }
                if record.lost.is_some() {
                    break;
                }
            }
        }
    }

    fn is_ours(&self, record: &Record) -> bool {
        record.is_of(FENCE)
            && record
                .destination
                .as_ref()
                .is_some_and(|to| to.port > FIRST_PORT && to.port <= self.port)
    }
}
