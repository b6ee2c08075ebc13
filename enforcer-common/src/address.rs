//! Destinations: one canonical form for every way to write an address, and the rule that protects it.
//!
//! A protected IPv4 address can be reached through several IPv6 spellings (v4-mapped, v4-compatible, 6to4, NAT64) and
//! through `0.0.0.0`/`::`, which Linux takes for loopback. All hooks look up [`Address::canonical`], so that a rule
//! written once holds for all of them.

use crate::{
    pod,
    verdict::{TCP, UDP},
};

pod! {
    size: 16,
    /// An IPv4 or IPv6 address. IPv4 is held in its v4-mapped form `::ffff:a.b.c.d`.
    ///
    /// Each word is in network byte order, as the kernel's contexts and packets hold it, so that the 16 bytes in
    /// memory are the address as it is written.
    #[derive(Hash, Default)]
    pub struct Address {
        /// The four words, first to last, each in network byte order.
        pub words: [u32; 4],
    }
}

/// How a destination was spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// The address itself, or its v4-mapped form, for which the kernel sends IPv4.
    Direct,
    /// An IPv6 address that embeds a protected IPv4 one for some translator on the way (v4-compatible, 6to4, NAT64).
    Embedded,
}

const MAPPED: u32 = 0x0000_ffff_u32.to_be();
const NAT64: u32 = 0x0064_ff9b_u32.to_be();
const ONE: u32 = 1_u32.to_be();
const LOOPBACK: u32 = 0x7f00_0001_u32.to_be();

// === impl Address ===

impl Address {
    /// An IPv4 address from its 32 bits in network byte order.
    #[inline(always)]
    #[must_use]
    pub const fn from_v4(network_order: u32) -> Self {
        Self {
            words: [0, 0, MAPPED, network_order],
        }
    }

    /// An address from its 16 bytes as written; IPv4 in v4-mapped form.
    #[must_use]
    pub fn from_octets(octets: [u8; 16]) -> Self {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(octets.as_chunks::<4>().0) {
            *word = u32::from_ne_bytes(*bytes);
        }
        Self { words }
    }

    /// The 16 bytes as written; IPv4 in v4-mapped form.
    #[must_use]
    pub fn octets(self) -> [u8; 16] {
        let mut octets = [0; 16];
        for (bytes, word) in octets.as_chunks_mut::<4>().0.iter_mut().zip(self.words) {
            *bytes = word.to_ne_bytes();
        }
        octets
    }

    /// The IPv4 address in network byte order, if this is one.
    #[inline(always)]
    #[must_use]
    pub const fn v4(self) -> Option<u32> {
        let [w, x, y, v4] = self.words;
        if w == 0 && x == 0 && y == MAPPED {
            Some(v4)
        } else {
            None
        }
    }

    /// The address a rule is looked up by, and how it was spelled.
    ///
    /// Embedded IPv4 addresses are taken out of `::/96`, `2002::/16` and `64:ff9b::/96`. Unspecified addresses
    /// become `127.0.0.1`, as the kernel does on connect. `::1` stays itself.
    #[inline(always)]
    #[must_use]
    pub const fn canonical(self) -> (Self, Spelling) {
        let [w, x, y, z] = self.words;
        if w == 0 && x == 0 && y == MAPPED {
            return (Self::from_v4(loopback_if_unspecified(z)), Spelling::Direct);
        }
        if w == 0 && x == 0 && y == 0 {
            return match z {
                0 => (Self::from_v4(LOOPBACK), Spelling::Direct),
                ONE => (self, Spelling::Direct),
                v4 => (Self::from_v4(v4), Spelling::Embedded),
            };
        }
        if w == NAT64 && x == 0 && y == 0 {
            return (Self::from_v4(loopback_if_unspecified(z)), Spelling::Embedded);
        }
        let (high, low) = (u32::from_be(w), u32::from_be(x));
        if high >> 16 == 0x2002 {
            let v4 = ((high << 16) | (low >> 16)).to_be();
            return (Self::from_v4(loopback_if_unspecified(v4)), Spelling::Embedded);
        }
        (self, Spelling::Direct)
    }
}

/// Where the prefix filter tells whether any rule is about addresses that begin like this one.
///
/// The filter is a bitmap over the first 16 bits of an address, IPv4 before IPv6. Almost all traffic begins like no
/// protected address, and is told so by one array read instead of a hash lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Index of the word in the filter, below [`PREFIX_WORDS`].
    pub word: u32,
    /// The bit in that word.
    pub bit: u64,
}

/// Number of entries in the address table.
pub const MAX_RULES: u32 = 256;

/// Number of 64-bit words in the prefix filter.
pub const PREFIX_WORDS: u32 = 2 * (1 << 16) / u64::BITS;

// === impl Prefix ===

impl Prefix {
    /// The prefix of an address in canonical form.
    #[inline(always)]
    #[must_use]
    pub const fn of(canonical: &Address) -> Self {
        let [first, ..] = canonical.words;
        let index = match canonical.v4() {
            Some(v4) => u32::from_be(v4) >> 16,
            None => (1 << 16) + (u32::from_be(first) >> 16),
        };
        Self {
            word: index / u64::BITS,
            bit: 1 << (index % u64::BITS),
        }
    }
}

const fn loopback_if_unspecified(v4: u32) -> u32 {
    if v4 == 0 { LOOPBACK } else { v4 }
}

/// What a protected destination is. The numbers are part of the ABI.
pub mod target {
    /// Not protected.
    pub const NONE: u32 = 0;
    /// An instance metadata service: blocked.
    pub const IMDS: u32 = 1;
    /// The credential endpoint: steered to the enforcer.
    pub const CREDENTIALS: u32 = 2;
    /// A port of the ECS agent itself: blocked, so that nobody goes around the enforcer.
    pub const AGENT: u32 = 3;
}

/// Where a rule holds. The numbers are part of the ABI.
pub mod scope {
    /// In every network namespace.
    pub const EVERYWHERE: u32 = 0;
    /// Only in the host's network namespace (loopback addresses: elsewhere they are the container's own).
    pub const HOST_NETNS: u32 = 1;
}

/// Which protocols a rule is about: bits of [`AddressRule::protocols`]. Part of the ABI.
pub mod protocols {
    /// TCP, MPTCP included.
    pub const TCP: u32 = 1;
    /// UDP.
    pub const UDP: u32 = 2;
    /// Everything else.
    pub const OTHER: u32 = 4;
}

pod! {
    size: 24,
    /// One row of the address table: what a destination is, and which of its ports and protocols are meant.
    pub struct AddressRule {
        /// One of [`target`].
        pub target: u32,
        /// One of [`scope`].
        pub scope: u32,
        /// Up to four ports in host byte order; all zero means every port, and protocols without ports too.
        pub ports: [u16; 4],
        /// Bits of [`protocols`]; zero means every protocol.
        pub protocols: u32,
        /// The group of destinations it belongs to, for exceptions: 1 to [`crate::cgroup::MAX_GROUPS`]; 0 where there
        /// can be none.
        pub group: u32,
    }
}

impl AddressRule {
    /// The rule about the ECS agent's introspection. Its port is in the settings, and compared before.
    pub const INTROSPECTION: Self = Self {
        target: target::AGENT,
        scope: scope::EVERYWHERE,
        ports: [0; 4],
        protocols: protocols::TCP,
        group: 0,
    };

    /// Whether the rule is about this protocol (IANA number) and port (host byte order; 0 where the protocol has none).
    #[inline(always)]
    #[must_use]
    pub const fn covers(&self, protocol: u8, port: u16) -> bool {
        let bit = match protocol {
            TCP => protocols::TCP,
            UDP => protocols::UDP,
            _ => protocols::OTHER,
        };
        if self.protocols != 0 && self.protocols & bit == 0 {
            return false;
        }
        let [a, b, c, d] = self.ports;
        if a == 0 && b == 0 && c == 0 && d == 0 {
            return true;
        }
        port != 0 && (port == a || port == b || port == c || port == d)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use core::net::{Ipv4Addr, Ipv6Addr};
    use std::vec::Vec;

    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::{Address, AddressRule, PREFIX_WORDS, Prefix, Spelling, protocols, scope, target};
    use crate::verdict::{TCP, UDP};

    const ICMP: u8 = 1;

    fn v4(text: &str) -> Address {
        Address::from_v4(u32::from_ne_bytes(text.parse::<Ipv4Addr>().unwrap().octets()))
    }

    fn v6(text: &str) -> Address {
        Address::from_octets(text.parse::<Ipv6Addr>().unwrap().octets())
    }

    #[test]
    fn every_spelling_of_the_metadata_address_is_the_same_destination() {
        let imds = v4("169.254.169.254");
        for (spelled, how) in [
            (v6("::ffff:169.254.169.254"), Spelling::Direct),
            (v6("::169.254.169.254"), Spelling::Embedded),
            (v6("2002:a9fe:a9fe::"), Spelling::Embedded),
            (v6("2002:a9fe:a9fe:1:2:3:4:5"), Spelling::Embedded),
            (v6("64:ff9b::a9fe:a9fe"), Spelling::Embedded),
        ] {
            assert_eq!(spelled.canonical(), (imds, how), "{:?}", spelled.octets());
        }
    }

    #[test]
    fn unspecified_addresses_are_loopback_as_the_kernel_takes_them() {
        let loopback = (v4("127.0.0.1"), Spelling::Direct);
        assert_eq!(v4("0.0.0.0").canonical(), loopback);
        assert_eq!(v6("::").canonical(), loopback);
        assert_eq!(v6("::1").canonical(), (v6("::1"), Spelling::Direct));
    }

    #[test]
    fn other_ipv6_addresses_stay_themselves() {
        for text in [
            "fd00:ec2::254",
            "2001:db8::1",
            "64:ff9b:1::a9fe:a9fe",
            "fe80::1",
            "2003:a9fe:a9fe::",
        ] {
            assert_eq!(v6(text).canonical(), (v6(text), Spelling::Direct), "{text}");
        }
    }

    #[test]
    fn a_rule_without_ports_covers_all_and_one_with_ports_only_those() {
        let rule = |ports| AddressRule {
            target: target::AGENT,
            scope: scope::HOST_NETNS,
            ports,
            protocols: 0,
            group: 0,
        };
        assert!(rule([0; 4]).covers(ICMP, 0) && rule([0; 4]).covers(TCP, 80));
        let agent = rule([51678, 51679, 0, 0]);
        let covered: Vec<u16> = (0..=u16::MAX).filter(|port| agent.covers(TCP, *port)).collect();
        assert_eq!(covered, [51678, 51679]);
        assert!(!agent.covers(ICMP, 0));
    }

    #[test]
    fn a_rule_with_protocols_covers_only_those() {
        for (written, covered) in [
            (0, [true, true, true]),
            (protocols::TCP, [true, false, false]),
            (protocols::UDP | protocols::OTHER, [false, true, true]),
        ] {
            let rule = AddressRule {
                target: target::IMDS,
                scope: scope::EVERYWHERE,
                ports: [0; 4],
                protocols: written,
                group: 1,
            };
            assert_eq!([TCP, UDP, ICMP].map(|protocol| rule.covers(protocol, 80)), covered);
        }
    }

    #[test]
    fn addresses_that_begin_alike_share_a_prefix_and_families_do_not() {
        let of = |address: Address| Prefix::of(&address);
        assert_eq!(of(v4("169.254.169.254")), of(v4("169.254.170.2")));
        assert_ne!(of(v4("169.254.169.254")), of(v4("169.253.169.254")));
        assert_ne!(of(v4("169.254.169.254")), of(v6("a9fe::1")));
        assert_eq!(of(v6("fd00:ec2::254")), of(v6("fd00::1")));
    }

    proptest! {
        #[test]
        fn every_prefix_lies_in_the_filter(octets in any::<[u8; 16]>()) {
            let prefix = Prefix::of(&Address::from_octets(octets));
            prop_assert_eq!((prefix.word < PREFIX_WORDS, prefix.bit.count_ones()), (true, 1));
        }

        #[test]
        fn octets_survive_the_way_through_words(octets in any::<[u8; 16]>()) {
            prop_assert_eq!(Address::from_octets(octets).octets(), octets);
        }

        #[test]
        fn canonical_form_is_a_fixed_point(octets in any::<[u8; 16]>()) {
            let (canonical, _) = Address::from_octets(octets).canonical();
            prop_assert_eq!(canonical.canonical(), (canonical, Spelling::Direct));
        }

        #[test]
        fn embedded_forms_of_any_ipv4_address_name_it(bits in 2_u32..) {
            let octets = bits.to_be_bytes();
            let [a, b, c, d] = octets;
            let wanted = Address::from_v4(u32::from_ne_bytes(octets));
            let [high, low] = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
            for spelled in [
                Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, high, low),
                Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            ] {
                prop_assert_eq!(Address::from_octets(spelled.octets()).canonical().0, wanted);
            }
        }
    }
}
