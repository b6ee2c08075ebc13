//! Cargo as we call it: on a named toolchain, and asked which executables it built.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::step;

/// Where every test reaches its binaries, whatever directory cargo put them in.
pub(crate) const BIN_DIR_VARIABLE: &str = "ENFORCER_TEST_BIN_DIR";

/// Something cargo built that can be started.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Executable {
    /// Directory of the package it belongs to; cargo starts tests there.
    pub(crate) directory: PathBuf,
    /// Name of the target: a binary's, or a test file's.
    pub(crate) name: String,
    /// Built with the test harness.
    pub(crate) is_test: bool,
    /// Where it lies.
    pub(crate) path: PathBuf,
}

/// Cargo of the toolchain this very program was built with.
pub(crate) fn stable() -> Command {
    step::command("cargo")
}

/// Cargo of the nightly toolchain.
pub(crate) fn nightly() -> Command {
    let mut command = step::command("rustup");
    command.args(["run", "nightly", "cargo"]);
    command
}

/// The triple of the machine the compiler runs on.
pub(crate) fn host_triple() -> Result<String> {
    let version = step::output_of(step::command("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("`rustc -vV` names no host triple")?.to_owned())
}

/// Runs a `cargo build` and returns the executables it made.
pub(crate) fn build(command: &mut Command) -> Result<Vec<Executable>> {
    command
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped());
    step::announce("building (cargo shows its progress)");
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo; is rustup's cargo on PATH?")?;
    if !output.status.success() {
        bail!("the build failed ({}); cargo's messages above say why", output.status);
    }
    let messages = String::from_utf8(output.stdout).context("cargo's messages are not UTF-8")?;
    messages
        .lines()
        .filter_map(|line| executable(line).transpose())
        .collect()
}

/// Reads one message of cargo; `None` if it is not about an executable.
fn executable(line: &str) -> Result<Option<Executable>> {
    let message: Value =
        serde_json::from_str(line).with_context(|| format!("cannot parse cargo's message `{line}`"))?;
    let text = |pointer| message.pointer(pointer).and_then(Value::as_str);
    let (Some("compiler-artifact"), Some(path)) = (text("/reason"), text("/executable")) else {
        return Ok(None);
    };
    let manifest = text("/manifest_path").context("cargo's artifact has no manifest path")?;
    if text("/target/kind/0") == Some("custom-build") {
        return Ok(None);
    }
    Ok(Some(Executable {
        directory: Path::new(manifest)
            .parent()
            .context("cargo's manifest path has no directory")?
            .to_owned(),
        name: text("/target/name").context("cargo's artifact has no name")?.to_owned(),
        is_test: message
            .pointer("/profile/test")
            .and_then(Value::as_bool)
            .unwrap_or(false),
        path: path.into(),
    }))
}

/// The one binary called `name`.
pub(crate) fn binary<'a>(executables: &'a [Executable], name: &str) -> Result<&'a Executable> {
    executables
        .iter()
        .find(|executable| executable.name == name && !executable.is_test)
        .with_context(|| format!("cargo built no binary called `{name}`"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::executable;

    #[test]
    fn a_test_artifact_is_told_from_a_binary() {
        let line = |test| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/w/tests/Cargo.toml",
                "target":{{"kind":["test"],"name":"kernel"}},"profile":{{"test":{test}}},"executable":"/t/kernel-1"}}"#
            )
        };
        let test = executable(&line(true)).unwrap().unwrap();
        assert_eq!(
            (test.directory.as_path(), test.name.as_str(), test.is_test),
            (Path::new("/w/tests"), "kernel", true)
        );
        assert!(!executable(&line(false)).unwrap().unwrap().is_test);
    }

    #[test]
    fn libraries_and_other_messages_are_no_executables() {
        for line in [
            r#"{"reason":"build-finished","success":true}"#,
            r#"{"reason":"compiler-artifact","executable":null}"#,
        ] {
            assert_eq!(executable(line).unwrap(), None);
        }
        assert!(executable("no json").is_err());
    }
}
