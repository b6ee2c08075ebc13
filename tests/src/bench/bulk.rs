//! What many bytes cost between a container and its host: the same transfer in a scene with an enforcer and in one
//! without.

use anyhow::Result;

use super::{Pairs, gauge::Gauge, say};
use crate::scene::Scene;

/// One transfer takes some tenths of a second.
const BYTES: u64 = 1 << 30;

/// A scene's container and host.
struct Ends {
    container: Gauge,
    host: Gauge,
}

/// Which way the bytes go.
#[derive(Clone, Copy)]
enum Direction {
    ToHost,
    ToContainer,
}

pub(super) fn measure(scene: &Scene, rounds: u32) -> Result<()> {
    let bare = Scene::builder().task("web").prepare()?;
    let (mut guarded, mut free) = (Ends::start(scene)?, Ends::start(&bare)?);
    say("\nBulk TCP over a container's interface, guarded and without programs, in pairs")?;
    say(&format!(
        "  {:<26} {:>12} {:>12}  {:<24} {}",
        "", "guarded MB/s", "without MB/s", "ratio", "target"
    ))?;
    for (what, direction) in [
        ("container to host", Direction::ToHost),
        ("host to container", Direction::ToContainer),
    ] {
        let pairs = Pairs::measure(3 * rounds, || guarded.transfer(direction), || free.transfer(direction))?;
        say(&format!(
            "  {what:<26} {:>12.0} {:>12.0}  {:<24} {}",
            pairs.one.median,
            pairs.other.median,
            pairs.ratio.text(3),
            ">= 0.98"
        ))?;
    }
    Ok(())
}

// === impl Ends ===

impl Ends {
    fn start(scene: &Scene) -> Result<Self> {
        Ok(Self {
            container: scene.in_bridge_container("web", Gauge::start)?,
            host: scene.on_host(Gauge::start)?,
        })
    }

    /// Megabytes per second.
    fn transfer(&mut self, direction: Direction) -> Result<f64> {
        let (from, to) = match direction {
            Direction::ToHost => (&mut self.container, &mut self.host),
            Direction::ToContainer => (&mut self.host, &mut self.container),
        };
        let to = to.receive()?;
        #[expect(clippy::cast_precision_loss, reason = "a power of two")]
        let bytes = BYTES as f64;
        Ok(bytes * 1_000.0 / from.send(to, BYTES)?)
    }
}
