//! The live statistics of a session follow its state.

use std::time::Duration;

use pulsegate::heartbeat::{Awaited, Builtin, Policy, Role};
use pulsegate::relay::{Control, SessionOrder};
use pulsegate::session::{EndReason, LiveStats, Traffic};
use tokio::time::{Instant, sleep};

use crate::messages::{asked, text};
use crate::rig::{BINARY, CLOSE, Frame, PING, PONG, Plan, Rig, TEXT};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Returns the statistics after the session has been polled.
async fn vitals(rig: &Rig) -> LiveStats {
    sleep(MILLISECOND).await;
    rig.control.live_stats()
}

/// Returns the time since `instant`.
fn ago(instant: std::time::Instant) -> Duration {
    Instant::now().into_std().saturating_duration_since(instant)
}

#[tokio::test(start_paused = true)]
async fn a_session_that_has_just_opened_has_its_first_probe_before_it_and_nothing_else() {
    let rig = Rig::new();
    let vitals = vitals(&rig).await;
    let opened = rig.opened.into_std();
    let deadline = vitals.next_deadline.expect("a probe will be due");
    assert!(deadline > opened + 12 * SECOND && deadline <= opened + 25 * SECOND, "{:?}", deadline - opened);
    let blank = LiveStats {
        from_client: Traffic::default(),
        from_upstream: Traffic::default(),
        held_to_app: 0,
        held_to_client: 0,
        last_seen: opened,
        last_pong: None,
        rtt: None,
        rtt_min: None,
        misses: 0,
        missed: 0,
        pings: 0,
        pongs: 0,
        next_deadline: Some(deadline),
        awaited: Awaited::Probe,
        closing: false,
    };
    assert_eq!(vitals, blank);
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_is_shown_as_it_is_without_being_asked() {
    let mut rig = Rig::new();
    rig.client.send(&Frame::new(TEXT, b"hello")).await;
    rig.app.expect().await;
    sleep(10 * SECOND).await;
    let seen = vitals(&rig).await;
    let idle = ago(seen.last_seen);
    assert!(idle >= 10 * SECOND && idle < 10 * SECOND + 10 * MILLISECOND, "{idle:?}");
    let due = seen.next_deadline.expect("a probe will be due");
    let ping = rig.client.expect().await;
    assert_eq!(ping.opcode(), PING);
    let late = ago(due);
    assert!(
        late < 10 * MILLISECOND && Instant::now().into_std() >= due,
        "the probe left when it was said to: {late:?}"
    );
    // It is answered after 41 ms, and the next one after 100 ms.
    for (round, rtt) in [(1, 41), (2, 100)] {
        let ping = if round == 1 { ping.clone() } else { rig.client.expect().await };
        let waiting = rig.control.live_stats();
        assert_eq!((waiting.pings, waiting.pongs, waiting.awaited), (round, round - 1, Awaited::Answer));
        let window =
            waiting.next_deadline.expect("the window ends").saturating_duration_since(Instant::now().into_std());
        assert!(window > 19 * SECOND && window <= 20 * SECOND, "{window:?}");
        sleep(rtt * MILLISECOND).await;
        rig.client.send(&Frame::new(PONG, &ping.payload)).await;
        let answered = vitals(&rig).await;
        assert_eq!((answered.pings, answered.pongs, answered.misses, answered.missed), (round, round, 0, 0));
        let measured = answered.rtt.expect("a measured round trip");
        assert!(measured >= rtt * MILLISECOND && measured <= (rtt + 2) * MILLISECOND, "{measured:?}");
        assert!(answered.rtt_min.is_some_and(|min| min <= 43 * MILLISECOND), "{:?}", answered.rtt_min);
        assert!(ago(answered.last_pong.expect("a pong")) <= 2 * MILLISECOND);
        assert_eq!(answered.awaited, Awaited::Probe);
        let next = answered.next_deadline.expect("the next probe").saturating_duration_since(Instant::now().into_std());
        assert!(next > 19 * SECOND && next <= 25 * SECOND, "{next:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn traffic_is_counted_as_the_ending_counts_it() {
    let mut rig = Rig::new();
    let mut shown = Vec::new();
    for size in [1, 200, 70_000] {
        let frame = Frame::new(BINARY, &vec![7; size]);
        rig.client.send(&frame).await;
        assert_eq!(rig.app.expect().await, frame);
        rig.app.send(&frame).await;
        assert_eq!(rig.client.expect().await, frame);
        let LiveStats { from_client, from_upstream, .. } = vitals(&rig).await;
        assert_eq!(from_client.bytes - from_upstream.bytes, 4 * from_client.messages, "masks");
        shown.push(from_client.messages);
    }
    assert_eq!(shown, [1, 2, 3]);
    let control = std::sync::Arc::clone(&rig.control);
    rig.control.give(SessionOrder::Drain { code: 1012 });
    let ending = rig.ending().await;
    assert_eq!(control.traffic(), (ending.from_client, ending.from_upstream));
    assert_eq!(ending.from_client.payload, 70_201);
}

#[tokio::test(start_paused = true)]
async fn misses_in_a_row_are_forgotten_by_a_sign_of_life() {
    let policy = Policy { max_missed: 3, ..Policy::default() };
    let mut rig = Rig::with(Plan { policy, ..Plan::default() });
    for missed in 0..3 {
        assert_eq!(rig.client.expect().await.opcode(), PING);
        let vitals = vitals(&rig).await;
        assert_eq!((vitals.misses, vitals.missed), (missed, u64::from(missed)));
    }
    rig.client.send(&Frame::new(TEXT, b"here")).await;
    let vitals = vitals(&rig).await;
    assert_eq!((vitals.misses, vitals.missed), (0, 2));
    assert_eq!(rig.app.expect().await.payload, b"here");
}

#[tokio::test(start_paused = true)]
async fn what_is_held_is_shown_for_as_long_as_it_is() {
    let mut rig = Rig::with(Plan { pipe: 1024, ..Plan::default() });
    let frame = Frame::new(BINARY, &[3; 2000]);
    rig.client.send_raw_soon(frame.encode(true));
    rig.app.send_raw_soon(frame.encode(false));
    let holding = vitals(&rig).await;
    assert!(holding.held_to_app > 0 && holding.held_to_client > 0, "{holding:?}");
    assert_eq!(rig.app.expect().await, frame);
    assert_eq!(rig.client.expect().await, frame);
    let free = vitals(&rig).await;
    assert_eq!((free.held_to_app, free.held_to_client), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_session_is_closing_from_the_first_close_on() {
    let mut rig = Rig::new();
    assert!(!vitals(&rig).await.closing);
    rig.client.send(&Frame::close(1000, "bye")).await;
    let closing = vitals(&rig).await;
    assert!(closing.closing);
    let left = closing.next_deadline.expect("it is cut off").saturating_duration_since(Instant::now().into_std());
    assert!(left > 19 * SECOND && left <= 20 * SECOND, "the app has `timeout` for its answer: {left:?}");
    assert_eq!(rig.app.expect().await.opcode(), CLOSE);
}

#[tokio::test(start_paused = true)]
async fn the_ending_says_how_long_the_client_had_been_silent() {
    let mut rig = Rig::new();
    let ping = rig.client.expect().await;
    sleep(41 * MILLISECOND).await;
    rig.client.send(&Frame::new(PONG, &ping.payload)).await;
    let answered = Instant::now();
    sleep(SECOND).await;
    rig.client.send(&Frame::new(TEXT, b"one more word")).await;
    let spoke = Instant::now();
    assert_eq!(rig.app.expect().await.opcode(), TEXT);
    assert_eq!(rig.client.expect().await.opcode(), PING);
    assert_eq!(rig.client.expect().await.opcode(), CLOSE);
    let (pong_ago, seen_ago) = (answered.elapsed(), spoke.elapsed());
    // The client's answer to the Close is no sign of life.
    rig.client.send(&Frame::close(1001, "")).await;
    let ending = rig.ending().await;
    assert_eq!(ending.cause.reason(), EndReason::HeartbeatTimeout);
    let told = ending.last_pong_ago.expect("there was a pong");
    assert!(told.abs_diff(pong_ago) < 5 * MILLISECOND, "{told:?}, not {pong_ago:?}");
    assert!(ending.last_seen_ago.abs_diff(seen_ago) < 5 * MILLISECOND, "{:?}, not {seen_ago:?}", ending.last_seen_ago);
    assert!(ending.heartbeat.rtt_last.is_some_and(|rtt| rtt >= 41 * MILLISECOND && rtt < 45 * MILLISECOND));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_answered_has_no_last_pong() {
    let mut rig = Rig::new();
    assert_eq!(rig.client.expect().await.opcode(), PING);
    let ending = rig.ending().await;
    assert_eq!((ending.cause.reason(), ending.last_pong_ago), (EndReason::HeartbeatTimeout, None));
    assert!(ending.last_seen_ago >= 32 * SECOND, "since it opened: {:?}", ending.last_seen_ago);
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_of_messages_is_shown_like_any_other() {
    let policy = Policy { mode: Builtin::ExpressText.mode(Role::App), ..Policy::default() };
    let mut rig = Rig::with(Plan { policy, ..Plan::default() });
    asked(&mut rig).await;
    sleep(30 * MILLISECOND).await;
    rig.client.send(&text("pong")).await;
    let shown = vitals(&rig).await;
    assert_eq!((shown.pings, shown.pongs, shown.misses), (1, 1, 0));
    assert!(shown.rtt.is_some_and(|rtt| rtt >= 30 * MILLISECOND && rtt < 35 * MILLISECOND), "{:?}", shown.rtt);
    let due = shown.next_deadline.expect("the next question");
    asked(&mut rig).await;
    assert!(ago(due) < 10 * MILLISECOND, "{:?}", ago(due));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_to_speak_by_itself_is_expected_until_its_window_ends() {
    let policy = Policy { mode: Builtin::ExpressText.mode(Role::Answer), ..Policy::default() };
    let mut rig = Rig::with(Plan { policy, ..Plan::default() });
    sleep(30 * SECOND).await;
    rig.client.send(&text("ping")).await;
    assert_eq!(rig.client.expect().await, text("pong"));
    let shown = vitals(&rig).await;
    assert_eq!((shown.pings, shown.pongs, shown.misses), (0, 0, 0), "nobody asks it");
    assert!(ago(shown.last_pong.expect("it has beaten")) < 5 * MILLISECOND);
    let due = shown.next_deadline.expect("its window ends");
    assert_eq!(rig.client.expect().await.opcode(), CLOSE);
    assert!(ago(due) < 10 * MILLISECOND, "{:?}", ago(due));
    let ending = rig.ending().await;
    assert!(ending.last_pong_ago.is_some_and(|ago| ago >= 89 * SECOND && ago <= 91 * SECOND), "{ending:?}");
}

#[test]
fn what_a_session_shows_costs_it_little_memory() {
    // With the reference counts, still 224 bytes in the allocator.
    assert!(size_of::<Control>() <= 208, "{}", size_of::<Control>());
}
