//! Who serves already: an enforcer that runs has its ports, and that is as it should be.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsFd,
    path::Path,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

use super::{Outcome, Problem};
use crate::{
    config::Endpoint,
    control::{self, Command, ControlError, report::Report},
};

/// What the running enforcer tells about itself; none if there is none, an error if it does not tell.
pub(super) fn running(control_socket: &Path) -> Result<Option<Report>, Problem> {
    match control::ask(control_socket, &Command::Status) {
        Ok(told) => serde_json::from_value(told).map_err(|error| Problem::told(&error).warn()),
        Err(ControlError::Connect { .. }) => Ok(None),
        Err(error) => Err(Problem::told(&error).warn()),
    }
}

/// Whether one runs.
pub(super) fn told(running: Option<&Report>) -> String {
    match running {
        Some(report) => {
            let Report { version, pid, mode, .. } = report;
            format!("enforcer {version} is running (pid {pid}, mode {mode}): `enforcer run --take-over` replaces it")
        }
        None => "no enforcer is running".to_owned(),
    }
}

/// Whether the ports can be listened on, or are those of the running enforcer.
pub(super) fn endpoint_ports(endpoint: &Endpoint, running: Option<&Report>) -> Outcome {
    let ports = [endpoint.steer_port, endpoint.packet_steer_port];
    let listening = running.map(|report| report.listening.as_slice()).unwrap_or_default();
    for port in ports {
        if let Err(error) = try_bind(endpoint.address, port)
            && !listening.contains(&SocketAddrV4::new(endpoint.address, port))
        {
            return Err(Problem::new(
                format!("cannot listen on {}:{port}: {error}", endpoint.address),
                "see who does with `ss -ltnp`, or set endpoint.steer-port and endpoint.packet-steer-port",
            ));
        }
    }
    let [steer, packet_steer] = ports;
    let state = if listening.is_empty() {
        "free"
    } else {
        "the running enforcer's, or free"
    };
    Ok(format!("{}:{steer} and :{packet_steer} are {state}", endpoint.address))
}

/// Binds an address that this host may not have yet.
fn try_bind(address: Ipv4Addr, port: u16) -> rustix::io::Result<()> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_ip_freebind(&socket, true)?;
    bind(socket.as_fd(), &SocketAddrV4::new(address, port))
}
