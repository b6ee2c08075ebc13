//! TC hooks on the host side of containers' interfaces.
//!
//! Attached through a clsact qdisc on every kernel (tcx needs Linux 6.6): the filters live with the interface, so they
//! outlive the daemon without a pin, and vanish with the container.

use std::io;

use aya::{
    Ebpf,
    programs::{
        Program, ProgramError, SchedClassifier, TcAttachType,
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
    },
};

use super::BpfError;

/// Program and filter name of the ingress hook.
pub(super) const INGRESS: &str = "enforcer_in";
/// Program and filter name of the egress hook.
pub(super) const EGRESS: &str = "enforcer_out";

const DIRECTIONS: [(&str, TcAttachType); 2] = [(INGRESS, TcAttachType::Ingress), (EGRESS, TcAttachType::Egress)];

/// Early, so that no other filter rewrites a packet before it is judged.
const PRIORITY: u16 = 2;
/// One fixed handle: attaching again replaces the program atomically.
const HANDLE: TcHandle = TcHandle::new(0, 1);

/// Attaches both directions, or replaces the programs that are there.
pub(super) fn attach(ebpf: &mut Ebpf, interface: &str) -> Result<(), BpfError> {
    match tc::qdisc_add_clsact(interface) {
        Ok(()) => {}
        Err(error) if is(&error, io::ErrorKind::AlreadyExists) => {}
        Err(source) => return Err(tc_error("add the clsact qdisc", interface, source)),
    }
    for (name, direction) in DIRECTIONS {
        let program = ebpf.program_mut(name).ok_or(BpfError::Missing { what: name })?;
        let link = attach_one(program, interface, direction).map_err(|source| BpfError::Hook {
            operation: "attach",
            hook: name,
            source: Box::new(source),
            hint: "",
        })?;
        // The filter belongs to the interface now; dropping the link would remove it.
        std::mem::forget(link);
    }
    Ok(())
}

fn attach_one(
    program: &mut Program,
    interface: &str,
    direction: TcAttachType,
) -> Result<SchedClassifierLink, ProgramError> {
    let program: &mut SchedClassifier = program.try_into()?;
    let present = SchedClassifierLink::attached(interface, direction, PRIORITY, HANDLE, None)
        .map_err(|error| ProgramError::TcError(TcError::IoError(error)))?;
    let id = if let Ok(id) = program.attach_to_link(present) {
        id
    } else {
        // There was none to replace.
        let options = TcAttachOptions::Netlink(NlOptions {
            priority: PRIORITY,
            handle: HANDLE,
            classid: None,
        });
        program.attach_with_options(interface, direction, options)?
    };
    program.take_link(id)
}

/// Removes both directions from an interface. Not being there is fine.
pub fn detach(interface: &str) -> Result<(), BpfError> {
    for (name, direction) in DIRECTIONS {
        match tc::qdisc_detach_program(interface, direction, name) {
            Ok(()) => {}
            Err(error) if is(&error, io::ErrorKind::NotFound) => {}
            Err(source) => return Err(tc_error("remove the packet hooks", interface, source)),
        }
    }
    Ok(())
}

fn is(error: &TcError, kind: io::ErrorKind) -> bool {
    let io_error = if let TcError::NetlinkError(error) = error {
        error
            .raw_os_error()
            .map(|code| io::Error::from_raw_os_error(code).kind())
    } else if let TcError::IoError(error) = error {
        Some(error.kind())
    } else {
        None
    };
    io_error == Some(kind)
}

fn tc_error(operation: &'static str, interface: &str, source: TcError) -> BpfError {
    BpfError::Tc {
        operation,
        interface: interface.to_owned(),
        source,
    }
}
