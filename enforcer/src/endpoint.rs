//! The credential endpoint: from an accepted connection to an answer.
//!
//! ```text
//! listener ─> authorize::Gate ─ who is it? ─> Sender, once per connection ─> limits: has it too many?
//!    └─ each request: parse ─> Caller::decide ─ Permit ─> upstream ─> respond
//!                                     └─ Denial ────────────────────> respond
//!                     every one of them ──> audit
//! ```
//!
//! Each request on a connection is parsed, decided and recorded by itself. A refusal never tells more than the agent
//! would tell about an ID that does not exist; why it was refused is in the audit trail only.
//!
//! Where denials are only observed, a denied request goes the way of a permitted one, and the trail says `would_deny`.

mod access;
mod authorize;
mod explain;
mod limits;
mod listener;
mod parse;
mod respond;

use http::{Method, Uri};
use tokio::time::Instant;
use tracing::warn;

pub use self::{
    access::Access,
    authorize::{Attest, Gate},
    listener::{ListenError, Listener},
};
use self::{
    access::Caller,
    authorize::Sender,
    limits::{Limits, Place},
    parse::Parsed,
    respond::{Response, Unknown},
};
use crate::{
    audit::{self, Ground, Recorder, Verdict},
    policy::{AccessRequest, CredentialId, Decision, DenialReason, Permit},
    upstream::Answer,
};

/// Answers credential requests.
#[derive(Debug)]
pub struct Endpoint {
    gate: Gate,
    recorder: Recorder,
    limits: Limits,
}

/// A decision that is recorded when this is dropped, so that a caller that hangs up is recorded too.
struct Pending<'a> {
    recorder: &'a Recorder,
    sender: &'a Sender,
    caller: &'a Caller,
    verdict: Verdict,
    request: audit::Request,
    credential: Option<CredentialId>,
}

// === impl Endpoint ===

impl Endpoint {
    /// An endpoint that asks `gate` who may have what.
    #[must_use]
    pub fn new(gate: Gate, recorder: Recorder) -> Self {
        Self {
            gate,
            recorder,
            limits: Limits::default(),
        }
    }

    /// A place for a connection of this sender; none if it has too many, and that is recorded.
    async fn admit(&self, sender: &Sender, until: Instant) -> Option<Place<'_>> {
        let caller = self.gate.caller(sender, until).await;
        let place = self.limits.admit(caller.whose());
        if place.is_none() {
            drop(Pending {
                recorder: &self.recorder,
                sender,
                caller: &caller,
                verdict: Verdict::Deny(DenialReason::TooManyConnections),
                request: audit::Request::default(),
                credential: None,
            });
        }
        place
    }

    /// Answers one request. A body is not looked at. What is not known of the sender is waited for until then.
    async fn answer(&self, sender: &Sender, method: &Method, uri: &Uri, until: Instant) -> Response {
        let parsed = parse::parse(method, uri);
        let caller = self.gate.caller(sender, until).await;
        if let Parsed::Access(request) = &parsed
            && caller.is_consumer()
        {
            self.gate.wait_until_known(&request.wanted, until).await;
        }
        let mut pending = Pending {
            recorder: &self.recorder,
            sender,
            caller: &caller,
            verdict: Verdict::Deny(parsed.problem()),
            request: audit::Request {
                method: respond::method_name(method),
                path: parsed.audit_path(),
                status: None,
            },
            credential: None,
        };
        let response = match parsed {
            Parsed::Access(request) => access(&mut pending, request).await,
            Parsed::NoId(version) => respond::no_id(version),
            Parsed::Method(_) => respond::method_not_allowed(),
            Parsed::Undecodable => respond::bad_request(),
            Parsed::Unclean(location) => respond::moved(&location),
            Parsed::Elsewhere => respond::not_found(),
        };
        pending.request.status = Some(response.status().as_u16());
        response
    }
}

/// What is decided about a caller's request, and what it is answered with.
fn permission(caller: &Caller, request: &AccessRequest) -> (Verdict, Option<Permit>) {
    match caller.decide(request) {
        Decision::Permit(permit) if caller.is_consumer() => (Verdict::Permit(Ground::Consumer), Some(permit)),
        Decision::Permit(permit) => (Verdict::Permit(Ground::Owner), Some(permit)),
        Decision::Denial(reason) => match caller.observed(request) {
            Some(permit) => (Verdict::WouldDeny(reason), Some(permit)),
            None => (Verdict::Deny(reason), None),
        },
    }
}

/// What a decision comes to if nobody has credentials for what was asked for.
const fn without_credentials(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Permit(_) => Verdict::Deny(DenialReason::NoCredentials),
        Verdict::Deny(_) | Verdict::WouldDeny(_) => verdict,
    }
}

async fn access(pending: &mut Pending<'_>, request: AccessRequest) -> Response {
    let caller = pending.caller;
    let (verdict, permit) = permission(caller, &request);
    pending.verdict = verdict;
    let Some(permit) = permit else {
        let unknown = match verdict {
            Verdict::Deny(DenialReason::Unresolved) => Unknown::Yet,
            Verdict::Permit(_) | Verdict::Deny(_) | Verdict::WouldDeny(_) => Unknown::Id,
        };
        pending.credential = request.wanted.into_id();
        return respond::unknown(request.version, unknown);
    };
    pending.credential = permit.credential().cloned();
    match caller.upstream().credentials(&permit).await {
        Ok(Answer::Credentials(body)) => respond::credentials(body),
        Ok(Answer::Unknown) => {
            pending.verdict = without_credentials(verdict);
            respond::unknown(request.version, Unknown::Id)
        }
        Ok(Answer::NotReady) => respond::unknown(request.version, Unknown::Yet),
        Err(error) => {
            let task = match permit.task() {
                Some(task) => task.as_str(),
                None => "unknown",
            };
            warn!(task, %error, "cannot get credentials");
            respond::internal_error()
        }
    }
}

// === impl Pending ===

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let decision = audit::Endpoint {
            verdict: self.verdict,
            identity: self.sender.identity(),
            located: self.caller.located.clone(),
            request: self.request.clone(),
        };
        self.recorder.endpoint(decision, self.credential.as_ref());
    }
}

#[cfg(test)]
mod tests;
