//! Child processes as steps: announced, run from the top of the workspace, and judged.

use std::{
    ffi::OsStr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, anyhow, bail};

/// Tells the user what happens now. Progress goes to stderr; stdout belongs to results.
pub(crate) fn announce(what: &str) {
    eprintln!("==> {what}");
}

/// The top directory of the workspace.
pub(crate) fn workspace_root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_owned()
}

/// A command that runs at the top of the workspace.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace_root());
    command
}

/// Runs `command` to its end with the terminal as its output. An exit code other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = display(command);
    announce(&line);
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status}); its output above says why");
    }
    Ok(())
}

/// Runs a command that downloads; its error says that the network may be the cause.
pub(crate) fn run_download(command: &mut Command) -> Result<()> {
    run(command).context("no network? a step that downloads did not work")
}

/// Runs `command` and returns what it wrote to stdout; stderr goes to the terminal.
pub(crate) fn output_of(command: &mut Command) -> Result<String> {
    let line = display(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{line}`; is it installed?"))?;
    if !output.status.success() {
        bail!("`{line}` failed ({})", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` wrote something that is not UTF-8"))
}

/// True if `command` starts and ends with exit code 0. Its output is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Becomes `command`, so that signals from the terminal reach it and nothing else. Returns only on failure.
pub(crate) fn become_command(command: &mut Command) -> Result<()> {
    let line = display(command);
    announce(&line);
    Err(anyhow!(command.exec())).with_context(|| format!("cannot start `{line}`"))
}

/// The command as one would type it, with the environment it adds.
fn display(command: &Command) -> String {
    let variables = command
        .get_envs()
        .filter_map(|(key, value)| Some(format!("{}={}", key.display(), quoted(&value?.to_string_lossy()))));
    let words = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| quoted(&word.to_string_lossy()));
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=+,@%".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::{command, display, output_of, run};

    #[test]
    fn a_step_is_shown_as_one_would_type_it() {
        let mut step = command("cargo");
        step.args(["clippy", "--cfg", "arch=\"x\"", ""])
            .env("RUSTFLAGS", "-D warnings");
        assert_eq!(
            display(&step),
            r#"RUSTFLAGS='-D warnings' cargo clippy --cfg 'arch="x"' ''"#
        );
    }

    #[test]
    fn a_failed_step_names_command_and_exit_code() {
        let error = run(command("sh").args(["-c", "exit 3"])).unwrap_err().to_string();
        assert!(error.starts_with("`sh -c 'exit 3'` failed (exit status: 3)"), "{error}");
    }

    #[test]
    fn the_output_of_a_failed_command_is_not_a_result() {
        assert!(output_of(command("sh").args(["-c", "echo half; exit 1"])).is_err());
        assert_eq!(output_of(command("sh").args(["-c", "echo whole"])).unwrap(), "whole\n");
    }
}
