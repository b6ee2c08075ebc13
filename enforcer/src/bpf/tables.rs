//! What the configuration says, in the kernel: settings and address table. Written at start and again while the hooks run,
//! in an order that leaves nothing unprotected meanwhile.

use std::{
    collections::HashMap as StdHashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData},
};
use enforcer_common::{
    ABI_VERSION,
    address::{Address, AddressRule, PREFIX_WORDS, Prefix},
    cgroup::Treatment,
    event::Outcome,
    settings::{Settings, mode},
    verdict::{Attempt, Reason, TCP, Verdict, decide},
};

use super::{
    BpfError, Config, Mode,
    maps::{map_error, take},
};
use crate::sys;

/// Writes settings and address table.
pub struct Tables {
    settings: Array<MapData, Settings>,
    addresses: HashMap<MapData, Address, AddressRule>,
    prefixes: Array<MapData, u64>,
    host_netns_cookie: u64,
}

// === impl Tables ===

impl std::fmt::Debug for Tables {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Tables").finish_non_exhaustive()
    }
}

impl Tables {
    pub(super) fn try_new(ebpf: &mut Ebpf) -> Result<Self, BpfError> {
        let host_netns_cookie = sys::socket::netns_cookie().map_err(|source| BpfError::Syscall {
            operation: "read the network namespace's cookie (SO_NETNS_COOKIE)".to_owned(),
            source,
        })?;
        let settings = Array::try_from(take(ebpf, "SETTINGS")?).map_err(map_error("open", "SETTINGS"))?;
        let addresses = HashMap::try_from(take(ebpf, "ADDRESSES")?).map_err(map_error("open", "ADDRESSES"))?;
        let prefixes = Array::try_from(take(ebpf, "PREFIXES")?).map_err(map_error("open", "PREFIXES"))?;
        Ok(Self {
            settings,
            addresses,
            prefixes,
            host_netns_cookie,
        })
    }

    /// Whether nobody has written the settings yet: nothing was ever attached that uses them.
    pub(super) fn are_new(&self) -> Result<bool, BpfError> {
        let settings = self.settings.get(&0, 0).map_err(map_error("read", "SETTINGS"))?;
        Ok(settings.abi_version == 0)
    }

    /// The credential endpoint's address as the settings have it; that of nowhere if they are new.
    pub(super) fn endpoint(&self) -> Result<Ipv4Addr, BpfError> {
        let settings = self.settings.get(&0, 0).map_err(map_error("read", "SETTINGS"))?;
        Ok(Ipv4Addr::from(settings.endpoint_address.to_ne_bytes()))
    }

    /// Whether the address table says something else than the configuration.
    pub(super) fn differ_from(&self, config: &Config) -> Result<bool, BpfError> {
        let rules = self.addresses.iter().collect::<Result<StdHashMap<_, _>, _>>();
        Ok(rules.map_err(map_error("list", "ADDRESSES"))? != config.rules())
    }

    /// Makes the kernel side do what the configuration says. A destination that is protected before and after is so all the
    /// time.
    pub fn write(&mut self, config: &Config) -> Result<(), BpfError> {
        self.settings
            .set(0, settings(config, self.host_netns_cookie), 0)
            .map_err(map_error("write", "SETTINGS"))?;
        self.write_addresses(&config.rules())
    }

    /// New bits come before new rules, new rules before the removal of old ones, and old bits go last.
    fn write_addresses(&mut self, wanted: &StdHashMap<Address, AddressRule>) -> Result<(), BpfError> {
        let mut filter = vec![0_u64; PREFIX_WORDS as usize];
        for prefix in wanted.keys().map(Prefix::of) {
            if let Some(word) = filter.get_mut(prefix.word as usize) {
                *word |= prefix.bit;
            }
        }
        self.write_filter(&filter, |present, wanted| present | wanted)?;
        self.write_rules(wanted)?;
        self.write_filter(&filter, |_present, wanted| wanted)
    }

    /// The kernel reuses the room of what was replaced or removed at once, for another address even while a hook still reads
    /// it. So what stays as it is is not written, and what is not has no successor before every hook is done with it.
    fn write_rules(&mut self, wanted: &StdHashMap<Address, AddressRule>) -> Result<(), BpfError> {
        let map = &mut self.addresses;
        let present: StdHashMap<Address, AddressRule> = map
            .iter()
            .collect::<Result<_, _>>()
            .map_err(map_error("list", "ADDRESSES"))?;
        for (address, rule) in wanted
            .iter()
            .filter(|(address, rule)| present.get(address) != Some(rule))
        {
            map.insert(address, rule, 0).map_err(map_error("write", "ADDRESSES"))?;
            if present.contains_key(address) {
                sys::rcu::wait_for_readers();
            }
        }
        for address in present.keys().filter(|address| !wanted.contains_key(address)) {
            map.remove(address).map_err(map_error("clean", "ADDRESSES"))?;
            sys::rcu::wait_for_readers();
        }
        Ok(())
    }

    fn write_filter(&mut self, filter: &[u64], merge: impl Fn(u64, u64) -> u64) -> Result<(), BpfError> {
        let map = &mut self.prefixes;
        for (word, wanted) in (0..).zip(filter) {
            let present = map.get(&word, 0).map_err(map_error("read", "PREFIXES"))?;
            let merged = merge(present, *wanted);
            if merged != present {
                map.set(word, merged, 0).map_err(map_error("write", "PREFIXES"))?;
            }
        }
        Ok(())
    }
}

// === impl Config ===

impl Config {
    /// The address table as it is looked up: by canonical destination.
    pub(crate) fn rules(&self) -> StdHashMap<Address, AddressRule> {
        let rules = self.addresses.iter();
        rules
            .map(|(address, rule)| (to_address(*address).canonical().0, *rule))
            .collect()
    }

    /// What the connect hooks do about a TCP connection, and why, by their names in the audit feed.
    pub(crate) fn decide(
        &self,
        to: SocketAddr,
        treatment: Treatment,
        in_host_netns: bool,
    ) -> (&'static str, &'static str) {
        let (address, spelling) = to_address(to.ip()).canonical();
        let is_introspection = to.port() != 0 && self.introspection_port == Some(to.port());
        let rule = self.rules().get(&address).copied();
        let introspection = || is_introspection.then_some(AddressRule::INTROSPECTION);
        let Some(rule) = rule.or_else(introspection) else {
            return ("pass", "not_protected");
        };
        let attempt = Attempt {
            treatment,
            spelling,
            protocol: TCP,
            port: to.port(),
            in_host_netns,
        };
        let observes = self.mode == Mode::Observe || treatment.observed;
        match decide(&rule, &attempt, self.endpoint_port) {
            Verdict::Pass => ("pass", "not_protected"),
            Verdict::Allow(reason) => (Outcome::Allowed.name(), reason.name()),
            Verdict::Steer => (Outcome::Steered.name(), Reason::CredentialEndpoint.name()),
            Verdict::Deny(reason) if observes => (Outcome::WouldDeny.name(), reason.name()),
            Verdict::Deny(reason) => (Outcome::Denied.name(), reason.name()),
        }
    }
}

fn settings(config: &Config, host_netns_cookie: u64) -> Settings {
    Settings {
        abi_version: ABI_VERSION,
        endpoint_address: u32::from_ne_bytes(config.endpoint_address.octets()),
        host_netns_cookie,
        endpoint_port: config.endpoint_port,
        steer_port: config.steer_port,
        packet_steer_port: config.packet_steer_port,
        introspection_port: config.introspection_port.unwrap_or(0),
        mode: match config.mode {
            Mode::Enforce => mode::ENFORCE,
            Mode::Observe => mode::OBSERVE,
        },
        raw_sockets_denied: config.raw_sockets_denied.into(),
        denied_protocols: bitmap(&config.denied_protocols),
    }
}

/// A bit per protocol number, as [`Settings::denies_protocol`] reads it.
fn bitmap(protocols: &[u8]) -> [u64; 4] {
    let mut words = [0; 4];
    for protocol in protocols {
        if let Some(word) = words.get_mut(usize::from(protocol / 64)) {
            *word |= 1 << (protocol % 64);
        }
    }
    words
}

fn to_address(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => Address::from_octets(v4.to_ipv6_mapped().octets()),
        IpAddr::V6(v6) => Address::from_octets(v6.octets()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use enforcer_common::{
        address::{AddressRule, scope, target},
        cgroup::{CgroupClass, Treatment},
    };

    use super::{Config, Mode, settings};

    fn config() -> Config {
        Config {
            pin_dir: "/".into(),
            cgroup_root: "/".into(),
            own_cgroup: "/".into(),
            endpoint_address: Ipv4Addr::LOCALHOST,
            endpoint_port: 80,
            steer_port: 1,
            packet_steer_port: 2,
            introspection_port: None,
            addresses: Vec::new(),
            mode: Mode::Enforce,
            raw_sockets_denied: true,
            denied_protocols: vec![0, 33, 132, 136, 255],
        }
    }

    #[test]
    fn a_connection_is_explained_as_the_hooks_decide() {
        let rule = |target| AddressRule {
            target,
            scope: scope::EVERYWHERE,
            ports: [0; 4],
            protocols: 0,
            group: 1,
        };
        let mut config = Config {
            addresses: vec![
                ("169.254.169.254".parse().unwrap(), rule(target::IMDS)),
                ("169.254.170.2".parse().unwrap(), rule(target::CREDENTIALS)),
            ],
            introspection_port: Some(51678),
            ..config()
        };
        let guarded = Treatment::default();
        let host = Treatment {
            class: CgroupClass::Host,
            ..guarded
        };
        for (to, treatment, expected) in [
            ("169.254.169.254:80", guarded, ("deny", "imds_blocked")),
            ("[::ffff:169.254.169.254]:80", guarded, ("deny", "imds_blocked")),
            ("169.254.169.254:80", host, ("allow", "host_cgroup")),
            ("169.254.170.2:80", guarded, ("steer", "credential_endpoint")),
            ("10.0.0.1:51678", guarded, ("deny", "agent_direct")),
            ("10.0.0.1:80", guarded, ("pass", "not_protected")),
        ] {
            assert_eq!(config.decide(to.parse().unwrap(), treatment, true), expected, "{to}");
        }
        config.mode = Mode::Observe;
        let observed = config.decide("169.254.169.254:80".parse().unwrap(), guarded, true);
        assert_eq!(observed, ("would_deny", "imds_blocked"));
    }

    #[test]
    fn exactly_the_configured_protocols_are_denied() {
        let config = config();
        let settings = settings(&config, 1);
        let denied: Vec<u8> = (0..=u8::MAX)
            .filter(|protocol| settings.denies_protocol(*protocol))
            .collect();
        assert_eq!(denied, config.denied_protocols);
    }
}
