//! A container: an actor, and where the engine has put it.

use std::{
    collections::BTreeMap,
    fmt::Display,
    net::{Ipv4Addr, Ipv6Addr},
    ops::{Deref, DerefMut},
    str::FromStr,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Deserializer, de::Error};

use crate::actor::Actor;

/// A container whose process is an actor. It ends when this is dropped.
#[derive(Debug)]
pub struct Container {
    actor: Actor,
    name: String,
    pid: u32,
    link: Link,
}

/// Addresses in the container's own network: the container's and the host's. A container without a network of its own
/// has none.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Link {
    /// The container's.
    #[serde(rename = "IPAddress", deserialize_with = "unless_empty")]
    pub address: Option<Ipv4Addr>,
    /// The host's.
    #[serde(rename = "Gateway", deserialize_with = "unless_empty")]
    pub gateway: Option<Ipv4Addr>,
    /// The container's over IPv6.
    #[serde(rename = "GlobalIPv6Address", deserialize_with = "unless_empty")]
    pub address_v6: Option<Ipv6Addr>,
    /// The host's over IPv6.
    #[serde(rename = "IPv6Gateway", deserialize_with = "unless_empty")]
    pub gateway_v6: Option<Ipv6Addr>,
}

/// What `docker inspect` says of a container.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    state: State,
    network_settings: NetworkSettings,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    pid: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    networks: BTreeMap<String, Link>,
}

fn unless_empty<'de, D: Deserializer<'de>, A: FromStr<Err: Display>>(input: D) -> Result<Option<A>, D::Error> {
    let text = String::deserialize(input)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(D::Error::custom)
}

// === impl Container ===

impl Container {
    /// A running container, of which the engine says this.
    pub(super) fn inspected(actor: Actor, name: String, said: &str) -> Result<Self> {
        let said: Inspected = serde_json::from_str(said).with_context(|| format!("cannot decode {said}"))?;
        let link = said.network_settings.networks.into_values().next().unwrap_or_default();
        Ok(Self {
            actor: actor.at(link.address.unwrap_or(Ipv4Addr::UNSPECIFIED)),
            name,
            pid: said.state.pid,
            link,
        })
    }

    /// The container's name; `container:<name>` is its network.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The ID of the process in the container; that of the actor is the engine's client.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The addresses in its network.
    #[must_use]
    pub fn link(&self) -> Link {
        self.link
    }
}

impl Deref for Container {
    type Target = Actor;

    fn deref(&self) -> &Actor {
        &self.actor
    }
}

impl DerefMut for Container {
    fn deref_mut(&mut self) -> &mut Actor {
        &mut self.actor
    }
}
