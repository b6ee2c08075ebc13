//! What a connect costs with the hooks and without them: the same process, once in a guarded cgroup, once in a cgroup
//! beside the one the hooks are attached to.

use std::net::SocketAddr;

use anyhow::Result;

use super::{
    Spread,
    gauge::{Action, Gauge},
    say,
};
use crate::scene::Scene;

/// Discard, on loopback: nobody listens, nothing protects it.
const LOOPBACK: &str = "127.0.0.1:9";
/// One measurement takes some 50 ms.
const TIMES: [(&str, Action, u32); 2] = [
    ("UDP socket+connect+close", Action::ConnectUdp, 20_000),
    ("TCP to a closed port", Action::ConnectTcp, 5_000),
];

pub(super) fn measure(scene: &Scene, rounds: u32) -> Result<()> {
    let mut guarded = scene.in_host_container("web", Gauge::start)?;
    let mut free = scene.in_host_container("free", Gauge::start)?;
    let to: SocketAddr = LOOPBACK.parse()?;
    say("\nCost of a connect on loopback, guarded and without programs, in pairs")?;
    say(&format!(
        "  {:<26} {:>10} {:>10}  {:<24} {}",
        "", "guarded ns", "without ns", "ratio", "target"
    ))?;
    for (what, action, times) in TIMES {
        let (mut with, mut without, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..3 * rounds {
            // Who goes first changes, so that a drift of the machine favors nobody.
            let (first, second) = if round % 2 == 0 {
                let first = guarded.repeat(action, to, times)?;
                (first, free.repeat(action, to, times)?)
            } else {
                let second = free.repeat(action, to, times)?;
                (guarded.repeat(action, to, times)?, second)
            };
            with.push(first);
            without.push(second);
            ratios.push(first / second);
        }
        say(&format!(
            "  {what:<26} {:>10.0} {:>10.0}  {:<24} {}",
            Spread::of(with).median,
            Spread::of(without).median,
            Spread::of(ratios).text(3),
            "<= 1.03"
        ))?;
    }
    Ok(())
}
