//! The program that plays every part of the lab. People need only `lab demo` and `lab bench`.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Parser;
use enforcer_tests::{
    actor, agent,
    bench::{self, Bench, gauge},
    demo::{self, Demo},
    docker::engine,
    enter::{self, Place},
    imds, keeper, manager, stub,
};

/// The enforcer's lab
#[derive(Debug, Parser)]
enum Part {
    /// Show the enforcer at work, in namespaces and cgroups of its own
    Demo(Demo),
    /// Measure what the enforcer costs on this kernel
    Bench(Bench),
    /// Hold a scene's namespaces and remove its cgroups at the end
    #[command(hide = true)]
    Keeper { cgroup: PathBuf, programs: PathBuf },
    /// Run a program in a cgroup and namespaces
    #[command(hide = true)]
    Enter {
        #[command(flatten)]
        place: Place,
        #[arg(last = true)]
        command_line: Vec<OsString>,
    },
    /// Run a program with the listening sockets of a service manager
    #[command(hide = true)]
    Activate {
        #[arg(last = true)]
        command_line: Vec<OsString>,
    },
    /// Run a container engine
    #[command(hide = true)]
    Engine {
        #[arg(last = true)]
        command_line: Vec<OsString>,
    },
    /// Try things on command
    #[command(hide = true)]
    Actor,
    /// Be an ECS agent
    #[command(hide = true)]
    Agent,
    /// Be a metadata service
    #[command(hide = true)]
    Imds,
    /// Do one thing many times on command
    #[command(hide = true)]
    Gauge,
    /// Be a bare HTTP server to compare with
    #[command(hide = true)]
    Reference,
    /// Answer as a Docker engine would
    #[command(hide = true)]
    Stub { socket: PathBuf },
}

fn main() -> ExitCode {
    match play(&Part::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Plays a part; whether all went as it should.
fn play(part: &Part) -> Result<bool> {
    match part {
        Part::Demo(options) => return demo::run(options),
        Part::Keeper { cgroup, programs } => keeper::run(cgroup, programs)?,
        Part::Enter { place, command_line } => enter::run(place, command_line)?,
        Part::Activate { command_line } => manager::run(command_line)?,
        Part::Engine { command_line } => engine::run(command_line)?,
        Part::Actor => actor::run()?,
        Part::Agent => agent::run()?,
        Part::Imds => imds::run()?,
        Part::Bench(options) => bench::run(options)?,
        Part::Gauge => gauge::run()?,
        Part::Reference => bench::run_reference()?,
        Part::Stub { socket } => stub::run(socket)?,
    }
    Ok(true)
}
