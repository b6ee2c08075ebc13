//! The kernel's reports of changed devices and filters, from every network namespace it has a number for.

use std::{collections::BTreeSet, io, os::fd::AsFd as _};

use rtnetlink::sys::{Socket, protocols::NETLINK_ROUTE};
use tokio::io::unix::AsyncFd;

use crate::sys::{readiness::readable, socket::receive_about_namespace};

/// `RTNLGRP_LINK` and `RTNLGRP_TC` of linux/rtnetlink.h.
const GROUPS: [u32; 2] = [1, 4];

/// Messages that may mean work (linux/rtnetlink.h): `RTM_NEWLINK`, `RTM_DELLINK`, `RTM_DELQDISC`, `RTM_DELTFILTER`. What
/// attaching causes is not among them.
const CHANGES: [u16; 4] = [16, 17, 37, 45];

/// Reads the reports.
#[derive(Debug)]
pub(super) struct Changes {
    socket: AsyncFd<Socket>,
}

/// Where something has changed and nobody has looked since.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// In this process's network namespace.
    pub(super) own: bool,
    /// In others, by their numbers here.
    pub(super) foreign: BTreeSet<i32>,
    /// Anywhere, so that everything is to be looked at: a device may have gone where nobody knew there was anything.
    pub(super) anywhere: bool,
}

// === impl Changes ===

impl Changes {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_listen_all_namespaces(true)?;
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        socket.set_non_blocking(true)?;
        Ok(Self {
            socket: readable(socket)?,
        })
    }

    /// Waits for reports, and adds what they tell.
    pub(super) async fn wait(&self, changed: &mut Changed) -> io::Result<()> {
        let mut guard = self.socket.readable().await?;
        self.take(changed)?;
        guard.clear_ready();
        Ok(())
    }

    /// Adds what the reports that are there tell.
    pub(super) fn take(&self, changed: &mut Changed) -> io::Result<()> {
        loop {
            let mut header = [0; 6];
            match receive_about_namespace(self.socket.get_ref().as_fd(), &mut header) {
                Ok(namespace) if is_change(header) => changed.add(namespace),
                Ok(_unimportant) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // There was no room for all of them.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    changed.own = true;
                    changed.anywhere = true;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

// === impl Changed ===

impl Changed {
    fn add(&mut self, namespace: Option<i32>) {
        self.anywhere = true;
        match namespace {
            Some(number) => drop(self.foreign.insert(number)),
            None => self.own = true,
        }
    }
}

/// Whether a report may mean work. Its type follows the length in `struct nlmsghdr`.
fn is_change([_, _, _, _, low, high]: [u8; 6]) -> bool {
    CHANGES.contains(&u16::from_ne_bytes([low, high]))
}
