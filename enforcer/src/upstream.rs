//! Upstreams: who holds the credentials. They are asked with a [`Permit`], so nothing gets here undecided.

mod ecs_agent;
mod embedded;

use std::sync::Arc;

use bytes::Bytes;

use self::ecs_agent::EcsAgent;
pub use self::{
    ecs_agent::{EcsAgentError, Vouch},
    embedded::{Embedded, refresh, unusable},
};
use crate::{config, policy::Permit};

/// An upstream's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The credentials, as the client gets them.
    Credentials(Bytes),
    /// The upstream does not know the ID.
    Unknown,
    /// It knows the ID and has no credentials now.
    NotReady,
}

/// An upstream failed. Says nothing of what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The ECS agent.
    #[error(transparent)]
    EcsAgent(#[from] EcsAgentError),
}

/// The configured upstream.
#[derive(Debug)]
pub enum Upstream {
    /// The enforcer itself.
    Embedded(Embedded),
    /// The ECS agent.
    EcsAgent(Box<EcsAgent>),
}

// === impl Upstream ===

impl Upstream {
    /// Makes the upstream ready. Credentials that cannot be had yet are no error: they may come later. Of an earlier
    /// upstream, what is still good is kept. Another process is believed only if somebody vouches for it.
    #[must_use]
    pub fn build(config: &config::Upstream, earlier: Option<&Self>, vouch: Arc<dyn Vouch>) -> Self {
        match config {
            config::Upstream::Embedded(roles) => {
                Self::Embedded(Embedded::build(roles, earlier.and_then(Self::embedded)))
            }
            config::Upstream::EcsAgent { address, .. } => Self::EcsAgent(Box::new(EcsAgent::build(*address, vouch))),
        }
    }

    /// The embedded agent, if it is that.
    #[must_use]
    pub const fn embedded(&self) -> Option<&Embedded> {
        match self {
            Self::Embedded(embedded) => Some(embedded),
            Self::EcsAgent(_) => None,
        }
    }

    /// Whether it is certain, without asking anybody, that it knows nothing of what `permit` is about.
    #[must_use]
    pub fn lacks(&self, permit: &Permit) -> bool {
        match self {
            Self::Embedded(embedded) => !embedded.has(permit.task(), permit.role_arn()),
            // The agent knows roles by IDs only.
            Self::EcsAgent(_) => permit.credential().is_none(),
        }
    }

    /// The credentials that `permit` is about.
    pub async fn credentials(&self, permit: &Permit) -> Result<Answer, UpstreamError> {
        match self {
            Self::Embedded(embedded) => Ok(embedded.credentials(permit)),
            Self::EcsAgent(agent) => Ok(agent.credentials(permit).await?),
        }
    }
}
