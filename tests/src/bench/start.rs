//! How long a start takes, until the enforcer tells its service manager that it is ready.

use anyhow::{Result, ensure};
use tokio::time::Instant;

use super::{Spread, say};
use crate::scene::Scene;

pub(super) fn measure(scene: &mut Scene, rounds: u32) -> Result<()> {
    say("\nA start until it is ready, in ms                              target")?;
    for (what, detached) in [("over what is pinned", false), ("where nothing is pinned", true)] {
        let mut times = Vec::new();
        for _ in 0..rounds {
            times.push(start(scene, detached)?);
        }
        say(&format!("  {what:<26} {:<32} <= 200", Spread::of(times).text(0)))?;
    }
    Ok(())
}

/// Ends the enforcer, with what it pinned if `detached`, and starts it again.
fn start(scene: &mut Scene, detached: bool) -> Result<f64> {
    let enforcer = scene.enforcer();
    enforcer.terminate()?;
    if detached {
        let output = enforcer.run(["detach"])?;
        ensure!(output.status.success(), "cannot detach: {output:?}");
    }
    let began = Instant::now();
    enforcer.start()?;
    Ok(began.elapsed().as_secs_f64() * 1_000.0)
}
