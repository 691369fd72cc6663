//! In `app` mode, over real frames: a client that answers in time stays connected, whatever the app does meanwhile; one
//! that stops is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use pulsegate::heartbeat::{Builtin, Policy, Role};
use pulsegate::relay::Partial;
use pulsegate::session::EndReason;
use tokio::time::{Instant, sleep, timeout};

use crate::model::{config, session};
use crate::rig::{CLOSE, CONTINUATION, End, Frame, PING, PONG, Plan, Rig, TEXT};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
enum Act {
    /// The app begins a message, continues it, or ends it.
    Fragment {
        last: bool,
    },
    Message,
    /// The app sends a probe of its own, if it is between two messages.
    Asks,
    Nothing,
}

/// The delay and the framing of one answer.
#[derive(Clone, Copy, Debug)]
struct Manner {
    after_ms: u64,
    /// Time between the two fragments of the answer, if it has two.
    apart_ms: Option<u64>,
}

fn act() -> impl Strategy<Value = (u64, Act)> {
    let act = prop_oneof![
        1 => Just(Act::Fragment { last: false }),
        2 => Just(Act::Fragment { last: true }),
        1 => Just(Act::Message),
        1 => Just(Act::Asks),
        1 => Just(Act::Nothing),
    ];
    (prop_oneof![0..5_000u64, 0..40_000u64], act)
}

fn manner() -> impl Strategy<Value = Manner> {
    (0..12_000u64, proptest::option::of(0..7_000u64)).prop_map(|(after_ms, apart_ms)| Manner { after_ms, apart_ms })
}

/// Runs a client that answers in its `manners`, one after the other, while it `answers`.
async fn client(mut end: End, manners: Vec<Manner>, answers: Arc<AtomicBool>) {
    let mut manners = manners.into_iter().cycle();
    while let Some(frame) = end.frame().await {
        if !answers.load(Ordering::Relaxed) {
            continue;
        }
        assert_ne!(frame.opcode(), CLOSE, "it lives");
        if frame.opcode() == PING {
            end.send(&Frame::new(PONG, &frame.payload)).await;
        } else if frame == Frame::new(TEXT, b"ping") {
            let manner = manners.next().expect("there is no end of them");
            sleep(Duration::from_millis(manner.after_ms)).await;
            match manner.apart_ms {
                None => end.send(&Frame::new(TEXT, b"pong")).await,
                Some(apart_ms) => {
                    end.send(&Frame { first: TEXT, payload: b"po".to_vec() }).await;
                    sleep(Duration::from_millis(apart_ms)).await;
                    end.send(&Frame { first: 0x80 | CONTINUATION, payload: b"ng".to_vec() }).await;
                }
            }
        }
    }
}

async fn live_and_die(acts: Vec<(u64, Act)>, manners: Vec<Manner>) {
    let policy = Policy { mode: Builtin::ExpressText.mode(Role::App), ..Policy::default() };
    let Rig { client: end, mut app, .. } = Rig::with(Plan { policy, ..Plan::default() });
    let answers = Arc::new(AtomicBool::new(true));
    let client = tokio::spawn(client(end, manners, Arc::clone(&answers)));
    let (mut is_open, mut asked) = (false, 0);
    for (wait_ms, act) in acts {
        sleep(Duration::from_millis(wait_ms)).await;
        let first = |last| if is_open { CONTINUATION } else { TEXT } | if last { 0x80 } else { 0 };
        match act {
            Act::Fragment { last } => {
                app.send(&Frame { first: first(last), payload: b"news".to_vec() }).await;
                is_open = !last;
            }
            Act::Message if !is_open => app.send(&Frame::new(TEXT, b"whole news")).await,
            Act::Asks if !is_open => {
                app.send(&Frame::new(TEXT, b"ping")).await;
                asked += 1;
            }
            Act::Message | Act::Asks | Act::Nothing => {}
        }
    }
    // Answers to the app's own probes go to the app, and it receives nothing else.
    answers.store(false, Ordering::Relaxed);
    let silent_from = Instant::now();
    let mut answered = 0;
    let close = loop {
        let frame = app.expect().await;
        if frame.opcode() == CLOSE {
            break frame;
        }
        answered += usize::from(frame.opcode() != CONTINUATION);
    };
    assert_eq!(close, Frame::close(4408, "heartbeat timeout"));
    assert!(answered <= asked, "{answered} answers to {asked} questions of the app's");
    // It may yet finish an answer; a message left open makes its question wait for one more window.
    let bound = 19 * SECOND + 45 * SECOND + if is_open { 20 * SECOND } else { SECOND };
    assert!(silent_from.elapsed() <= bound, "{:?}", silent_from.elapsed());
    timeout(10 * SECOND, client).await.expect("its leg ends").expect("it was never told to go while it answered");
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn who_answers_lives_and_who_stops_is_gone(acts in vec(act(), 1..40), manners in vec(manner(), 1..6)) {
        session(live_and_die(acts, manners));
    }
}

/// Bytes of an unfinished record arrive every ten seconds.
async fn trickles(rig: &mut Rig, time: Duration) {
    let mut len = 0;
    let begun = rig.elapsed();
    while rig.elapsed() - begun < time {
        len += 100;
        let at = tokio::time::Instant::now().into_std();
        *rig.client_partial.lock().unwrap() = Some(Partial { at, len });
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn s56_bytes_of_an_unfinished_record_are_signs_of_life_and_held_memory() {
    let mut rig = Rig::new();
    trickles(&mut rig, Duration::from_secs(500)).await;
    rig.app.send(&Frame::new(TEXT, b"news")).await;
    while rig.client.expect().await != Frame::new(TEXT, b"news") {}
    assert_eq!(rig.memory.to_app(), 5000);
    assert!(!rig.control.live_stats().closing);
    // The bytes stop; the session ends within its bound.
    let stopped = rig.elapsed();
    let ending = rig.ending().await;
    assert_eq!(ending.cause.reason(), EndReason::HeartbeatTimeout);
    assert!(ending.duration - stopped <= Duration::from_secs(45 + 2), "{:?}", ending.duration);
}

#[tokio::test(start_paused = true)]
async fn s56_an_unfinished_record_is_an_unfinished_frame() {
    let mut rig = Rig::new();
    let partial = std::sync::Arc::clone(&rig.client_partial);
    tokio::spawn(async move {
        for len in 1.. {
            let at = tokio::time::Instant::now().into_std();
            *partial.lock().unwrap() = Some(Partial { at, len });
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    });
    rig.app.send(&Frame::new(TEXT, b"news")).await;
    let ending = rig.ending().await;
    assert_eq!(ending.cause.reason(), EndReason::Trickle);
    assert!(ending.duration <= Duration::from_secs(660), "{:?}", ending.duration);
}

#[tokio::test(start_paused = true)]
async fn s28_what_lay_unread_in_a_stop_is_judged_by_clocks_that_stood_still_as_long() {
    let mut rig = Rig::new();
    while rig.client.expect().await.opcode() != PING {}
    // The ping arrives while the client is in the middle of a frame; that one ends in the stop, and a long one begins.
    let long = Frame::new(TEXT, &[b'x'; 100]).encode(true);
    rig.client.send_raw(&[Frame::new(TEXT, b"short").encode(true), long[..8].to_vec()].concat()).await;
    tokio::time::advance(Duration::from_secs(60)).await;
    for byte in &long[8..60] {
        rig.client.send_raw(&[*byte]).await;
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    assert!(!rig.control.live_stats().closing, "{:?}", rig.control.live_stats());
    rig.client.send_raw(&long[60..]).await;
    assert_eq!(rig.app.expect().await, Frame::new(TEXT, b"short"));
    assert_eq!(rig.app.expect().await, Frame::new(TEXT, &[b'x'; 100]));
}
