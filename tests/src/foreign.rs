//! BPF programs of somebody else, at the same hooks as the enforcer's: what other tools on a host bring, and what an
//! enemy with root on the host might.

use std::{
    fs::{self, File},
    mem,
    net::Ipv4Addr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use anyhow::{Context, Result};
use aya::{
    programs::{
        LinkOrder, SchedClassifier, TcAttachType,
        links::FdLink,
        tc::{self, NlOptions, TcAttachOptions, TcError},
    },
    util::KernelVersion,
};
use nix::libc;

use crate::namespace::NetNs;

mod load;

/// A hook somebody else uses too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in linux/bpf.h")]
pub enum Kind {
    Connect4,
    Connect6,
    UdpSendmsg4,
    UdpSendmsg6,
    UdpRecvmsg4,
    UdpRecvmsg6,
    Getpeername4,
    Getpeername6,
    SockRelease,
    Classifier,
}

/// Whether others may attach beside a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// `BPF_F_ALLOW_MULTI`
    Shared,
    /// No flags at all: nobody may attach here or below.
    Exclusive,
}

/// An instruction (Documentation/bpf/standardization/instruction-set.rst).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// A loaded program.
#[derive(Debug)]
pub struct Program {
    name: String,
    kind: Kind,
    fd: OwnedFd,
}

// === impl Kind ===

impl Kind {
    /// What Cilium attaches to the root cgroup for its load balancing of services.
    pub const CILIUM: [Self; 9] = [
        Self::Connect4,
        Self::Connect6,
        Self::UdpSendmsg4,
        Self::UdpSendmsg6,
        Self::UdpRecvmsg4,
        Self::UdpRecvmsg6,
        Self::Getpeername4,
        Self::Getpeername6,
        Self::SockRelease,
    ];

    /// `enum bpf_prog_type`
    const fn program_type(self) -> u32 {
        match self {
            Self::Classifier => 3,
            Self::SockRelease => 9,
            Self::Connect4
            | Self::Connect6
            | Self::UdpSendmsg4
            | Self::UdpSendmsg6
            | Self::UdpRecvmsg4
            | Self::UdpRecvmsg6
            | Self::Getpeername4
            | Self::Getpeername6 => 18,
        }
    }

    /// `enum bpf_attach_type`; classifiers need none.
    const fn attach_type(self) -> u32 {
        match self {
            Self::Connect4 => 10,
            Self::Connect6 => 11,
            Self::UdpSendmsg4 => 14,
            Self::UdpSendmsg6 => 15,
            Self::UdpRecvmsg4 => 19,
            Self::UdpRecvmsg6 => 20,
            Self::Getpeername4 => 29,
            Self::Getpeername6 => 30,
            Self::SockRelease => 34,
            Self::Classifier => 0,
        }
    }
}

// === impl Sharing ===

impl Sharing {
    const fn flags(self) -> u32 {
        match self {
            Self::Shared => 2,
            Self::Exclusive => 0,
        }
    }
}

// === impl Instruction ===

impl Instruction {
    const fn new(code: u8, registers: u8, offset: i16, immediate: i32) -> Self {
        Self {
            code,
            registers,
            offset,
            immediate,
        }
    }

    /// `r0 = value`
    const fn result(value: i32) -> Self {
        Self::new(0xb7, 0, 0, value)
    }

    const EXIT: Self = Self::new(0x95, 0, 0, 0);
}

// === impl Program ===

impl Program {
    /// A program that does nothing and returns a number: 1 lets a socket's operation go on.
    pub fn returning(name: &str, kind: Kind, value: i32) -> Result<Self> {
        Self::load(name, kind, &[Instruction::result(value), Instruction::EXIT])
    }

    /// A program that replaces one destination by another.
    pub fn rewriting(name: &str, kind: Kind, from: Ipv4Addr, to: Ipv4Addr) -> Result<Self> {
        /// Offset of `user_ip4` in `struct bpf_sock_addr`; it is in network byte order, as the octets are.
        const USER_IP4: i16 = 4;
        let [from, to] = [from, to].map(|address| i32::from_ne_bytes(address.octets()));
        let code = [
            // r2 = *(u32 *)(r1 + USER_IP4)
            Instruction::new(0x61, 0x12, USER_IP4, 0),
            // if (u32) r2 != from: skip two
            Instruction::new(0x56, 0x02, 2, from),
            // (u32) r3 = to
            Instruction::new(0xb4, 0x03, 0, to),
            // *(u32 *)(r1 + USER_IP4) = r3
            Instruction::new(0x63, 0x31, USER_IP4, 0),
            Instruction::result(1),
            Instruction::EXIT,
        ];
        Self::load(name, kind, &code)
    }

    fn load(name: &str, kind: Kind, code: &[Instruction]) -> Result<Self> {
        let fd = load::program(name, kind, code).with_context(|| format!("cannot load the foreign program {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            kind,
            fd,
        })
    }

    /// The kernel's number of the program.
    pub fn id(&self) -> Result<u32> {
        let path = format!("/proc/self/fdinfo/{}", self.fd.as_raw_fd());
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let id = text.lines().find_map(|line| line.strip_prefix("prog_id:"));
        id.and_then(|id| id.trim().parse().ok())
            .with_context(|| format!("{path} tells no number"))
    }

    /// Attaches it to a cgroup, where it stays until that is removed.
    pub fn attach(&self, cgroup: &Path, sharing: Sharing) -> Result<()> {
        let directory = File::open(cgroup).with_context(|| format!("cannot open {}", cgroup.display()))?;
        load::attach(self.fd.as_fd(), directory.as_fd(), self.kind, sharing.flags())
            .with_context(|| format!("cannot attach {} to {}", self.name, cgroup.display()))
    }

    /// Attaches a classifier to what an interface receives, before whatever is there already. `pins` is a directory of a
    /// BPF file system.
    pub fn attach_to_ingress(&self, namespace: &NetNs, interface: &str, pins: &Path) -> Result<()> {
        let pin = pins.join(&self.name);
        load::pin(self.fd.as_fd(), &pin).with_context(|| format!("cannot pin {}", pin.display()))?;
        namespace.run(|| {
            let mut program = SchedClassifier::from_pin(&pin).context("cannot open the pinned program")?;
            let has_tcx = KernelVersion::current()? >= KernelVersion::new(6, 6, 0);
            let options = if has_tcx {
                TcAttachOptions::TcxOrder(LinkOrder::first())
            } else {
                tc::qdisc_add_clsact(interface).or_else(unless_there)?;
                TcAttachOptions::Netlink(NlOptions {
                    priority: 1,
                    ..NlOptions::default()
                })
            };
            let id = program
                .attach_with_options(interface, TcAttachType::Ingress, options)
                .with_context(|| format!("cannot attach {} to {interface}", self.name))?;
            let link = program.take_link(id)?;
            if has_tcx {
                FdLink::try_from(link)?.pin(pins.join(format!("{}-link", self.name)))?;
            } else {
                // The filter belongs to the interface. Dropping this would remove it, from whatever namespace that is in.
                mem::forget(link);
            }
            Ok(())
        })
    }
}

fn unless_there(error: TcError) -> Result<()> {
    if matches!(&error, TcError::NetlinkError(cause) if cause.raw_os_error() == Some(libc::EEXIST)) {
        return Ok(());
    }
    Err(error).context("cannot add the clsact qdisc")
}
