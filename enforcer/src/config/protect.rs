//! Groups of blocked destinations: what is built in, what is written, and their numbers in the kernel.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr},
};

use enforcer_common::{
    address::{Address, MAX_RULES, protocols},
    cgroup::MAX_GROUPS,
};

use super::{
    InvalidConfig,
    load::nearest,
    raw::{self, Protocol},
};

/// A group that is there without being written.
struct BuiltIn {
    name: &'static str,
    addresses: &'static [&'static str],
    ports: &'static [u16],
    protocols: &'static [Protocol],
}

/// In the order of their numbers, which begin with 1. AWS's DNS (169.254.169.253) and NTP (169.254.169.123) are in none.
const BUILT_IN: [BuiltIn; 4] = [
    // AWS, Azure, GCP, Oracle, OpenStack. On GCP and Oracle the first address is the resolver too: containers that use it
    // need `ports = [80]`.
    BuiltIn {
        name: "imds",
        addresses: &["169.254.169.254", "fd00:ec2::254", "fd20:ce::254", "fd00:c1::a9fe:a9fe"],
        ports: &[],
        protocols: &[],
    },
    // EKS Pod Identity.
    BuiltIn {
        name: "eks",
        addresses: &["169.254.170.23", "fd00:ec2::23"],
        ports: &[],
        protocols: &[],
    },
    // The wire server hands out extension settings and certificates; its DNS stays open.
    BuiltIn {
        name: "azure-wireserver",
        addresses: &["168.63.129.16"],
        ports: &[80, 32526],
        protocols: &[Protocol::Tcp],
    },
    BuiltIn {
        name: "alibaba",
        addresses: &["100.100.100.200"],
        ports: &[],
        protocols: &[],
    },
];

/// How many addresses all groups may have together. A change has the old and the new ones in the kernel's table at once,
/// and some room there is the endpoint's and the agent's.
const MAX_ADDRESSES: usize = MAX_RULES as usize / 2 - 8;

/// How many ports of a group the kernel side has room for.
const MAX_PORTS: usize = 4;

/// Blocked destinations, and the name they have in exceptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The name.
    pub name: String,
    /// The number in the kernel; that of a built-in group never changes.
    pub number: u32,
    /// The addresses.
    pub addresses: Vec<IpAddr>,
    /// The ports; all zero means all.
    pub ports: [u16; MAX_PORTS],
    /// Bits of [`protocols`]; zero means all.
    pub protocols: u32,
}

/// Every group that is blocked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups(Vec<Group>);

// === impl Groups ===

impl Groups {
    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &Group> {
        self.0.iter()
    }

    /// Whether a group has this address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = canonical(address);
        let mut addresses = self.iter().flat_map(|group| &group.addresses);
        addresses.any(|protected| canonical(*protected) == address)
    }

    /// The groups of these names as bits; `key` is where the names are written.
    pub(super) fn bits(&self, names: &[String], key: &str) -> Result<u16, InvalidConfig> {
        let bit = |name: &String| {
            let group = self.iter().find(|group| group.name == *name);
            group.map(|group| 1 << (group.number - 1)).ok_or_else(|| {
                let nearest = nearest(name, self.iter().map(|group| group.name.as_str()));
                InvalidConfig::UnknownGroup {
                    key: key.to_owned(),
                    group: name.clone(),
                    hint: nearest.map_or_else(String::new, |nearest| format!("; did you mean {nearest:?}?")),
                }
            })
        };
        names.iter().try_fold(0, |bits, name| Ok(bits | bit(name)?))
    }

    /// The names of the groups that these bits stand for.
    #[must_use]
    pub fn names(&self, bits: u16) -> Vec<String> {
        let named = self.iter().filter(|group| bits & (1 << (group.number - 1)) != 0);
        named.map(|group| group.name.clone()).collect()
    }

    /// The bits that mean the same group here and there, as far as exceptions go.
    #[must_use]
    pub fn common_bits(&self, other: &Self) -> u16 {
        let same = |group: &&Group| {
            let there = other.iter().find(|there| there.number == group.number);
            there.is_none_or(|there| there.name == group.name)
        };
        self.iter()
            .filter(same)
            .fold(0, |bits, group| bits | 1 << (group.number - 1))
    }
}

/// Validates the groups, each by itself and all together.
pub(super) fn groups(mut written: BTreeMap<String, raw::Group>, endpoint: Ipv4Addr) -> Result<Groups, InvalidConfig> {
    let mut groups = Vec::new();
    let mut owners = HashMap::new();
    let built_in = BUILT_IN.map(|built_in| (built_in.name.to_owned(), Some(built_in)));
    let built_in = built_in.map(|(name, built_in)| (written.remove(&name).unwrap_or_default(), name, built_in));
    let most = MAX_GROUPS as usize - BUILT_IN.len();
    if written.len() > most {
        let found = written.len();
        return Err(InvalidConfig::TooManyGroups { found, most });
    }
    let others = written.into_iter().map(|(name, raw)| (raw, name, None));
    for ((raw, name, default), number) in built_in.into_iter().chain(others).zip(1..) {
        if raw.enabled == Some(false) {
            continue;
        }
        let group = group(name, number, raw, default.as_ref())?;
        for address in &group.addresses {
            check(&group, *address, endpoint)?;
            match owners.insert(canonical(*address), group.name.clone()) {
                Some(other) if other != group.name => {
                    return Err(InvalidConfig::SharedAddress {
                        group: group.name,
                        address: *address,
                        other,
                    });
                }
                Some(_) | None => {}
            }
        }
        groups.push(group);
    }
    if owners.len() > MAX_ADDRESSES {
        return Err(InvalidConfig::TooManyAddresses {
            found: owners.len(),
            most: MAX_ADDRESSES,
        });
    }
    Ok(Groups(groups))
}

fn group(name: String, number: u32, raw: raw::Group, default: Option<&BuiltIn>) -> Result<Group, InvalidConfig> {
    let parsed = |text: &&str| text.parse().ok();
    let addresses = raw.addresses.unwrap_or_else(|| {
        default.map_or_else(Vec::new, |default| {
            default.addresses.iter().filter_map(parsed).collect()
        })
    });
    if addresses.is_empty() {
        return Err(InvalidConfig::NoAddresses {
            group: name,
            built_in: BUILT_IN.map(|built_in| built_in.name).join(", "),
        });
    }
    let written = raw
        .ports
        .unwrap_or_else(|| default.map_or_else(Vec::new, |default| default.ports.to_vec()));
    if written.len() > MAX_PORTS || written.contains(&0) {
        return Err(InvalidConfig::ProtectedPorts { group: name });
    }
    let mut ports = [0; MAX_PORTS];
    for (port, written) in ports.iter_mut().zip(written) {
        *port = written;
    }
    let protocols = raw
        .protocols
        .unwrap_or_else(|| default.map_or_else(Vec::new, |default| default.protocols.to_vec()));
    Ok(Group {
        name,
        number,
        addresses,
        ports,
        protocols: protocols.into_iter().fold(0, |bits, protocol| bits | bit(protocol)),
    })
}

const fn bit(protocol: Protocol) -> u32 {
    match protocol {
        Protocol::Tcp => protocols::TCP,
        Protocol::Udp => protocols::UDP,
        Protocol::Other => protocols::OTHER,
    }
}

fn check(group: &Group, address: IpAddr, endpoint: Ipv4Addr) -> Result<(), InvalidConfig> {
    let group = group.name.clone();
    if address.is_unspecified() || address.is_multicast() {
        return Err(InvalidConfig::ProtectedAddress { group, address });
    }
    if canonical(address) == canonical(endpoint.into()) {
        return Err(InvalidConfig::ProtectedIsEndpoint { group, address });
    }
    Ok(())
}

/// The form the kernel side looks addresses up by.
fn canonical(address: IpAddr) -> Address {
    let octets = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    Address::from_octets(octets).canonical().0
}
