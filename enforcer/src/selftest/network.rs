//! Network namespaces of the self-test, and what it puts into them. They have no names: they go with the process.

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd as _, AsRawFd as _},
    path::PathBuf,
    thread,
};

use futures_util::TryStreamExt as _;
use rtnetlink::{
    Handle, LinkBridge, LinkMacVlan, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder, new_connection,
    packet_route::{
        address::{AddressAttribute, AddressFlags, AddressHeaderFlags},
        link::{InfoData, InfoVeth, LinkAttribute, MacVlanMode, State},
        route::RouteScope,
        tc::TcHandle,
    },
};
use tokio::{runtime, time};

use super::socket::interface_index;
use crate::sys::namespace::{run_in, unshare_network};

/// What goes wrong with the self-test's networks.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A system call failed.
    #[error("cannot {operation}: {source}")]
    Syscall {
        /// What was tried.
        operation: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The kernel refused a netlink request.
    #[error("cannot {operation}: {source}; the self-test needs veth and macvlan devices")]
    Netlink {
        /// What was asked.
        operation: String,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// A link does not come up.
    #[error("interface {interface} does not come up")]
    NotRunning {
        /// The interface.
        interface: String,
    },
    /// The thread inside the namespace ended without a result.
    #[error("a thread of the self-test panicked")]
    Panicked,
}

/// A network namespace that lives at least as long as this.
#[derive(Debug)]
pub(super) struct Namespace {
    file: File,
}

/// A netlink connection to one namespace.
pub(super) struct Net {
    handle: Handle,
}

/// How long a new link may take to carry packets.
const PATIENCE: time::Duration = time::Duration::from_secs(5);
const GLANCE: time::Duration = time::Duration::from_millis(2);

// === impl Namespace ===

impl From<File> for Namespace {
    fn from(file: File) -> Self {
        Self { file }
    }
}

impl Namespace {
    /// The calling thread's.
    pub(super) fn current() -> io::Result<Self> {
        File::open("/proc/thread-self/ns/net").map(Self::from)
    }

    /// A new one, with nothing but a loopback device that is down.
    pub(super) fn create() -> io::Result<Self> {
        let made = thread::spawn(|| unshare_network().and_then(|()| Self::current()));
        made.join().map_err(|_panic| io::Error::other(NetworkError::Panicked))?
    }

    /// A path other processes can open the namespace by while this one lives.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }

    /// Runs a function on a thread of its own inside the namespace.
    pub(super) fn run<T: Send>(&self, function: impl FnOnce() -> T + Send) -> io::Result<T> {
        run_in(self.file.as_fd(), function)
    }
}

/// Changes a namespace over netlink.
pub(super) fn configure<T: Send>(
    namespace: &Namespace,
    change: impl AsyncFnOnce(&Net) -> Result<T, NetworkError> + Send,
) -> Result<T, NetworkError> {
    let work = || {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(syscall("start a runtime"))?;
        runtime.block_on(async {
            let (connection, handle, _messages) = new_connection().map_err(syscall("open a netlink socket"))?;
            let net = Net { handle };
            let ended = io::Error::from(io::ErrorKind::BrokenPipe);
            tokio::select! {
                result = change(&net) => result,
                () = connection => Err(syscall("talk to the kernel")(ended)),
            }
        })
    };
    namespace.run(work).map_err(syscall("enter a network namespace"))?
}

// === impl Net ===

impl Net {
    /// Adds a pair of interfaces, each in a namespace.
    pub(super) async fn add_veth(
        &self,
        (name, here): (&str, &Namespace),
        (peer_name, there): (&str, &Namespace),
    ) -> Result<(), NetworkError> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(peer_name)
            .setns_by_fd(there.file.as_raw_fd())
            .build();
        let message = LinkVeth::new(name, peer_name)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .setns_by_fd(here.file.as_raw_fd())
            .up()
            .build();
        let request = self.handle.link().add(message);
        request
            .execute()
            .await
            .map_err(netlink(format!("add interface pair {name}")))
    }

    /// Adds an interface in another namespace that sends and receives through one of this namespace.
    pub(super) async fn add_macvlan(
        &self,
        lower: &str,
        name: &str,
        there: &Namespace,
        hardware: [u8; 6],
    ) -> Result<(), NetworkError> {
        let message = LinkMacVlan::new(name, index(lower)?, MacVlanMode::Private)
            .address(hardware.to_vec())
            .setns_by_fd(there.file.as_raw_fd())
            .up()
            .build();
        let request = self.handle.link().add(message);
        request
            .execute()
            .await
            .map_err(netlink(format!("add interface {name} on {lower}")))
    }

    /// Adds a bridge.
    pub(super) async fn add_bridge(&self, name: &str) -> Result<(), NetworkError> {
        let request = self.handle.link().add(LinkBridge::new(name).build());
        request.execute().await.map_err(netlink(format!("add bridge {name}")))
    }

    /// Makes an interface a port of a bridge.
    pub(super) async fn enslave(&self, name: &str, bridge: &str) -> Result<(), NetworkError> {
        let message = LinkUnspec::new_with_index(index(name)?)
            .controller(index(bridge)?)
            .build();
        let request = self.handle.link().set(message);
        request
            .execute()
            .await
            .map_err(netlink(format!("add {name} to {bridge}")))
    }

    /// Removes an interface.
    pub(super) async fn remove(&self, name: &str) -> Result<(), NetworkError> {
        let request = self.handle.link().del(index(name)?);
        request
            .execute()
            .await
            .map_err(netlink(format!("remove interface {name}")))
    }

    /// Brings an interface up.
    pub(super) async fn up(&self, name: &str) -> Result<(), NetworkError> {
        let message = LinkUnspec::new_with_index(index(name)?).up().build();
        let request = self.handle.link().set(message);
        request.execute().await.map_err(netlink(format!("bring {name} up")))
    }

    /// Waits until an interface carries packets.
    pub(super) async fn await_running(&self, name: &str) -> Result<(), NetworkError> {
        let running = async {
            while !self.is_running(name).await? {
                time::sleep(GLANCE).await;
            }
            Ok(())
        };
        time::timeout(PATIENCE, running).await.unwrap_or_else(|_elapsed| {
            Err(NetworkError::NotRunning {
                interface: name.to_owned(),
            })
        })
    }

    async fn is_running(&self, name: &str) -> Result<bool, NetworkError> {
        let links: Vec<_> = self
            .handle
            .link()
            .get()
            .match_index(index(name)?)
            .execute()
            .try_collect()
            .await
            .map_err(netlink(format!("query {name}")))?;
        let up = LinkAttribute::OperState(State::Up);
        Ok(links.iter().any(|link| link.attributes.contains(&up)))
    }

    /// Gives an interface a hardware address.
    pub(super) async fn set_hardware(&self, name: &str, hardware: [u8; 6]) -> Result<(), NetworkError> {
        let message = LinkUnspec::new_with_index(index(name)?)
            .address(hardware.to_vec())
            .build();
        let request = self.handle.link().set(message);
        request
            .execute()
            .await
            .map_err(netlink(format!("give {name} a hardware address")))
    }

    /// Gives an interface an address that is usable at once.
    pub(super) async fn add_address(
        &self,
        name: &str,
        address: impl Into<IpAddr>,
        prefix: u8,
    ) -> Result<(), NetworkError> {
        let address = address.into();
        let mut request = self.handle.address().add(index(name)?, address, prefix);
        let message = request.message_mut();
        message.header.flags |= AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        request
            .execute()
            .await
            .map_err(netlink(format!("add {address} to {name}")))
    }

    /// Routes an IPv4 prefix out of an interface; replaces the route it has.
    pub(super) async fn route_v4(
        &self,
        to: (Ipv4Addr, u8),
        via: Option<Ipv4Addr>,
        name: &str,
    ) -> Result<(), NetworkError> {
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
            .map_err(netlink(format!("route {} to {name}", to.0)))
    }

    /// Routes an IPv6 prefix to a gateway.
    pub(super) async fn route_v6(&self, to: (Ipv6Addr, u8), via: Ipv6Addr, name: &str) -> Result<(), NetworkError> {
        let message = RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(to.0, to.1)
            .output_interface(index(name)?)
            .gateway(via);
        let request = self.handle.route().add(message.build()).replace();
        request
            .execute()
            .await
            .map_err(netlink(format!("route {} to {name}", to.0)))
    }

    /// Makes a neighbor known, whatever was known before.
    pub(super) async fn replace_neighbor(
        &self,
        name: &str,
        address: impl Into<IpAddr>,
        hardware: [u8; 6],
    ) -> Result<(), NetworkError> {
        let address = address.into();
        let neighbors = self.handle.neighbours();
        let request = neighbors
            .add(index(name)?, address)
            .link_layer_address(&hardware)
            .replace();
        request
            .execute()
            .await
            .map_err(netlink(format!("add neighbor {address} to {name}")))
    }

    /// Removes the classifiers of an interface. One that has none is as good.
    pub(super) async fn flush_classifiers(&self, name: &str) -> Result<(), NetworkError> {
        let mut request = self.handle.qdisc().del(index(name)?.cast_signed());
        request.message_mut().header.parent = TcHandle::CLSACT;
        if let Err(error) = request.execute().await {
            tracing::debug!(name, %error, "no classifiers to flush");
        }
        Ok(())
    }
}

fn index(name: &str) -> Result<u32, NetworkError> {
    interface_index(name).map_err(syscall(format!("find interface {name}")))
}

fn syscall(operation: impl Into<String>) -> impl FnOnce(io::Error) -> NetworkError {
    |source| NetworkError::Syscall {
        operation: operation.into(),
        source,
    }
}

fn netlink(operation: String) -> impl FnOnce(rtnetlink::Error) -> NetworkError {
    |source| NetworkError::Netlink { operation, source }
}
