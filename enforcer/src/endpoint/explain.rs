//! What a request would be answered, and why, by the very code that answers requests. Nothing is recorded.

use enforcer_common::{
    handshake::{Handshake, state},
    identity::Identity,
};
use http::{Method, Uri};

use super::{
    Endpoint,
    authorize::Sender,
    parse::{self, Parsed},
    permission, without_credentials,
};
use crate::{audit::Verdict, policy::DenialReason};

// === impl Endpoint ===

impl Endpoint {
    /// What a GET of `target` by a process of a cgroup would come to, as far as that can be told without asking the ECS agent.
    pub async fn explain(&self, cgroup_id: u64, target: &str) -> Verdict {
        let Ok(uri) = target.parse::<Uri>() else {
            return Verdict::Deny(DenialReason::Malformed);
        };
        let handshake = Handshake {
            identity: Identity {
                cgroup_id,
                ..Identity::default()
            },
            state: state::CONFIRMED,
            reserved: 0,
        };
        let caller = self.gate.caller(&Sender::of(handshake), self.gate.deadline()).await;
        let parsed = parse::parse(&Method::GET, &uri);
        let Parsed::Access(request) = &parsed else {
            return Verdict::Deny(parsed.problem());
        };
        match permission(&caller, request) {
            (verdict, Some(permit)) if caller.upstream().lacks(&permit) => without_credentials(verdict),
            (verdict, _) => verdict,
        }
    }
}
