//! Programs of others where our hooks go: who keeps us out, and who may undo what ours decide.

use std::collections::BTreeSet;

use super::{Finding, Outcome, Problem, cgroups, finding};
use crate::{
    bpf::{Foreign, Position, on_cgroups, on_device, status},
    config::Config,
    host::coverage::own_devices,
};

const NAME: &str = "foreign programs";

/// One finding for each program that is in the way, or one that says there is none.
pub(super) fn programs(config: &Config) -> Vec<Finding> {
    let (cgroup, device) = (on_our_cgroups(config), on_our_devices(config));
    let mut findings = Vec::new();
    let mut harmless = 0;
    for found in [cgroup, device] {
        match found {
            Ok(programs) => {
                for program in programs {
                    match judge(&program) {
                        Some(problem) => findings.push(finding(NAME, Err(problem))),
                        None => harmless += 1,
                    }
                }
            }
            Err(problem) => findings.push(finding(NAME, Err(problem))),
        }
    }
    if findings.is_empty() {
        let outcome: Outcome = Ok(format!("{harmless} at our attach points, none in the way"));
        findings.push(finding(NAME, outcome));
    }
    findings
}

fn on_our_cgroups(config: &Config) -> Result<Vec<Foreign>, Problem> {
    let cgroups = cgroups(config)?;
    let root = config.cgroups.root.as_deref().unwrap_or_else(|| cgroups.mount());
    on_cgroups(root, cgroups.mount(), &ours(config)?).map_err(|error| Problem::told(&error).warn())
}

fn on_our_devices(config: &Config) -> Result<Vec<Foreign>, Problem> {
    let ours = ours(config)?;
    let mut found = Vec::new();
    for device in own_devices().map_err(|error| Problem::told(&error).warn())? {
        let here = on_device(device.index, &device.name, &ours);
        found.extend(here.map_err(|error| Problem::told(&error).warn())?);
    }
    Ok(found)
}

fn ours(config: &Config) -> Result<BTreeSet<u32>, Problem> {
    let hooks = status(&config.pin_dir).map_err(|error| Problem::told(&error).warn())?;
    Ok(hooks.iter().map(|hook| hook.program_id).collect())
}

/// What is wrong with a program, `None` if nothing is.
fn judge(program: &Foreign) -> Option<Problem> {
    let Foreign {
        hook,
        at,
        id,
        name,
        owner,
        ..
    } = program;
    let who = format!(
        "program {name} (ID {id}, loaded by user {owner}) at {hook} of {}",
        at.display()
    );
    let rewrites = hook.starts_with("connect") || hook.starts_with("sendmsg");
    match program.position {
        Position::Excluding => Some(Problem::new(
            format!("{who} was attached without BPF_F_ALLOW_MULTI, which keeps every other program out"),
            format!("have its owner attach it with BPF_F_ALLOW_MULTI or by a link, or remove it (`bpftool prog show id {id}`)"),
        )),
        Position::After if rewrites => Some(
            Problem::new(
                format!("{who} runs after ours and may change a destination that ours has judged"),
                "if it does, packets to protected addresses are dropped instead of refused: expect timeouts, and \
                 socket_layer_missed in the audit trail",
            )
            .warn(),
        ),
        Position::Before if hook.starts_with("tcx") => Some(
            Problem::new(
                format!("{who} runs before ours and may change or take away packets ours would drop"),
                "`enforcer detach` and a new start put ours first; or have its owner attach it after others (BPF_F_AFTER)",
            )
            .warn(),
        ),
        Position::Before | Position::After => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::State, Foreign, Position, judge};

    fn state(hook: &'static str, position: Position) -> Option<State> {
        let program = Foreign {
            hook,
            at: "/sys/fs/cgroup".into(),
            id: 7,
            name: "cil_sock4_conne".to_owned(),
            owner: 0,
            position,
        };
        judge(&program).map(|problem| problem.state)
    }

    #[test]
    fn who_keeps_ours_out_is_fatal_and_who_may_undo_a_decision_is_warned_of() {
        assert_eq!(state("bind4", Position::Excluding), Some(State::Fail));
        assert_eq!(state("connect4", Position::After), Some(State::Warn));
        assert_eq!(state("connect4", Position::Before), None);
        assert_eq!(state("egress", Position::After), None);
        assert_eq!(state("tcx/ingress", Position::Before), Some(State::Warn));
        assert_eq!(state("tcx/ingress", Position::After), None);
    }
}
