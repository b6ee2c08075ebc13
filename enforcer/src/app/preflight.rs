//! Preflight: what this host offers and lacks. Nothing here changes anything.

mod network;
mod processes;
mod programs;
mod service;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    attribution::{RegistrationError, Registrations},
    audit::{check_key, check_output},
    bpf,
    config::{AuditOutput, Config, Upstream},
    host::cgroupfs::{CgroupError, CgroupFs},
    upstream::unusable,
};

/// The oldest supported kernel.
const OLDEST_KERNEL: (u32, u32) = (6, 1);

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// Short name.
    pub name: &'static str,
    /// How it is.
    pub state: State,
    /// What was found.
    pub means: String,
    /// What to do; none if it is fine, or if `means` says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// How something is, in order of gravity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// `enforcer run` works, but not all of what it is configured for.
    Warn,
    /// `enforcer run` does not work.
    Fail,
}

/// What one check found: why it is fine, or what is wrong.
type Outcome = Result<String, Problem>;

/// What is not as it should be.
#[derive(Debug)]
pub struct Problem {
    state: State,
    means: String,
    advice: Option<String>,
}

/// The enforcer cannot tell its own connections from others.
#[derive(Debug, thiserror::Error)]
pub enum OwnCgroupError {
    /// Its cgroup cannot be told.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// It is not in one of its own.
    #[error("the enforcer runs in the root cgroup: start it as a service, or in a cgroup made for it alone")]
    Root,
}

/// Looks at everything that `enforcer run` needs.
#[must_use]
pub fn check(config: &Config) -> Vec<Finding> {
    let (running, service) = match service::running(&config.control_socket) {
        Ok(running) => {
            let told = service::told(running.as_ref());
            (running, Ok(told))
        }
        Err(problem) => (None, Err(problem)),
    };
    let mut findings = vec![
        finding("root", root()),
        finding("kernel", kernel()),
        finding("btf", btf()),
        finding("cgroup root", cgroup_root(config)),
        finding("own cgroup", running_in(config)),
        finding("bpffs", bpffs(&config.pin_dir)),
        finding("hooks", hooks()),
        finding("bpf lsm", bpf_lsm()),
        finding("service", service),
        finding(
            "endpoint ports",
            service::endpoint_ports(&config.endpoint, running.as_ref()),
        ),
        finding("audit output", audit_output(&config.audit.output)),
        finding("audit key", audit_key(&config.audit.key_file)),
        finding("registrations", registered(config)),
        finding("credentials files", credentials_files(&config.upstream)),
        finding("endpoint address", network::endpoint_address(config)),
        finding("firewall", network::firewall(config)),
        finding("bridge filter", Ok(network::bridge_filter())),
        finding("capabilities", processes::capabilities(config)),
        finding("packet sockets", processes::packet_sockets(config)),
    ];
    findings.extend(programs::programs(config));
    findings
}

/// A finding out of a check's outcome.
#[must_use]
pub fn finding(name: &'static str, outcome: Outcome) -> Finding {
    let (state, means, advice) = match outcome {
        Ok(means) => (State::Ok, means, None),
        Err(Problem { state, means, advice }) => (state, means, advice),
    };
    Finding {
        name,
        state,
        means,
        advice,
    }
}

/// The enforcer's own cgroup, relative to the cgroup2 mount.
pub fn own_cgroup(cgroups: &CgroupFs) -> Result<PathBuf, OwnCgroupError> {
    let own = cgroups.own()?;
    match own.parent() {
        Some(_) => Ok(own),
        None => Err(OwnCgroupError::Root),
    }
}

/// Whether what is registered can be taken up. Changes nothing.
pub fn registrations(config: &Config) -> Result<(), RegistrationError> {
    Registrations::check(&config.registrations)
}

// === impl Problem ===

impl Problem {
    /// An error whose text says what to do about it.
    #[must_use]
    pub fn told(error: &impl fmt::Display) -> Self {
        Self {
            state: State::Fail,
            means: error.to_string(),
            advice: None,
        }
    }

    fn new(means: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            state: State::Fail,
            means: means.into(),
            advice: Some(advice.into()),
        }
    }

    fn warn(self) -> Self {
        Self {
            state: State::Warn,
            ..self
        }
    }
}

fn root() -> Outcome {
    if rustix::process::geteuid().is_root() {
        return Ok("running as root".to_owned());
    }
    Err(Problem::new(
        "not running as root",
        "run it as root: loading hooks needs CAP_BPF, CAP_NET_ADMIN and more",
    ))
}

fn kernel() -> Outcome {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let (major, minor) = OLDEST_KERNEL;
    match version(&release) {
        Some(version) if version >= OLDEST_KERNEL => Ok(format!("Linux {release}")),
        Some(_) | None => Err(Problem::new(
            format!("Linux {release} is older than {major}.{minor}"),
            format!("use a kernel of {major}.{minor} or newer"),
        )),
    }
}

/// Major and minor of a release such as `6.1.0-18-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn btf() -> Outcome {
    const BTF: &str = "/sys/kernel/btf/vmlinux";
    if Path::new(BTF).exists() {
        return Ok(format!("type information in {BTF}"));
    }
    Err(Problem::new(
        format!("{BTF} does not exist"),
        "use a kernel built with CONFIG_DEBUG_INFO_BTF",
    ))
}

fn cgroup_root(config: &Config) -> Outcome {
    let cgroups = cgroups(config)?;
    let root = config.cgroups.root.as_deref().unwrap_or_else(|| cgroups.mount());
    if root.join("cgroup.controllers").exists() {
        return Ok(format!("hooks attach to {}", root.display()));
    }
    Err(Problem::new(
        format!("{} is not a cgroup", root.display()),
        "set cgroups.root to a directory that is one",
    ))
}

fn running_in(config: &Config) -> Outcome {
    match own_cgroup(&cgroups(config)?) {
        Ok(own) => Ok(format!("running in {}", own.display())),
        Err(error) => Err(Problem::told(&error)),
    }
}

fn cgroups(config: &Config) -> Result<CgroupFs, Problem> {
    CgroupFs::find(config.cgroups.root.as_deref()).map_err(|error| Problem::told(&error))
}

fn bpffs(pin_dir: &Path) -> Outcome {
    match bpf::require_bpffs(pin_dir) {
        Ok(()) => Ok(format!("pins go to {}", pin_dir.display())),
        Err(error) => Err(Problem::told(&error)),
    }
}

fn hooks() -> Outcome {
    match bpf::probe() {
        Ok(()) => Ok("the kernel takes every hook".to_owned()),
        Err(error) => Err(Problem::new(
            error.to_string(),
            "use a supported kernel, and run this as root",
        )),
    }
}

/// Without the BPF LSM, the hook on socket options sees only system calls of the kernel's own word size.
fn bpf_lsm() -> Outcome {
    const ACTIVE: &str = "/sys/kernel/security/lsm";
    let found = match fs::read_to_string(ACTIVE) {
        Ok(modules) if modules.trim().split(',').any(|module| module == "bpf") => {
            return Ok("active: socket options of 32-bit system calls are judged too".to_owned());
        }
        Ok(modules) => format!("the BPF LSM is not active (active: {})", modules.trim()),
        Err(error) => format!("cannot tell whether the BPF LSM is active: {ACTIVE}: {error}"),
    };
    Err(Problem::new(
        format!("{found}: a 32-bit system call may take frames past the hooks of devices without a host side"),
        "boot with `bpf` in the list lsm=, or with ia32_emulation=off, or drop NET_RAW from containers that have devices \
         of their own",
    )
    .warn())
}

fn audit_output(output: &AuditOutput) -> Outcome {
    check_output(output).map_err(|error| Problem::told(&error))?;
    Ok(match output {
        AuditOutput::Stdout => "records go to standard output".to_owned(),
        AuditOutput::File(path) => format!("records go to {}", path.display()),
    })
}

fn audit_key(path: &Path) -> Outcome {
    match check_key(path) {
        Ok(()) if path.exists() => Ok(format!("credential IDs are hidden by the key {}", path.display())),
        Ok(()) => Ok(format!("a key will be made: {}", path.display())),
        Err(error) => Err(Problem::told(&error)),
    }
}

fn registered(config: &Config) -> Outcome {
    match registrations(config) {
        Ok(()) => Ok(format!(
            "what is registered is kept in {}",
            config.registrations.display()
        )),
        Err(error) => Err(Problem::told(&error)),
    }
}

/// Only warns: credentials may come later, and there is more to guard than those of one task.
fn credentials_files(upstream: &Upstream) -> Outcome {
    let Upstream::Embedded(roles) = upstream else {
        return Ok("the ECS agent holds the credentials".to_owned());
    };
    for role in roles {
        if let Some(problem) = unusable(role) {
            let file = role.credentials_file.display();
            let whose = role.task.as_ref().map_or_else(
                || format!("tasks with the role {}", role.arn),
                |task| format!("task {}", task.as_str()),
            );
            return Err(Problem::new(
                format!("no credentials for {whose} in {file}: {problem}"),
                "write it, or set another credentials-file; until then who asks is told to try again",
            )
            .warn());
        }
    }
    Ok(format!("{} credentials files are usable", roles.len()))
}

#[cfg(test)]
mod tests {
    use super::{State, credentials_files, version};
    use crate::{
        attribution::TaskName,
        config::{Role, Upstream},
    };

    #[test]
    fn a_missing_credentials_file_is_only_warned_of() {
        let role = Role {
            task: Some(TaskName::new("web")),
            arn: "arn:web".to_owned(),
            credentials_file: "/nonexistent/web.json".into(),
        };
        let problem = credentials_files(&Upstream::Embedded(vec![role])).unwrap_err();
        assert_eq!(problem.state, State::Warn);
        assert!(
            problem.means.contains("task web in /nonexistent/web.json: "),
            "{}",
            problem.means
        );
    }

    #[test]
    fn releases_of_distributions_are_understood() {
        for (release, expected) in [
            ("6.1.0-18-cloud-amd64", Some((6, 1))),
            ("6.18.44", Some((6, 18))),
            ("5.10.226-214.880.amzn2.x86_64", Some((5, 10))),
            ("6.12-rc1", Some((6, 12))),
            ("6", None),
            ("", None),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
    }
}
