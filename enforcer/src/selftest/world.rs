//! The throwaway world: cgroups below the guarded root, namespaces without names, and links between them.

use std::{
    fs, io,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process,
};

use super::{
    SelftestError,
    ground::Ground,
    network::{Namespace, Net, NetworkError, configure},
    witness::Witness,
};

/// What the names of our cgroups begin with; the rest is the process ID.
const PREFIX: &str = "enforcer-selftest-";

/// Addresses for benchmarks between networks (RFC 2544): nobody routes them.
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 77, 2);
const SERVICE: Ipv4Addr = Ipv4Addr::new(198, 18, 77, 1);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd5e, 0x1f, 0, 0, 0, 0, 0, 2);
const SERVICE_V6: Ipv6Addr = Ipv6Addr::new(0xfd5e, 0x1f, 0, 0, 0, 0, 0, 1);
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254);
const CLIENT_HARDWARE: [u8; 6] = [0x02, 0x53, 0x45, 0x4c, 0x46, 0x02];
const SERVICE_HARDWARE: [u8; 6] = [0x02, 0x53, 0x45, 0x4c, 0x46, 0x03];

/// The interfaces. Older kernels (6.12 is one) refuse a name that is taken where the lower device is, though it goes
/// elsewhere.
const NEAR: &str = "selftest-near";
const FAR: &str = "selftest-far";

/// The sysctls of the service's namespace: nothing is filtered there, and every way to name a station works.
const PERMISSIVE: [(&str, &str); 7] = [
    ("ipv4/conf/all/accept_local", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/accept_source_route", "1"),
    ("ipv4/conf/default/accept_source_route", "1"),
    ("ipv6/conf/all/seg6_enabled", "1"),
    ("ipv6/conf/default/seg6_enabled", "1"),
];

/// The guarded cgroups, removed at the end.
#[derive(Debug)]
pub(super) struct Cgroups {
    directory: PathBuf,
    /// Where attempts are made.
    pub(super) guarded: PathBuf,
    /// Another one of the kind.
    pub(super) sibling: PathBuf,
}

/// How the client's interface comes to the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// A veth whose other side is in the host's namespace, as containers on a bridge have it.
    Bridge,
    /// A device of its own, moved in, without a host side: as ECS tasks in `awsvpc` mode have it.
    Device,
}

/// A container and a metadata service.
#[derive(Debug)]
pub(super) struct World {
    pub(super) client: Namespace,
    pub(super) witness: Witness,
    /// Lives as long as the world; the witness looks into it.
    service: Namespace,
}

// === impl Cgroups ===

impl Cgroups {
    /// Makes the cgroups below `root`, and removes what a killed self-test left there.
    pub(super) fn create(root: &Path) -> Result<Self, SelftestError> {
        sweep(root);
        let directory = root.join(format!("{PREFIX}{}", process::id()));
        let [guarded, sibling] = ["container", "sibling"].map(|name| directory.join(name));
        for cgroup in [&guarded, &sibling] {
            fs::create_dir_all(cgroup).map_err(|source| SelftestError::Cgroup {
                path: cgroup.clone(),
                source,
            })?;
        }
        Ok(Self {
            directory,
            guarded,
            sibling,
        })
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.directory) {
            tracing::warn!(cgroup = %self.directory.display(), %error, "cannot remove a cgroup of the self-test");
        }
    }
}

/// Removes cgroups of self-tests that are gone. Their namespaces and links went with them.
fn sweep(root: &Path) {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else {
            continue;
        };
        if !Path::new("/proc").join(pid).exists()
            && let Err(error) = remove(&entry.path())
        {
            tracing::debug!(cgroup = %entry.path().display(), %error, "a leftover stays");
        }
    }
}

/// Removes a cgroup with those below it; processes in them are killed.
fn remove(cgroup: &Path) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.kill"), "1")?;
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    // Those killed need a moment to be gone.
    for _ in 0..200 {
        match fs::remove_dir(cgroup) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            outcome => return outcome,
        }
    }
    fs::remove_dir(cgroup)
}

// === impl World ===

impl World {
    /// Builds the two namespaces and the way between them.
    pub(super) fn build(mode: Mode) -> Result<Self, SelftestError> {
        let namespace = || Namespace::create().map_err(|source| SelftestError::Namespace { source });
        let here = Namespace::current().map_err(|source| SelftestError::Namespace { source })?;
        let (client, service) = (namespace()?, namespace()?);
        relax(&service)?;
        let link = format!("selftest{}", process::id());
        match mode {
            Mode::Bridge => {
                configure(&here, async |net| {
                    net.add_veth((&link, &here), (NEAR, &client)).await?;
                    silence(&link);
                    net.add_macvlan(&link, FAR, &service, SERVICE_HARDWARE).await?;
                    net.up(&link).await
                })?;
                configure(&client, async |net| net.set_hardware(NEAR, CLIENT_HARDWARE).await)?;
            }
            Mode::Device => {
                configure(&service, async |net| {
                    net.add_veth(("wire", &service), (FAR, &service)).await?;
                    net.add_macvlan("wire", NEAR, &client, CLIENT_HARDWARE).await?;
                    net.set_hardware(FAR, SERVICE_HARDWARE).await?;
                    net.up("wire").await?;
                    net.up(FAR).await
                })?;
            }
        }
        configure(&service, address_service)?;
        let witness = Witness::start(&service, (METADATA, METADATA_V6), SERVICE)
            .map_err(|source| SelftestError::Witness { source })?;
        Ok(Self {
            client,
            witness,
            service,
        })
    }

    /// Brings the client's interface up. As in a container, processes are there before: a running enforcer looks for them
    /// when it is told of a device.
    pub(super) fn connect(&self) -> Result<(), SelftestError> {
        configure(&self.client, address_client)?;
        for (namespace, interface) in [(&self.service, FAR), (&self.client, NEAR)] {
            configure(namespace, async |net| net.await_running(interface).await)?;
        }
        Ok(())
    }

    /// What techniques are told.
    pub(super) fn ground(cgroups: &Cgroups, outside: &Path) -> Ground {
        Ground {
            interface: NEAR.to_owned(),
            next_hop: SERVICE_HARDWARE,
            own: CLIENT,
            own_v6: CLIENT_V6,
            metadata: METADATA,
            metadata_v6: METADATA_V6,
            bystander: SERVICE,
            bystander_v6: SERVICE_V6,
            in_host_network: false,
            endpoint: None,
            cgroup: cgroups.guarded.clone(),
            sibling: cgroups.sibling.clone(),
            outside: outside.to_owned(),
            host_network: None,
        }
    }
}

async fn address_service(net: &Net) -> Result<(), NetworkError> {
    net.up("lo").await?;
    net.add_address(FAR, SERVICE, 24).await?;
    net.add_address(FAR, SERVICE_V6, 64).await?;
    net.add_address(FAR, METADATA, 32).await?;
    net.add_address(FAR, METADATA_V6, 128).await?;
    net.replace_neighbor(FAR, CLIENT, CLIENT_HARDWARE).await?;
    net.replace_neighbor(FAR, CLIENT_V6, CLIENT_HARDWARE).await
}

async fn address_client(net: &Net) -> Result<(), NetworkError> {
    net.up("lo").await?;
    net.up(NEAR).await?;
    net.add_address(NEAR, CLIENT, 24).await?;
    net.add_address(NEAR, CLIENT_V6, 64).await?;
    net.replace_neighbor(NEAR, SERVICE, SERVICE_HARDWARE).await?;
    net.replace_neighbor(NEAR, SERVICE_V6, SERVICE_HARDWARE).await?;
    net.route_v4((Ipv4Addr::UNSPECIFIED, 0), Some(SERVICE), NEAR).await?;
    net.route_v6((Ipv6Addr::UNSPECIFIED, 0), SERVICE_V6, NEAR).await
}

fn relax(service: &Namespace) -> Result<(), SelftestError> {
    let write = || {
        PERMISSIVE
            .iter()
            .try_for_each(|(name, value)| fs::write(Path::new("/proc/sys/net").join(name), value))
    };
    service
        .run(write)
        .flatten()
        .map_err(|source| SelftestError::Namespace { source })
}

/// The host must not speak on our link: no IPv6 address, no neighbor discovery.
fn silence(link: &str) {
    let path = format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6");
    if let Err(error) = fs::write(path, "1") {
        tracing::debug!(%error, "this host has no IPv6 to turn off on the self-test's link");
    }
}
