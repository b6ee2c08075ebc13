//! A record's JSON: one line, fields in a fixed order, nothing allocated.

use std::{
    fmt::{self, Display},
    net::{Ipv4Addr, Ipv6Addr},
};

use enforcer_common::{
    address::{Address, target},
    event::{Event, Hook, Outcome},
    identity::Identity,
    verdict::{Reason, TCP, UDP},
};
use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::{
    process::Process,
    record::{Body, Change, Endpoint, KernelDecision, Lost, Record, Request, Unattended},
    redact::CredentialHash,
};
use crate::attribution::{Alarm, Located};

/// Name of a number this version does not know.
const UNKNOWN: &str = "unknown";

#[derive(Serialize)]
struct KernelLine<'a> {
    seq: u64,
    #[serde(serialize_with = "microseconds")]
    time: Timestamp,
    source: &'static str,
    hook: &'static str,
    verdict: &'static str,
    reason: &'static str,
    target: &'static str,
    task: Option<&'a str>,
    sender: Sender<'a>,
    destination: Destination,
    #[serde(skip_serializing_if = "Option::is_none")]
    packet: Option<Packet>,
}

#[derive(Serialize)]
struct EndpointLine<'a> {
    seq: u64,
    #[serde(serialize_with = "microseconds")]
    time: Timestamp,
    source: &'static str,
    verdict: &'static str,
    reason: &'static str,
    task: Option<&'a str>,
    /// The host service that asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer: Option<&'a str>,
    sender: Option<Sender<'a>>,
    request: RequestLine<'a>,
}

#[derive(Serialize)]
struct ControlLine<'a> {
    seq: u64,
    #[serde(serialize_with = "microseconds")]
    time: Timestamp,
    source: &'static str,
    #[serde(flatten)]
    change: &'a Change,
}

/// A claim that is not granted, or labels that are not believed.
#[derive(Serialize)]
struct AttributionLine<'a> {
    seq: u64,
    #[serde(serialize_with = "microseconds")]
    time: Timestamp,
    source: &'static str,
    verdict: &'static str,
    reason: &'static str,
    task: &'a str,
    /// The task that owns what is claimed; an execution role's ID is no task's.
    #[serde(skip_serializing_if = "Option::is_none")]
    holder: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<&'a CredentialHash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
}

/// What the trail says about itself.
#[derive(Serialize)]
struct AuditLine {
    seq: u64,
    #[serde(serialize_with = "microseconds")]
    time: Timestamp,
    source: &'static str,
    #[serde(flatten)]
    about: About,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum About {
    Unattended(Unattended),
    Lost(Lost),
}

#[derive(Serialize)]
struct Sender<'a> {
    cgroup_id: u64,
    cgroup: Option<&'a str>,
    socket_cgroup_id: u64,
    pid: u32,
    tid: u32,
    uid: u32,
    gid: u32,
    #[serde(serialize_with = "text")]
    comm: Comm,
    netns: u64,
    socket: u64,
    /// The process as it is now, if it is still there.
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<&'a Process>,
}

#[derive(Serialize)]
struct Destination {
    #[serde(serialize_with = "text")]
    address: Written,
    port: u16,
    #[serde(serialize_with = "text")]
    protocol: Protocol,
}

/// What only packet hooks know.
#[derive(Serialize)]
struct Packet {
    interface: u32,
    #[serde(serialize_with = "text")]
    source: Written,
    source_port: u16,
}

#[derive(Serialize)]
struct RequestLine<'a> {
    #[serde(flatten)]
    request: &'a Request,
    credential: Option<&'a CredentialHash>,
}

/// An address as it was written.
struct Written(Address);

/// A thread name up to its NUL.
struct Comm([u8; 16]);

/// A protocol's name, or its number.
struct Protocol(u32);

// === impl Record ===

impl Record {
    /// Appends the record's line to `output`, with the process whose attempt it is.
    pub(super) fn render(&self, process: Option<&Process>, output: &mut Vec<u8>) -> serde_json::Result<()> {
        match &self.body {
            Body::Kernel(decision) => serde_json::to_writer(&mut *output, &self.kernel(decision, process)),
            Body::Endpoint(decision, credential) => {
                let line = self.endpoint(decision, credential.as_ref(), process);
                serde_json::to_writer(&mut *output, &line)
            }
            Body::Control(change) => serde_json::to_writer(&mut *output, &self.control(change)),
            Body::Attribution(alarm, credential) => {
                serde_json::to_writer(&mut *output, &self.attribution(alarm, credential.as_ref()))
            }
            Body::Unattended(unattended) => {
                serde_json::to_writer(&mut *output, &self.audit(About::Unattended(*unattended)))
            }
            Body::Lost(lost) => serde_json::to_writer(&mut *output, &self.audit(About::Lost(*lost))),
        }?;
        output.push(b'\n');
        Ok(())
    }

    fn kernel<'a>(&self, decision: &'a KernelDecision, process: Option<&'a Process>) -> KernelLine<'a> {
        let event = &decision.event;
        let located = decision.located.as_deref();
        KernelLine {
            seq: self.seq,
            time: self.time,
            source: "kernel",
            hook: Hook::from_raw(event.hook).map_or(UNKNOWN, Hook::name),
            verdict: Outcome::from_raw(event.outcome).map_or(UNKNOWN, Outcome::name),
            reason: Reason::from_raw(event.reason).map_or(UNKNOWN, Reason::name),
            target: target_name(event.target),
            task: located.and_then(task_of),
            sender: Sender::new(&event.identity, located, process),
            destination: Destination {
                address: Written(event.destination),
                port: event.destination_port,
                protocol: Protocol(event.protocol),
            },
            packet: Packet::of(event),
        }
    }

    fn endpoint<'a>(
        &self,
        decision: &'a Endpoint,
        credential: Option<&'a CredentialHash>,
        process: Option<&'a Process>,
    ) -> EndpointLine<'a> {
        let (verdict, reason) = decision.verdict.names();
        let located = decision.located.as_deref();
        EndpointLine {
            seq: self.seq,
            time: self.time,
            source: "endpoint",
            verdict,
            reason,
            task: located.and_then(task_of),
            consumer: located.and_then(|located| Some(&*located.consumer.as_ref()?.name)),
            sender: decision
                .identity
                .as_ref()
                .map(|identity| Sender::new(identity, located, process)),
            request: RequestLine {
                request: &decision.request,
                credential,
            },
        }
    }

    const fn control<'a>(&self, change: &'a Change) -> ControlLine<'a> {
        ControlLine {
            seq: self.seq,
            time: self.time,
            source: "control",
            change,
        }
    }

    fn attribution<'a>(&self, alarm: &'a Alarm, credential: Option<&'a CredentialHash>) -> AttributionLine<'a> {
        let (reason, task, holder, why) = match alarm {
            Alarm::Claim(conflict) => match &conflict.holder {
                Some(holder) => ("claimed", &conflict.refused, Some(holder.as_str()), None),
                None => ("execution_role", &conflict.refused, None, None),
            },
            Alarm::Forged { task, why } => ("forged", task, None, Some(&**why)),
        };
        AttributionLine {
            seq: self.seq,
            time: self.time,
            source: "attribution",
            verdict: "deny",
            reason,
            task: task.as_str(),
            holder,
            credential,
            why,
        }
    }

    const fn audit(&self, about: About) -> AuditLine {
        AuditLine {
            seq: self.seq,
            time: self.time,
            source: "audit",
            about,
        }
    }
}

// === impl Sender ===

impl<'a> Sender<'a> {
    fn new(identity: &Identity, located: Option<&'a Located>, process: Option<&'a Process>) -> Self {
        Self {
            cgroup_id: identity.cgroup_id,
            cgroup: located.map(|located| &*located.path),
            socket_cgroup_id: identity.socket_cgroup_id,
            pid: identity.pid,
            tid: identity.tid,
            uid: identity.uid,
            gid: identity.gid,
            comm: Comm(identity.comm),
            netns: identity.netns_cookie,
            socket: identity.socket_cookie,
            process,
        }
    }
}

// === impl Packet ===

impl Packet {
    fn of(event: &Event) -> Option<Self> {
        (event.source != Address::default()).then_some(Self {
            interface: event.ifindex,
            source: Written(event.source),
            source_port: event.source_port,
        })
    }
}

// === texts ===

impl Display for Written {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.v4() {
            Some(v4) => Ipv4Addr::from(v4.to_ne_bytes()).fmt(formatter),
            None => Ipv6Addr::from(self.0.octets()).fmt(formatter),
        }
    }
}

impl Display for Comm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.split(|byte| *byte == 0).next().unwrap_or_default();
        for chunk in name.utf8_chunks() {
            formatter.write_str(chunk.valid())?;
            if !chunk.invalid().is_empty() {
                formatter.write_str("\u{fffd}")?;
            }
        }
        Ok(())
    }
}

impl Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ICMP: u8 = 1;
        const ICMPV6: u8 = 58;
        match u8::try_from(self.0) {
            Ok(TCP) => formatter.write_str("tcp"),
            Ok(UDP) => formatter.write_str("udp"),
            Ok(ICMP) => formatter.write_str("icmp"),
            Ok(ICMPV6) => formatter.write_str("icmpv6"),
            Ok(0) => formatter.write_str(UNKNOWN),
            Ok(_) | Err(_) => self.0.fmt(formatter),
        }
    }
}

fn task_of(located: &Located) -> Option<&str> {
    located.task().map(crate::attribution::TaskName::as_str)
}

const fn target_name(raw: u32) -> &'static str {
    match raw {
        target::NONE => "none",
        target::IMDS => "imds",
        target::CREDENTIALS => "credentials",
        target::AGENT => "agent",
        _ => UNKNOWN,
    }
}

fn text<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn microseconds<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.6}"))
}
