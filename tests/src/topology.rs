//! The lab's network.
//!
//! ```text
//!   container netns            "host" netns                                    imds netns
//!   eth0 10.77.0.10+n ──veth── br0 10.77.0.1, fd77::1     imds0 10.77.1.1 ──veth── eth0 169.254.169.254, fd00:ec2::254
//!   eth0 <any>        ──veth── routed<n> 10.77.2.1
//! ```

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::atomic::{AtomicU16, Ordering},
};

use anyhow::{Context, Result};

use crate::{
    namespace::NetNs,
    netlink::{Netlink, await_running, configure},
};

mod modes;
mod offload;

pub use modes::{DIRECT_HARDWARE, Direct, SECOND_HARDWARE, isolated};

/// Hardware address of the bridge: where a container's packets to elsewhere go.
pub const BRIDGE_HARDWARE: [u8; 6] = [0x02, 0, 0, 0x77, 0, 1];
/// The host, as bridge containers see it.
pub const BRIDGE_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The same over IPv6.
pub const BRIDGE_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);

/// The instance metadata service over IPv4.
pub const IMDS_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The instance metadata service over IPv6.
pub const IMDS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254);
/// The metadata service's IPv4 address in forms of IPv6 that somebody on the way could take back to IPv4: the host sends
/// them where such a translator would.
pub const IMDS_EMBEDDED: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
    Ipv6Addr::new(0x2002, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 0),
    Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
];
/// Hardware address of the metadata service, and the host's interface to it.
pub const IMDS_HARDWARE: [u8; 6] = [0x02, 0, 0, 0x77, 1, 2];
const IMDS_HOST_HARDWARE: [u8; 6] = [0x02, 0, 0, 0x77, 1, 1];
const IMDS_HOST_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);
const IMDS_HOST_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 1, 0, 0, 0, 0, 0, 1);
const IMDS_LINK_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
const IMDS_LINK_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 1, 0, 0, 0, 0, 0, 2);

/// The host, as routed containers see it.
const ROUTED_HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 1);

const ANY_V4: (Ipv4Addr, u8) = (Ipv4Addr::UNSPECIFIED, 0);
const ANY_V6: (Ipv6Addr, u8) = (Ipv6Addr::UNSPECIFIED, 0);

/// The metadata service's port over IPv4, in an `AF_INET` socket's spelling.
pub const IMDS: SocketAddr = SocketAddr::new(IpAddr::V4(IMDS_V4), 80);
/// The same in an `AF_INET6` socket's spelling: v4-mapped.
pub const IMDS_MAPPED: SocketAddr = SocketAddr::new(IpAddr::V6(IMDS_V4.to_ipv6_mapped()), 80);
/// The metadata service's port over IPv6.
pub const IMDS_OVER_V6: SocketAddr = SocketAddr::new(IpAddr::V6(IMDS_V6), 80);

/// The credential endpoint as containers write it.
pub const ENDPOINT: SocketAddr = SocketAddr::new(ENDPOINT_ADDRESS, 80);
/// The ECS agent's own port, in the host's network namespace.
pub const AGENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 51679);

/// Where socket hooks steer to.
pub const STEER: SocketAddr = SocketAddr::new(ENDPOINT_ADDRESS, 21680);
/// Where TC steers to.
pub const PACKET_STEER: SocketAddr = SocketAddr::new(ENDPOINT_ADDRESS, 21681);
const ENDPOINT_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2));

/// The "host" and the metadata service's namespaces, linked.
#[derive(Debug)]
pub struct Topology {
    /// The host's namespace.
    pub host: NetNs,
    /// The namespace of the fake metadata service.
    pub imds: NetNs,
    containers: AtomicU16,
}

/// A container's namespace and how it hangs on the host.
#[derive(Debug)]
pub struct Attachment {
    /// The namespace.
    pub namespace: NetNs,
    /// Its IPv4 address.
    pub address: Ipv4Addr,
    /// Name of the interface's host side.
    pub host_side: String,
}

// === impl Topology ===

impl Topology {
    /// Builds the host's side of the network and the metadata service's in the given, empty host namespace.
    pub fn build(host: NetNs) -> Result<Self> {
        let imds = NetNs::try_new()?;
        host.run(|| {
            forget_source_filters()?;
            obey_stations()?;
            write_sysctl("ipv4/ip_forward", "1")?;
            write_sysctl("ipv6/conf/all/forwarding", "1")
        })?;
        imds.run(|| {
            forget_source_filters()?;
            obey_stations()?;
            // Nobody is asked twice for the rest of a forged connection: the answers would be counted with what comes later.
            write_sysctl("ipv4/tcp_synack_retries", "0")
        })?;
        configure(&host, async |net| {
            net.up("lo").await?;
            net.add_bridge("br0", BRIDGE_HARDWARE).await?;
            net.add_address("br0", BRIDGE_V4, 24).await?;
            net.add_address("br0", BRIDGE_V6, 64).await?;
            net.add_veth("imds0", "host0", &imds).await?;
            net.set_hardware("imds0", IMDS_HOST_HARDWARE).await?;
            net.add_address("imds0", IMDS_HOST_V4, 24).await?;
            net.add_address("imds0", IMDS_HOST_V6, 64).await
        })?;
        configure(&imds, async |net| {
            net.up("lo").await?;
            net.set_hardware("host0", IMDS_HARDWARE).await?;
            net.up("host0").await?;
            net.add_neighbor("host0", IMDS_HOST_V4, IMDS_HOST_HARDWARE).await?;
            net.add_neighbor("host0", IMDS_HOST_V6, IMDS_HOST_HARDWARE).await?;
            net.add_address("host0", IMDS_LINK_V4, 24).await?;
            net.add_address("host0", IMDS_LINK_V6, 64).await?;
            net.add_address("host0", IMDS_V4, 32).await?;
            net.add_address("host0", IMDS_V6, 128).await?;
            net.route_v4(ANY_V4, Some(IMDS_HOST_V4), "host0").await?;
            net.route_v6(ANY_V6, IMDS_HOST_V6, "host0").await
        })?;
        configure(&host, async |net| {
            net.add_neighbor("imds0", IMDS_LINK_V4, IMDS_HARDWARE).await?;
            net.add_neighbor("imds0", IMDS_LINK_V6, IMDS_HARDWARE).await?;
            net.route_v4((IMDS_V4, 32), Some(IMDS_LINK_V4), "imds0").await?;
            net.route_v6((IMDS_V6, 128), IMDS_LINK_V6, "imds0").await?;
            for embedded in IMDS_EMBEDDED {
                net.route_v6((embedded, 128), IMDS_LINK_V6, "imds0").await?;
            }
            Ok(())
        })?;
        await_running(&host, "imds0")?;
        await_running(&imds, "host0")?;
        Ok(Self {
            host,
            imds,
            containers: AtomicU16::new(0),
        })
    }

    /// A namespace on the bridge, with addresses of its own.
    pub fn bridged(&self) -> Result<Attachment> {
        let number = self.containers.fetch_add(1, Ordering::Relaxed);
        let last = u8::try_from(number + 10).context("the lab's bridge has no address left")?;
        let (address, host_side) = (Ipv4Addr::new(10, 77, 0, last), format!("veth{number}"));
        let address_v6 = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, last.into());
        let hardware = [0x02, 0, 0, 0x77, 0, last];
        let namespace = self.linked(&host_side, async |net| net.enslave(&host_side, "br0").await)?;
        configure(&namespace, async |net| {
            net.set_hardware("eth0", hardware).await?;
            start(net).await?;
            net.add_address("eth0", address, 24).await?;
            net.add_address("eth0", address_v6, 64).await?;
            net.route_v4(ANY_V4, Some(BRIDGE_V4), "eth0").await?;
            net.route_v6(ANY_V6, BRIDGE_V6, "eth0").await?;
            net.add_neighbor("eth0", BRIDGE_V4, BRIDGE_HARDWARE).await?;
            net.add_neighbor("eth0", BRIDGE_V6, BRIDGE_HARDWARE).await
        })?;
        configure(&self.host, async |net| {
            net.add_neighbor("br0", address, hardware).await?;
            net.add_neighbor("br0", address_v6, hardware).await
        })?;
        await_running(&namespace, "eth0")?;
        await_running(&self.host, &host_side)?;
        await_running(&self.host, "br0")?;
        Ok(Attachment {
            namespace,
            address,
            host_side,
        })
    }

    /// A namespace on a link of its own, with an address others may have too; see [`Self::route_to`].
    pub fn routed(&self, address: Ipv4Addr) -> Result<Attachment> {
        let number = self.containers.fetch_add(1, Ordering::Relaxed);
        let host_side = format!("routed{number}");
        let namespace = self.linked(&host_side, async |net| {
            net.add_address(&host_side, ROUTED_HOST, 32).await
        })?;
        configure(&namespace, async |net| {
            start(net).await?;
            net.add_address("eth0", address, 32).await?;
            net.route_v4(ANY_V4, Some(ROUTED_HOST), "eth0").await
        })?;
        await_running(&namespace, "eth0")?;
        await_running(&self.host, &host_side)?;
        Ok(Attachment {
            namespace,
            address,
            host_side,
        })
    }

    /// Sends the host's packets for the address of a routed container to this container.
    pub fn route_to(&self, container: &Attachment) -> Result<()> {
        configure(&self.host, async |net| {
            net.route_v4((container.address, 32), None, &container.host_side).await
        })
    }

    fn linked(&self, host_side: &str, finish: impl AsyncFnOnce(&Netlink) -> Result<()> + Send) -> Result<NetNs> {
        let namespace = NetNs::try_new()?;
        namespace.run(forget_source_filters)?;
        configure(&self.host, async |net| {
            net.add_veth(host_side, "eth0", &namespace).await?;
            finish(net).await
        })?;
        Ok(namespace)
    }
}

/// A namespace without any link that claims an address and believes it can reach everything through loopback: what
/// somebody builds who wants to pass for the address's owner.
pub fn impostor(address: Ipv4Addr) -> Result<NetNs> {
    let namespace = NetNs::try_new()?;
    configure(&namespace, async |net| {
        net.up("lo").await?;
        net.add_address("lo", address, 32).await?;
        net.route_v4(ANY_V4, None, "lo").await
    })?;
    Ok(namespace)
}

async fn start(net: &Netlink) -> Result<()> {
    net.up("lo").await?;
    net.up("eth0").await
}

/// New namespaces inherit the machine's reverse-path filter; the lab must not depend on it.
fn forget_source_filters() -> Result<()> {
    write_sysctl("ipv4/conf/all/rp_filter", "0")?;
    write_sysctl("ipv4/conf/default/rp_filter", "0")
}

/// A host that believes what a packet says of where it comes from and of its further stations, so that such packets are
/// worth refusing.
fn obey_stations() -> Result<()> {
    for devices in ["all", "default"] {
        write_sysctl(&format!("ipv4/conf/{devices}/accept_source_route"), "1")?;
        write_sysctl(&format!("ipv4/conf/{devices}/accept_local"), "1")?;
        write_sysctl(&format!("ipv6/conf/{devices}/seg6_enabled"), "1")?;
    }
    Ok(())
}

/// Sets a network sysctl (a path below `/proc/sys/net`) of the calling thread's namespace.
pub fn write_sysctl(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{name}");
    fs::write(&path, value).with_context(|| format!("cannot write {value} to {path}"))
}
