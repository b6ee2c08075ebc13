//! The credential endpoint's address, on the loopback device of the host's network namespace.
//!
//! It stays when the enforcer ends: then connections to it are refused at once instead of wandering off to the network.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt as _;
use rtnetlink::{
    Handle, LinkUnspec, RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressMessage, AddressScope},
        link::{LinkFlags, LinkMessage},
        route::{RouteAddress, RouteAttribute, RouteMessage},
    },
};
use tokio::runtime;

use super::{
    HostError,
    links::{name_of, with_handle},
};

/// Devices other than loopback that are about the address.
#[derive(Clone, Debug)]
pub struct Elsewhere {
    /// Those that have it.
    pub held_by: Vec<String>,
    /// Those that routes to it lead to.
    pub routed_to: Vec<String>,
}

/// Puts the address on loopback in place of the former one.
pub async fn put(address: Ipv4Addr, former: Option<Ipv4Addr>) -> Result<(), HostError> {
    ensure(address).await?;
    match former {
        Some(former) => remove(former).await,
        None => Ok(()),
    }
}

/// Puts the address (a /32 of host scope) on loopback, if it is not there yet. Loopback is brought up if it is down.
async fn ensure(address: Ipv4Addr) -> Result<(), HostError> {
    with_handle(async |handle| {
        let loopback = loopback(&handle).await?;
        if find(&handle, loopback, address).await?.is_some() {
            return Ok(());
        }
        let mut request = handle.address().add(loopback, IpAddr::V4(address), 32);
        request.message_mut().header.scope = AddressScope::Host;
        request
            .execute()
            .await
            .map_err(netlink_error(format!("add {address} to the loopback device")))
    })
    .await
}

/// Takes the address away. Not being there is fine.
pub async fn remove(address: Ipv4Addr) -> Result<(), HostError> {
    with_handle(async |handle| {
        let loopback = loopback(&handle).await?;
        let Some(present) = find(&handle, loopback, address).await? else {
            return Ok(());
        };
        let operation = format!("remove {address} from the loopback device");
        handle
            .address()
            .del(present)
            .execute()
            .await
            .map_err(netlink_error(operation))
    })
    .await
}

/// Names of the devices other than loopback that have the address, and of those that a route to this very address leads to.
/// Must not be called in a runtime.
pub fn elsewhere(address: Ipv4Addr) -> Result<Elsewhere, HostError> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(|source| HostError::Socket { source })?;
    runtime.block_on(with_handle(async |handle| {
        let wanted = AddressAttribute::Local(IpAddr::V4(address));
        let listed = handle.address().get().execute().try_collect().await;
        let addresses: Vec<AddressMessage> = listed.map_err(netlink_error("list addresses".to_owned()))?;
        let every = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let listed = handle.route().get(every).execute().try_collect().await;
        let routes: Vec<RouteMessage> = listed.map_err(netlink_error("list routes".to_owned()))?;
        let links = handle.link().get().execute().try_collect().await;
        let mut links: Vec<LinkMessage> = links.map_err(netlink_error("list network devices".to_owned()))?;
        links.retain(|link| !link.header.flags.contains(LinkFlags::Loopback));
        let holds = |link: &&LinkMessage| {
            let mut own = addresses.iter().filter(|one| one.header.index == link.header.index);
            own.any(|one| one.attributes.contains(&wanted))
        };
        let is_led_to = |link: &&LinkMessage| routes.iter().any(|route| leads(route, address, link.header.index));
        Ok(Elsewhere {
            held_by: links.iter().filter(holds).filter_map(name_of).collect(),
            routed_to: links.iter().filter(is_led_to).filter_map(name_of).collect(),
        })
    }))
}

/// Whether a route to this very address, whatever its table, leads to a device.
fn leads(route: &RouteMessage, address: Ipv4Addr, device: u32) -> bool {
    let to = RouteAttribute::Destination(RouteAddress::Inet(address));
    route.header.destination_prefix_length == 32
        && route.attributes.contains(&to)
        && route.attributes.contains(&RouteAttribute::Oif(device))
}

/// Index of the loopback device, whatever its name, up.
async fn loopback(handle: &Handle) -> Result<u32, HostError> {
    let mut links = handle.link().get().execute();
    while let Some(link) = links
        .try_next()
        .await
        .map_err(netlink_error("list network devices".to_owned()))?
    {
        if !link.header.flags.contains(LinkFlags::Loopback) {
            continue;
        }
        let index = link.header.index;
        if !link.header.flags.contains(LinkFlags::Up) {
            let name = name_of(&link);
            let operation = format!("bring up {}", name.as_deref().unwrap_or("the loopback device"));
            let up = LinkUnspec::new_with_index(index).up().build();
            handle
                .link()
                .set(up)
                .execute()
                .await
                .map_err(netlink_error(operation))?;
        }
        return Ok(index);
    }
    Err(HostError::NoLoopback)
}

async fn find(handle: &Handle, device: u32, address: Ipv4Addr) -> Result<Option<AddressMessage>, HostError> {
    handle
        .address()
        .get()
        .set_link_index_filter(device)
        .execute()
        .try_filter(|message| {
            let wanted = AddressAttribute::Local(IpAddr::V4(address));
            std::future::ready(message.header.prefix_len == 32 && message.attributes.contains(&wanted))
        })
        .try_next()
        .await
        .map_err(netlink_error("list addresses of the loopback device".to_owned()))
}

fn netlink_error(operation: String) -> impl FnOnce(rtnetlink::Error) -> HostError {
    move |source| HostError::Netlink { operation, source }
}
