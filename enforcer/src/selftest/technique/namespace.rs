//! Networks within the container: one of its own below it, and its own one rebuilt.

use std::{fs, io, net::Ipv4Addr, process::Command};

use super::{frame, stream};
use crate::selftest::{
    ground::{Ground, unavailable},
    network::{Namespace, configure},
};

/// The nested network: the container's side, the nested side.
const OUTER: Ipv4Addr = Ipv4Addr::new(10, 97, 1, 1);
const INNER: Ipv4Addr = Ipv4Addr::new(10, 97, 1, 2);
const NESTED: &str = "10.97.1.0/30";
const LINK: &str = "nested0";
const BRIDGE: &str = "nested-bridge";
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
const SOURCE_FILTER: &str = "/proc/sys/net/ipv4/conf/all/rp_filter";

/// What is sent in the nested network is forwarded by the container: its packets have no socket any more.
pub(super) fn forwarded(ground: &Ground) -> io::Result<()> {
    let here = Namespace::current()?;
    let nested = Namespace::create()?;
    configure(&here, async |net| {
        net.add_veth((LINK, &here), ("eth0", &nested)).await?;
        net.add_address(LINK, OUTER, 30).await?;
        net.up(LINK).await
    })
    .map_err(io::Error::other)?;
    let outcome = connect_from(&nested, (&here, LINK), ground);
    // The pair would go with the namespace, but only some time later.
    let removed = configure(&here, async |net| net.remove(LINK).await).map_err(io::Error::other);
    outcome.and(removed)
}

/// As a container engine inside the container has it. The packets take the container's address, where it has iptables.
pub(super) fn bridged(ground: &Ground) -> io::Result<()> {
    let here = Namespace::current()?;
    let nested = Namespace::create()?;
    configure(&here, async |net| {
        net.add_bridge(BRIDGE).await?;
        net.add_veth((LINK, &here), ("eth0", &nested)).await?;
        net.enslave(LINK, BRIDGE).await?;
        net.add_address(BRIDGE, OUTER, 30).await?;
        net.up(BRIDGE).await?;
        net.up(LINK).await
    })
    .map_err(io::Error::other)?;
    masquerade("--append");
    let outcome = connect_from(&nested, (&here, BRIDGE), ground);
    masquerade("--delete");
    let removed = configure(&here, async |net| {
        net.remove(LINK).await?;
        net.remove(BRIDGE).await
    });
    outcome.and(removed.map_err(io::Error::other))
}

fn connect_from(nested: &Namespace, (here, link): (&Namespace, &str), ground: &Ground) -> io::Result<()> {
    fs::write(FORWARDING, "1")?;
    configure(nested, async |net| {
        net.add_address("eth0", INNER, 30).await?;
        net.up("eth0").await?;
        net.route_v4((Ipv4Addr::UNSPECIFIED, 0), Some(OUTER), "eth0").await?;
        net.await_running("eth0").await
    })
    .and_then(|()| configure(here, async |net| net.await_running(link).await))
    .map_err(io::Error::other)?;
    nested.run(|| stream::tcp(ground))?
}

/// Adds or removes the rule; where there is no iptables, packets are forwarded as they are.
fn masquerade(change: &str) {
    let mut iptables = Command::new("iptables");
    iptables.args([
        "--table",
        "nat",
        change,
        "POSTROUTING",
        "--source",
        NESTED,
        "--jump",
        "MASQUERADE",
    ]);
    match iptables.output() {
        Ok(output) if !output.status.success() => {
            tracing::debug!(said = %String::from_utf8_lossy(&output.stderr), "no address translation");
        }
        Err(error) => tracing::debug!(%error, "no iptables"),
        Ok(_) => {}
    }
}

/// Everything a container with `CAP_NET_ADMIN` can undo in its own network is undone.
pub(super) fn reconfigured(ground: &Ground) -> io::Result<()> {
    if ground.in_host_network {
        return Err(unavailable("whoever may change the host's network is the host"));
    }
    fs::write(SOURCE_FILTER, "0")?;
    let here = Namespace::current()?;
    configure(&here, async |net| {
        net.flush_classifiers(&ground.interface).await?;
        net.replace_neighbor(&ground.interface, ground.metadata, ground.next_hop)
            .await?;
        net.route_v4((ground.metadata, 32), None, &ground.interface).await
    })
    .map_err(io::Error::other)?;
    let outcome = frame::raw(ground);
    stream::tcp(ground).and(outcome)
}
