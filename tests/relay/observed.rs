//! The observer of a session receives each ping, pong and miss once, in every mode.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pulsegate::heartbeat::{Builtin, Policy, Role};
use pulsegate::relay::{Observer, SessionOrder};
use pulsegate::session::Ending;
use pulsegate::ws::Sender;
use tokio::time::sleep;

use self::Said::{Missed, Pinged, TimedOut};
use crate::messages::{asked, text};
use crate::rig::{BINARY, CLOSE, Frame, PING, PONG, Plan, Rig, TEXT};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Pinged,
    Ponged(Option<Duration>),
    Measured(Duration),
    Missed(u32, u32),
    TimedOut,
    Paused(Sender),
}

#[derive(Debug, Default)]
struct Notes(Mutex<Vec<Said>>);

impl Notes {
    fn note(&self, said: Said) {
        self.0.lock().unwrap().push(said);
    }

    fn said(&self) -> Vec<Said> {
        self.0.lock().unwrap().clone()
    }

    /// Asserts that everything that was counted was reported, and nothing else.
    fn agree_with(&self, ending: &Ending) {
        let said = self.said();
        let count = |of: fn(&Said) -> bool| said.iter().filter(|said| of(said)).count() as u64;
        let probes = count(|said| *said == Said::Pinged);
        let answers = count(|said| matches!(said, Said::Ponged(_)));
        let missed = count(|said| matches!(said, Said::Missed(..)));
        let counted = ending.heartbeat;
        assert_eq!((probes, answers, missed), (counted.pings, counted.pongs, counted.missed), "{said:?}");
    }
}

impl Observer for Notes {
    fn pinged(&self) {
        self.note(Said::Pinged);
    }

    fn ponged(&self, rtt: Option<Duration>) {
        self.note(Said::Ponged(rtt));
    }

    fn measured(&self, rtt: Duration) {
        self.note(Said::Measured(rtt));
    }

    fn missed(&self, misses: u32, max: u32) {
        self.note(Said::Missed(misses, max));
    }

    fn timed_out(&self) {
        self.note(Said::TimedOut);
    }

    fn paused(&self, from: Sender) {
        self.note(Said::Paused(from));
    }
}

fn observed(policy: Policy) -> (Rig, Arc<Notes>) {
    observed_with(Plan { policy, ..Plan::default() })
}

fn observed_with(plan: Plan) -> (Rig, Arc<Notes>) {
    let notes = Arc::<Notes>::default();
    (Rig::with(Plan { observer: Arc::clone(&notes) as Arc<dyn Observer>, ..plan }), notes)
}

#[tokio::test(start_paused = true)]
async fn protocol_pings_pongs_and_misses() {
    let (mut rig, notes) = observed(Policy { max_missed: 3, ..Policy::default() });
    // Answered, answered twice (the second time there is nothing to measure), missed twice, answered late, and no more.
    let ping = rig.client.expect().await;
    sleep(10 * MILLISECOND).await;
    rig.client.send(&Frame::new(PONG, &ping.payload)).await;
    rig.client.send(&Frame::new(PONG, &ping.payload)).await;
    let mut pings = Vec::new();
    for _ in 0..3 {
        pings.push(rig.client.expect().await);
    }
    rig.client.send(&Frame::new(PONG, &pings[2].payload)).await;
    while rig.client.expect().await.opcode() == PING {}
    let ending = rig.ending().await;
    notes.agree_with(&ending);
    let said = notes.said();
    let at = |index: usize| said.get(index).copied();
    assert!(matches!(at(1), Some(Said::Ponged(Some(rtt))) if rtt >= 10 * MILLISECOND && rtt < 15 * MILLISECOND));
    assert_eq!(at(2), Some(Said::Ponged(None)));
    assert_eq!(said[3..8], [Pinged, Missed(1, 3), Pinged, Missed(2, 3), Pinged], "{said:?}");
    assert!(matches!(at(8), Some(Said::Ponged(Some(_)))), "{said:?}");
    assert_eq!(
        said[9..],
        [Pinged, Missed(1, 3), Pinged, Missed(2, 3), Pinged, Missed(3, 3), TimedOut],
        "counted anew after a sign of life"
    );
}

#[tokio::test(start_paused = true)]
async fn the_apps_own_pings_are_not_the_proxys() {
    let (mut rig, notes) = observed(Policy::default());
    for _ in 0..3 {
        rig.app.send(&Frame::new(PING, b"app")).await;
        assert_eq!(rig.client.expect().await, Frame::new(PING, b"app"));
        rig.client.send(&Frame::new(PONG, b"app")).await;
        assert_eq!(rig.app.expect().await, Frame::new(PONG, b"app"));
        sleep(10 * SECOND).await;
    }
    assert_eq!(notes.said(), []);
}

#[tokio::test(start_paused = true)]
async fn questions_answers_and_misses_of_app_mode() {
    let (mut rig, notes) = observed(Policy { mode: Builtin::ExpressText.mode(Role::App), ..Policy::default() });
    for _ in 0..3 {
        asked(&mut rig).await;
        sleep(5 * MILLISECOND).await;
        rig.client.send(&text("pong")).await;
    }
    asked(&mut rig).await;
    let ending = rig.ending().await;
    notes.agree_with(&ending);
    let said = notes.said();
    assert_eq!((ending.heartbeat.pings, ending.heartbeat.pongs, ending.heartbeat.missed), (4, 3, 1), "{said:?}");
    assert!(said.iter().all(|said| !matches!(said, Said::Ponged(None))), "each was measured: {said:?}");
    assert_eq!(said[said.len() - 2..], [Said::Missed(1, 1), Said::TimedOut]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_beating_in_answer_mode_is_one_miss() {
    let (mut rig, notes) =
        observed(Policy { mode: Builtin::ExpressText.mode(Role::Answer), max_missed: 3, ..Policy::default() });
    for _ in 0..3 {
        sleep(30 * SECOND).await;
        rig.client.send(&text("ping")).await;
        assert_eq!(rig.client.expect().await, text("pong"));
    }
    let ending = rig.ending().await;
    notes.agree_with(&ending);
    assert_eq!(notes.said(), [Said::Missed(1, 1), Said::TimedOut], "there is one window, whatever `max_missed` is");
}

#[tokio::test(start_paused = true)]
async fn what_the_proxy_only_watches_is_measured_all_the_same() {
    let (mut rig, notes) = observed(Policy { mode: Builtin::EngineIo.mode(Role::Passive), ..Policy::default() });
    for _ in 0..2 {
        rig.app.send(&text("2")).await;
        assert_eq!(rig.client.expect().await, text("2"));
        sleep(7 * MILLISECOND).await;
        rig.client.send(&text("3")).await;
        assert_eq!(rig.app.expect().await, text("3"));
        sleep(20 * SECOND).await;
    }
    rig.app.send(&text("2")).await;
    let ending = rig.ending().await;
    notes.agree_with(&ending);
    let said = notes.said();
    assert!(
        matches!(said[..], [Said::Measured(first), Said::Measured(_), Said::Missed(1, 1), Said::TimedOut]
            if first >= 7 * MILLISECOND && first < 12 * MILLISECOND),
        "{said:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_end_for_another_reason_is_no_timeout() {
    let (mut rig, notes) = observed(Policy::default());
    let ping = rig.client.expect().await;
    rig.client.send(&Frame::new(PONG, &ping.payload)).await;
    rig.control.give(SessionOrder::Drain { code: 1012 });
    assert_eq!(rig.client.expect().await.opcode(), CLOSE);
    notes.agree_with(&rig.ending().await);
    assert_eq!(notes.said().len(), 2, "{:?}", notes.said());
}

#[tokio::test(start_paused = true)]
async fn each_pause_is_told_once() {
    let (mut rig, notes) = observed_with(Plan { pipe: 1024, ..Plan::default() });
    let frame = Frame::new(BINARY, &[3; 5000]);
    for _ in 0..3 {
        rig.client.send_raw_soon(frame.encode(true));
        assert_eq!(rig.app.expect().await, frame);
        sleep(SECOND).await;
    }
    let paused = |from| notes.said().iter().filter(|said| **said == Said::Paused(from)).count();
    let ups = paused(Sender::Client);
    assert!((3..=15).contains(&ups), "{ups} times in 3 frames of 5 pipes each");
    assert_eq!(paused(Sender::Server), 0);
    // The client does not read: the direction is held up, which counts once, however long it lasts.
    rig.app.send_raw_soon(frame.encode(false));
    sleep(SECOND).await;
    assert_eq!(paused(Sender::Server), 1);
    sleep(10 * SECOND).await;
    assert_eq!(paused(Sender::Server), 1);
    assert_eq!(rig.client.expect().await, frame);
    // Bytes that pass at once count no pause.
    let before = notes.said().len();
    rig.client.send(&Frame::new(TEXT, b"small")).await;
    assert_eq!(rig.app.expect().await.payload, b"small");
    assert_eq!(notes.said().len(), before);
}
