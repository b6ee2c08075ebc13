//! The one known gap: what only an optional hook sees, on kernels that do not have it.

use enforcer_tests::scene::Scene;

use super::status::status;

/// The hook of the BPF LSM; without it, frames leave by this technique where their device has no host side.
const HOOK: &str = "lsm_setsockopt";
const TECHNIQUE: &str = "packet-bypass-32bit";
const WITHOUT_HOST_SIDE: [&str; 3] = ["awsvpc", "device", "host"];

/// Whether this kernel has the gap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gap {
    is_open: bool,
}

// === impl Gap ===

impl Gap {
    /// Looks which hooks a running enforcer has attached.
    pub(crate) fn look(scene: &mut Scene) -> Self {
        let status = status(scene);
        let hooks = status["hooks"].as_array().unwrap();
        Self {
            is_open: !hooks.iter().any(|hook| hook["hook"] == HOOK),
        }
    }

    /// Whether a leak is this gap.
    pub(crate) fn explains(self, mode: &str, technique: &str) -> bool {
        self.is_open && technique == TECHNIQUE && WITHOUT_HOST_SIDE.contains(&mode)
    }
}
