//! `cargo xtask test`: everything built once, statically; unit tests, then the same kernel tests on each kernel.

pub(crate) mod tally;

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, ExitCode, Stdio},
    thread,
};

use anyhow::{Context as _, Result, anyhow, ensure};

use self::tally::Tally;
use crate::{
    cargo::{self, Executable},
    matrix::Matrix,
    preflight,
    setup::{self, Purpose},
    step, vm,
};

/// Directory of the package that needs root and a real kernel.
const KERNEL_TESTS: &str = "tests";

/// Every package with tests. The eBPF side has none of its own: it is tested by attaching it.
const PACKAGES: [&str; 8] = [
    "--package",
    "enforcer-common",
    "--package",
    "enforcer",
    "--package",
    "enforcer-tests",
    "--package",
    "xtask",
];

/// Options of `test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the kernel tests run. Unit tests run with `host` and `all`.
    #[arg(long, value_enum, default_value_t = Kernels::All)]
    kernel: Kernels,
    /// Run only tests whose name contains one of these.
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
}

/// The kernels to test on.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Kernels {
    /// The one that runs here.
    Host,
    /// Debian's 6.1 in QEMU.
    #[value(name = "6.1")]
    Oldest,
    /// Debian's 6.12 in QEMU.
    #[value(name = "6.12")]
    Newer,
    /// All of these.
    All,
}

/// Tests and prints the sums; the last line is `N passed, N failed`.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.kernel.includes_host() {
        preflight::require_kernel_access()?;
    }
    setup::ensure(args.kernel.purpose())?;
    // Downloads come first: they fail at once or not at all.
    let machines = args
        .kernel
        .machines()
        .iter()
        .map(|kernel| vm::prepare(*kernel))
        .collect::<Result<Vec<_>>>()?;
    let target = cargo::host_triple()?;
    let executables = build(&target)?;

    let mut tiers = Vec::new();
    if args.kernel.includes_host() {
        let (kernel, unit): (Vec<_>, Vec<_>) = executables
            .iter()
            .filter(|one| one.is_test)
            .partition(|one| one.directory.ends_with(KERNEL_TESTS));
        let mut tally = run_here(&unit, &args.filters)?;
        run_doc_tests(&target, &args.filters, &mut tally)?;
        tiers.push(("unit tests and invariants".to_owned(), tally));
        tiers.push((
            format!("kernel tests on this host, {}", release()?),
            run_here(&kernel, &args.filters)?,
        ));
    }
    tiers.extend(run_in_machines(&machines, &executables, &args.filters)?);
    tally::print(&tiers)?;
    if args.kernel == Kernels::All && args.filters.is_empty() {
        write_matrix(&tiers)?;
    }
    let total: Tally = tiers.into_iter().map(|(_, tally)| tally).sum();
    ensure!(total.ran() > 0, "no test ran; does a name contain {:?}?", args.filters);
    Ok(if total.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Writes the table of techniques from what all tiers have told; each has its kernel's release as the name's last word.
fn write_matrix(tiers: &[(String, Tally)]) -> Result<()> {
    let mut matrix = Matrix::default();
    for (name, tally) in tiers {
        let release = name.rsplit(' ').next().unwrap_or_default();
        tally.cells.iter().for_each(|cell| matrix.read(release, cell));
    }
    if matrix.write()? {
        step::announce("docs/bypass-matrix.md says something else now");
    }
    Ok(())
}

/// Builds all binaries and all tests at once, linked statically, so that every kernel runs the same files.
fn build(target: &str) -> Result<Vec<Executable>> {
    let mut build = static_cargo("build", target);
    cargo::build(build.args(PACKAGES).args(["--bins", "--tests"]))
}

fn static_cargo(command: &str, target: &str) -> Command {
    let mut cargo = cargo::stable();
    cargo
        .args([command, "--target", target])
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    // Emulated machines are slow: reading the kernel's types alone takes seconds without any optimization. Backtraces
    // need lines; every other debug information would only be carried into the machines.
    cargo.envs([
        ("CARGO_PROFILE_DEV_OPT_LEVEL", "1"),
        ("CARGO_PROFILE_DEV_DEBUG", "line-tables-only"),
    ]);
    cargo
}

fn run_here(tests: &[&Executable], filters: &[String]) -> Result<Tally> {
    let mut tally = Tally::default();
    for test in tests {
        let package = test
            .directory
            .strip_prefix(step::workspace_root())
            .unwrap_or(&test.directory)
            .display();
        let what = format!("{} of {package}", test.name);
        step::announce(&format!("testing {what}"));
        // Binaries lie one directory above the tests that start them.
        let binaries = test
            .path
            .parent()
            .and_then(Path::parent)
            .context("cargo put a test at the root directory")?;
        let mut command = Command::new(&test.path);
        command
            .args(filters)
            .current_dir(&test.directory)
            .env(cargo::BIN_DIR_VARIABLE, binaries);
        run_counted(&mut command, &what, &mut tally)?;
    }
    Ok(tally)
}

fn run_doc_tests(target: &str, filters: &[String], tally: &mut Tally) -> Result<()> {
    step::announce("testing the examples in the documentation");
    let mut command = static_cargo("test", target);
    command.args(PACKAGES).args(["--quiet", "--doc", "--"]).args(filters);
    run_counted(&mut command, "examples in the documentation", tally)
}

/// Runs tests, passes their output on and counts their results.
fn run_counted(command: &mut Command, what: &str, tally: &mut Tally) -> Result<()> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {what}"))?;
    let output = child.stdout.take().with_context(|| format!("{what} has no output"))?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.with_context(|| format!("cannot read the output of {what}"))?;
        let text = String::from_utf8_lossy(&line);
        print_line(&text)?;
        tally.read(&text);
    }
    let status = child.wait().with_context(|| format!("cannot wait for {what}"))?;
    tally.finish(status.success(), &format!("{what} ({status})"));
    Ok(())
}

fn run_in_machines(
    machines: &[vm::Prepared],
    executables: &[Executable],
    filters: &[String],
) -> Result<Vec<(String, Tally)>> {
    if machines.is_empty() {
        return Ok(Vec::new());
    }
    let test = |name: &str| {
        let mut tests = executables.iter().filter(|one| one.is_test);
        tests
            .find(|one| one.name == name)
            .with_context(|| format!("cargo built no test called `{name}`"))
    };
    let binary = |name| cargo::binary(executables, name);
    let programs = [test("kernel")?, test("matrix")?, binary("enforcer")?, binary("lab")?];
    let payload = vm::Payload {
        init: binary("vm-init")?,
        programs: &programs,
        arguments: filters,
    };
    thread::scope(|scope| {
        let runs: Vec<_> = machines
            .iter()
            .map(|machine| (machine, scope.spawn(move || machine.run_tests(payload))))
            .collect();
        runs.into_iter()
            .map(|(machine, run)| {
                let tally = run
                    .join()
                    .map_err(|_panic| anyhow!("the runner of {} panicked", machine.release()))??;
                Ok((format!("kernel tests on {}", machine.release()), tally))
            })
            .collect()
    })
}

/// This host's kernel.
fn release() -> Result<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot read the kernel's release")?;
    Ok(release.trim_end().to_owned())
}

/// Writes a line of a result to stdout.
pub(crate) fn print_line(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{text}").context("cannot write to stdout")
}

// === impl Args ===

impl Default for Args {
    /// All tests on all kernels, as CI runs them.
    fn default() -> Self {
        Self {
            kernel: Kernels::All,
            filters: Vec::new(),
        }
    }
}

// === impl Kernels ===

impl Kernels {
    fn includes_host(self) -> bool {
        matches!(self, Self::Host | Self::All)
    }

    fn machines(self) -> &'static [vm::Kernel] {
        match self {
            Self::Host => &[],
            Self::Oldest => &[vm::OLDEST],
            Self::Newer => &[vm::NEWER],
            Self::All => &[vm::OLDEST, vm::NEWER],
        }
    }

    fn purpose(self) -> Purpose {
        if self == Self::Host {
            Purpose::HostTests
        } else {
            Purpose::AllTests
        }
    }
}
