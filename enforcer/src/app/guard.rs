//! What guards the host: the first thing of a start, so that it is in place whatever else fails. A host whose audit file or
//! registrations nobody can read serves no credentials, and its metadata is blocked all the same.

use std::{path::PathBuf, sync::Arc};

use super::{AppError, kernel, preflight};
use crate::{
    bpf::{self, Bpf, Prepared, Tables},
    config::Config,
    host::{
        cgroupfs::CgroupFs,
        classes::{ClassControl, ClassWatch},
        treatment::Rules,
    },
};

/// The kernel side, attached to the cgroups.
pub(super) struct Guard {
    pub(super) cgroups: CgroupFs,
    /// Relative to the cgroup2 mount.
    pub(super) own_cgroup: PathBuf,
    pub(super) config: bpf::Config,
    pub(super) rules: Arc<Rules>,
    pub(super) bpf: Bpf,
    pub(super) tables: Tables,
    pub(super) classes: ClassWatch,
    pub(super) class_control: ClassControl,
}

// === impl Guard ===

impl Guard {
    /// Loads the hooks, tells them who is trusted, and attaches them.
    pub(super) fn attach(config: &Config, prepared: Option<Prepared>) -> Result<Self, AppError> {
        let cgroups = CgroupFs::find(config.cgroups.root.as_deref())?;
        let own_cgroup = preflight::own_cgroup(&cgroups)?;
        let rules = Arc::new(kernel::rules(config, &own_cgroup));
        let config = kernel::bpf_config(config, &cgroups, &own_cgroup);
        let mut bpf = Bpf::load(&config, prepared)?;
        let tables = bpf.take_tables()?;
        let (classes, class_control) = ClassWatch::start(cgroups.clone(), Arc::clone(&rules), bpf.take_classes()?)?;
        bpf.attach(&config)?;
        Ok(Self {
            cgroups,
            own_cgroup,
            config,
            rules,
            bpf,
            tables,
            classes,
            class_control,
        })
    }
}
