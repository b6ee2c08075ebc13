//! What is served out of a credentials file, and what is not.

use std::{fs, path::Path};

use jiff::{SignedDuration, Timestamp};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{CredentialsFile, render, unusable};
use crate::{attribution::TaskName, config::Role};

const ARN: &str = "arn:aws:iam::111122223333:role/web";

const GOOD: &str = r#"{"Version": 1, "AccessKeyId": "ASIAEXAMPLE", "SecretAccessKey": "wJalr/<&>", "SessionToken": "IQoJ==",
    "Expiration": "2130-01-02T03:04:05Z", "AccountId": "111122223333"}"#;

fn error_of(text: &str) -> String {
    render(text.as_bytes(), ARN).unwrap_err().to_string()
}

fn role(path: &Path) -> Role {
    Role {
        task: Some(TaskName::new("web")),
        arn: ARN.to_owned(),
        credentials_file: path.to_owned(),
    }
}

fn load(path: &Path) -> CredentialsFile {
    CredentialsFile::load(&role(path))
}

#[test]
fn the_answer_is_the_one_the_ecs_agent_gives() {
    let rendered = render(GOOD.as_bytes(), ARN).unwrap();
    assert_eq!(
        rendered.body,
        r#"{"RoleArn":"arn:aws:iam::111122223333:role/web","AccessKeyId":"ASIAEXAMPLE","SecretAccessKey":"wJalr/\u003c\u0026\u003e","Token":"IQoJ==","Expiration":"2130-01-02T03:04:05Z"}"#
    );
}

#[test]
fn errors_name_the_problem_and_never_the_content() {
    for (text, error) in [
        ("", "line 1, column 0: not JSON as credential_process defines it"),
        (
            "\"SECRET\"",
            "line 1, column 8: not JSON as credential_process defines it",
        ),
        (
            r#"{"Version": "SECRET"}"#,
            "line 1, column 20: not JSON as credential_process defines it",
        ),
        (r#"{"Version": 2}"#, "Version must be 1"),
        (r#"{"Version": 1}"#, "Expiration is missing or empty"),
        (
            r#"{"Version": 1, "Expiration": "SECRET"}"#,
            "Expiration must be a time like 2030-01-02T03:04:05Z",
        ),
        (
            r#"{"Version": 1, "Expiration": "2130-01-02T03:04:05Z", "AccessKeyId": ""}"#,
            "AccessKeyId is missing or empty",
        ),
    ] {
        assert_eq!(error_of(text), error, "{text}");
    }
}

#[test]
fn expired_credentials_are_not_served() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.json");
    fs::write(&path, GOOD).unwrap();
    let file = load(&path);
    let expires: Timestamp = "2130-01-02T03:04:05Z".parse().unwrap();
    assert!(file.current(expires - SignedDuration::from_secs(1)).is_some());
    assert!(file.current(expires).is_none());
}

#[test]
fn a_changed_file_is_taken_over_and_a_broken_or_removed_one_ends_nothing_early() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.json");
    let file = load(&path);
    assert_eq!(file.current(Timestamp::now()), None);
    let renewed = GOOD.replace("ASIAEXAMPLE", "ASIARENEWED");
    let expires: Timestamp = "2130-01-02T03:04:05Z".parse().unwrap();
    // Each step changes the size or the file, so that it is another version whatever the clock's resolution is.
    for (text, served) in [
        (Some("{"), None),
        (Some(GOOD), Some("ASIAEXAMPLE")),
        (Some("{"), Some("ASIAEXAMPLE")),
        (Some(renewed.as_str()), Some("ASIARENEWED")),
        (None, Some("ASIARENEWED")),
    ] {
        match text {
            Some(text) => fs::write(&path, text).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        file.reload_if_changed();
        let current = file.current(Timestamp::now());
        let current = current.map(|body| String::from_utf8(body.into()).unwrap());
        assert_eq!(current.is_some(), served.is_some(), "{text:?}");
        assert!(
            current.unwrap_or_default().contains(served.unwrap_or_default()),
            "{text:?}"
        );
        assert_eq!(file.current(expires), None);
    }
}

#[test]
fn only_a_regular_file_of_reasonable_size_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let read = |path: &Path| unusable(&role(path)).unwrap();
    assert_eq!(read(directory.path()), "it is not a regular file");
    assert_eq!(read(Path::new("/dev/zero")), "it is not a regular file");
    let pipe = directory.path().join("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
    assert_eq!(
        read(&pipe),
        "it is not a regular file",
        "and nobody waits for its writer"
    );
    let path = directory.path().join("web.json");
    for (size, large) in [(64 * 1024, false), (64 * 1024 + 1, true)] {
        fs::write(&path, GOOD.to_owned() + &" ".repeat(size - GOOD.len())).unwrap();
        assert_eq!(unusable(&role(&path)).is_some(), large, "{size}");
    }
}

#[test]
fn debug_output_holds_no_secret() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.json");
    fs::write(&path, GOOD).unwrap();
    let text = format!("{:?}", load(&path));
    assert!(!text.contains("ASIAEXAMPLE") && !text.contains("IQoJ"), "{text}");
}
