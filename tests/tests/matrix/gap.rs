//! The known gaps: what only some kernels can prevent, on those that cannot, where a device has no host side.

use enforcer_tests::scene::Scene;

use super::status::status;

/// The hook of the BPF LSM: without it, a 32-bit call tells frames to pass by the hooks of their device.
const LSM_HOOK: &str = "lsm_setsockopt";
const NEEDS_LSM: &str = "packet-bypass-32bit";
/// Without tcx, hooks of devices are filters: who administers the device's namespace can remove them, and until they are
/// back frames pass. Whether the attempt is fast enough is chance.
const NEEDS_TCX: &str = "route-replaced";
const WITHOUT_HOST_SIDE: [&str; 3] = ["awsvpc", "device", "host"];

/// Which gaps this kernel has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gap {
    has_lsm: bool,
    has_tcx: bool,
}

// === impl Gap ===

impl Gap {
    /// Looks which hooks a running enforcer has attached, and how.
    pub(crate) fn look(scene: &mut Scene) -> Self {
        let status = status(scene);
        let hooks = status["hooks"].as_array().unwrap();
        Self {
            has_lsm: hooks.iter().any(|hook| hook["hook"] == LSM_HOOK),
            // Only those are pinned.
            has_tcx: hooks.iter().any(|hook| hook["attached_to"]["device"].is_object()),
        }
    }

    /// Whether a leak is one of these gaps.
    pub(crate) fn explains(self, mode: &str, technique: &str) -> bool {
        let is_open = (technique == NEEDS_LSM && !self.has_lsm) || (technique == NEEDS_TCX && !self.has_tcx);
        is_open && WITHOUT_HOST_SIDE.contains(&mode)
    }
}
