//! Handshakes, as drawn in `enforcer_common::handshake`: announced by the connect path, confirmed by packets, handed to
//! the accepted socket. Whatever does not fit ends as a connection without identity, which the controller refuses.

use core::ptr;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_ANY, BPF_NOEXIST, bpf_sock},
    helpers::generated::{bpf_get_socket_cookie, bpf_sk_lookup_tcp, bpf_sk_release, bpf_skb_cgroup_id},
};
use enforcer_common::{
    counter::Counter,
    handshake::{Handshake, HandshakeKey, state},
    identity::Identity,
    settings::Settings,
    verdict::{Reason, TCP},
};

use crate::{
    budget,
    emit::count,
    maps::{ACCEPTED, HANDSHAKES, SENDERS, storage},
    origin::{full_socket_of, is_in_root_cgroup},
    packet::Transport,
};

const SOCK_STREAM: u32 = 1;
/// `BPF_F_CURRENT_NETNS` of linux/bpf.h: look in the namespace the packet is in.
const CURRENT_NETNS: u64 = u64::MAX;

/// The IPv4 part of `struct bpf_sock_tuple` (linux/bpf.h), all in network byte order.
#[repr(C)]
struct Tuple {
    client: u32,
    server: u32,
    client_port: u16,
    server_port: u16,
}

/// Who steered this socket's connect; `None` if nobody did.
#[inline(always)]
fn sender_of(socket: *mut bpf_sock) -> Option<&'static Identity> {
    // SAFETY: socket storage lives as long as its socket, which the program's context holds.
    unsafe { storage(&SENDERS, socket, ptr::null_mut()).as_ref() }
}

/// Puts the identity into the client socket's storage. `false`: no memory, or too many connections of its cgroup are on
/// their way; the connect must be refused.
#[inline(always)]
pub(crate) fn remember(socket: *mut bpf_sock, identity: &mut Identity) -> bool {
    let slot = if budget::is_spent(identity) {
        ptr::null_mut()
    } else {
        storage(&SENDERS, socket, identity)
    };
    if slot.is_null() {
        count(Counter::HandshakesNotStored);
        return false;
    }
    // SAFETY: not null, and as in `sender_of`. A socket that connects again carries its new caller.
    unsafe { *slot = *identity };
    true
}

/// Announces the connection of a steered socket. `Err` names what a person should hear of.
#[inline(always)]
pub(crate) fn announce(socket: *mut bpf_sock, key: &HandshakeKey) -> Result<(), (Reason, Identity)> {
    let Some(identity) = sender_of(socket) else {
        return Ok(()); // A host service that came here by itself: the controller refuses it by name.
    };
    let claimed = Handshake {
        identity: *identity,
        state: state::CLAIMED,
        reserved: 0,
    };
    if !budget::is_spent(identity) && HANDSHAKES.insert(key, claimed, BPF_NOEXIST.into()).is_ok() {
        budget::begin(identity);
        count(Counter::HandshakesRecorded);
        return Ok(());
    }
    let Some(present) = HANDSHAKES.get_ptr_mut(key) else {
        count(Counter::HandshakesNotStored);
        return Err((Reason::HandshakeNotStored, *identity));
    };
    // SAFETY: a live map value. Writes by two CPUs at once can only be the same mark, or a claim that loses its mark to
    // a confirmation by packet, which is the better knowledge.
    let present = unsafe { &mut *present };
    if present.identity.netns_cookie == identity.netns_cookie {
        // In one namespace a tuple has one owner at a time: the earlier one is gone.
        budget::end(&present.identity);
        budget::begin(identity);
        *present = claimed;
        count(Counter::HandshakesRecorded);
        return Ok(());
    }
    if present.state != state::CONFIRMED {
        present.state = state::AMBIGUOUS;
    }
    count(Counter::HandshakesAmbiguous);
    Err((Reason::HandshakeAmbiguous, *identity))
}

/// Takes back the announcement of a client socket that closes before it was accepted.
#[inline(always)]
pub(crate) fn abandon(key: &HandshakeKey, socket_cookie: u64) {
    // SAFETY: the value is copied at once, before the entry is removed.
    let Some(identity) = (unsafe { HANDSHAKES.get(key) }).map(|present| present.identity) else {
        return;
    };
    if identity.socket_cookie == socket_cookie && HANDSHAKES.remove(key).is_ok() {
        budget::end(&identity);
        count(Counter::HandshakesAbandoned);
    }
}

/// Moves a handshake into the storage of the accepted socket. `Err` gives why the socket stays without identity.
#[inline(always)]
pub(crate) fn accept(socket: *mut bpf_sock, key: &HandshakeKey) -> Result<(), Reason> {
    if !storage(&ACCEPTED, socket, ptr::null_mut()).is_null() {
        return Ok(()); // Another program of ours was first.
    }
    // SAFETY: the value is copied at once, before the entry is removed.
    let Some(mut handshake) = (unsafe { HANDSHAKES.get(key) }).copied() else {
        count(Counter::HandshakesMissing);
        return Err(Reason::HandshakeMissing);
    };
    // Already gone means that its client closed this instant: the connection is dead anyway.
    if HANDSHAKES.remove(key).is_ok() {
        budget::end(&handshake.identity);
        count(Counter::HandshakesAccepted);
    }
    if storage(&ACCEPTED, socket, &raw mut handshake).is_null() {
        count(Counter::HandshakesNotStored);
        return Err(Reason::HandshakeNotStored);
    }
    Ok(())
}

/// Checks a packet to the steer port of socket hooks: it must come from the socket that was steered. The opening packet
/// confirms the handshake; on the host's side (`at_host`, or sent in the host's own namespace) it also settles whose it
/// is, and what follows must come from its owner. On a stack of its own: hooks have 512 bytes for all that is called at
/// once.
#[inline(never)]
pub(crate) fn confirm(
    skb: *mut __sk_buff,
    transport: &Transport,
    key: &HandshakeKey,
    settings: &Settings,
    at_host: bool,
) -> Result<(), Reason> {
    if transport.is_harmless() {
        return may_acknowledge(skb);
    }
    let Some((socket, cookie)) = tcp_socket_of(skb, transport) else {
        return Err(reason_without_socket(skb));
    };
    let Some(sender) = sender_of(socket) else {
        return Err(Reason::SenderMismatch);
    };
    if sender.socket_cookie != cookie {
        return Err(Reason::SenderMismatch);
    }
    let at_host = at_host || sender.netns_cookie == settings.host_netns_cookie;
    if !transport.is_syn() {
        return if !at_host || owns(skb, key, cookie) {
            Ok(())
        } else {
            Err(Reason::SenderMismatch)
        };
    }
    // SAFETY: `skb` is the program's context.
    let socket_cgroup_id = unsafe { bpf_skb_cgroup_id(skb) };
    let confirmed = Handshake {
        identity: Identity {
            socket_cgroup_id,
            ..*sender
        },
        state: state::CONFIRMED,
        reserved: 0,
    };
    settle(key, &confirmed, at_host)
}

/// Whether the connection is this socket's: the accepted socket tells, or the handshake while there is none. A socket that
/// was steered somewhere itself may have taken over another one's tuple and sequence numbers, and its packets look
/// like those of the owner. To be asked on the host's side only, where the accepted socket is.
#[inline(always)]
fn owns(skb: *mut __sk_buff, key: &HandshakeKey, cookie: u64) -> bool {
    let mut tuple = Tuple {
        client: key.client,
        server: key.server,
        client_port: key.client_port.to_be(),
        server_port: key.server_port.to_be(),
    };
    let length = size_of::<Tuple>() as u32;
    // SAFETY: `skb` is the program's context; the tuple is read for the length given. What is found is released below.
    let server = unsafe { bpf_sk_lookup_tcp(skb.cast(), (&raw mut tuple).cast(), length, CURRENT_NETNS, 0) };
    let mut owner = 0;
    if !server.is_null() {
        let accepted = storage(&ACCEPTED, server, ptr::null_mut());
        if !accepted.is_null() {
            // SAFETY: socket storage lives as long as its socket, which is held.
            owner = unsafe { (*accepted).identity.socket_cookie };
        }
        // SAFETY: a socket that the look-up gave, released once.
        unsafe { bpf_sk_release(server.cast()) };
    }
    if owner == 0
        // SAFETY: the value is read at once.
        && let Some(handshake) = unsafe { HANDSHAKES.get(key) }
    {
        owner = handshake.identity.socket_cookie;
    }
    owner != 0 && owner == cookie
}

/// Announces and confirms in one: a connection that only packets show, steered by TC.
#[inline(always)]
pub(crate) fn admit(
    skb: *mut __sk_buff,
    transport: &Transport,
    key: &HandshakeKey,
    identity: &Identity,
) -> Result<(), Reason> {
    if transport.is_harmless() {
        return may_acknowledge(skb);
    }
    let Some((socket, cookie)) = tcp_socket_of(skb, transport) else {
        return Err(reason_without_socket(skb));
    };
    if !transport.is_syn() {
        return match sender_of(socket) {
            Some(sender) if sender.socket_cookie == cookie && owns(skb, key, cookie) => Ok(()),
            _ => Err(Reason::SenderMismatch),
        };
    }
    let mut identity = *identity;
    if !remember(socket, &mut identity) {
        return Err(Reason::HandshakeNotStored);
    }
    settle(
        key,
        &Handshake {
            identity,
            state: state::CONFIRMED,
            reserved: 0,
        },
        true,
    )
}

/// Writes what a packet proved. Two sockets that both reach the host with one tuple cannot both be right: refuse both.
#[inline(always)]
fn settle(key: &HandshakeKey, confirmed: &Handshake, at_host: bool) -> Result<(), Reason> {
    if let Some(present) = HANDSHAKES.get_ptr_mut(key) {
        // SAFETY: a live map value; see `announce` for writes at the same time.
        let present = unsafe { &mut *present };
        let same_socket = present.identity.socket_cookie == confirmed.identity.socket_cookie;
        if same_socket && (at_host || present.state != state::AMBIGUOUS) {
            present.identity.socket_cgroup_id = confirmed.identity.socket_cgroup_id;
            if at_host {
                present.state = state::CONFIRMED;
            }
            return Ok(());
        }
        if !at_host {
            return Ok(()); // Inside a container's namespace this proves nothing about the host's side.
        }
        if present.state == state::CONFIRMED {
            present.state = state::AMBIGUOUS;
            count(Counter::HandshakesAmbiguous);
            return Err(Reason::HandshakeAmbiguous);
        }
        budget::end(&present.identity);
        budget::begin(&confirmed.identity);
        *present = *confirmed;
        return Ok(());
    }
    if budget::is_spent(&confirmed.identity) || HANDSHAKES.insert(key, confirmed, BPF_ANY.into()).is_err() {
        count(Counter::HandshakesNotStored);
        return Err(Reason::HandshakeNotStored);
    }
    budget::begin(&confirmed.identity);
    count(Counter::HandshakesRecorded);
    Ok(())
}

/// The TCP socket a packet came from and its cookie; `None` for raw and packet sockets, for packets of sockets already
/// closed, and for a TCP socket whose port is not the packet's.
#[inline(always)]
fn tcp_socket_of(skb: *mut __sk_buff, transport: &Transport) -> Option<(*mut bpf_sock, u64)> {
    let socket = full_socket_of(skb)?;
    // SAFETY: `full_socket_of` gives a socket the program's context holds; the verifier rewrites the reads.
    let (kind, protocol, port) = unsafe { ((*socket).type_, (*socket).protocol, (*socket).src_port) };
    if kind != SOCK_STREAM || protocol != u32::from(TCP) || port != u32::from(transport.source_port) {
        return None;
    }
    // SAFETY: `skb` is the program's context.
    Some((socket, unsafe { bpf_get_socket_cookie(skb.cast()) }))
}

/// Acknowledgments and ends come from the connection's socket, also when it has given up its port, from no socket at all
/// (timewait), or from the kernel's own ones, which are in the root cgroup. From a raw or packet socket they are forged:
/// one of them completes somebody else's handshake.
#[inline(always)]
fn may_acknowledge(skb: *mut __sk_buff) -> Result<(), Reason> {
    let Some(socket) = full_socket_of(skb) else {
        return Ok(());
    };
    // SAFETY: `full_socket_of` gives a socket the program's context holds; the verifier rewrites the read.
    if unsafe { (*socket).type_ } == SOCK_STREAM {
        return Ok(());
    }
    if is_in_root_cgroup(skb) {
        Ok(())
    } else {
        Err(Reason::SenderMismatch)
    }
}

#[inline(always)]
fn reason_without_socket(skb: *mut __sk_buff) -> Reason {
    // SAFETY: `skb` is the program's context; without a socket the helper answers 0.
    if unsafe { bpf_get_socket_cookie(skb.cast()) } == 0 {
        Reason::SenderUnknown
    } else {
        Reason::SenderMismatch
    }
}
