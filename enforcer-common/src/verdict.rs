//! The kernel side's decision: one attempt to reach a protected destination, one verdict.
//!
//! [`decide`] is the only place that chooses, for socket hooks and packet hooks alike, and the fail mode is written
//! here and nowhere else: whoever is not known to be a host service is guarded (see [`crate::cgroup`]), and a guarded
//! attempt that no arm allows is denied.

use crate::{
    address::{AddressRule, Spelling, scope, target},
    cgroup::{CgroupClass, Treatment},
};

/// IANA protocol number of TCP.
pub const TCP: u8 = 6;
/// IANA protocol number of UDP.
pub const UDP: u8 = 17;

/// One attempt to reach a destination that has a rule.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// How the sender is treated. Whether it is only observed does not count here: the decision is the same.
    pub treatment: Treatment,
    /// How the destination was spelled.
    pub spelling: Spelling,
    /// IANA protocol number.
    pub protocol: u8,
    /// Destination port in host byte order; 0 where the protocol has none.
    pub port: u16,
    /// Whether the sender is in the host's network namespace.
    pub in_host_netns: bool,
}

/// What happens to an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not protected: let it pass, say nothing.
    Pass,
    /// Protected, and the sender may: let it pass, record it.
    Allow(Reason),
    /// The credential endpoint: take it to the enforcer, carry the identity.
    Steer,
    /// Refuse and record it.
    Deny(Reason),
}

macro_rules! numbered {
    ($(#[$attribute:meta])* pub enum $name:ident { $( $(#[$doc:meta])* $variant:ident = $number:literal $text:literal, )* }) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum $name { $( $(#[$doc])* $variant = $number, )* }

        impl $name {
            /// Every variant, in the order of its number.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )* ];

            /// The number in the ABI.
            #[inline(always)]
            #[must_use]
            pub const fn to_raw(self) -> u32 {
                self as u32
            }

            /// The variant of a number read from a record, `None` for one this version does not know.
            #[must_use]
            pub const fn from_raw(raw: u32) -> Option<Self> {
                match raw { $( $number => Some(Self::$variant), )* _ => None }
            }

            /// The name in audit records and on the command line; never changes.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $text, )* }
            }
        }
    };
}
pub(crate) use numbered;

numbered! {
    /// Why. The numbers and names are part of the ABI and of the audit schema: add, never renumber.
    pub enum Reason {
        /// The sender is a trusted host service.
        HostCgroup = 1 "host_cgroup",
        /// A container asked the credential endpoint.
        CredentialEndpoint = 2 "credential_endpoint",
        /// The sender's cgroup is excepted from blocking this destination.
        Exception = 3 "exception",

        /// Instance metadata is not for containers.
        ImdsBlocked = 10 "imds_blocked",
        /// A port of the credential address other than the endpoint's, the steer ports included.
        EndpointPort = 11 "endpoint_port",
        /// The credential endpoint over something that is not TCP.
        EndpointProtocol = 12 "endpoint_protocol",
        /// The credential endpoint through an IPv6 form that embeds its address.
        EndpointEmbedded = 13 "endpoint_embedded",
        /// The ECS agent's own port, past the enforcer.
        AgentDirect = 14 "agent_direct",
        /// A container wants to listen where the enforcer does.
        SteerPortBind = 15 "steer_port_bind",
        /// A socket of a protocol that containers are not given.
        SocketProtocol = 16 "socket_protocol",
        /// A socket option that would take packets past the packet hooks.
        PacketBypass = 17 "packet_bypass",

        /// A TCP or UDP packet that a socket hook should have refused: a bypass, or our bug.
        SocketLayerMissed = 20 "socket_layer_missed",
        /// A packet from a raw or packet socket, or of a protocol that has no socket hook.
        RawPacket = 21 "raw_packet",
        /// A packet to a steer port whose sending socket the kernel does not tell.
        SenderUnknown = 22 "sender_unknown",
        /// A packet to a steer port from another socket than the one whose connection it claims to be.
        SenderMismatch = 23 "sender_mismatch",
        /// A frame under so many VLAN tags that nobody sees what it carries.
        StackedTags = 24 "stacked_tags",
        /// A packet that names further stations on its way, so that its destination is not where it ends.
        SourceRoute = 25 "source_route",
        /// A packet that claims to come from a protected address, so that answers to it would go there.
        SpoofedSource = 26 "spoofed_source",

        /// Two network namespaces claimed one connection tuple, and no packet settled whose it is.
        HandshakeAmbiguous = 30 "handshake_ambiguous",
        /// The handshake map (or socket storage) is full, or the sender's cgroup has too many connections on their way.
        HandshakeNotStored = 31 "handshake_not_stored",
        /// A connection reached the enforcer without anybody having announced it.
        HandshakeMissing = 32 "handshake_missing",
    }
}

// === impl Reason ===

impl Reason {
    /// Whether what is refused for this reason could give somebody a foreign identity. It is refused also where nothing
    /// else is: no workload sends such packets, and those it would harm may be others than the sender.
    #[inline(always)]
    #[must_use]
    pub const fn is_about_identity(self) -> bool {
        matches!(
            self,
            Self::SenderUnknown
                | Self::SenderMismatch
                | Self::HandshakeAmbiguous
                | Self::HandshakeNotStored
                | Self::HandshakeMissing
        )
    }
}

/// Decides an attempt to reach a destination whose rule is `rule`. Pure, total, and the same for every hook.
///
/// `endpoint_port` is the credential endpoint's port (80) in host byte order.
#[inline(always)]
#[must_use]
pub const fn decide(rule: &AddressRule, attempt: &Attempt, endpoint_port: u16) -> Verdict {
    if rule.target == target::NONE || !rule.covers(attempt.protocol, attempt.port) {
        return Verdict::Pass;
    }
    if rule.scope == scope::HOST_NETNS && !attempt.in_host_netns {
        return Verdict::Pass;
    }
    if matches!(attempt.treatment.class, CgroupClass::Host) {
        return decide_host(rule, attempt, endpoint_port);
    }
    if rule.target == target::IMDS && attempt.treatment.excepts(rule.group) {
        return Verdict::Allow(Reason::Exception);
    }
    match rule.target {
        target::CREDENTIALS => decide_endpoint(attempt, endpoint_port),
        target::AGENT => Verdict::Deny(Reason::AgentDirect),
        // IMDS, and any target a newer controller may have written: refused.
        _ => Verdict::Deny(Reason::ImdsBlocked),
    }
}

/// A host service may go everywhere. One that is known to ask for credentials is taken to the enforcer for that.
#[inline(always)]
const fn decide_host(rule: &AddressRule, attempt: &Attempt, endpoint_port: u16) -> Verdict {
    if rule.target == target::CREDENTIALS
        && attempt.treatment.steered
        && matches!(decide_endpoint(attempt, endpoint_port), Verdict::Steer)
    {
        return Verdict::Steer;
    }
    Verdict::Allow(Reason::HostCgroup)
}

#[inline(always)]
const fn decide_endpoint(attempt: &Attempt, endpoint_port: u16) -> Verdict {
    if attempt.protocol != TCP {
        return Verdict::Deny(Reason::EndpointProtocol);
    }
    if attempt.port != endpoint_port {
        return Verdict::Deny(Reason::EndpointPort);
    }
    match attempt.spelling {
        Spelling::Direct => Verdict::Steer,
        Spelling::Embedded => Verdict::Deny(Reason::EndpointEmbedded),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::{Attempt, Reason, TCP, UDP, Verdict, decide};
    use crate::{
        address::{AddressRule, Spelling, scope, target},
        cgroup::{CgroupClass, Treatment},
    };

    const fn treated(class: CgroupClass, exceptions: u16) -> Treatment {
        Treatment {
            class,
            observed: false,
            steered: false,
            exceptions,
        }
    }

    const fn rule(target: u32) -> AddressRule {
        AddressRule {
            target,
            scope: scope::EVERYWHERE,
            ports: [0; 4],
            protocols: 0,
            group: 2,
        }
    }

    const GUARDED: Attempt = Attempt {
        treatment: treated(CgroupClass::Guarded, 0),
        spelling: Spelling::Direct,
        protocol: TCP,
        port: 80,
        in_host_netns: false,
    };

    #[test]
    fn metadata_is_refused_to_containers_and_open_to_the_host() {
        assert_eq!(
            decide(&rule(target::IMDS), &GUARDED, 80),
            Verdict::Deny(Reason::ImdsBlocked)
        );
        let host = Attempt {
            treatment: treated(CgroupClass::Host, 0),
            ..GUARDED
        };
        assert_eq!(
            decide(&rule(target::IMDS), &host, 80),
            Verdict::Allow(Reason::HostCgroup)
        );
    }

    #[test]
    fn an_exception_opens_metadata_of_its_group_and_no_endpoint() {
        let excepted = Attempt {
            treatment: treated(CgroupClass::Guarded, 0b10),
            ..GUARDED
        };
        assert_eq!(
            decide(&rule(target::IMDS), &excepted, 80),
            Verdict::Allow(Reason::Exception)
        );
        assert_eq!(decide(&rule(target::CREDENTIALS), &excepted, 80), Verdict::Steer);
        assert_eq!(
            decide(&rule(target::AGENT), &excepted, 80),
            Verdict::Deny(Reason::AgentDirect)
        );
    }

    #[test]
    fn the_endpoint_is_steered_by_tcp_on_its_port_and_nothing_else() {
        let credentials = rule(target::CREDENTIALS);
        assert_eq!(decide(&credentials, &GUARDED, 80), Verdict::Steer);
        for (attempt, reason) in [
            (
                Attempt {
                    protocol: UDP,
                    ..GUARDED
                },
                Reason::EndpointProtocol,
            ),
            (Attempt { port: 21680, ..GUARDED }, Reason::EndpointPort),
            (
                Attempt {
                    spelling: Spelling::Embedded,
                    ..GUARDED
                },
                Reason::EndpointEmbedded,
            ),
        ] {
            assert_eq!(decide(&credentials, &attempt, 80), Verdict::Deny(reason));
        }
    }

    #[test]
    fn a_host_service_is_steered_only_if_it_is_known_to_ask_and_only_at_the_endpoint() {
        let host = Attempt {
            treatment: treated(CgroupClass::Host, 0),
            ..GUARDED
        };
        let consumer = Attempt {
            treatment: Treatment {
                steered: true,
                ..host.treatment
            },
            ..host
        };
        let allowed = Verdict::Allow(Reason::HostCgroup);
        assert_eq!(decide(&rule(target::CREDENTIALS), &host, 80), allowed);
        assert_eq!(decide(&rule(target::CREDENTIALS), &consumer, 80), Verdict::Steer);
        for (target, attempt) in [
            (target::IMDS, consumer),
            (target::AGENT, consumer),
            (target::CREDENTIALS, Attempt { port: 81, ..consumer }),
            (
                target::CREDENTIALS,
                Attempt {
                    protocol: UDP,
                    ..consumer
                },
            ),
        ] {
            assert_eq!(decide(&rule(target), &attempt, 80), allowed);
        }
    }

    #[test]
    fn the_agents_loopback_port_is_guarded_only_where_the_agent_listens() {
        let agent = AddressRule {
            scope: scope::HOST_NETNS,
            ports: [51679, 0, 0, 0],
            ..rule(target::AGENT)
        };
        let here = Attempt {
            port: 51679,
            in_host_netns: true,
            ..GUARDED
        };
        assert_eq!(decide(&agent, &here, 80), Verdict::Deny(Reason::AgentDirect));
        assert_eq!(
            decide(
                &agent,
                &Attempt {
                    in_host_netns: false,
                    ..here
                },
                80
            ),
            Verdict::Pass
        );
        assert_eq!(decide(&agent, &Attempt { port: 8080, ..here }, 80), Verdict::Pass);
    }

    #[test]
    fn reasons_keep_their_numbers() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_raw(reason.to_raw()), Some(*reason));
        }
        assert_eq!(Reason::from_raw(0), None);
    }

    proptest! {
        #[test]
        fn a_guarded_attempt_at_a_rule_without_limits_never_passes(
            target in 1_u32..9, protocol in any::<u8>(), port in any::<u16>(),
            embedded in any::<bool>(), in_host_netns in any::<bool>(),
        ) {
            let spelling = if embedded { Spelling::Embedded } else { Spelling::Direct };
            let attempt = Attempt { treatment: treated(CgroupClass::Guarded, !0b10), spelling, protocol, port, in_host_netns };
            let verdict = decide(&rule(target), &attempt, 80);
            prop_assert!(matches!(verdict, Verdict::Deny(_) | Verdict::Steer));
            let steered = target == super::target::CREDENTIALS && protocol == TCP && port == 80 && !embedded;
            prop_assert_eq!(verdict == Verdict::Steer, steered);
        }
    }
}
