//! What `enforcer status` says of the kernel side.

use enforcer_tests::scene::Scene;
use serde_json::Value;

/// The whole report.
pub(crate) fn status(scene: &mut Scene) -> Value {
    let output = scene.enforcer().run(["status", "--output", "json"]).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("no status: {error}\n{said}"))
}

/// Counters that a flood must or must not move.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counters {
    refused: u64,
    handshakes: u64,
}

// === impl Counters ===

impl Counters {
    pub(crate) fn read(scene: &mut Scene) -> Self {
        let status = status(scene);
        let counter = |name: &str| status["kernel"]["counters"][name].as_u64().unwrap();
        Self {
            refused: counter("denied") + counter("dropped"),
            handshakes: counter("handshakes_recorded"),
        }
    }

    /// What is wrong after a number of attempts, of which each is refused and none leaves a handshake.
    pub(crate) fn differ(self, after: &Self, attempts: u64) -> Option<String> {
        let refused = after.refused - self.refused;
        let kept = after.handshakes - self.handshakes;
        let is_exact = refused == attempts && kept == 0;
        (!is_exact).then(|| format!("{refused} of {attempts} attempts refused, {kept} handshakes kept"))
    }
}
