//! What a connect costs with the hooks and without them: the same process, once in a guarded cgroup, once in a cgroup
//! beside the one the hooks are attached to.

use std::net::SocketAddr;

use anyhow::Result;

use super::{
    Pairs,
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
        let pairs = Pairs::measure(
            3 * rounds,
            || guarded.repeat(action, to, times),
            || free.repeat(action, to, times),
        )?;
        say(&format!(
            "  {what:<26} {:>10.0} {:>10.0}  {:<24} {}",
            pairs.one.median,
            pairs.other.median,
            pairs.ratio.text(3),
            "<= 1.03"
        ))?;
    }
    Ok(())
}
