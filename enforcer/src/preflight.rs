//! Preflight: what this host offers and lacks. Nothing here changes anything.

use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsFd,
    path::Path,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use serde::Serialize;

use crate::{
    bpf,
    config::{AuditOutput, Config, Upstream},
    host::cgroupfs::CgroupFs,
};

/// The oldest supported kernel.
const OLDEST_KERNEL: (u32, u32) = (6, 1);

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// Short name.
    pub name: &'static str,
    /// Whether `enforcer run` can live with it.
    pub ok: bool,
    /// What was found.
    pub means: String,
    /// What to do; none if it is fine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// What one check found: why it is fine, or what is wrong and what to do.
type Outcome = Result<String, (String, String)>;

/// Looks at everything that `enforcer run` needs.
#[must_use]
pub fn check(config: &Config) -> Vec<Finding> {
    vec![
        finding("root", root()),
        finding("kernel", kernel()),
        finding("btf", btf()),
        finding("cgroup root", cgroup_root(config)),
        finding("own cgroup", own_cgroup(config)),
        finding("bpffs", bpffs(&config.pin_dir)),
        finding("hooks", hooks()),
        finding("endpoint ports", endpoint_ports(config)),
        finding("audit output", audit_output(&config.audit.output)),
        finding("credentials files", credentials_files(&config.upstream)),
    ]
}

/// A finding out of a check's outcome.
#[must_use]
pub fn finding(name: &'static str, outcome: Outcome) -> Finding {
    let (ok, means, advice) = match outcome {
        Ok(means) => (true, means, None),
        Err((means, advice)) => (false, means, Some(advice)),
    };
    Finding {
        name,
        ok,
        means,
        advice,
    }
}

fn root() -> Outcome {
    if rustix::process::geteuid().is_root() {
        return Ok("running as root".to_owned());
    }
    Err((
        "not running as root".to_owned(),
        "run it as root: loading hooks needs CAP_BPF, CAP_NET_ADMIN and more".to_owned(),
    ))
}

fn kernel() -> Outcome {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let (major, minor) = OLDEST_KERNEL;
    match version(&release) {
        Some(version) if version >= OLDEST_KERNEL => Ok(format!("Linux {release}")),
        Some(_) | None => Err((
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
    Err((
        format!("{BTF} does not exist"),
        "use a kernel built with CONFIG_DEBUG_INFO_BTF".to_owned(),
    ))
}

fn cgroup_root(config: &Config) -> Outcome {
    let advice = "mount cgroup2, or set cgroups.root to a directory on it";
    let cgroups = cgroups(config)?;
    let root = config.cgroups.root.as_deref().unwrap_or_else(|| cgroups.mount());
    if root.join("cgroup.controllers").exists() {
        return Ok(format!("hooks attach to {}", root.display()));
    }
    Err((format!("{} is not a cgroup", root.display()), advice.to_owned()))
}

fn own_cgroup(config: &Config) -> Outcome {
    let advice = "start it as a service, or in a cgroup made for it";
    let own = cgroups(config)?
        .own()
        .map_err(|error| (error.to_string(), advice.to_owned()))?;
    if own.parent().is_some() {
        return Ok(format!("running in {}", own.display()));
    }
    Err(("running in the root cgroup".to_owned(), advice.to_owned()))
}

fn cgroups(config: &Config) -> Result<CgroupFs, (String, String)> {
    CgroupFs::find(config.cgroups.root.as_deref()).map_err(|error| {
        (
            error.to_string(),
            "mount cgroup2, or set cgroups.root to a directory on it".to_owned(),
        )
    })
}

fn bpffs(pin_dir: &Path) -> Outcome {
    /// `BPF_FS_MAGIC` of linux/magic.h.
    const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
    let existing = pin_dir.ancestors().find(|path| path.exists()).unwrap_or(pin_dir);
    let magic = rustix::fs::statfs(existing)
        .ok()
        .and_then(|stat| u64::try_from(stat.f_type).ok());
    if magic == Some(BPF_FS_MAGIC) {
        return Ok(format!("pins go to {}", pin_dir.display()));
    }
    Err((
        format!("{} is not on a bpf file system", existing.display()),
        "mount one (mount -t bpf bpf /sys/fs/bpf), or set bpf.pin-dir to a directory on one".to_owned(),
    ))
}

fn hooks() -> Outcome {
    match bpf::probe() {
        Ok(()) => Ok("the kernel takes every hook".to_owned()),
        Err(error) => Err((
            error.to_string(),
            "use a supported kernel, and run this as root".to_owned(),
        )),
    }
}

fn endpoint_ports(config: &Config) -> Outcome {
    let endpoint = &config.endpoint;
    for port in [endpoint.steer_port, endpoint.packet_steer_port] {
        if let Err(error) = try_bind(endpoint.address, port) {
            return Err((
                format!("cannot listen on {}:{port}: {error}", endpoint.address),
                "see who does with `ss -ltnp` (a running enforcer is fine), or set endpoint.steer-port and \
                 endpoint.packet-steer-port"
                    .to_owned(),
            ));
        }
    }
    Ok(format!(
        "{}:{} and :{} are free",
        endpoint.address, endpoint.steer_port, endpoint.packet_steer_port
    ))
}

/// Binds an address that this host may not have yet.
fn try_bind(address: Ipv4Addr, port: u16) -> rustix::io::Result<()> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_ip_freebind(&socket, true)?;
    bind(socket.as_fd(), &SocketAddrV4::new(address, port))
}

fn audit_output(output: &AuditOutput) -> Outcome {
    let AuditOutput::File(path) = output else {
        return Ok("records go to standard output".to_owned());
    };
    let writable = match path.parent() {
        _ if path.exists() => fs::OpenOptions::new()
            .append(true)
            .open(path)
            .and_then(|mut file| file.flush()),
        Some(directory) => fs::metadata(directory).map(drop),
        None => Err(std::io::ErrorKind::IsADirectory.into()),
    };
    match writable {
        Ok(()) => Ok(format!("records go to {}", path.display())),
        Err(error) => Err((
            format!("cannot write {}: {error}", path.display()),
            "make its directory, or set audit.output".to_owned(),
        )),
    }
}

fn credentials_files(upstream: &Upstream) -> Outcome {
    let Upstream::Embedded(roles) = upstream else {
        return Ok("the ECS agent holds the credentials".to_owned());
    };
    for role in roles {
        if let Err(error) = fs::File::open(&role.credentials_file) {
            return Err((
                format!(
                    "cannot read {} of task {}: {error}",
                    role.credentials_file.display(),
                    role.task.as_str()
                ),
                "write it, or set the task's credentials-file".to_owned(),
            ));
        }
    }
    Ok(format!("{} credentials files are readable", roles.len()))
}

#[cfg(test)]
mod tests {
    use super::version;

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
