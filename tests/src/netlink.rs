//! Links, addresses and routes of one network namespace, by rtnetlink.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    pin::pin,
};

use anyhow::{Context, Result, anyhow};
use futures_util::{
    StreamExt, TryStreamExt,
    future::{Either, select},
    stream::LocalBoxStream,
};
use nix::net::if_::if_nametoindex;
use rtnetlink::{
    Handle, LinkBridge, LinkMacVlan, LinkMessageBuilder, LinkUnspec, LinkVeth, MulticastGroup, RouteMessageBuilder,
    new_multicast_connection,
    packet_route::{
        address::{AddressAttribute, AddressFlags, AddressHeaderFlags},
        link::{InfoData, InfoVeth, LinkAttribute, MacVlanMode, State},
        route::RouteScope,
    },
};

use crate::namespace::NetNs;

mod traffic;

/// A netlink connection to the namespace it was opened in.
#[derive(Debug)]
pub struct Netlink {
    handle: Handle,
}

/// Configures a namespace.
pub fn configure<T: Send>(namespace: &NetNs, change: impl AsyncFnOnce(&Netlink) -> Result<T> + Send) -> Result<T> {
    connected(namespace, async |netlink, _| change(&netlink).await)
}

/// Waits until an interface carries packets: after it is brought up, the kernel's link watch has yet to say so, and
/// until then packets are dropped.
pub fn await_running(namespace: &NetNs, name: &str) -> Result<()> {
    connected(namespace, async |netlink, mut changes| {
        while !netlink.is_running(name).await? {
            changes.next().await.context("the changes of links ended early")?;
        }
        Ok(())
    })
}

/// One item for each change of a link.
type Changes = LocalBoxStream<'static, ()>;

fn connected<T: Send>(namespace: &NetNs, work: impl AsyncFnOnce(Netlink, Changes) -> Result<T> + Send) -> Result<T> {
    namespace.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .context("cannot start a runtime for netlink")?;
        runtime.block_on(async {
            let (connection, handle, changes) =
                new_multicast_connection(&[MulticastGroup::Link]).context("cannot open a netlink socket")?;
            match select(
                pin!(work(Netlink { handle }, changes.map(drop).boxed_local())),
                pin!(connection),
            )
            .await
            {
                Either::Left((outcome, _)) => outcome,
                Either::Right(((), _)) => Err(anyhow!("the netlink connection ended early")),
            }
        })
    })
}

// === impl Netlink ===

impl Netlink {
    /// Adds a bridge with a fixed hardware address: a derived one changes when ports come, and neighbors lose it.
    pub async fn add_bridge(&self, name: &str, hardware: [u8; 6]) -> Result<()> {
        let message = LinkBridge::new(name).address(hardware.to_vec()).up().build();
        let request = self.handle.link().add(message);
        request
            .execute()
            .await
            .with_context(|| format!("cannot add bridge {name}"))
    }

    /// Adds a pair of interfaces: `name` here, `peer_name` in the other namespace.
    pub async fn add_veth(&self, name: &str, peer_name: &str, peer: &NetNs) -> Result<()> {
        let other = LinkMessageBuilder::<LinkUnspec>::new()
            .name(peer_name)
            .setns_by_fd(peer.raw())
            .build();
        let message = LinkVeth::new(name, peer_name)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(other)))
            .up()
            .build();
        let request = self.handle.link().add(message);
        request
            .execute()
            .await
            .with_context(|| format!("cannot add interface pair {name}"))
    }

    /// Removes an interface.
    pub async fn remove(&self, name: &str) -> Result<()> {
        let request = self.handle.link().del(index(name)?);
        request.execute().await.with_context(|| format!("cannot remove {name}"))
    }

    /// Adds an interface in another namespace that sends and receives through one of this namespace.
    pub async fn add_macvlan(&self, lower: &str, name: &str, other: &NetNs, hardware: [u8; 6]) -> Result<()> {
        self.up(lower).await?;
        let message = LinkMacVlan::new(name, index(lower)?, MacVlanMode::Private)
            .address(hardware.to_vec())
            .setns_by_fd(other.raw())
            .up()
            .build();
        let request = self.handle.link().add(message);
        request
            .execute()
            .await
            .with_context(|| format!("cannot add interface {name} on {lower}"))
    }

    /// Moves an interface to another namespace, where it is down at first.
    pub async fn hand_over(&self, name: &str, to: &NetNs) -> Result<()> {
        let message = LinkUnspec::new_with_index(index(name)?).setns_by_fd(to.raw()).build();
        let request = self.handle.link().set(message);
        request.execute().await.with_context(|| format!("cannot move {name}"))
    }

    /// Makes an interface a port of a bridge.
    pub async fn enslave(&self, name: &str, bridge: &str) -> Result<()> {
        let message = LinkUnspec::new_with_index(index(name)?)
            .controller(index(bridge)?)
            .build();
        let request = self.handle.link().set(message);
        request
            .execute()
            .await
            .with_context(|| format!("cannot add {name} to {bridge}"))
    }

    /// Brings an interface up.
    pub async fn up(&self, name: &str) -> Result<()> {
        let request = self
            .handle
            .link()
            .set(LinkUnspec::new_with_index(index(name)?).up().build());
        request
            .execute()
            .await
            .with_context(|| format!("cannot bring {name} up"))
    }

    async fn is_running(&self, name: &str) -> Result<bool> {
        let request = self.handle.link().get().match_index(index(name)?);
        let links: Vec<_> = request
            .execute()
            .try_collect()
            .await
            .with_context(|| format!("cannot query {name}"))?;
        Ok(links
            .iter()
            .any(|link| link.attributes.contains(&LinkAttribute::OperState(State::Up))))
    }

    /// Gives an interface a hardware address.
    pub async fn set_hardware(&self, name: &str, hardware: [u8; 6]) -> Result<()> {
        let message = LinkUnspec::new_with_index(index(name)?)
            .address(hardware.to_vec())
            .build();
        let request = self.handle.link().set(message);
        request
            .execute()
            .await
            .with_context(|| format!("cannot give {name} a hardware address"))
    }

    /// Gives an interface an address that is usable at once (no duplicate address detection).
    pub async fn add_address(&self, name: &str, address: impl Into<IpAddr>, prefix: u8) -> Result<()> {
        let address = address.into();
        let mut request = self.handle.address().add(index(name)?, address, prefix);
        let message = request.message_mut();
        message.header.flags |= AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        request
            .execute()
            .await
            .with_context(|| format!("cannot add {address}/{prefix} to {name}"))
    }

    /// Routes an IPv4 prefix out of an interface, to a gateway or, without one, to whoever answers there. Replaces the
    /// route the prefix has.
    pub async fn route_v4(&self, to: (Ipv4Addr, u8), via: Option<Ipv4Addr>, name: &str) -> Result<()> {
        let message = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to.0, to.1)
            .output_interface(index(name)?);
        let message = match via {
            Some(gateway) => message.gateway(gateway).onlink(),
            None => message.scope(RouteScope::Link),
        };
        let request = self.handle.route().add(message.build()).replace();
        request
            .execute()
            .await
            .with_context(|| format!("cannot route {}/{} to {name}", to.0, to.1))
    }

    /// Makes a neighbor known, so that the first packet to it waits for nothing, whatever was known of it.
    pub async fn add_neighbor(&self, name: &str, address: impl Into<IpAddr>, hardware: [u8; 6]) -> Result<()> {
        let address = address.into();
        let request = self
            .handle
            .neighbours()
            .add(index(name)?, address)
            .link_layer_address(&hardware)
            .replace();
        request
            .execute()
            .await
            .with_context(|| format!("cannot add neighbor {address} to {name}"))
    }

    /// Routes an IPv6 prefix to a gateway.
    pub async fn route_v6(&self, to: (Ipv6Addr, u8), via: Ipv6Addr, name: &str) -> Result<()> {
        let message = RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(to.0, to.1)
            .output_interface(index(name)?)
            .gateway(via);
        let request = self.handle.route().add(message.build()).replace();
        request
            .execute()
            .await
            .with_context(|| format!("cannot route {}/{} to {name}", to.0, to.1))
    }
}

/// Every caller runs on a thread inside the namespace, so the lookup sees its interfaces.
fn index(name: &str) -> Result<u32> {
    if_nametoindex(name).with_context(|| format!("there is no interface {name}"))
}
