//! Network namespaces: finds those the guarded processes are in, and enters them.
//!
//! No descriptor of a foreign namespace is kept: it would keep the namespace and its devices alive.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::MetadataExt as _,
    },
    path::{Component, Path, PathBuf},
};

use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        nsid::{NsidAttribute, NsidMessage},
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

use super::{HostError, cgroupfs::CgroupFs};
use crate::sys;

/// Where container engines and `ip netns` keep namespaces that have no process yet.
const NAMED: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// How many threads of a process are looked at: nobody is to keep us busy with more.
const MAX_THREADS: usize = 4096;

/// Stands for any number that is free, and for none.
const ANY_NUMBER: i32 = -1;

/// A network namespace and a way to open it while it lives.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// Inode number.
    pub inode: u64,
    path: PathBuf,
}

// === impl Namespace ===

impl Namespace {
    /// The namespace of this process.
    pub fn own() -> Result<Self, HostError> {
        let (path, file) = own_file()?;
        Ok(Self {
            inode: file.ino(),
            path,
        })
    }

    /// Runs a function inside, on a thread of its own; `None` if the namespace is gone meanwhile.
    pub fn enter<T: Send>(
        &self,
        function: impl FnOnce() -> Result<T, HostError> + Send,
    ) -> Result<Option<T>, HostError> {
        let Some(opened) = self.open()? else { return Ok(None) };
        sys::namespace::run_in(opened.as_fd(), function)
            .map_err(|source| self.error(source))?
            .map(Some)
    }

    /// Has the kernel report changes of the namespace's network to this one: it does for every namespace that has a number
    /// here. Returns that number; none if the namespace is gone meanwhile.
    pub fn report_changes(&self) -> Result<Option<i32>, HostError> {
        let Some(opened) = self.open()? else { return Ok(None) };
        let known = self.ask_number(&opened)?;
        if known.is_some() {
            return Ok(known);
        }
        let message = numbered(&opened, Some(ANY_NUMBER));
        let answer = self.exchange(RouteNetlinkMessage::NewNsId(message), NLM_F_ACK)?;
        if let NetlinkPayload::Error(error) = answer.payload
            && error.code.is_some()
            // It may have got one meanwhile.
            && error.raw_code() != -libc::EEXIST
        {
            return Err(self.error(error.to_io()));
        }
        self.ask_number(&opened)
    }

    /// The number the namespace has here.
    fn ask_number(&self, opened: &File) -> Result<Option<i32>, HostError> {
        let message = numbered(opened, None);
        let answer = self.exchange(RouteNetlinkMessage::GetNsId(message), 0)?;
        if let NetlinkPayload::Error(error) = answer.payload {
            return Err(self.error(error.to_io()));
        }
        let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(told)) = answer.payload else {
            return Ok(None);
        };
        Ok(told.attributes.into_iter().find_map(|attribute| {
            if let NsidAttribute::Id(number) = attribute {
                (number != ANY_NUMBER).then_some(number)
            } else {
                None
            }
        }))
    }

    fn exchange(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<NetlinkMessage<RouteNetlinkMessage>, HostError> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        let exchange = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
            socket.recv_from_full()
        };
        let (answer, _sender) = exchange().map_err(|source| self.error(source))?;
        NetlinkMessage::deserialize(&answer).map_err(|error| self.error(io::Error::other(error)))
    }

    fn open(&self) -> Result<Option<File>, HostError> {
        let opened = match File::open(&self.path) {
            Err(error) if is_gone(&error) => return Ok(None),
            opened => opened.map_err(|source| self.error(source))?,
        };
        // The path leads to whatever its process is in by now.
        let inode = opened.metadata().map_err(|source| self.error(source))?.ino();
        Ok((inode == self.inode).then_some(opened))
    }

    fn error(&self, source: io::Error) -> HostError {
        HostError::Namespace {
            path: self.path.clone(),
            source,
        }
    }
}

/// A message about the number of a namespace.
fn numbered(opened: &File, number: Option<i32>) -> NsidMessage {
    let mut message = NsidMessage::default();
    message.attributes = vec![NsidAttribute::Fd(opened.as_raw_fd().unsigned_abs())];
    message.attributes.extend(number.map(NsidAttribute::Id));
    message
}

/// The network namespaces, other than this process's, that processes below `root` are in or that have a name. Where names
/// are kept there may be other files: a name is made before its namespace is put there, and left behind when that is gone.
pub fn foreign(cgroups: &CgroupFs, root: &Path) -> Result<Vec<Namespace>, HostError> {
    let (_, own) = own_file()?;
    let root = cgroups.relative(root).unwrap_or_else(|| PathBuf::from("/"));
    let mut found = BTreeMap::new();
    for path in named().chain(processes(&root)?) {
        if let Ok(file) = fs::metadata(&path)
            && file.dev() == own.dev()
            && file.ino() != own.ino()
        {
            found.entry(file.ino()).or_insert(path);
        }
    }
    Ok(found
        .into_iter()
        .map(|(inode, path)| Namespace { inode, path })
        .collect())
}

/// The file of this process's namespace. All namespaces are files of one file system.
fn own_file() -> Result<(PathBuf, fs::Metadata), HostError> {
    let path = PathBuf::from("/proc/self/ns/net");
    match fs::metadata(&path) {
        Ok(file) => Ok((path, file)),
        Err(source) => Err(HostError::Namespace { path, source }),
    }
}

fn named() -> impl Iterator<Item = PathBuf> {
    NAMED.into_iter().flat_map(|directory| {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path())
    })
}

/// The namespace files of all processes whose cgroup is `root` or below, and of their threads: each may be in one of its
/// own.
fn processes(root: &Path) -> Result<impl Iterator<Item = PathBuf>, HostError> {
    let processes = procfs::process::all_processes().map_err(|source| HostError::Processes { source })?;
    let below = processes.flatten().filter(move |process| {
        let mut cgroups = process.cgroups().into_iter().flatten();
        cgroups.any(|cgroup| cgroup.hierarchy == 0 && is_at_or_below(Path::new(&cgroup.pathname), root))
    });
    Ok(below.flat_map(|process| {
        let tasks = fs::read_dir(format!("/proc/{}/task", process.pid));
        let tasks = tasks.into_iter().flatten().flatten().take(MAX_THREADS);
        tasks.map(|task| task.path().join("ns/net"))
    }))
}

/// Whether a cgroup is `root` or below it. What is outside of this process's view of the cgroups has a path that begins with
/// `/..`; with the view's own root as `root` that is not below it.
fn is_at_or_below(cgroup: &Path, root: &Path) -> bool {
    cgroup.starts_with(root) && cgroup.components().all(|component| component != Component::ParentDir)
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::is_at_or_below;

    #[test]
    fn what_is_outside_of_the_view_of_cgroups_is_not_below_its_root() {
        for (cgroup, root, is_below) in [
            ("/", "/", true),
            ("/ecs/1", "/", true),
            ("/ecs/1", "/ecs", true),
            ("/ecstasks", "/ecs", false),
            ("/..", "/", false),
            ("/../../user.slice", "/", false),
        ] {
            assert_eq!(
                is_at_or_below(Path::new(cgroup), Path::new(root)),
                is_below,
                "{cgroup} {root}"
            );
        }
    }
}
