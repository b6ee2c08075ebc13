//! The credential endpoint: from an accepted connection to an answer.
//!
//! ```text
//! listener ─> authorize::Gate ─ who is it? ─> Sender, once per connection ─> limits: has it too many?
//!    └─ each request: parse ─> Gate::decide ─ Permit ─> upstream ─> respond
//!                                   └─ Denial ────────────────────> respond
//!                     every one of them ──> audit
//! ```
//!
//! Each request on a connection is parsed, decided and recorded by itself. A refusal never tells more than the agent
//! would tell about an ID that does not exist; why it was refused is in the audit trail only.

mod authorize;
mod limits;
mod listener;
mod parse;
mod respond;

use http::{Method, Uri};
use tracing::warn;

use self::{
    authorize::Sender,
    limits::{Limits, Place},
    parse::Parsed,
    respond::{Response, Unknown},
};
pub use self::{
    authorize::{Attest, Gate},
    listener::{ListenError, Listener},
};
use crate::{
    audit::{self, Recorder, Verdict},
    policy::{AccessRequest, CredentialId, Decision, DenialReason},
    upstream::{Answer, Upstream},
};

/// Answers credential requests.
#[derive(Debug)]
pub struct Endpoint {
    gate: Gate,
    upstream: Upstream,
    recorder: Recorder,
    limits: Limits,
}

/// A decision that is recorded when this is dropped, so that a caller that hangs up is recorded too.
struct Pending<'a> {
    recorder: &'a Recorder,
    sender: &'a Sender,
    verdict: Verdict,
    request: audit::Request,
    credential: Option<CredentialId>,
}

// === impl Endpoint ===

impl Endpoint {
    /// An endpoint that asks `gate` who may have what, and `upstream` for it.
    #[must_use]
    pub fn new(gate: Gate, upstream: Upstream, recorder: Recorder) -> Self {
        Self {
            gate,
            upstream,
            recorder,
            limits: Limits::default(),
        }
    }

    /// A place for a connection of this sender; none if it has too many, and that is recorded.
    fn admit(&self, sender: &Sender) -> Option<Place<'_>> {
        let place = self.limits.admit(sender.task());
        if place.is_none() {
            drop(Pending {
                recorder: &self.recorder,
                sender,
                verdict: Verdict::Deny(DenialReason::TooManyConnections),
                request: audit::Request::default(),
                credential: None,
            });
        }
        place
    }

    /// Answers one request. A body is not looked at.
    async fn answer(&self, sender: &Sender, method: &Method, uri: &Uri) -> Response {
        let parsed = parse::parse(method, uri);
        let mut pending = Pending {
            recorder: &self.recorder,
            sender,
            verdict: Verdict::Deny(DenialReason::Malformed),
            request: audit::Request {
                method: respond::method_name(method),
                path: parsed.audit_path(),
                status: None,
            },
            credential: None,
        };
        let response = match parsed {
            Parsed::Access(access) => self.access(&mut pending, access).await,
            Parsed::NoId(version) => respond::no_id(version),
            Parsed::Method(_) => respond::method_not_allowed(),
            Parsed::Undecodable => respond::bad_request(),
            Parsed::Unclean(location) => {
                pending.verdict = Verdict::Deny(DenialReason::NotCredentials);
                respond::moved(&location)
            }
            Parsed::Elsewhere => {
                pending.verdict = Verdict::Deny(DenialReason::NotCredentials);
                respond::not_found()
            }
        };
        pending.request.status = Some(response.status().as_u16());
        response
    }

    async fn access(&self, pending: &mut Pending<'_>, access: AccessRequest) -> Response {
        let decision = self.gate.decide(pending.sender, &access);
        pending.credential = Some(access.credential);
        let permit = match decision {
            Decision::Permit(permit) => permit,
            Decision::Denial(reason) => {
                pending.verdict = Verdict::Deny(reason);
                return respond::unknown(access.version, Unknown::Id);
            }
        };
        pending.verdict = Verdict::Permit;
        match self.upstream.credentials(&permit).await {
            Ok(Answer::Credentials(body)) => respond::credentials(body),
            Ok(Answer::Unknown) => respond::unknown(access.version, Unknown::Id),
            Ok(Answer::NotReady) => respond::unknown(access.version, Unknown::Yet),
            Err(error) => {
                warn!(task = permit.task().as_str(), %error, "cannot get credentials");
                respond::internal_error()
            }
        }
    }
}

// === impl Pending ===

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let decision = audit::Endpoint {
            verdict: self.verdict,
            identity: self.sender.identity,
            located: self.sender.located.clone(),
            request: self.request.clone(),
        };
        self.recorder.endpoint(decision, self.credential.as_ref());
    }
}

#[cfg(test)]
mod tests;
