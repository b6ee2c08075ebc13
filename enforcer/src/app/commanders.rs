//! Who may command: processes of trusted cgroups. Root in a container that has the control socket may not, because the
//! processes of guarded cgroups are what is guarded against.

use std::{path::PathBuf, sync::Arc};

use tokio::sync::watch;

use crate::{attribution::Attributor, control::Process, host::cgroupfs::CgroupFs};

/// Who is guarded does not command.
#[derive(Debug, thiserror::Error)]
#[error(
    "refused: the cgroup {cgroup} is guarded; use a trusted one, as that of a system service or a login, or list yours in cgroups.host"
)]
pub(super) struct NotTrusted {
    cgroup: PathBuf,
}

/// Tells whether a process may command. One whose cgroup cannot be told is taken for guarded.
pub(super) fn admit(
    cgroups: CgroupFs,
    attributor: watch::Receiver<Arc<Attributor>>,
) -> impl Fn(&Process) -> Result<(), NotTrusted> {
    move |process| {
        let cgroup = process.look(|id| cgroups.of_process(id));
        match cgroup.ok().and_then(Result::ok) {
            Some(cgroup) if attributor.borrow().trusts(&cgroup) => Ok(()),
            cgroup => Err(NotTrusted {
                cgroup: cgroup.unwrap_or_else(|| "unknown".into()),
            }),
        }
    }
}
