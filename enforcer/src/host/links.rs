//! Network devices: finds the host side of containers' interfaces and attaches the packet hooks to each, now and when
//! they appear.
//!
//! Every veth of this namespace counts. One whose peer is here as well costs nothing and hurts nobody; waiting until the
//! peer has moved into a container would open a gap.

use std::convert::Infallible;

use futures_util::{StreamExt as _, TryStreamExt as _};
use rtnetlink::{
    Handle, MulticastGroup, new_connection, new_multicast_connection,
    packet_core::NetlinkPayload,
    packet_route::{
        RouteNetlinkMessage,
        link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage},
    },
};

use super::HostError;
use crate::bpf::Bpf;

/// Runs requests on a netlink connection of their own.
pub(super) async fn with_handle<T>(work: impl AsyncFnOnce(Handle) -> Result<T, HostError>) -> Result<T, HostError> {
    let (connection, handle, _messages) = new_connection().map_err(|source| HostError::Socket { source })?;
    tokio::select! {
        result = work(handle) => result,
        () = connection => Err(HostError::WatchEnded { what: "network devices" }),
    }
}

/// Names of the interfaces that lead into containers.
pub async fn container_interfaces() -> Result<Vec<String>, HostError> {
    with_handle(async |handle| list(&handle).await).await
}

/// Attaches the packet hooks to every interface that leads into a container now.
pub async fn attach_present(bpf: &mut Bpf) -> Result<(), HostError> {
    for interface in container_interfaces().await? {
        attach(bpf, &interface);
    }
    Ok(())
}

/// Attaches the packet hooks to every interface that leads into a container, and to those that appear, forever.
///
/// An interface that cannot be attached is logged and left to the socket hooks, which need no attachment; it may just
/// have vanished again.
pub async fn watch(bpf: &mut Bpf) -> Result<Infallible, HostError> {
    loop {
        watch_once(bpf).await?;
        // Too many changes at once, and the kernel dropped some: look at everything again.
        tracing::warn!("lost track of network devices, listing them again");
    }
}

async fn watch_once(bpf: &mut Bpf) -> Result<(), HostError> {
    let (connection, handle, mut changes) =
        new_multicast_connection(&[MulticastGroup::Link]).map_err(|source| HostError::Socket { source })?;
    let work = async {
        for interface in list(&handle).await? {
            attach(bpf, &interface);
        }
        while let Some((message, _sender)) = changes.next().await {
            let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) = message.payload else {
                continue;
            };
            if let Some(interface) = container_interface(&link) {
                attach(bpf, &interface);
            }
        }
        Ok(())
    };
    tokio::select! {
        result = work => result,
        () = connection => Ok(()),
    }
}

fn attach(bpf: &mut Bpf, interface: &str) {
    match bpf.attach_interface(interface) {
        Ok(()) => tracing::debug!(interface, "packet hooks attached"),
        Err(error) => tracing::warn!(interface, %error, "no packet hooks on this interface"),
    }
}

async fn list(handle: &Handle) -> Result<Vec<String>, HostError> {
    handle
        .link()
        .get()
        .execute()
        .try_filter_map(|link| std::future::ready(Ok(container_interface(&link))))
        .try_collect()
        .await
        .map_err(|source| HostError::Netlink {
            operation: "list network devices".to_owned(),
            source,
        })
}

/// The name of a veth, `None` for every other device.
fn container_interface(link: &LinkMessage) -> Option<String> {
    let kind = LinkInfo::Kind(InfoKind::Veth);
    let is_veth = link.attributes.iter().any(|attribute| {
        if let LinkAttribute::LinkInfo(infos) = attribute {
            infos.contains(&kind)
        } else {
            false
        }
    });
    if is_veth { name_of(link) } else { None }
}

/// The name of a device.
pub(super) fn name_of(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| {
        if let LinkAttribute::IfName(name) = attribute {
            Some(name.clone())
        } else {
            None
        }
    })
}
