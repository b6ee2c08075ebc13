//! What a record looks like, what it hides, and that none is lost unaccounted.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use enforcer_common::{
    address::{Address, target},
    event::{Event, Hook, Outcome},
    identity::Identity,
    verdict::{Reason, TCP},
};
use jiff::Timestamp;
use proptest::prelude::{prop_assert, prop_assert_eq, proptest};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{
    Audit, AuditError, Endpoint, Ground, KernelDecision, Recorder, Request, Totals, Verdict, check_key, check_output,
    queue::Queue, record::Record, redact::Redactor, sink, writer::Writer,
};
use crate::{
    attribution::{Alarm, Conflict, Listener, Located, Owner, TaskName},
    config::{self, AuditOutput},
    policy::{CredentialId, DenialReason},
};

const DEADLINE: Duration = Duration::from_secs(5);

fn identity() -> Identity {
    Identity {
        cgroup_id: 7,
        socket_cgroup_id: 8,
        netns_cookie: 9,
        socket_cookie: 10,
        pid: 11,
        tid: 12,
        uid: 13,
        gid: 14,
        comm: *b"cu\"rl\xff\0garbage..",
    }
}

fn located() -> Arc<Located> {
    Arc::new(Located {
        path: "/ecs/web".into(),
        owner: Some(Owner::of(&TaskName::new("web"))),
        consumer: None,
        observed: false,
    })
}

fn kernel() -> KernelDecision {
    let address = |v4: [u8; 4]| Address::from_v4(u32::from_ne_bytes(v4));
    KernelDecision {
        event: Event {
            time_ns: 0,
            hook: Hook::Egress.to_raw(),
            outcome: Outcome::Dropped.to_raw(),
            reason: Reason::SocketLayerMissed.to_raw(),
            target: target::IMDS,
            ifindex: 3,
            protocol: TCP.into(),
            destination: address([169, 254, 169, 254]),
            source: address([10, 77, 0, 2]),
            destination_port: 80,
            source_port: 4242,
            reserved: 0,
            identity: identity(),
        },
        located: Some(located()),
    }
}

fn endpoint(verdict: Verdict) -> Endpoint {
    Endpoint {
        verdict,
        identity: Some(identity()),
        located: Some(located()),
        request: Request {
            method: Some("GET"),
            path: Some("/v2/credentials"),
            status: Some(200),
        },
    }
}

fn redactor() -> Redactor {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    fs::write(&key, [7; 32]).unwrap();
    Redactor::load_or_create(&key).unwrap()
}

fn line(record: &Record) -> String {
    let mut bytes = Vec::new();
    record.render(None, &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn config(directory: &Path, output: AuditOutput) -> config::Audit {
    config::Audit {
        output,
        key_file: directory.join("state/audit.key"),
    }
}

fn consistent(totals: Totals) -> Totals {
    assert_eq!(totals.emitted, totals.delivered + totals.dropped, "{totals:?}");
    totals
}

#[test]
fn records_have_the_documented_form() {
    let (queue, records) = Queue::bounded(8);
    let recorder = Recorder::new(queue, redactor());
    let time: Timestamp = "2026-11-21T22:41:46.1234567Z".parse().unwrap();
    recorder.kernel(time, kernel());
    assert_eq!(
        line(&records.try_recv().unwrap()),
        concat!(
            r#"{"seq":1,"time":"2026-11-21T22:41:46.123456Z","source":"kernel","hook":"egress","verdict":"drop","#,
            r#""reason":"socket_layer_missed","target":"imds","task":"web","sender":{"cgroup_id":7,"cgroup":"/ecs/web","#,
            r#""socket_cgroup_id":8,"pid":11,"tid":12,"uid":13,"gid":14,"comm":"cu\"rl�","netns":9,"socket":10},"#,
            r#""destination":{"address":"169.254.169.254","port":80,"protocol":"tcp"},"#,
            r#""packet":{"interface":3,"source":"10.77.0.2","source_port":4242}}"#,
            "\n"
        )
    );
    recorder.endpoint(
        endpoint(Verdict::Permit(Ground::Owner)),
        Some(&CredentialId::requested("id")),
    );
    let text = line(&records.try_recv().unwrap());
    let tail = concat!(
        r#""source":"endpoint","verdict":"permit","reason":"owner","task":"web","sender":{"cgroup_id":7,"cgroup":"/ecs/web","#,
        r#""socket_cgroup_id":8,"pid":11,"tid":12,"uid":13,"gid":14,"comm":"cu\"rl�","netns":9,"socket":10},"#,
        r#""request":{"method":"GET","path":"/v2/credentials","status":200,"credential":""#,
    );
    assert!(
        text.starts_with("{\"seq\":2,\"time\":\"") && text.contains(tail),
        "{text}"
    );
    recorder.ring_lost(5);
    let text = line(&records.try_recv().unwrap());
    assert!(
        text.ends_with("\"source\":\"audit\",\"lost\":{\"ring\":5,\"queue\":0}}\n"),
        "{text}"
    );
}

#[test]
fn nobody_is_recorded_as_null() {
    let (queue, records) = Queue::bounded(1);
    let decision = Endpoint {
        identity: None,
        located: None,
        ..endpoint(Verdict::Deny(DenialReason::UnknownSender))
    };
    Recorder::new(queue, redactor()).endpoint(decision, None);
    let text = line(&records.try_recv().unwrap());
    assert!(
        text.contains(r#""verdict":"deny","reason":"unknown_sender","task":null,"sender":null,"#),
        "{text}"
    );
    assert!(text.contains(r#""credential":null"#), "{text}");
}

proptest! {
    #[test]
    fn a_record_tells_equal_ids_and_no_id(first in "[a-zA-Z0-9-]{17,40}", second in "[a-zA-Z0-9-]{17,40}") {
        let (queue, records) = Queue::bounded(3);
        let recorder = Recorder::new(queue, redactor());
        let mut hashes = Vec::new();
        for id in [&first, &first, &second] {
            recorder.endpoint(endpoint(Verdict::Permit(Ground::Owner)), Some(&CredentialId::requested(id)));
            let text = line(&records.try_recv().unwrap());
            prop_assert!(!text.contains(id.as_str()));
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            hashes.push(value["request"]["credential"].as_str().unwrap().to_owned());
        }
        prop_assert_eq!(hashes[0].len(), 16);
        prop_assert_eq!(&hashes[0], &hashes[1]);
        prop_assert_eq!(hashes[0] == hashes[2], first == second);
    }
}

#[test]
fn a_claim_that_is_not_granted_names_both_tasks_and_hides_the_id() {
    let (queue, records) = Queue::bounded(4);
    let recorder = Recorder::new(queue, redactor());
    let claim = |holder: Option<&str>| {
        Alarm::Claim(Conflict {
            credential: CredentialId::requested("secret-id"),
            refused: TaskName::new("greedy"),
            holder: holder.map(TaskName::new),
        })
    };
    recorder.hear(claim(Some("web")));
    recorder.hear(claim(None));
    recorder.hear(Alarm::Forged {
        task: TaskName::new("greedy"),
        why: "its labels say web".into(),
    });
    let hash = recorder.hash(&CredentialId::requested("secret-id"));
    let expected = [
        format!(r#""reason":"claimed","task":"greedy","holder":"web","credential":"{hash}"}}"#),
        format!(r#""reason":"execution_role","task":"greedy","credential":"{hash}"}}"#),
        r#""reason":"forged","task":"greedy","why":"its labels say web"}"#.to_owned(),
    ];
    for expected in expected {
        let line = line(&records.try_recv().unwrap());
        assert!(line.contains(r#""source":"attribution","verdict":"deny""#), "{line}");
        assert!(line.contains(&expected) && !line.contains("secret-id"), "{line}");
    }
}

#[test]
fn a_full_queue_leaves_a_gap_and_a_record_that_tells_its_size() {
    let (queue, records) = Queue::bounded(2);
    let recorder = Recorder::new(queue, redactor());
    for _ in 0..5 {
        recorder.kernel(Timestamp::UNIX_EPOCH, kernel());
    }
    assert_eq!(
        [records.try_recv().unwrap().seq, records.try_recv().unwrap().seq],
        [1, 2]
    );
    recorder.kernel(Timestamp::UNIX_EPOCH, kernel());
    let lost = records.try_recv().unwrap();
    assert!(
        line(&lost).contains(r#""lost":{"ring":0,"queue":3}"#),
        "{}",
        line(&lost)
    );
    assert_eq!([lost.seq, records.try_recv().unwrap().seq], [6, 7]);
    assert_eq!(recorder.queue().totals().dropped, 3);
}

#[test]
fn a_flood_of_kernel_events_leaves_room_for_what_the_endpoint_says() {
    let (queue, records) = Queue::bounded(16);
    let recorder = Recorder::new(queue, redactor());
    let flood = || (0..100).for_each(|_| recorder.kernel(Timestamp::UNIX_EPOCH, kernel()));
    flood();
    recorder.endpoint(endpoint(Verdict::Permit(Ground::Owner)), None);
    let taken = || std::iter::from_fn(|| records.try_recv().ok());
    let waiting: Vec<_> = taken().collect();
    let others = waiting.iter().filter(|record| !record.body.is_kernel());
    // Besides the events: the loss of the rest of them, and the endpoint's record.
    assert_eq!((waiting.len(), others.count()), (16, 2));
    flood();
    assert_eq!(taken().filter(|record| record.body.is_kernel()).count(), 14);
}

#[test]
fn losses_nobody_told_are_the_last_words() {
    let (queue, records) = Queue::bounded(1);
    let recorder = Recorder::new(queue, redactor());
    recorder.kernel(Timestamp::UNIX_EPOCH, kernel());
    recorder.kernel(Timestamp::UNIX_EPOCH, kernel());
    recorder.ring_lost(4);
    drop(records);
    let words = recorder.queue().last_words().unwrap();
    assert!(
        line(&words).contains(r#""lost":{"ring":4,"queue":1}"#),
        "{}",
        line(&words)
    );
    assert!(recorder.queue().last_words().is_none());
}

#[tokio::test]
async fn every_record_is_in_the_file_when_it_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("audit.jsonl");
    let audit = Audit::start(&config(directory.path(), AuditOutput::File(file.clone()))).unwrap();
    let recorder = audit.recorder();
    for _ in 0..1000 {
        recorder.kernel(Timestamp::now(), kernel());
    }
    let totals = consistent(audit.close(DEADLINE).await);
    assert_eq!((totals.emitted, totals.dropped), (1000, 0));
    let text = fs::read_to_string(&file).unwrap();
    let numbers = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"].as_u64());
    assert!(numbers.eq((1..=1000).map(Some)));
    recorder.kernel(Timestamp::now(), kernel());
    assert_eq!(fs::read_to_string(&file).unwrap(), text, "a closed trail takes nothing");
}

#[tokio::test]
async fn a_full_disk_is_accounted_for() {
    let directory = tempfile::tempdir().unwrap();
    let audit = Audit::start(&config(directory.path(), AuditOutput::File("/dev/full".into()))).unwrap();
    for _ in 0..100 {
        audit.recorder().kernel(Timestamp::now(), kernel());
    }
    let totals = consistent(audit.close(DEADLINE).await);
    assert_eq!((totals.emitted, totals.delivered, totals.dropped), (100, 0, 100));
}

#[test]
fn a_file_that_is_rotated_away_is_left_after_the_line() {
    let directory = tempfile::tempdir().unwrap();
    let (path, rotated) = (directory.path().join("audit"), directory.path().join("audit.1"));
    let mut output = sink::open(&AuditOutput::File(path.clone())).unwrap();
    output.write_all(b"one\ntw").unwrap();
    fs::rename(&path, &rotated).unwrap();
    output.write_all(b"o\n").unwrap();
    output.write_all(b"three\n").unwrap();
    assert_eq!(fs::read_to_string(&rotated).unwrap(), "one\ntwo\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
    fs::remove_dir_all(directory.path()).unwrap();
    output.write_all(b"four\n").unwrap_err();
    fs::create_dir(directory.path()).unwrap();
    output.write_all(b"four\n").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "four\n");
}

#[tokio::test]
async fn a_torn_line_does_not_swallow_the_next_record() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("audit.jsonl");
    for (before, after) in [("", ""), ("{}\n", "{}\n"), ("{\"seq\":1,", "{\"seq\":1,\n")] {
        fs::write(&file, before).unwrap();
        let audit = Audit::start(&config(directory.path(), AuditOutput::File(file.clone()))).unwrap();
        audit.recorder().kernel(Timestamp::now(), kernel());
        assert_eq!(consistent(audit.close(DEADLINE).await).delivered, 1);
        let text = fs::read_to_string(&file).unwrap();
        let record = text.strip_prefix(after).unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(record).is_ok(), "{record}");
    }
}

#[test]
fn looking_at_an_output_creates_none() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("audit.jsonl");
    check_output(&AuditOutput::File(file.clone())).unwrap();
    assert!(!file.exists());
    assert!(check_output(&AuditOutput::File(file.join("below"))).is_err());
    assert!(check_output(&AuditOutput::File(directory.path().to_owned())).is_err());
}

#[test]
fn a_pipe_without_a_reader_is_refused_instead_of_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let output = AuditOutput::File(pipe);
    assert!(matches!(check_output(&output), Err(AuditError::NoReader { .. })));
    assert!(matches!(sink::open(&output), Err(AuditError::NoReader { .. })));
}

/// Takes a few bytes at a time, and fails once in the middle of a line.
struct Flaky {
    written: Arc<Mutex<Vec<u8>>>,
    writes: u32,
}

impl Write for Flaky {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writes += 1;
        if self.writes == 3 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let taken = bytes.len().min(100);
        self.written.lock().unwrap().extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn an_output_that_fails_for_a_while_gets_every_line_whole() {
    let written = Arc::new(Mutex::new(Vec::new()));
    let output = Flaky {
        written: Arc::clone(&written),
        writes: 0,
    };
    let (queue, records) = Queue::bounded(64);
    let recorder = Recorder::new(queue, redactor());
    let writer = Writer::start(recorder.queue(), records, Box::new(output)).unwrap();
    for _ in 0..20 {
        recorder.kernel(Timestamp::now(), kernel());
    }
    while recorder.queue().totals().delivered < 20 {
        tokio::task::yield_now().await;
    }
    recorder.queue().close();
    assert!(writer.finish(DEADLINE).await);
    assert_eq!(consistent(recorder.queue().totals()).delivered, 20);
    let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
    assert!(
        text.lines()
            .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()),
        "{text}"
    );
}

#[test]
fn the_key_is_made_once_and_kept_from_others() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("state/audit.key");
    let id = CredentialId::requested("id");
    check_key(&key).unwrap();
    assert!(!key.parent().unwrap().exists(), "looking changes nothing");
    fs::create_dir(directory.path().join("state")).unwrap();
    std::os::unix::fs::symlink(directory.path().join("elsewhere"), key.with_extension("new")).unwrap();
    let first = Redactor::load_or_create(&key).unwrap().hash(&id);
    assert_eq!(Redactor::load_or_create(&key).unwrap().hash(&id), first);
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    fs::write(&key, [0; 33]).unwrap();
    assert!(matches!(
        Redactor::load_or_create(&key),
        Err(AuditError::KeyLength { found: 33, .. })
    ));
    assert!(check_key(&key).is_err());
    assert!(!directory.path().join("elsewhere").exists());
}
