//! Random scripts of a client and an app, each run through the proxy and directly: both endpoints must receive the same.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::sleep;

use crate::frames::{PING, PONG, Role, TEXT};
use crate::peer::{Connect, MUTE, Peer};
use crate::record::Record;
use crate::rig::{QUIET, Rig, Setup, Via, secs, together, true_for_client, variant};

/// How many scripts there are.
const SCRIPTS: u64 = 48;

/// The time between two steps, in which everything that was sent arrives.
const STEP: Duration = Duration::from_millis(150);

/// What one endpoint does in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Nothing,
    Message,
    Fragments,
    Ping,
    Large,
    Close,
    CloseAndFin,
    Fin,
}

/// The actions of client and app, step by step.
type Script = Vec<[Action; 2]>;

fn script(seed: u64) -> Script {
    let mut random = Rng::with_seed(seed);
    let mut pick = |role: Role| match random.u32(0..24) {
        0..6 => Action::Nothing,
        6..11 => Action::Message,
        11..14 => Action::Fragments,
        14..16 => Action::Ping,
        16..18 => Action::Large,
        18..20 => Action::Close,
        20..22 => Action::CloseAndFin,
        // The end of an app without a Close is told to the client by a Close of its own: that differs.
        22 if role == Role::Client => Action::Fin,
        _ => Action::Message,
    };
    let mut steps: Script = (0..8).map(|_| [pick(Role::Client), pick(Role::App)]).collect();
    steps.push([Action::CloseAndFin, Action::CloseAndFin]);
    steps
}

/// One endpoint of a script.
struct Actor {
    peer: Peer,
    role: Role,
    finished: bool,
    echoed: bool,
    answered: usize,
    sent: u32,
}

impl Actor {
    fn new(peer: Peer, role: Role) -> Self {
        peer.habits(MUTE);
        Self { peer, role, finished: false, echoed: false, answered: 0, sent: 0 }
    }

    /// Answers what has come since the last step: Pings, and a Close with the same code.
    async fn answer(&mut self) {
        let record = self.peer.record();
        let pings = record.payloads(PING);
        for payload in &pings[self.answered..] {
            if !self.finished && !self.peer.is_closing() {
                self.peer.send(&self.role.frame(PONG, payload)).await;
            }
        }
        self.answered = pings.len();
        if let Some((code, reason)) = record.closes().first() {
            if !self.peer.is_closing() && !self.finished {
                self.peer.close(*code, reason).await;
            }
            self.finish().await;
            self.echoed = true;
        }
    }

    async fn act(&mut self, action: Action) {
        if self.finished || self.peer.is_closing() || self.echoed {
            return;
        }
        self.sent += 1;
        let text = format!("{:?} {}", self.role, self.sent);
        match action {
            Action::Nothing => {}
            Action::Message => self.peer.text(&text).await,
            Action::Fragments => {
                let fragments = [self.role.fragment(TEXT, text.as_bytes()), self.role.frame(0, b"rest")];
                self.peer.send(&fragments.concat()).await;
            }
            Action::Ping => self.peer.send(&self.role.frame(PING, text.as_bytes())).await,
            Action::Large => self.peer.send(&self.role.binary(70_000)).await,
            Action::Close => self.peer.close(4000, &text).await,
            Action::CloseAndFin => {
                self.peer.close(4000, &text).await;
                self.finish().await;
            }
            Action::Fin => self.finish().await,
        }
    }

    async fn finish(&mut self) {
        if !self.finished {
            self.finished = true;
            self.peer.finish().await;
        }
    }
}

/// The bytes that an endpoint received, as a text that can be compared.
fn received(record: &Record) -> String {
    let mut text = String::new();
    for (frame, _) in &record.frames {
        let start = String::from_utf8_lossy(&frame.payload[..frame.payload.len().min(24)]);
        write!(text, "[{} fin={} {}B {start:?}]", frame.opcode, frame.fin, frame.payload.len()).expect("a string");
    }
    text
}

async fn play(rig: Arc<Rig>, seed: u64, via: Via) -> [Record; 2] {
    let path = format!("/{seed}-{via:?}");
    let (client, app) = rig.pair_via(via, &path, Connect::default()).await;
    let (mut client, mut app) = (Actor::new(client, Role::Client), Actor::new(app, Role::App));
    for [of_client, of_app] in script(seed) {
        tokio::join!(client.act(of_client), app.act(of_app));
        sleep(STEP).await;
        tokio::join!(client.answer(), app.answer());
    }
    tokio::join!(client.finish(), app.finish());
    let seen = [client.peer.ended(secs(8)).await, app.peer.ended(secs(8)).await];
    if via == Via::Proxy {
        let line = rig.ended(&path, secs(5)).await;
        let sent = client.peer.is_closing().then_some(line.json["close.code"].as_u64()).flatten();
        true_for_client(&line.json, &seen[0], sent.and_then(|code| u16::try_from(code).ok()));
    }
    seen
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
    let heartbeat = QUIET.replace("timeout = \"1s\"", "timeout = \"3s\"");
    let rig = Arc::new(Rig::set_up(Setup { heartbeat: &heartbeat, ..Setup::default() }).await);
    let run = |seed| variant(format!("seed {seed}"), like_direct(Arc::clone(&rig), seed));
    together((0..SCRIPTS).map(run).collect()).await;
}
