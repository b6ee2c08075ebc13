//! What would be decided about a connection and a request, and why: by the functions that decide, and by what the running
//! enforcer knows. Nothing is recorded.

use std::{
    net::SocketAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use enforcer_common::cgroup::CgroupClass;

use super::{controller::Controller, kernel, told};
use crate::{
    bpf::Mode,
    control::{
        Answer,
        explain::{Decided, Explanation, Question, Who},
    },
    host::cgroupfs::CgroupError,
};

/// Why there is nothing to explain.
#[derive(Debug, thiserror::Error)]
enum ExplainError {
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error("there is no cgroup {cgroup}; write it as a path within the cgroup2 mount")]
    NoCgroup { cgroup: PathBuf },
    #[error("there is no process {pid}")]
    NoProcess { pid: i32 },
}

// === impl Controller ===

impl Controller {
    /// Explains what would be decided, by the configuration and the tasks there are now.
    pub(super) async fn explain(&self, question: Question) -> Answer {
        match self.explanation(question).await {
            Ok(explanation) => told(&explanation),
            Err(error) => Answer::Error(error.to_string()),
        }
    }

    async fn explanation(&self, question: Question) -> Result<Explanation, ExplainError> {
        let cgroup = self.cgroup_of(&question.who)?;
        let none = || ExplainError::NoCgroup { cgroup: cgroup.clone() };
        let id = self.cgroups.id_of(&cgroup)?.ok_or_else(none)?;
        let cgroup = self.cgroups.path_of(id)?.ok_or_else(none)?;
        let request = match &question.path {
            Some(path) => Some(self.endpoint.explain(id, &path.0).await),
            None => None,
        };
        let attributor = std::sync::Arc::clone(&self.attributor.borrow());
        let located = attributor.locate(id);
        let treatment = attributor.treatment(&cgroup);
        Ok(Explanation {
            is_guarded: treatment.class == CgroupClass::Guarded,
            is_observed: treatment.observed || self.config.mode == Mode::Observe,
            may_use: self.config.protect.names(treatment.exceptions),
            task: located
                .as_ref()
                .and_then(|located| Some(located.task()?.as_str().to_owned())),
            consumer: located
                .as_ref()
                .and_then(|located| Some(located.consumer.as_ref()?.name.to_string())),
            known_from: attributor.sources(&cgroup),
            connection: question.to.map(|to| self.connection(&question.who, &cgroup, to)),
            request: request.map(|verdict| {
                let (verdict, reason) = verdict.names();
                Decided::new(verdict, reason)
            }),
            cgroup: cgroup.to_string_lossy().into_owned(),
            cgroup_id: id,
        })
    }

    fn cgroup_of(&self, who: &Who) -> Result<PathBuf, ExplainError> {
        match who {
            Who::Pid(pid) => self
                .cgroups
                .of_process(*pid)
                .map_err(|_unreadable| ExplainError::NoProcess { pid: *pid }),
            Who::Cgroup(cgroup) => Ok(self.cgroups.relative(cgroup).unwrap_or_else(|| cgroup.clone())),
        }
    }

    /// What the connect hooks would decide about a TCP connection.
    fn connection(&self, who: &Who, cgroup: &Path, to: SocketAddr) -> Decided {
        let config = kernel::bpf_config(&self.config, &self.cgroups, &self.own_cgroup);
        let treatment = self.attributor.borrow().treatment(cgroup);
        let in_host_netns = match who {
            Who::Pid(pid) => is_in_host_netns(*pid),
            Who::Cgroup(_) => true,
        };
        let (verdict, reason) = config.decide(to, treatment, in_host_netns);
        Decided::new(verdict, reason)
    }
}

/// Whether a process is in our network namespace. One that cannot be told is taken to be, because more is refused there.
fn is_in_host_netns(pid: i32) -> bool {
    let namespace = |path: &str| std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    let its = namespace(&format!("/proc/{pid}/ns/net"));
    its.is_none() || its == namespace("/proc/self/ns/net")
}
