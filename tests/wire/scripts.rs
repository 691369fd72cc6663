//! Random scripts of a client and an app, each run through the proxy and directly: both endpoints must receive the same.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use pulsegate_test_kit::frame::{CLOSE, Frame, PING, PONG, Role, TEXT};
use pulsegate_test_kit::turn::busy_turn;
use pulsegate_test_kit::wait::wait_for;
use tokio::time::sleep;

use crate::wire::peer::{Connect, MUTE, Pace, Peer};
use crate::wire::record::Record;
use crate::wire::rig::{Rig, Setup, Via, secs, together, true_for_client, variant};

/// The number of scripts.
const SCRIPTS: u64 = 60;

/// The silence after which a step is over.
const QUIESCENCE: Duration = Duration::from_millis(250);

/// The code of every Close.
const CODE: u16 = 4000;

/// The action of one endpoint in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Nothing,
    Message,
    Fragments,
    Ping,
    Large,
    /// More than the kernels of the endpoints hold.
    Huge,
    Close,
    CloseAndFin,
    Fin,
}

/// The simultaneous actions of client and app, and the time for which each of them reads nothing from then on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) actions: [Action; 2],
    pub(crate) pauses: [Duration; 2],
}

pub(crate) fn script(seed: u64) -> Vec<Step> {
    let mut random = Rng::with_seed(seed);
    let action = |random: &mut Rng, role: Role| match random.u32(0..24) {
        0..5 => Action::Nothing,
        5..11 => Action::Message,
        11..14 => Action::Fragments,
        14..15 => Action::Ping,
        15..17 => Action::Large,
        17..18 => Action::Huge,
        18..20 => Action::Close,
        20..22 => Action::CloseAndFin,
        // The client gets a Close of its own for the end of an app without one: that differs.
        22 if role == Role::Client => Action::Fin,
        _ => Action::Message,
    };
    let pause = |random: &mut Rng| Duration::from_millis(if random.u32(0..4) == 0 { random.u64(300..2000) } else { 0 });
    let mut steps = Vec::new();
    for _ in 0..7 {
        let actions = [Role::Client, Role::App].map(|role| action(&mut random, role));
        steps.push(Step { actions, pauses: [pause(&mut random), pause(&mut random)] });
    }
    steps.push(Step { actions: [Action::CloseAndFin; 2], pauses: [Duration::ZERO; 2] });
    steps
}

/// One endpoint of a script.
pub(crate) struct Actor {
    pub(crate) peer: Arc<Peer>,
    role: Role,
    finished: bool,
    echoed: bool,
    answered: usize,
    sent: u32,
    /// Opcode and payload of each data frame that was sent.
    pub(crate) data: Vec<(u8, Vec<u8>)>,
    /// The code of the Close that was sent.
    pub(crate) code: Option<u16>,
}

impl Actor {
    pub(crate) fn new(peer: Peer, role: Role) -> Self {
        peer.habits(MUTE);
        peer.pace(Pace::Full);
        Self {
            peer: Arc::new(peer),
            role,
            finished: false,
            echoed: false,
            answered: 0,
            sent: 0,
            data: Vec::new(),
            code: None,
        }
    }

    /// Answers everything received since the last step: Pings, and a Close with the same code.
    pub(crate) async fn answer(&mut self) {
        let record = self.peer.record();
        let pings = record.payloads(PING);
        for payload in &pings[self.answered..] {
            if !self.finished && !self.peer.is_closing() {
                self.put(self.role.frame(PONG, payload)).await;
            }
        }
        self.answered = pings.len();
        if let Some((code, reason)) = record.closes().first() {
            if !self.peer.is_closing() && !self.finished {
                self.close(*code, reason).await;
            }
            self.finish().await;
            self.echoed = true;
        }
    }

    pub(crate) async fn act(&mut self, action: Action) {
        if self.finished || self.peer.is_closing() || self.echoed {
            return;
        }
        self.sent += 1;
        let text = format!("{:?} {}", self.role, self.sent);
        match action {
            Action::Nothing => {}
            Action::Message => self.put(self.role.text(&text)).await,
            Action::Fragments => {
                let fragments = [self.role.fragment(TEXT, text.as_bytes()), self.role.frame(0, b"rest")];
                self.put(fragments.concat()).await;
            }
            Action::Ping => self.put(self.role.frame(PING, text.as_bytes())).await,
            Action::Large => self.put(self.role.binary(70_000)).await,
            Action::Huge => self.put(self.role.binary(100_000).repeat(6)).await,
            Action::Close => self.close(CODE, &text).await,
            Action::CloseAndFin => {
                self.close(CODE, &text).await;
                self.finish().await;
            }
            Action::Fin => self.finish().await,
        }
    }

    /// Sends frames and records the data frames among them. A connection that has ended takes none: the records show
    /// that.
    async fn put(&mut self, bytes: Vec<u8>) {
        let mut rest = &bytes[..];
        while let Some((frame, size)) = Frame::parse(rest) {
            rest = &rest[size..];
            if frame.opcode() < CLOSE {
                self.data.push((frame.opcode(), frame.payload));
            }
        }
        let _ = wait_for("the peer takes what is sent", self.peer.try_send(&bytes)).await;
    }

    async fn close(&mut self, code: u16, reason: &str) {
        self.peer.sends_close();
        self.code.get_or_insert(code);
        self.put(self.role.close(code, reason)).await;
    }

    pub(crate) async fn finish(&mut self) {
        if !self.finished {
            self.finished = true;
            self.peer.finish().await;
        }
    }
}

/// Formats the frames that an endpoint received for a comparison, without the Pings of the proxy.
fn received(record: &Record) -> String {
    let mut text = String::new();
    for (frame, _) in &record.frames {
        if frame.opcode() == PING && !frame.payload.starts_with(b"App") && !frame.payload.starts_with(b"Client") {
            continue;
        }
        let start = String::from_utf8_lossy(&frame.payload[..frame.payload.len().min(24)]);
        write!(text, "[{} fin={} {}B {start:?}]", frame.opcode(), frame.is_final(), frame.payload.len())
            .expect("a string");
    }
    text
}

/// Reads nothing for `pause`.
pub(crate) async fn paused(peer: Arc<Peer>, pause: Duration) {
    if !pause.is_zero() {
        peer.pace(Pace::Stopped);
        sleep(pause).await;
        peer.pace(Pace::Full);
    }
}

/// Runs one step: both endpoints act; then everything arrives, and they answer.
pub(crate) async fn step(client: &mut Actor, app: &mut Actor, actions: [Action; 2], pauses: [Duration; 2]) {
    let (one, other) = (paused(Arc::clone(&client.peer), pauses[0]), paused(Arc::clone(&app.peer), pauses[1]));
    tokio::join!(one, other, client.act(actions[0]), app.act(actions[1]));
    let bytes = || client.peer.record().bytes + app.peer.record().bytes;
    let mut before = bytes();
    loop {
        sleep(QUIESCENCE).await;
        let after = bytes();
        if after == before {
            break;
        }
        before = after;
    }
    tokio::join!(client.answer(), app.answer());
}

async fn play(rig: Arc<Rig>, seed: u64, via: Via) -> [Record; 2] {
    let path = format!("/{seed}-{via:?}");
    let (client, app) = rig.pair_via(via, &path, Connect { narrow: true, ..Connect::default() }).await;
    let (mut client, mut app) = (Actor::new(client, Role::Client), Actor::new(app, Role::App));
    for Step { actions, pauses } in script(seed) {
        step(&mut client, &mut app, actions, pauses).await;
    }
    tokio::join!(client.finish(), app.finish());
    let received_by = [client.peer.ended(secs(12)).await, app.peer.ended(secs(12)).await];
    if via == Via::Proxy {
        let line = rig.ended(&path, secs(5)).await;
        true_for_client(&line.json, &received_by[0], client.code);
    }
    received_by
}

async fn like_direct(rig: Arc<Rig>, seed: u64) {
    let run = |via| play(Arc::clone(&rig), seed, via);
    let (direct, proxied) = tokio::join!(run(Via::Direct), run(Via::Proxy));
    for (name, direct, proxied) in [("client", &direct[0], &proxied[0]), ("app", &direct[1], &proxied[1])] {
        assert_eq!(
            received(proxied),
            received(direct),
            "the {name} received\n{proxied:?}\nand directly\n{direct:?}\nscript {:?}",
            script(seed)
        );
        assert!(proxied.ended_with_fin(), "the {name} received {proxied:?}\nscript {:?}", script(seed));
    }
}

#[tokio::test]
async fn s82_random_scripts_end_as_they_do_directly() {
    let _turn = busy_turn().await;
    run("60s", 0..SCRIPTS).await;
}

#[tokio::test]
async fn s36_random_scripts_with_probes_end_as_they_do_directly() {
    let _turn = busy_turn().await;
    run("300ms", SCRIPTS..2 * SCRIPTS).await;
}

/// Runs the scripts of `seeds` with probes an `interval` apart, whose timeout is longer than any pause.
async fn run(interval: &str, seeds: Range<u64>) {
    let heartbeat = format!("interval = {interval:?}\ntimeout = \"6s\"\njitter = 0\nclose_grace = \"500ms\"");
    let rig = Arc::new(Rig::set_up(Setup { heartbeat: &heartbeat, narrow_app: true, ..Setup::default() }).await);
    let run = |seed| variant(format!("seed {seed}"), like_direct(Arc::clone(&rig), seed));
    together(seeds.map(run).collect()).await;
}
