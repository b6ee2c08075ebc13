//! Clients that never stop trying, while the enforcer is killed, restarted, replaced and reloaded at random.
//!
//! Nothing may leak and nobody may be taken for another, whatever happens. Service may pause: after each action the
//! test waits until every client is served again, and tells the longest any of them had to wait.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    net::SocketAddrV4,
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use enforcer_common::ABI_VERSION;
use enforcer_tests::{
    actor::{
        Actor, Attempt, DatagramStyle, Family, SocketId,
        packet::{udp_packet, untagged},
    },
    http::{Request, Response},
    programs::{hammer_actions, slowness},
    scene::{Scene, Task},
    topology::{BRIDGE_HARDWARE, ENDPOINT, IMDS, IMDS_OVER_V6, IMDS_V4},
};
use tokio::time::Instant;

use crate::{EPERM, REFUSAL, assert_nothing_reached_the_metadata_service};

/// How long a client may wait to be served again.
const DEADLINE: Duration = Duration::from_mins(1);
/// What clients in the field wait for a connection or an answer before they try once more: SDKs' default.
const PATIENCE: Duration = Duration::from_secs(1);
/// A client rests no longer than this between two rounds.
const LONGEST_REST: Duration = Duration::from_millis(500);
/// A start that is cut short lasts less than this.
const SHORTEST_START: u64 = 500;

/// What is done to the enforcer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Action {
    /// Killed without warning and started again.
    Kill,
    /// Stopped politely and started again.
    Restart,
    /// Killed, and killed once more in the middle of its next start.
    KillStarting,
    /// Killed, and started on what an older version has pinned.
    Upgrade,
    /// Replaced by another that takes its place.
    TakeOver,
    /// Told to read its configuration again.
    Reload,
}

const ACTIONS: [Action; 6] = [
    Action::Kill,
    Action::Restart,
    Action::KillStarting,
    Action::Upgrade,
    Action::TakeOver,
    Action::Reload,
];

/// A generator of numbers nobody needs to be unpredictable (xorshift).
struct Dice(u64);

/// How a client is served, told by the client and awaited by the test.
#[derive(Debug, Default)]
struct Service {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    answers: u64,
    last: Option<Instant>,
    longest_gap: Duration,
    has_ended: bool,
}

/// A client in a container of a task.
struct Client<'a> {
    actor: Actor,
    own: &'a Task,
    foreign: &'a Task,
    /// Whether it keeps its connection.
    keeps: bool,
    service: &'a Service,
}

// === impl Dice ===

impl Dice {
    fn from_system() -> Result<Self> {
        let mut bytes = [0; 8];
        io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut bytes)?;
        Ok(Self(u64::from_ne_bytes(bytes) | 1))
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn action(&mut self) -> Action {
        let index = self.below(ACTIONS.len() as u64);
        ACTIONS[usize::try_from(index).unwrap()]
    }
}

// === impl Action ===

impl Action {
    fn perform(self, scene: &mut Scene, dice: &mut Dice) -> Result<()> {
        match self {
            Self::Kill => scene.enforcer().kill()?,
            Self::Restart => ensure!(scene.enforcer().terminate()?.success(), "it did not stop in order"),
            Self::KillStarting => {
                scene.enforcer().kill()?;
                scene.enforcer().begin_start()?;
                // Any moment of the start will do; there is none to wait for.
                thread::sleep(Duration::from_millis(dice.below(SHORTEST_START)));
                scene.enforcer().kill()?;
            }
            Self::Upgrade => {
                scene.enforcer().kill()?;
                let layout = |number: u32| scene.path(&format!("/sys/fs/bpf/enforcer/{number}"));
                fs::rename(layout(ABI_VERSION), layout(ABI_VERSION - 1)).context("cannot rename the layout")?;
            }
            Self::TakeOver => return scene.enforcer().take_over().map(drop),
            Self::Reload => {
                let reload = scene.enforcer().run(["reload"])?;
                let said = String::from_utf8_lossy(&reload.stderr);
                ensure!(reload.status.success(), "it did not reload: {said}");
                return Ok(());
            }
        }
        scene.enforcer().start()
    }
}

// === impl Service ===

impl Service {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn count(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        let gap = state.last.replace(now).map(|last| now - last).unwrap_or_default();
        state.longest_gap = state.longest_gap.max(gap);
        state.answers += 1;
        self.changed.notify_all();
    }

    fn end(&self) {
        self.lock().has_ended = true;
        self.changed.notify_all();
    }

    /// Waits for a request that begins and is answered after this, and gives the longest gap since the last time.
    fn await_answer(&self) -> Result<Duration> {
        let state = self.lock();
        // The first of them may have begun before.
        let wanted = state.answers + 2;
        let deadline = DEADLINE * slowness()?;
        let (mut state, timeout) = self
            .changed
            .wait_timeout_while(state, deadline, |state| state.answers < wanted && !state.has_ended)
            .unwrap();
        ensure!(!state.has_ended, "a client has ended");
        ensure!(!timeout.timed_out(), "a client is not served for {deadline:?}");
        Ok(std::mem::take(&mut state.longest_gap))
    }
}

// === impl Client ===

impl Client<'_> {
    fn run(mut self, is_over: &AtomicBool) -> Result<()> {
        let outcome = self.try_everything(is_over);
        self.service.end();
        outcome
    }

    fn try_everything(&mut self, is_over: &AtomicBool) -> Result<()> {
        let mut connection = None;
        while !is_over.load(Ordering::Relaxed) {
            let start = Instant::now();
            // No answer is no wrong answer: for moments nobody listens.
            if let Ok(response) = self.ask(&mut connection, &self.own.path()) {
                ensure!(
                    self.own.is_served_by(&response),
                    "wrong answer to its own ID: {response:?}"
                );
                self.service.count();
            }
            if let Ok(response) = self.ask(&mut connection, &self.foreign.path()) {
                ensure!(
                    response.body_text() == REFUSAL,
                    "wrong answer to another's ID: {response:?}"
                );
            }
            self.try_metadata_service()?;
            rest(start.elapsed());
        }
        Ok(())
    }

    /// Asks on the connection it keeps, or on a new one.
    fn ask(&mut self, kept: &mut Option<SocketId>, target: &str) -> Result<Response> {
        let socket = match kept.take() {
            Some(socket) => socket,
            None => self.connected()?,
        };
        let response = self.actor.request(socket, &Request::get(target));
        if self.keeps && response.is_ok() {
            *kept = Some(socket);
        } else {
            self.actor.close(socket)?;
        }
        response
    }

    fn connected(&mut self) -> Result<SocketId> {
        let socket = self.actor.open(Family::V4)?;
        self.actor.limit(socket, PATIENCE * slowness()?)?;
        let attempt = self.actor.connect_socket(socket, ENDPOINT)?;
        if attempt != Attempt::Done {
            self.actor.close(socket)?;
            bail!("not connected: {attempt:?}");
        }
        Ok(socket)
    }

    fn try_metadata_service(&mut self) -> Result<()> {
        for attempt in [
            self.actor.connect(IMDS)?,
            self.actor.connect(IMDS_OVER_V6)?,
            self.actor.datagram(IMDS, DatagramStyle::Unconnected)?,
        ] {
            ensure!(attempt == EPERM, "the metadata service is open: {attempt:?}");
        }
        Ok(())
    }
}

/// Sends frames to the metadata service, which no system call refuses.
fn intrude(actor: &mut Actor, is_over: &AtomicBool) -> Result<()> {
    let from = SocketAddrV4::new(actor.address(), 4000);
    let packet = untagged(&udp_packet(from, SocketAddrV4::new(IMDS_V4, 80), b"lab!"));
    while !is_over.load(Ordering::Relaxed) {
        let start = Instant::now();
        let sent = actor.frame("eth0", BRIDGE_HARDWARE, packet.clone())?;
        ensure!(sent == Attempt::Done, "cannot send a frame: {sent:?}");
        rest(start.elapsed());
    }
    Ok(())
}

/// Leaves the machine to the others: clients that took all of it would only slow down what they are to disturb.
fn rest(work: Duration) {
    thread::sleep((4 * work).min(LONGEST_REST));
}

/// Acts at random and waits each time until everybody is served again; the longest gap per action.
fn act(
    scene: &mut Scene,
    services: &[Service],
    dice: &mut Dice,
    actions: u32,
) -> Result<BTreeMap<Action, (u32, Duration)>> {
    let mut gaps = BTreeMap::new();
    await_all(services)?;
    for number in 0..actions {
        let action = dice.action();
        let gap = action
            .perform(scene, dice)
            .and_then(|()| await_all(services))
            .with_context(|| format!("action {number}: {action:?}"))?;
        let (times, longest): &mut (u32, Duration) = gaps.entry(action).or_default();
        *times += 1;
        *longest = gap.max(*longest);
    }
    Ok(gaps)
}

fn await_all(services: &[Service]) -> Result<Duration> {
    let gaps = services.iter().map(Service::await_answer).collect::<Result<Vec<_>>>()?;
    Ok(gaps.into_iter().max().unwrap_or_default())
}

/// Past the test harness, which would show it only for a failed test.
fn say(line: &str) {
    writeln!(io::stderr(), "{line}").unwrap();
}

#[test]
fn whatever_happens_to_the_enforcer_nothing_leaks_and_nobody_is_taken_for_another() {
    let actions = hammer_actions().unwrap();
    let mut dice = Dice::from_system().unwrap();
    say(&format!("hammer: {actions} actions, seed {:#x}", dice.0));

    let mut scene = Scene::builder().task("web").task("batch").prepare().unwrap();
    let tasks = ["web", "batch"].map(|name| scene.task(name).unwrap().clone());
    let services = <[Service; 4]>::default();
    let bridged = |task: &Task| scene.bridge_container(&task.name).unwrap();
    let host = |task: &Task| scene.host_container(&task.name).unwrap();
    let [web, batch] = &tasks;
    let clients: Vec<_> = [
        (bridged(web), web, batch, false),
        (bridged(batch), batch, web, true),
        (host(web), web, batch, true),
        (host(batch), batch, web, false),
    ]
    .into_iter()
    .zip(&services)
    .map(|((actor, own, foreign, keeps), service)| Client {
        actor,
        own,
        foreign,
        keeps,
        service,
    })
    .collect();
    let mut intruder = bridged(web);
    // The containers are older: their interfaces are watched when the enforcer is ready.
    scene.enforcer().start().unwrap();

    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let running: Vec<_> = clients
            .into_iter()
            .map(|client| scope.spawn(|| client.run(&is_over)))
            .collect();
        let intruding = scope.spawn(|| intrude(&mut intruder, &is_over));
        let gaps = act(&mut scene, &services, &mut dice, actions);
        is_over.store(true, Ordering::Relaxed);
        // What a client found explains best what went wrong.
        for client in running {
            client.join().unwrap().unwrap();
        }
        intruding.join().unwrap().unwrap();
        for (action, (times, gap)) in gaps.unwrap() {
            say(&format!(
                "hammer: {times:>3} times {action:?}, longest gap {} ms",
                gap.as_millis()
            ));
        }
    });
    assert_nothing_reached_the_metadata_service(&mut scene);
}
