//! Every map: who writes it, who reads it, what happens when it is full.

use core::ptr;

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf, SkStorage},
    helpers::generated::bpf_sk_storage_get,
    macros::btf_map,
};
use enforcer_common::{
    address::{Address, AddressRule, MAX_RULES, PREFIX_WORDS},
    counter::Counter,
    event::Event,
    handshake::{Handshake, HandshakeKey},
    identity::Identity,
    settings::Settings,
};

/// One entry, written by the controller before it attaches anything. Until then it is zero, and no port is a steer port.
#[btf_map]
pub(crate) static SETTINGS: Array<Settings, 1> = Array::new();

/// The address table: canonical destination to rule. Written by the controller; a controller that finds it full stops.
#[btf_map]
pub(crate) static ADDRESSES: HashMap<Address, AddressRule, { MAX_RULES as usize }> = HashMap::new();

/// The prefix filter in front of the address table: a bit per first 16 bits of an address. Written by the controller, a
/// bit before its rule.
#[btf_map]
pub(crate) static PREFIXES: Array<u64, { PREFIX_WORDS as usize }> = Array::new();

/// Cgroup ID to class. Written by the controller; a cgroup that finds no room stays guarded.
#[btf_map]
pub(crate) static CLASSES: HashMap<u64, u32, 131_072, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// Who called `connect()` on a socket that was steered. Written by the connect hooks, read by everything after them. Lives
/// and dies with the socket; where there is no memory for it the connect is refused.
#[btf_map]
pub(crate) static SENDERS: SkStorage<Identity> = SkStorage::new();

/// Connections on their way. Written by `sock_ops` and the packet hooks, emptied by `sock_ops`. Full: the connection
/// arrives without identity and is refused. Not an LRU: a flood must not push out somebody else's entry.
#[btf_map]
pub(crate) static HANDSHAKES: HashMap<HandshakeKey, Handshake, 65_536, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// Cgroup ID to the number of its entries in [`HANDSHAKES`]. An LRU: cgroups come and go, and one that is pushed out only
/// gets its budget anew.
#[btf_map]
pub(crate) static IN_FLIGHT: LruHashMap<u64, i64, 8_192> = LruHashMap::new();

/// The handshake of an accepted socket, read by the controller through the socket's file descriptor.
#[btf_map]
pub(crate) static ACCEPTED: SkStorage<Handshake> = SkStorage::new();

/// The destination an observed socket was last recorded for, so that its packets are not recorded again. Lives and dies
/// with the socket; where there is no memory for it they are.
#[btf_map]
pub(crate) static OBSERVED: SkStorage<Address> = SkStorage::new();

/// Events for the controller. Full: the event is lost and counted, the decision stands.
#[btf_map]
pub(crate) static EVENTS: RingBuf<Event, 4_194_304> = RingBuf::new();

/// Counters by [`Counter`].
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<u64, { Counter::ALL.len() }> = PerCpuArray::new();

/// The value a socket's storage holds, created from `value` if there is none. aya's own accessor only takes a connect
/// context; this one serves every hook.
#[inline(always)]
pub(crate) fn storage<T>(map: &SkStorage<T>, socket: *mut bpf_sock, value: *mut T) -> *mut T {
    let flags = if value.is_null() {
        0
    } else {
        BPF_SK_STORAGE_GET_F_CREATE.into()
    };
    let map = ptr::from_ref(map).cast_mut().cast();
    // SAFETY: `socket` comes from the program's context and was checked for null where the verifier demands it; `value`
    // is null or points to a `T` on the stack, which the kernel copies.
    unsafe { bpf_sk_storage_get(map, socket.cast(), value.cast(), flags) }.cast()
}
