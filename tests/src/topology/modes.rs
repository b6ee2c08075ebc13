//! Ways of a container to the metadata service that have no bridge, or not only one.
//!
//! ```text
//!   container netns                        imds netns
//!   eth0 ┄┄ macvlan ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ wire<n> ──veth── direct<n> 10.77.<n>.1
//! ```
//!
//! A macvlan device is no veth and its own side is all there is of it: so it stands for an uplink of the host, and for a
//! network card moved into a container.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};

use super::{ANY_V4, ANY_V6, Attachment, IMDS_V4, IMDS_V6, Topology, forget_source_filters, offload::write_checksums};
use crate::{
    namespace::NetNs,
    netlink::{await_running, configure},
};

/// Hardware address of the metadata service on links of its own.
pub const DIRECT_HARDWARE: [u8; 6] = [0x02, 0, 0, 0x77, 2, 1];
/// Hardware address of the host on a container's second link.
pub const SECOND_HARDWARE: [u8; 6] = [0x02, 0, 0, 0x77, 3, 1];
/// The bridge ECS tasks in `awsvpc` mode reach the credential endpoint by (gateway of `169.254.172.0/22`).
const ECS_BRIDGE_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 172, 1);
const ECS_BRIDGE_HARDWARE: [u8; 6] = [0x02, 0, 0, 0x77, 4, 1];
const ECS_TASK_HARDWARE: [u8; 6] = [0x02, 0, 0, 0x77, 4, 2];
const CREDENTIALS: Ipv4Addr = Ipv4Addr::new(169, 254, 170, 2);

/// Addresses of a link of the metadata service's own.
#[derive(Clone, Copy, Debug)]
pub struct Direct {
    /// The near side.
    pub near: (Ipv4Addr, Ipv6Addr),
    /// The metadata service's side; nobody protects these addresses.
    pub far: (Ipv4Addr, Ipv6Addr),
}

// === impl Direct ===

impl Direct {
    fn numbered(number: u8) -> Self {
        let v4 = |last| Ipv4Addr::new(10, 77, 100 + number, last);
        let v6 = |last| Ipv6Addr::new(0xfd77, 100 + u16::from(number), 0, 0, 0, 0, 0, last);
        Self {
            near: (v4(2), v6(2)),
            far: (v4(1), v6(1)),
        }
    }
}

// === impl Topology ===

impl Topology {
    /// Puts a device that leads straight to the metadata service into a namespace.
    pub fn direct(&self, namespace: &NetNs, name: &str) -> Result<Direct> {
        let number = self.next()?;
        let direct = Direct::numbered(number);
        let (wire, far) = (format!("wire{number}"), format!("direct{number}"));
        let hardware = [0x02, 0, 0, 0x77, 5, number];
        configure(&self.imds, async |net| {
            net.add_veth(&wire, &far, &self.imds).await?;
            write_checksums(&wire)?;
            net.set_hardware(&far, DIRECT_HARDWARE).await?;
            net.up(&far).await?;
            net.add_macvlan(&wire, name, namespace, hardware).await?;
            net.add_address(&far, direct.far.0, 24).await?;
            net.add_address(&far, direct.far.1, 64).await?;
            net.add_neighbor(&far, direct.near.0, hardware).await?;
            net.add_neighbor(&far, direct.near.1, hardware).await
        })?;
        configure(namespace, async |net| {
            net.up(name).await?;
            net.add_address(name, direct.near.0, 24).await?;
            net.add_address(name, direct.near.1, 64).await?;
            net.add_neighbor(name, direct.far.0, DIRECT_HARDWARE).await?;
            net.add_neighbor(name, direct.far.1, DIRECT_HARDWARE).await
        })?;
        await_running(namespace, name)?;
        Ok(direct)
    }

    /// Makes a direct device the host's way to the metadata service.
    pub fn route_host_by(&self, name: &str, direct: Direct) -> Result<()> {
        configure(&self.host, async |net| {
            net.route_v4((IMDS_V4, 32), Some(direct.far.0), name).await?;
            net.route_v6((IMDS_V6, 128), direct.far.1, name).await
        })
    }

    /// A namespace as ECS makes it in `awsvpc` mode: a network card of its own, and a veth to the host for the
    /// credential endpoint. Connections to that come from the returned address.
    pub fn awsvpc(&self) -> Result<(NetNs, Direct, Ipv4Addr)> {
        let number = self.next()?;
        let host_side = format!("ecs{number}");
        let namespace = NetNs::try_new()?;
        namespace.run(forget_source_filters)?;
        let direct = self.direct(&namespace, "eth0")?;
        let address = Ipv4Addr::new(169, 254, 172, 2 + number);
        configure(&self.host, async |net| {
            net.add_veth(&host_side, "ecs-eth0", &namespace).await?;
            net.add_bridge("ecs-bridge", ECS_BRIDGE_HARDWARE).await?;
            net.add_address("ecs-bridge", ECS_BRIDGE_V4, 22).await?;
            net.enslave(&host_side, "ecs-bridge").await?;
            net.add_neighbor("ecs-bridge", address, ECS_TASK_HARDWARE).await
        })?;
        configure(&namespace, async |net| {
            net.up("lo").await?;
            net.set_hardware("ecs-eth0", ECS_TASK_HARDWARE).await?;
            net.up("ecs-eth0").await?;
            net.add_address("ecs-eth0", address, 32).await?;
            net.add_neighbor("ecs-eth0", ECS_BRIDGE_V4, ECS_BRIDGE_HARDWARE).await?;
            net.route_v4((CREDENTIALS, 32), Some(ECS_BRIDGE_V4), "ecs-eth0").await?;
            net.route_v4(ANY_V4, Some(direct.far.0), "eth0").await?;
            net.route_v6(ANY_V6, direct.far.1, "eth0").await
        })?;
        for (namespace, link) in [
            (&namespace, "ecs-eth0"),
            (&self.host, &host_side),
            (&self.host, "ecs-bridge"),
        ] {
            await_running(namespace, link)?;
        }
        Ok((namespace, direct, address))
    }

    /// A second link between a container on the bridge and the host, which is the container's way to the metadata
    /// service.
    pub fn second_link(&self, container: &Attachment) -> Result<(Ipv4Addr, Ipv6Addr)> {
        let number = self.next()?;
        let host_side = format!("second{number}");
        let Direct { near, far } = Direct::numbered(number);
        let hardware = [0x02, 0, 0, 0x77, 3, 2];
        configure(&self.host, async |net| {
            net.add_veth(&host_side, "eth1", &container.namespace).await?;
            net.set_hardware(&host_side, SECOND_HARDWARE).await?;
            net.add_address(&host_side, far.0, 24).await?;
            net.add_address(&host_side, far.1, 64).await?;
            net.add_neighbor(&host_side, near.0, hardware).await?;
            net.add_neighbor(&host_side, near.1, hardware).await
        })?;
        configure(&container.namespace, async |net| {
            net.set_hardware("eth1", hardware).await?;
            net.up("eth1").await?;
            net.add_address("eth1", near.0, 24).await?;
            net.add_address("eth1", near.1, 64).await?;
            net.add_neighbor("eth1", far.0, SECOND_HARDWARE).await?;
            net.add_neighbor("eth1", far.1, SECOND_HARDWARE).await?;
            net.route_v4((IMDS_V4, 32), Some(far.0), "eth1").await?;
            net.route_v6((IMDS_V6, 128), far.1, "eth1").await
        })?;
        await_running(&container.namespace, "eth1")?;
        await_running(&self.host, &host_side)?;
        Ok(near)
    }

    fn next(&self) -> Result<u8> {
        let number = self.containers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        u8::try_from(number).context("the lab has no more addresses")
    }
}

/// A namespace with a loopback device and nothing else.
pub fn isolated() -> Result<NetNs> {
    let namespace = NetNs::try_new()?;
    configure(&namespace, async |net| net.up("lo").await)?;
    Ok(namespace)
}
