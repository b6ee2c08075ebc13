//! The host's network: what else claims the endpoint's address, and which firewall rules are about ours.

use std::{fs, net::Ipv4Addr, process::Command};

use super::{Outcome, Problem};
use crate::{config::Config, host::address};

/// What lists firewall rules.
const LISTERS: [(&str, &[&str]); 3] = [
    ("iptables-save", &[]),
    ("ip6tables-save", &[]),
    ("nft", &["list", "ruleset"]),
];

/// Where the kernel says whether bridged packets pass iptables.
const BRIDGE_FILTER: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// Whether another device has the endpoint's address, or is where packets to it go.
pub(super) fn endpoint_address(config: &Config) -> Outcome {
    let endpoint = config.endpoint.address;
    let address::Elsewhere { held_by, routed_to } =
        address::elsewhere(endpoint).map_err(|error| Problem::told(&error).warn())?;
    if !held_by.is_empty() {
        return Err(Problem::new(
            format!("{endpoint} is an address of {} too", held_by.join(", ")),
            "whoever made that (an older ECS agent's setup, most likely) must remove it: `ip address del` on that device",
        )
        .warn());
    }
    if !routed_to.is_empty() {
        return Err(Problem::new(
            format!("a route to {endpoint} leads to {}", routed_to.join(", ")),
            "remove it (`ip route show table all` tells where it is): it may take containers' requests past the enforcer",
        )
        .warn());
    }
    Ok(format!(
        "no device but loopback has {endpoint}, and no route to it leads elsewhere"
    ))
}

/// Firewall rules about our addresses.
pub(super) fn firewall(config: &Config) -> Outcome {
    let mut rules = Vec::new();
    let mut listed = Vec::new();
    for (program, arguments) in LISTERS {
        if let Ok(output) = Command::new(program).args(arguments).output()
            && output.status.success()
        {
            listed.push(program);
            rules.extend(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned));
        }
    }
    if listed.is_empty() {
        return Ok("nothing here lists firewall rules".to_owned());
    }
    judge(
        &rules,
        config.endpoint.address,
        [config.endpoint.steer_port, config.endpoint.packet_steer_port],
    )
}

fn judge(rules: &[String], endpoint: Ipv4Addr, steer_ports: [u16; 2]) -> Outcome {
    let mentions = |address: &str| rules.iter().filter(|rule| rule.contains(address)).count();
    let (of_endpoint, of_metadata) = (mentions(&endpoint.to_string()), mentions("169.254.169.254"));
    let drops_input =
        |rule: &String| rule.starts_with(":INPUT DROP") || rule.contains("hook input") && rule.contains("policy drop");
    if rules.iter().any(drops_input) {
        let [steer, packet_steer] = steer_ports;
        return Err(Problem::new(
            "the firewall drops what comes in unless a rule accepts it",
            format!("let bridges' containers reach {endpoint} at TCP ports {steer} and {packet_steer}, which is where theirs go"),
        )
        .warn());
    }
    Ok(format!(
        "{of_endpoint} rules about {endpoint} (they are for port 80, which steered connections no longer have: harmless, and in \
         force again after `enforcer detach`), {of_metadata} about instance metadata (they block again what is blocked)"
    ))
}

/// Whether bridged packets pass iptables.
pub(super) fn bridge_filter() -> String {
    let is_on = fs::read_to_string(BRIDGE_FILTER).is_ok_and(|text| text.trim() == "1");
    if is_on {
        "bridge-nf-call-iptables is on: fine, our hooks sit on the bridges' ports, before iptables hides the sender"
            .to_owned()
    } else {
        "bridge-nf-call-iptables is off".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::judge;

    const ENDPOINT: Ipv4Addr = Ipv4Addr::new(169, 254, 170, 2);

    fn judged(rules: &[&str]) -> Result<String, String> {
        let rules: Vec<_> = rules.iter().map(|rule| (*rule).to_owned()).collect();
        judge(&rules, ENDPOINT, [21680, 21681]).map_err(|problem| problem.means)
    }

    #[test]
    fn the_rules_of_the_ecs_agent_are_harmless() {
        let said = judged(&[
            ":INPUT ACCEPT [0:0]",
            "-A PREROUTING -d 169.254.170.2/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 127.0.0.1:51679",
            "-A OUTPUT -d 169.254.170.2/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 51679",
        ]);
        assert!(said.unwrap().starts_with("2 rules about 169.254.170.2"));
    }

    #[test]
    fn a_firewall_that_drops_by_default_is_warned_of() {
        for rule in [
            ":INPUT DROP [0:0]",
            "type filter hook input priority filter; policy drop;",
        ] {
            assert!(judged(&[rule]).is_err(), "{rule}");
        }
    }
}
