//! `sock_ops`: `int (struct bpf_sock_ops *)`, the result is ignored for the operations used. Linux 4.13; socket storage
//! from here 5.2, the network namespace's cookie 5.15.
//!
//! One program sees all sockets below the cgroup root: it announces connections, takes them back, and hands them to the
//! enforcer's accepted sockets. An enforcer outside that cgroup has a second one, which does only the last.

use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
        BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_TCP_CLOSE, bpf_sock_ops,
    },
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    macros::sock_ops,
    programs::SockOpsContext,
};
use aya_log_ebpf::warn;
use enforcer_common::{
    address::{Address, target},
    event::{Hook, Outcome},
    handshake::HandshakeKey,
    identity::Identity,
    verdict::{Reason, TCP},
};

use crate::{
    emit::{Decision, record},
    handshakes::{abandon, accept, announce},
    rules::settings,
};

#[sock_ops]
pub(crate) fn sock_ops(context: SockOpsContext) -> u32 {
    match context.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => on_connect(&context),
        BPF_SOCK_OPS_STATE_CB => on_state(&context),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => on_established(&context),
        _ => {}
    }
    1
}

#[sock_ops]
pub(crate) fn sock_ops_own(context: SockOpsContext) -> u32 {
    if context.op() == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB {
        on_established(&context);
    }
    1
}

/// The source port is known, the SYN not yet sent.
#[inline(always)]
fn on_connect(context: &SockOpsContext) {
    let Some(key) = key_to_steer_port(context) else {
        return;
    };
    // SAFETY: the program's context; checked for null as the verifier demands.
    let socket = unsafe { (*context.ops).__bindgen_anon_2.sk };
    if socket.is_null() {
        return;
    }
    if let Err((reason, identity)) = announce(socket, &key) {
        report(Hook::SockOps, reason, &identity, &key);
    }
    // Without this callback the entry would outlive its socket; with it set twice nothing happens.
    if context
        .set_cb_flags((context.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG) as i32)
        .is_err()
    {
        warn!(
            context,
            "cannot watch the client socket's state: its handshake stays until the tuple is used again"
        );
    }
}

/// The client socket changes state; only closing is of interest.
#[inline(always)]
fn on_state(context: &SockOpsContext) {
    if context.arg(1) != BPF_TCP_CLOSE {
        return;
    }
    if let Some(key) = key_to_steer_port(context) {
        abandon(&key, cookie(context.ops));
    }
}

/// A connection to one of the enforcer's sockets is established; `accept()` returns only after this.
#[inline(always)]
fn on_established(context: &SockOpsContext) {
    let Some(settings) = settings() else {
        return;
    };
    if context.local_ip4() != settings.endpoint_address || !settings.is_steer_port(context.local_port() as u16) {
        return;
    }
    // Everybody may have that address in a network namespace of their own; the handshakes are for the host's.
    // SAFETY: the program's context.
    if unsafe { bpf_get_netns_cookie(context.ops.cast()) } != settings.host_netns_cookie {
        return;
    }
    let key = HandshakeKey {
        client: context.remote_ip4(),
        server: context.local_ip4(),
        client_port: remote_port(context),
        server_port: context.local_port() as u16,
    };
    // SAFETY: the program's context; checked for null as the verifier demands.
    let socket = unsafe { (*context.ops).__bindgen_anon_2.sk };
    if socket.is_null() {
        return;
    }
    if let Err(reason) = accept(socket, &key) {
        report(Hook::SockOpsOwn, reason, &Identity::default(), &key);
    }
}

/// The tuple of a connection to a steer port, `None` for every other connection.
#[inline(always)]
fn key_to_steer_port(context: &SockOpsContext) -> Option<HandshakeKey> {
    let settings = settings()?;
    let server_port = remote_port(context);
    if !settings.is_steer_port(server_port) || context.remote_ip4() != settings.endpoint_address {
        return None;
    }
    Some(HandshakeKey {
        client: context.local_ip4(),
        server: context.remote_ip4(),
        client_port: context.local_port() as u16,
        server_port,
    })
}

/// The peer's port in host byte order; the context holds it in network byte order.
#[inline(always)]
fn remote_port(context: &SockOpsContext) -> u16 {
    u32::from_be(context.remote_port()) as u16
}

#[inline(always)]
fn cookie(context: *mut bpf_sock_ops) -> u64 {
    // SAFETY: the program's context.
    unsafe { bpf_get_socket_cookie(context.cast()) }
}

#[inline(always)]
fn report(hook: Hook, reason: Reason, identity: &Identity, key: &HandshakeKey) {
    let outcome = Outcome::Denied;
    // What is refused is the identity, not the connection: the controller refuses that.
    let decision = Decision {
        hook,
        outcome,
        observed: false,
        reason,
        target: target::CREDENTIALS,
        identity,
        destination: &Address::from_v4(key.server),
        destination_port: key.server_port,
        source: &Address::from_v4(key.client),
        source_port: key.client_port,
        protocol: TCP,
        ifindex: 0,
    };
    record(&decision, outcome);
}
