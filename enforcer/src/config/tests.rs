//! What a configuration means, and what is said about a wrong one.

mod names;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    path::PathBuf,
};

use enforcer_common::address::protocols;

use super::{
    AuditOutput, CgroupPattern, Config, Upstream, UpstreamMode,
    load::{ConfigError, Flags, Variables, load},
    raw::Raw,
};
use crate::bpf::Mode;

const SECRET: &str = "d8f91d60-f0c6-4160-b32b-3f61089b625a";

const TASK: &str = r#"
[[task]]
name = "web"
cgroups = ["/ecs/web/"]
credential-ids = ["d8f91d60-f0c6-4160-b32b-3f61089b625a"]
role-arn = "arn:aws:iam::111122223333:role/web"
credentials-file = "/etc/enforcer/web.json"
"#;

fn load_with(text: &str, environment: &[(&str, &str)], flags: Flags) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("enforcer.toml");
    fs::write(&file, text).unwrap();
    let variables = environment
        .iter()
        .map(|(variable, value)| ((*variable).to_owned(), OsString::from(value)));
    let variables: Variables = variables.collect();
    let flags = Flags {
        config: Some(file),
        ..flags
    };
    load(&flags, &|| variables.clone())
}

fn valid(text: &str) -> Config {
    load_with(text, &[], Flags::default()).unwrap()
}

/// The error's text without the file's directory.
fn error_of(text: &str) -> String {
    let error = load_with(text, &[], Flags::default()).unwrap_err().to_string();
    assert!(!error.contains(SECRET), "{error}");
    match error.rsplit_once("/enforcer.toml") {
        Some((_, rest)) => format!("enforcer.toml{rest}"),
        None => error,
    }
}

#[test]
fn an_empty_file_means_the_defaults() {
    let config = valid("");
    assert_eq!(config.endpoint.address.to_string(), "169.254.170.2");
    assert_eq!(
        (
            config.endpoint.port,
            config.endpoint.steer_port,
            config.endpoint.packet_steer_port
        ),
        (80, 21680, 21681)
    );
    assert_eq!(config.audit.output, AuditOutput::Stdout);
    assert!(matches!(config.upstream, Upstream::Embedded(roles) if roles.is_empty()));
    assert_eq!(config.cgroups.root, None);
    assert_eq!(config.mode, Mode::Enforce);
    let groups: Vec<_> = config
        .protect
        .iter()
        .map(|group| (group.number, group.name.as_str()))
        .collect();
    assert_eq!(
        groups,
        [(1, "imds"), (2, "eks"), (3, "azure-wireserver"), (4, "alibaba")]
    );
    assert!(config.protect.iter().all(|group| !group.addresses.is_empty()));
    assert_eq!(
        (config.sockets.raw, config.sockets.protocols),
        (false, vec![132, 33, 136])
    );
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let file =
        "[endpoint]\nsteer-port = 1001\npacket-steer-port = 1002\nupstream = \"ecs-agent\"\n[audit]\noutput = \"/a\"";
    let environment = [
        ("ENFORCER_ENDPOINT_STEER_PORT", "2001"),
        ("ENFORCER_AUDIT_OUTPUT", "/b"),
    ];
    let flags = Flags {
        audit_output: Some(PathBuf::from("-")),
        ..Flags::default()
    };
    let config = load_with(file, &environment, flags).unwrap();
    assert_eq!(
        (config.endpoint.steer_port, config.endpoint.packet_steer_port),
        (2001, 1002)
    );
    assert_eq!(config.audit.output, AuditOutput::Stdout);
    assert!(
        matches!(config.upstream, Upstream::EcsAgent { address, introspection_blocked: true } if address.to_string() == "127.0.0.1:51679")
    );

    let flags = Flags {
        upstream: Some(UpstreamMode::Embedded),
        cgroup_root: Some(PathBuf::from("/sys/fs/cgroup/lab")),
        ..Flags::default()
    };
    let config = load_with(file, &environment, flags).unwrap();
    assert!(matches!(config.upstream, Upstream::Embedded(_)));
    assert_eq!(config.cgroups.root, Some(PathBuf::from("/sys/fs/cgroup/lab")));
    assert_eq!(config.audit.output, AuditOutput::File(PathBuf::from("/b")));
}

#[test]
fn a_group_is_overridden_key_by_key_turned_off_or_added() {
    let config = valid(
        r#"
        [protect.imds]
        ports = [80]
        [protect.eks]
        enabled = false
        [protect.vault]
        addresses = ["10.0.0.7"]
        protocols = ["tcp"]
        [[cgroups.exception]]
        cgroups = ["/a"]
        allow = ["imds", "vault"]
        "#,
    );
    let groups: Vec<_> = config.protect.iter().collect();
    let names: Vec<_> = groups.iter().map(|group| (group.number, group.name.as_str())).collect();
    assert_eq!(
        names,
        [(1, "imds"), (3, "azure-wireserver"), (4, "alibaba"), (5, "vault")]
    );
    assert_eq!((groups[0].ports, groups[0].addresses.len()), ([80, 0, 0, 0], 4));
    assert_eq!((groups[3].ports, groups[3].protocols), ([0; 4], protocols::TCP));
    assert_eq!(config.cgroups.exceptions[0].groups, 0b1_0001);
}

#[test]
fn a_task_says_what_it_may_and_whether_it_is_observed() {
    let config = valid(&format!("{TASK}allow = [\"alibaba\"]\nobserve = false"));
    assert_eq!(config.tasks[0].cgroups, [PathBuf::from("/ecs/web")]);
    assert_eq!(
        (config.tasks[0].groups, config.tasks[0].observe),
        (Some(0b1000), Some(false))
    );
    let config = valid(TASK);
    assert_eq!((config.tasks[0].groups, config.tasks[0].observe), (None, None));
}

#[test]
fn the_full_example_is_valid_and_says_the_defaults() {
    let example = include_str!("../../dist/enforcer.toml");
    let (example, default) = (valid(example), valid(""));
    assert_eq!(example.protect, default.protect);
    assert_eq!((example.endpoint, example.audit), (default.endpoint, default.audit));
    assert_eq!((example.mode, example.sockets), (default.mode, default.sockets));
    assert_eq!(example.cgroups.host, default.cgroups.host);
    assert_eq!(example.cgroups.guarded, default.cgroups.guarded);
    assert_eq!(
        (example.pin_dir, example.control_socket, example.registrations),
        (default.pin_dir, default.control_socket, default.registrations)
    );
    assert_eq!(example.sources.oci, default.sources.oci);
    assert!(!example.tasks.is_empty() && !example.cgroups.exceptions.is_empty());
}

#[test]
fn the_full_example_has_every_key() {
    let is_key = |key: &str| key.chars().all(|character| matches!(character, 'a'..='z' | '-'));
    // What has no default is commented out.
    let uncommented = |line: &'static str| {
        let key = line
            .strip_prefix("# ")
            .filter(|line| line.split_once(" = ").is_some_and(|(key, _)| is_key(key)));
        key.unwrap_or(line)
    };
    let example: Vec<_> = include_str!("../../dist/enforcer.toml")
        .lines()
        .map(uncommented)
        .collect();
    let mut said = BTreeMap::new();
    tables(&toml::from_str(&example.join("\n")).unwrap(), "", &mut said);
    for (table, said) in said {
        let unknown = [
            format!("{table}x = 1"),
            format!("{} = [{{ x = 1 }}]", table.trim_end_matches('.')),
        ];
        let refused = unknown.iter().filter_map(|text| toml::from_str::<Raw>(text).err());
        let mut refused = refused.map(|error| error.message().to_owned());
        let Some(keys) = refused.find_map(|text| Some(text.split_once("unknown field `x`, expected ")?.1.to_owned()))
        else {
            assert_eq!(table, "protect.", "it has names of its own");
            continue;
        };
        for key in keys.split('`').skip(1).step_by(2) {
            assert!(said.contains(key), "{table}{key}");
        }
    }
}

/// Every table of a document with its keys; those of one kind as one.
fn tables(value: &toml::Value, path: &str, found: &mut BTreeMap<String, BTreeSet<String>>) {
    if let Some(table) = value.as_table() {
        found.entry(path.to_owned()).or_default().extend(table.keys().cloned());
        for (key, value) in table {
            let name = if path == "protect." { "imds" } else { key };
            tables(value, &format!("{path}{name}."), found);
        }
    }
    for value in value.as_array().into_iter().flatten() {
        tables(value, path, found);
    }
}

#[test]
fn consumers_are_built_in_replaced_by_name_and_turned_off() {
    let named = |text: &str| {
        let consumers = valid(text).consumers.into_iter();
        let told = |placed: super::Placed| {
            let cgroups: Vec<_> = placed.cgroups.iter().map(ToString::to_string).collect();
            let consumer = placed.consumer;
            (
                consumer.name.to_string(),
                consumer.execution,
                consumer.task,
                cgroups.join(" "),
            )
        };
        consumers.map(told).collect::<Vec<_>>()
    };
    let docker = |cgroup: &str| ("docker".to_owned(), true, false, cgroup.to_owned());
    let built_in = named("");
    assert_eq!(built_in[0], docker("/system.slice/docker.service"));
    assert_eq!((built_in.len(), built_in[1].2), (2, true));
    let written = named(
        r#"
[[consumer]]
name = "docker"
cgroups = ["/engine"]
allow = ["execution"]
[[consumer]]
name = "efs"
units = ["x.service"]
allow = []
"#,
    );
    assert_eq!(written, [docker("/engine")]);
    for (text, problem) in [
        ("name = \"a\"\nallow = [\"task\"]", "it has neither cgroups nor units"),
        (
            "name = \"\"\nunits = [\"x.service\"]\nallow = [\"task\"]",
            "a name is not empty",
        ),
        (
            "name = \"a\"\nunits = [\"../x.service\"]\nallow = [\"task\"]",
            "a unit is the name of a service",
        ),
    ] {
        let error = error_of(&format!("[[consumer]]\n{text}"));
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn the_socket_unit_listens_where_the_endpoint_does() {
    let unit = include_str!("../../dist/systemd/enforcer.socket");
    let endpoint = valid("").endpoint;
    let listening: Vec<_> = unit
        .lines()
        .filter_map(|line| line.strip_prefix("ListenStream="))
        .collect();
    let expected = [endpoint.steer_port, endpoint.packet_steer_port].map(|port| format!("{}:{port}", endpoint.address));
    assert_eq!(listening, expected);
}

#[test]
fn an_unknown_key_is_named_with_file_line_and_the_nearest_known_one() {
    for (text, error) in [
        (
            "[endpoint]\nport = 80\nsteerport = 1",
            "enforcer.toml, line 3: unknown key `steerport`; did you mean `steer-port`?",
        ),
        (
            "\n[audti]\n",
            "enforcer.toml, line 2: unknown key `audti`; did you mean `audit`?",
        ),
        (
            "[[task]]\nname = \"a\"\ncgroup = []",
            "enforcer.toml, line 3: unknown key `cgroup`; did you mean `cgroups`?",
        ),
    ] {
        assert_eq!(error_of(text), error);
    }
}

#[test]
fn an_unknown_variable_is_named_with_the_nearest_known_one() {
    let error = load_with("", &[("ENFORCER_ENDPOINT_PROT", "1")], Flags::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "environment variable ENFORCER_ENDPOINT_PROT: there is no such setting; did you mean ENFORCER_ENDPOINT_PORT?"
    );
    assert!(load_with("", &[("ENFORCER_LOG", "debug")], Flags::default()).is_ok());
}

#[test]
fn lists_in_the_environment_are_separated_by_commas() {
    let environment = [
        ("ENFORCER_CGROUPS_HOST", "/a, /b/*"),
        ("ENFORCER_CGROUPS_GUARDED", "/c"),
        ("ENFORCER_SOCKETS_DENY", "raw,132, icmp"),
    ];
    let config = load_with("[cgroups]\nhost = [\"/z\"]", &environment, Flags::default()).unwrap();
    let texts = |patterns: &[CgroupPattern]| patterns.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(texts(&config.cgroups.host), ["/a", "/b/*"]);
    assert_eq!(texts(&config.cgroups.guarded), ["/c"]);
    assert_eq!((config.sockets.raw, config.sockets.protocols), (true, vec![132, 1]));
    for empty in ["", "raw,"] {
        assert!(load_with("", &[("ENFORCER_SOCKETS_DENY", empty)], Flags::default()).is_err());
    }
}

#[test]
fn a_wrong_value_is_named_with_file_and_line() {
    assert!(error_of("[endpoint]\nport = 99999").starts_with("enforcer.toml, line 2: invalid value"));
    assert!(error_of("[endpoint]\naddress = \"x\"").starts_with("enforcer.toml, line 2: invalid IPv4 address"));
    let error = load_with("", &[("ENFORCER_ENDPOINT_PORT", "x")], Flags::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "environment variable ENFORCER_ENDPOINT_PORT: \"x\": invalid digit found in string"
    );
}

#[test]
fn a_file_that_was_asked_for_must_be_there() {
    let flags = Flags {
        config: Some(PathBuf::from("/nonexistent/enforcer.toml")),
        ..Flags::default()
    };
    let error = load(&flags, &Variables::new).unwrap_err().to_string();
    assert!(
        error.starts_with("cannot read the configuration file /nonexistent/enforcer.toml: "),
        "{error}"
    );
}

#[test]
fn values_that_do_not_go_together_are_refused() {
    let other = |text: &str| format!("{TASK}{}", TASK.replace("web", text));
    let agent = |address: &str| format!("[endpoint]\nupstream = \"ecs-agent\"\nagent = \"{address}\"");
    for (text, error) in [
        ("[endpoint]\nport = 21680".to_owned(), "three different ports"),
        (
            "[endpoint]\naddress = \"127.0.0.1\"".to_owned(),
            "endpoint.address: 127.0.0.1",
        ),
        (
            "[cgroups]\nhost = [\"a\"]".to_owned(),
            "cgroups.host: \"a\" must be an absolute path",
        ),
        (
            "[cgroups]\nhost = [\"/a/../b\"]".to_owned(),
            "cgroups.host: \"/a/../b\" must be",
        ),
        (
            "[cgroups]\nguarded = [\"/a***\"]".to_owned(),
            "cgroups.guarded: \"/a***\" is not a pattern",
        ),
        (
            "[audit]\noutput = \"relative\"".to_owned(),
            "audit.output: \"relative\"",
        ),
        (format!("{TASK}{TASK}"), "task \"web\": another task has this name"),
        (
            other("batch"),
            "task \"batch\": number 1 of its credential-ids belongs to task \"web\" already",
        ),
        (
            other("batch").replace("/ecs/batch/", "/ecs/web"),
            "task \"batch\": its cgroup \"/ecs/web\" is task \"web\"'s too",
        ),
        (TASK.replace("[\"/ecs/web/\"]", "[]"), "task \"web\": it has no cgroups"),
        (
            TASK.replace("role-arn", "#"),
            "task \"web\": with upstream = \"embedded\" it needs role-arn",
        ),
        (TASK.replace("credentials-file", "#"), "it needs credentials-file"),
        (
            TASK.replace("/ecs/web/", "/"),
            "task \"web\": \"/\" is no cgroup of a task",
        ),
        (TASK.replace("/ecs/web/", "/ecs/*"), "without any of `*?[]`"),
        (
            TASK.replace("/ecs/web/", "/sys/fs/cgroup/ecs/web"),
            "must be relative to the cgroup2 mount",
        ),
        (
            "[cgroups]\nhost = [\"/sys/fs/cgroup/init.scope\"]".to_owned(),
            "cgroups.host: \"/sys/fs/cgroup/init.scope\" must be relative",
        ),
        (agent("0.0.0.0:51679"), "is no address to connect to"),
        (agent("127.0.0.1:0"), "is no address to connect to"),
        (
            agent("[::ffff:169.254.170.2]:21680"),
            "is at the endpoint's own address",
        ),
        (agent("169.254.169.254:80"), "is at a protected address"),
    ] {
        let found = error_of(&text);
        assert!(found.contains(error), "{found:?} is not about {error:?}");
    }
}

#[test]
fn groups_that_do_not_go_together_are_refused() {
    for (text, error) in [
        (
            "[protect.imds]\naddresses = [\"::ffff:169.254.170.2\"]".to_owned(),
            "protect.imds.addresses: ::ffff:169.254.170.2 is the endpoint's address too",
        ),
        (
            "[protect.x]\naddresses = [\"2002:a9fe:a9fe::\"]".to_owned(),
            "protect.x.addresses: 2002:a9fe:a9fe:: is in protect.imds too",
        ),
        (
            format!(
                "[protect.x]\naddresses = {:?}",
                (1..=113).map(|n| format!("10.0.0.{n}")).collect::<Vec<_>>()
            ),
            "protect: 121 addresses in all groups together, at most 120 are possible",
        ),
        (
            "[protect.imsd]\nports = [80]".to_owned(),
            "protect.imsd: it has no addresses",
        ),
        (
            "[protect.imds]\nports = [1, 2, 3, 4, 5]".to_owned(),
            "protect.imds.ports: at most four ports",
        ),
        (
            "[protect.imds]\naddresses = [\"0.0.0.0\"]".to_owned(),
            "0.0.0.0 is no address to protect",
        ),
        (
            (0..13).fold(String::new(), |text, n| {
                format!("{text}[protect.x{n}]\naddresses = [\"10.0.0.{n}\"]\n")
            }),
            "13 groups besides the built-in ones, at most 12 are possible",
        ),
        (
            "[[cgroups.exception]]\ncgroups = [\"/a\"]\nallow = [\"imsd\"]".to_owned(),
            "cgroups.exception: no group of destinations is called \"imsd\"; did you mean \"imds\"?",
        ),
        (
            format!("{TASK}allow = [\"kes\"]"),
            "task \"web\": allow: no group of destinations is called \"kes\"; did you mean \"eks\"?",
        ),
        ("[sockets]\ndeny = [\"sctpp\"]".to_owned(), "expected `raw`, `icmp`"),
    ] {
        let found = error_of(&text);
        assert!(found.contains(error), "{found:?} is not about {error:?}");
    }
}

#[test]
fn no_error_quotes_a_credential_id() {
    let id = format!("\"{SECRET}\"");
    for text in [
        TASK.replace(&format!("[{id}]"), &id),
        TASK.replace(&id, &format!("\"{SECRET}/x\"")),
        TASK.replace(&id, &format!("{id}, 1")),
        TASK.replace(&id, &format!("{id} {id}")),
        TASK.replace(&id, &format!("{id}, {id}")),
        TASK.replace(&id, &format!("\"{SECRET}")),
        TASK.replace("credential-ids", SECRET),
        TASK.replace("[[task]]", &format!("[[task.{SECRET}]]")),
        format!("{TASK}{SECRET} = 1\n{SECRET} = 2"),
        format!("{TASK}[{SECRET}]\n[{SECRET}]"),
    ] {
        drop(error_of(&text));
    }
}
