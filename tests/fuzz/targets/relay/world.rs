//! The session with both of its peers.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use pulsegate::heartbeat::UpstreamLiveness;
use pulsegate::registry::Registry;
use pulsegate::relay::{self, Control, Legs, Memory, NegotiatedTerms, Unobserved};
use pulsegate::session::Ending;
use pulsegate::ws::Limits;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::POLLS_MOST;
use super::peer::Peer;
use super::plan::{LegPlan, Plan};
use super::wire::{Leg, Wire};

/// The maximum that one session may hold: one read in each direction, in buffers that have grown by doubling.
const HELD_MOST: u64 = 4 * (64 * 1024 + 256) + 2 * 16 * 1024 + 512 * 1024;

/// A session with both of its peers.
pub struct World {
    pub client: Peer,
    pub app: Peer,
    pub control: Arc<Control>,
    pub memory: Arc<Memory>,
    pub session: JoinHandle<Ending>,
    notify: Arc<Notify>,
    opened: Instant,
}

/// A counter of a session's polls, which detects one that spins.
struct Counted<F> {
    session: Pin<Box<F>>,
    polls: u32,
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.polls += 1;
        assert!(self.polls < POLLS_MOST, "the session spins");
        self.session.as_mut().poll(cx)
    }
}

impl World {
    pub fn new(plan: &Plan) -> Self {
        let notify = Arc::new(Notify::new());
        let wire = |leg: &LegPlan| {
            let wire = Wire::new(leg.moods.clone(), leg.kernel, leg.buffered, Arc::clone(&notify));
            Arc::new(Mutex::new(wire))
        };
        let peer = |leg: &LegPlan, masks| {
            let mut peer = Peer::new(wire(leg), masks);
            peer.polite = leg.polite;
            let frames: Vec<_> = (0..leg.early).map(|at| peer.frame(13 + at, 40)).collect();
            let early = peer.early(frames.concat());
            (peer, early)
        };
        let ((client, client_early), (app, upstream_early)) = (peer(&plan.client, true), peer(&plan.app, false));
        let (control, memory) = (Arc::<Control>::default(), Arc::<Memory>::default());
        let terms = NegotiatedTerms {
            policy: Arc::new(plan.policy.clone()),
            limits: Limits::default(),
            memory: Arc::clone(&memory),
            liveness: Arc::new(UpstreamLiveness::new(Instant::now().into_std())),
            observer: Arc::new(Unobserved),
            id: Registry::new(0).next_id(),
            seed: plan.seed,
            max_age: plan.max_age,
        };
        let legs = Legs {
            client: Leg(Arc::clone(&client.wire)),
            client_early: Bytes::from(client_early),
            upstream: Leg(Arc::clone(&app.wire)),
            upstream_early: Bytes::from(upstream_early),
        };
        let session = Box::pin(relay::run(legs, terms, Arc::clone(&control)));
        let session = tokio::spawn(Counted { session, polls: 0 });
        Self { client, app, control, memory, session, notify, opened: Instant::now() }
    }

    pub fn peer(&mut self, client: bool) -> &mut Peer {
        if client { &mut self.client } else { &mut self.app }
    }

    /// Lets `time` pass, in which both peers answer what they receive.
    pub async fn pause(&mut self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            self.client.react();
            self.app.react();
            let held = self.memory.total();
            assert!(held <= HELD_MOST, "the session holds {held} bytes");
            tokio::select! {
                biased;
                () = sleep_until(until) => return,
                () = self.notify.notified() => {}
            }
        }
    }

    /// Waits for the end of the session, `most` from now at the latest.
    pub async fn ended(&mut self, most: Duration, what: &str) {
        let until = Instant::now() + most;
        while !self.session.is_finished() {
            assert!(Instant::now() < until, "the session has not ended {most:?} after {what}\n{}", self.story());
            let step = Duration::from_millis(100).min(until - Instant::now());
            self.pause(step).await;
        }
    }

    /// Returns the state of the session as visible from outside.
    pub fn story(&self) -> String {
        let peer = |name, peer: &Peer| {
            let wire = peer.wire();
            format!(
                "{name}: sent {}, got {} of {} bytes, Close sent {} got {}, ended {}, leg shut {} dropped {:?} aborted {}",
                peer.said.len(),
                wire.delivered().len(),
                wire.accepted.len(),
                peer.sent_close,
                peer.got_close,
                peer.ended,
                wire.shut,
                wire.dropped.is_some(),
                wire.aborted
            )
        };
        let vitals = self.control.live_stats();
        format!(
            "{}\n{}\nclosing {}, {vitals:?}",
            peer("client", &self.client),
            peer("app", &self.app),
            self.control.is_closing()
        )
    }

    /// Prints an event if `FUZZ_TRACE` is set.
    pub fn trace(&self, what: &str) {
        if std::env::var_os("FUZZ_TRACE").is_some() {
            eprintln!("{:?} {what}\n{}", self.opened.elapsed(), self.story());
        }
    }

    /// Resets the connection of one side.
    pub fn reset(&mut self, client: bool) {
        let peer = self.peer(client);
        peer.ended = true;
        let mut wire = peer.wire();
        wire.fail_reads(io::ErrorKind::ConnectionReset);
        wire.fail_writes(io::ErrorKind::ConnectionReset);
    }
}
