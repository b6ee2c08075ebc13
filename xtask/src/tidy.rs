//! The repository's own invariants, as tests. What rustfmt and clippy check is not repeated here.
//!
//! Every check collects all its findings, so that one run shows everything there is to fix. An exception is a line in
//! the list beside its check, with its reason.

mod measure;
mod source;

use std::collections::BTreeMap;

use clap::CommandFactory as _;

use self::source::{Source, Tree};
use crate::Cli;

/// Lines a file may have without its inline tests.
const FILE_LINES: usize = 500;

/// Lines a function may have from its signature to the closing brace.
const FUNCTION_LINES: usize = 80;

/// The same where the verifier reads along.
const KERNEL_SIDE_FUNCTION_LINES: usize = 60;

/// Files and functions over the budget: (path or `path::function`, reason).
const OVER_BUDGET: [(&str, &str); 0] = [];

/// The stages a connection passes; a file that imports more than three of them is wiring, and wiring is `app.rs`.
const STAGES: [&str; 7] = ["bpf", "host", "attribution", "policy", "endpoint", "upstream", "audit"];

/// Names of places where things land that nobody owns.
const OWNERLESS: [&str; 5] = ["util", "utils", "helpers", "common", "misc"];

#[track_caller]
fn assert_none(findings: &[String], rule: &str) {
    assert!(findings.is_empty(), "{rule}\n  {}", findings.join("\n  "));
}

/// Asserts that no Rust source has a finding.
#[track_caller]
fn check_sources(rule: &str, find: impl Fn(&Source) -> Vec<String>) {
    let tree = Tree::read();
    assert!(
        tree.sources.len() > 50,
        "found only {} sources: is this the workspace?",
        tree.sources.len()
    );
    assert_none(&tree.sources.iter().flat_map(find).collect::<Vec<_>>(), rule);
}

/// The file's path as the one finding, if it has one.
fn path_if(found: bool, source: &Source) -> Vec<String> {
    if found { vec![source.path.clone()] } else { Vec::new() }
}

fn is_excepted(what: &str) -> bool {
    OVER_BUDGET.iter().any(|(excepted, _reason)| *excepted == what)
}

#[test]
fn every_file_opens_with_its_purpose() {
    check_sources(
        "the first line is a `//!` comment that says what the file is for",
        |source| path_if(!source.text.starts_with("//! "), source),
    );
}

#[test]
fn files_stay_within_their_budget() {
    check_sources(
        "a file has at most 500 lines without its inline tests; split it by what it is about",
        |source| {
            let lines = measure::product_lines(source);
            if lines <= FILE_LINES || is_excepted(&source.path) {
                return Vec::new();
            }
            vec![format!("{} has {lines}", source.path)]
        },
    );
}

#[test]
fn functions_stay_within_their_budget() {
    check_sources(
        "a function has at most 80 lines (60 on the kernel side); a longer one has two names",
        |source| {
            let is_kernel_side = source.path.starts_with("enforcer-ebpf/");
            let budget = if is_kernel_side {
                KERNEL_SIDE_FUNCTION_LINES
            } else {
                FUNCTION_LINES
            };
            measure::functions(source)
                .into_iter()
                .filter(|function| {
                    function.lines > budget && !is_excepted(&format!("{}::{}", source.path, function.name))
                })
                .map(|function| format!("{}::{} has {}", source.path, function.name, function.lines))
                .collect()
        },
    );
}

#[test]
fn every_exception_is_still_one() {
    let tree = Tree::read();
    let is_over = |what: &str| {
        tree.sources.iter().any(|source| {
            let functions = measure::functions(source);
            (source.path == what && measure::product_lines(source) > FILE_LINES)
                || functions.iter().any(|one| {
                    format!("{}::{}", source.path, one.name) == what && one.lines > KERNEL_SIDE_FUNCTION_LINES
                })
        })
    };
    let stale: Vec<_> = OVER_BUDGET
        .iter()
        .filter(|(what, _)| !is_over(what))
        .map(|(what, _)| (*what).to_owned())
        .collect();
    assert_none(&stale, "an exception is removed when it is no longer needed");
}

#[test]
fn modules_are_files_beside_their_directory() {
    check_sources("`foo.rs` beside `foo/`, never `foo/mod.rs`", |source| {
        path_if(source.stem() == "mod", source)
    });
}

#[test]
fn files_are_named_after_what_they_own() {
    check_sources("no file is called util, utils, helpers, common or misc", |source| {
        path_if(OWNERLESS.contains(&source.stem()), source)
    });
}

#[test]
fn only_bpf_names_aya() {
    check_sources("only enforcer/src/bpf* names aya", |source| {
        let elsewhere = source.is_product() && !source.is_stage("bpf");
        path_if(
            elsewhere
                && source
                    .words()
                    .iter()
                    .any(|word| word == "aya" || word.starts_with("aya_")),
            source,
        )
    });
}

#[test]
fn decisions_know_neither_tokio_nor_io() {
    check_sources(
        "policy and endpoint/parse are pure: no tokio, no I/O, no environment, no processes",
        |source| {
            let is_pure = source.is_product() && (source.is_stage("policy") || source.is_stage("endpoint/parse"));
            let impure = ["tokio", "io", "fs", "env", "process", "hyper"];
            path_if(
                is_pure
                    && source
                        .product_words()
                        .iter()
                        .any(|word| impure.contains(&word.as_str())),
                source,
            )
        },
    );
}

#[test]
fn only_config_load_reads_the_environment() {
    check_sources("only enforcer/src/config/load.rs reads the environment", |source| {
        let elsewhere = source.is_product() && source.path != "enforcer/src/config/load.rs";
        path_if(elsewhere && source.names_environment(), source)
    });
}

#[test]
fn only_app_wires_more_than_three_stages() {
    check_sources("only enforcer/src/app* imports more than three stages", |source| {
        if !source.is_product() || source.is_stage("app") {
            return Vec::new();
        }
        let imported = source.imported_modules();
        let stages: Vec<_> = STAGES
            .into_iter()
            .filter(|stage| imported.contains(*stage) && !source.is_stage(stage))
            .collect();
        if stages.len() <= 3 {
            Vec::new()
        } else {
            vec![format!("{} imports {}", source.path, stages.join(", "))]
        }
    });
}

#[test]
fn exceptions_from_lints_are_expectations() {
    check_sources(
        "`#[expect(lint, reason = \"…\")]` tells when it is no longer needed; `allow` does not",
        |source| path_if(source.has_attribute("allow"), source),
    );
}

#[test]
fn no_two_tests_are_the_same() {
    let tree = Tree::read();
    let mut by_body = BTreeMap::<_, Vec<_>>::new();
    for source in &tree.sources {
        for test in measure::functions(source)
            .into_iter()
            .filter(|function| function.is_test)
        {
            by_body
                .entry(test.body)
                .or_default()
                .push(format!("{}::{}", source.path, test.name));
        }
    }
    let twins: Vec<_> = by_body
        .into_values()
        .filter(|tests| tests.len() > 1)
        .map(|tests| tests.join(" and "))
        .collect();
    assert_none(&twins, "tests with equal bodies test one case under several names");
}

#[test]
fn nothing_is_left_for_later() {
    let markers = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
    ];
    let findings: Vec<_> = Tree::read()
        .texts
        .iter()
        .flat_map(|file| file.lines_with(|line| markers.iter().any(|marker| line.contains(marker))))
        .collect();
    assert_none(&findings, "what is to be done is an issue, not a comment");
}

#[test]
fn no_line_ends_with_a_space() {
    let findings: Vec<_> = Tree::read()
        .texts
        .iter()
        .flat_map(|file| file.lines_with(|line| line.ends_with([' ', '\t', '\r'])))
        .collect();
    assert_none(&findings, "trailing white space");
}

#[test]
fn documented_commands_exist() {
    let commands: Vec<_> = Cli::command()
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect();
    let is_unknown = |line: &str| {
        line.split("cargo xtask ").skip(1).any(|rest| {
            let word: String = rest.chars().take_while(char::is_ascii_lowercase).collect();
            !word.is_empty() && !commands.contains(&word)
        })
    };
    let findings: Vec<_> = Tree::read()
        .texts
        .iter()
        .flat_map(|file| file.lines_with(is_unknown))
        .collect();
    assert_none(&findings, "a documented `cargo xtask` command exists");
}
