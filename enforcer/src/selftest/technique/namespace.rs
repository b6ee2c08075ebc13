//! Networks within the container: one of its own below it, and its own one rebuilt.

use std::{fs, io, net::Ipv4Addr};

use super::{frame, stream};
use crate::selftest::{
    ground::{Ground, unavailable},
    network::{Namespace, configure},
};

/// The nested network: the container's side, the nested side.
const OUTER: Ipv4Addr = Ipv4Addr::new(10, 97, 1, 1);
const INNER: Ipv4Addr = Ipv4Addr::new(10, 97, 1, 2);
const LINK: &str = "nested0";
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
const SOURCE_FILTER: &str = "/proc/sys/net/ipv4/conf/all/rp_filter";

/// What is sent in the nested network is forwarded by the container: its packets have no socket any more.
pub(super) fn forwarded(ground: &Ground) -> io::Result<()> {
    let here = Namespace::current()?;
    let nested = Namespace::create()?;
    fs::write(FORWARDING, "1")?;
    configure(&here, async |net| {
        net.add_veth((LINK, &here), ("eth0", &nested)).await?;
        net.add_address(LINK, OUTER, 30).await?;
        net.up(LINK).await
    })
    .map_err(io::Error::other)?;
    let outcome = configure(&nested, async |net| {
        net.add_address("eth0", INNER, 30).await?;
        net.up("eth0").await?;
        net.route_v4((Ipv4Addr::UNSPECIFIED, 0), Some(OUTER), "eth0").await?;
        net.await_running("eth0").await
    })
    .and_then(|()| configure(&here, async |net| net.await_running(LINK).await))
    .map_err(io::Error::other)
    .and_then(|()| nested.run(|| stream::tcp(ground))?);
    // The pair would go with the namespace, but only some time later.
    let removed = configure(&here, async |net| net.remove(LINK).await).map_err(io::Error::other);
    outcome.and(removed)
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
