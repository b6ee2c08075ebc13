//! Network devices of one network namespace: what each of them is to us.

use futures_util::TryStreamExt as _;
use rtnetlink::{
    Handle, new_connection,
    packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
};
use tokio::runtime;

use super::HostError;
use crate::{
    bpf::{Device, Role},
    sys,
};

/// Runs requests on a netlink connection of their own.
pub(super) async fn with_handle<T>(work: impl AsyncFnOnce(Handle) -> Result<T, HostError>) -> Result<T, HostError> {
    let (connection, handle, _messages) = new_connection().map_err(|source| HostError::Socket { source })?;
    tokio::select! {
        result = work(handle) => result,
        () = connection => Err(HostError::WatchEnded { what: "network devices" }),
    }
}

/// The devices of a network namespace.
#[derive(Debug)]
pub(super) struct Listed {
    /// The namespace's cookie.
    pub(super) namespace: u64,
    /// Those that packets of guarded processes pass.
    pub(super) devices: Vec<Device>,
}

/// The devices of the calling thread's network namespace that packets of guarded processes pass. The thread must be in no
/// runtime.
pub(super) fn devices(is_own: bool) -> Result<Listed, HostError> {
    let namespace = sys::socket::netns_cookie().map_err(|source| HostError::Socket { source })?;
    let runtime = runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(|source| HostError::Socket { source })?;
    let links = runtime.block_on(with_handle(async |handle| list(&handle).await))?;
    let device = |link: &LinkMessage| {
        Some(Device {
            namespace,
            index: link.header.index,
            name: name_of(link)?,
            role: role(link, is_own)?,
        })
    };
    Ok(Listed {
        namespace,
        devices: links.iter().filter_map(device).collect(),
    })
}

async fn list(handle: &Handle) -> Result<Vec<LinkMessage>, HostError> {
    let links = handle.link().get().execute();
    links.try_collect().await.map_err(|source| HostError::Netlink {
        operation: "list network devices".to_owned(),
        source,
    })
}

/// What a device is to us, `None` if we need not see what it carries.
///
/// Every veth of the host leads into a container or may in a moment: one whose peer is on the host too costs nothing and
/// hurts nobody. A veth inside a container is seen on the host's side. Devices without Ethernet headers reach no metadata
/// service. What a packet socket puts on the host's loopback comes back as if it were received, and is forwarded.
fn role(link: &LinkMessage, is_own: bool) -> Option<Role> {
    if link.header.flags.contains(LinkFlags::Loopback) {
        return is_own.then_some(Role::Uplink);
    }
    if link.header.link_layer_type != LinkLayerType::Ether {
        return None;
    }
    match (is_veth(link), is_own) {
        (true, true) => Some(Role::Container),
        (true, false) => None,
        (false, true) => Some(Role::Uplink),
        (false, false) => Some(Role::Device),
    }
}

fn is_veth(link: &LinkMessage) -> bool {
    let kind = LinkInfo::Kind(InfoKind::Veth);
    link.attributes.iter().any(|attribute| {
        if let LinkAttribute::LinkInfo(infos) = attribute {
            infos.contains(&kind)
        } else {
            false
        }
    })
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

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};

    use super::role;
    use crate::bpf::Role;

    fn link(kind: Option<InfoKind>, layer: LinkLayerType, flags: LinkFlags) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.link_layer_type = layer;
        link.header.flags = flags;
        link.attributes
            .extend(kind.map(|kind| LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)])));
        link
    }

    #[test]
    fn every_device_with_ethernet_headers_has_a_role_where_nothing_else_sees_its_packets() {
        let up = LinkFlags::Up;
        for (kind, layer, flags, on_host, in_container) in [
            (
                Some(InfoKind::Veth),
                LinkLayerType::Ether,
                up,
                Some(Role::Container),
                None,
            ),
            (None, LinkLayerType::Ether, up, Some(Role::Uplink), Some(Role::Device)),
            (
                Some(InfoKind::MacVlan),
                LinkLayerType::Ether,
                up,
                Some(Role::Uplink),
                Some(Role::Device),
            ),
            (
                Some(InfoKind::Bridge),
                LinkLayerType::Ether,
                up,
                Some(Role::Uplink),
                Some(Role::Device),
            ),
            (
                None,
                LinkLayerType::Loopback,
                LinkFlags::Loopback,
                Some(Role::Uplink),
                None,
            ),
            (Some(InfoKind::Wireguard), LinkLayerType::None, up, None, None),
        ] {
            let link = link(kind, layer, flags);
            assert_eq!(
                [role(&link, true), role(&link, false)],
                [on_host, in_container],
                "{link:?}"
            );
        }
    }
}
