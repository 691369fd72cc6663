use std::sync::Arc;
use std::time::{Instant, UNIX_EPOCH};

use super::*;
use crate::heartbeat::{Builtin, HeartbeatStats, Role};
use crate::registry::{Registry, RegistryEntry};
use crate::session::CloseCause;
use crate::ws::Sender;

/// 2026-11-28T16:00:00Z.
const NOON: u64 = 1_795_881_600;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOON + seconds)
}

/// A session of 192.0.2.1 in a registry of its own.
fn entry() -> RegistryEntry {
    let registry = Arc::new(Registry::new(7));
    let liveness = Arc::new(crate::heartbeat::UpstreamLiveness::new(Instant::now()));
    registry.enter(registry.next_id(), Arc::default(), &liveness)
}

fn ending(cause: CloseCause, codes: (u16, u16), texts: (&str, &str)) -> Ending {
    Ending {
        cause,
        client_code: codes.0,
        upstream_code: codes.1,
        close_reason: texts.0.into(),
        upstream_close_reason: texts.1.into(),
        from_client: Traffic { bytes: 3_500, payload: 3_000, messages: 12 },
        from_upstream: Traffic { bytes: 900, payload: 800, messages: 1 },
        heartbeat: HeartbeatStats {
            pings: 13,
            pongs: 12,
            missed: 1,
            rtt_last: Some(Duration::from_millis(41)),
            ..HeartbeatStats::default()
        },
        duration: Duration::from_secs(60),
        last_seen_ago: Duration::from_secs(45),
        last_pong_ago: Some(Duration::from_secs(45)),
    }
}

fn missed() -> Ending {
    let texts = ("heartbeat timeout", "heartbeat timeout");
    ending(CloseCause::HeartbeatTimeout, (1012, 4408), texts)
}

/// Closed at `closed` seconds past the hour, after a minute.
fn closed(closed: u64, ending: Ending) -> Row {
    let entry = entry();
    let live = entry.live();
    let opened_at = at(closed) - ending.duration;
    Row::Closed(Arc::new(ClosedSession::of_times(live, ending, opened_at, at(closed))))
}

fn figures(clock: ViewClock) -> LiveStats {
    let live = entry();
    LiveStats {
        from_client: Traffic { bytes: 3_500, payload: 3_000, messages: 12 },
        rtt: Some(Duration::from_millis(41)),
        rtt_min: Some(Duration::from_millis(40)),
        pings: 13,
        pongs: 12,
        last_seen: clock.instant_of(at(90)),
        next_deadline: Some(clock.instant_of(at(112))),
        awaited: Awaited::Probe,
        ..live.live().live_stats()
    }
}

/// 100 seconds past the hour.
fn now() -> ViewClock {
    ViewClock::at(at(100), Instant::now())
}

fn story(row: &Row, before: &[Row], after: &[Row]) -> String {
    let around = Surroundings { generation: 2, phase: DrainPhase::Serving, before, after };
    let lines = of(row, &around, now());
    lines.into_iter().fold(String::new(), |all, Paragraph { topic, text }| all + &format!("{topic}: {text}\n"))
}

#[test]
fn a_closed_session_has_a_story_from_its_opening_to_its_successor() {
    let left = ending(CloseCause::Closed { by: Sender::Client }, (1001, 1001), ("", ""));
    let before = [closed(5, missed()), closed(0, left), closed(0, missed())];
    let text = story(&closed(80, missed()), &before, &[closed(150, missed())]);
    insta::assert_snapshot!(text, @r#"
    state: Connection 0000000700000001 closed 20 s ago.
    opened: Opened at 2026-11-28T16:00:20Z, 80 s ago, by 192.0.2.1:40000 over HTTP/1.1 without TLS, for /. Route / leads to the app at unix:/app.sock. No user agent. Configuration generation 1; 2 is in force for new sessions.
    heartbeat: After 25 s without a byte from the client a ping, then 20 s for the pong or any other sign of life; one miss ends the session, within 45 s of the last byte (mode protocol).
    round trips: The last took 41 ms; 12 of 13 probes answered, 1 window missed.
    traffic: From the client 12 messages (3.4 KiB), from the app 1 message (900 B).
    end: Ended at 2026-11-28T16:01:20Z, after 60 s: client stopped answering: last pong 45 s ago, RTT was 41 ms. pulsegate began it (heartbeat_timeout).
    client: The client received Close 1012 "heartbeat timeout".
    app: The app received Close 4408 "heartbeat timeout".
    before: 3 earlier sessions of 192.0.2.1 (2 ended as heartbeat_timeout, 1 ended as normal). The last, 0000000700000001, ended 15 s before this one opened, and lived 60 s: client stopped answering: last pong 45 s ago, RTT was 41 ms.
    after: 1 later session of 192.0.2.1 (1 ended as heartbeat_timeout). The first, 0000000700000001, opened 10 s after this one ended, and lived 60 s: client stopped answering: last pong 45 s ago, RTT was 41 ms.
    "#);
}

#[test]
fn an_open_session_has_a_story_with_what_comes_next() {
    let clock = now();
    let figures = figures(clock);
    let policy = Policy::default();
    let all = [
        round_trips(&figures, &policy),
        traffic(figures.from_client, figures.from_upstream) + &last_byte(&figures, clock),
        held(&figures, &policy),
        held(&LiveStats { held_to_client: 45_000, held_to_app: 700, ..figures }, &policy),
        held(&LiveStats { held_to_app: 3_000_000, ..figures }, &policy),
        last_byte(&LiveStats { from_client: Traffic::default(), ..figures }, clock).trim_start().to_owned(),
        round_trips(&LiveStats { rtt: None, pings: 1, pongs: 0, ..figures }, &policy),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    The last took 41 ms, the shortest 40 ms; 12 of 13 probes answered, 0 windows missed, 0 of 1 in a row.
    From the client 12 messages (3.4 KiB), from the app 0 messages (0 B). The client's last byte came 10 s ago.
    Nothing, for either side.
    43 KiB for the client, which reads more slowly than the app sends; 45 s without progress end the session as slow_reader. 700 B for the app, which reads more slowly than the client sends.
    2.8 MiB for the app, which reads more slowly than the client sends.
    The client has sent nothing since the upgrade.
    None measured yet; 0 of 1 probes answered, 0 windows missed, 0 of 1 in a row.
    "#);
}

#[test]
fn every_wait_has_a_sentence_of_its_own() {
    let clock = now();
    let three = Policy { max_missed: 3, ..Policy::default() };
    let by_message = Policy { mode: Builtin::ExpressText.mode(Role::App), ..Policy::default() };
    let waits = Awaited::ALL.map(|awaited| {
        let figures = LiveStats { awaited, ..figures(clock) };
        next(&figures, &Policy::default(), DrainPhase::Serving, clock)
    });
    let mut all = waits.to_vec();
    let waiting = LiveStats { awaited: Awaited::Answer, ..figures(clock) };
    all.push(next(&waiting, &three, DrainPhase::Serving, clock));
    all.push(next(&figures(clock), &by_message, DrainPhase::Announced, clock));
    all.push(next(&LiveStats { closing: true, ..waiting }, &three, DrainPhase::Draining, clock));
    all.push(next(&LiveStats { closing: true, next_deadline: None, ..waiting }, &three, DrainPhase::Serving, clock));
    insta::assert_snapshot!(all.join("\n"), @r#"
    Nothing is due.
    A ping is sent at 2026-11-28T16:01:52Z, in 12 s, unless the client sends something first.
    A probe is due and waits behind other bytes; if the client takes none of them, the session ends at 2026-11-28T16:01:52Z, in 12 s.
    A probe is unanswered; without a sign of life until 2026-11-28T16:01:52Z, in 12 s, the session ends.
    Without a heartbeat of the client until 2026-11-28T16:01:52Z, in 12 s, the session ends.
    The app's next heartbeat is awaited; the client has nothing to answer.
    The app does not take what the client sends; if that lasts until 2026-11-28T16:01:52Z, in 12 s, the session ends.
    A probe is unanswered; without a sign of life until 2026-11-28T16:01:52Z, in 12 s, it is miss 1 of 3.
    The heartbeat message is sent at 2026-11-28T16:01:52Z, in 12 s, unless the client sends something first. A drain is announced and will close the session.
    The session is ending; what is left of both legs is cut at 2026-11-28T16:01:52Z, in 12 s. The proxy is draining and closes every session.
    The session is ending, as soon as what was accepted is delivered.
    "#);
}

#[test]
fn every_heartbeat_is_described() {
    let mut all = Vec::new();
    let with = |mode| Selected { policy: Arc::new(Policy { mode, ..Policy::default() }), why: None, degraded: None };
    all.push(heartbeat(&with(Mode::Off)));
    all.push(heartbeat(&Selected { degraded: Some("compressed: the client is pinged"), ..with(Mode::Protocol) }));
    let strict = Policy { max_missed: 3, liveness: Liveness::PongOnly, ..Policy::default() };
    all.push(heartbeat(&Selected { policy: Arc::new(strict), why: Some("nothing recognised"), degraded: None }));
    for builtin in Builtin::ALL {
        all.extend(builtin.roles().iter().map(|role| heartbeat(&with(builtin.mode(*role)))));
    }
    insta::assert_snapshot!(all.join("\n"), @r#"
    No heartbeat: a silent client is not detected (mode off).
    After 25 s without a byte from the client a ping, then 20 s for the pong or any other sign of life; one miss ends the session, within 45 s of the last byte (mode protocol). Limited (compressed: the client is pinged).
    After 25 s without a byte from the client a ping, then 20 s for the pong or any other sign of life; 3 misses in a row end the session, within 85 s of the last byte (mode protocol). Only answers to the heartbeat are signs of life. Selected by the upgrade (nothing recognised).
    The app sends heartbeats; the client has 20 s to answer each of them (mode passive, profile engine.io).
    After 25 s without a byte from the client the proxy sends the heartbeat message, then 20 s for the client's answer or any other sign of life; one miss ends the session, within 45 s of the last byte (mode app, profile graphql-transport-ws).
    The client sends heartbeats and the proxy answers them; 90 s without one end the session (mode answer, profile graphql-transport-ws).
    After 25 s without a byte from the client a ping, then 20 s for the pong or any other sign of life; one miss ends the session, within 45 s of the last byte (mode passive, profile graphql-ws).
    The client sends heartbeats to the app; 30 s without one after a message of the app end the session (mode passive, profile signalr).
    After 25 s without a byte from the client a ping, then 20 s for the pong or any other sign of life; one miss ends the session, within 45 s of the last byte (mode passive, profile stomp). The protocol's own handshake may agree on another window.
    After 25 s without a byte from the client a ping, then 20 s for the pong or any other sign of life; one miss ends the session, within 45 s of the last byte (mode passive, profile mqtt). The protocol's own handshake may agree on another window.
    The client sends heartbeats to the app; 2 min without one end the session (mode passive, profile phoenix).
    After 25 s without a byte from the client a ping, then 20 s for the pong or any other sign of life; one miss ends the session, within 45 s of the last byte (mode passive, profile actioncable).
    The client sends heartbeats to the app when both sides are quiet; 3 min of silence end the session (mode passive, profile pusher). The protocol's own handshake may agree on another window.
    After 25 s without a byte from the client the proxy sends the heartbeat message, then 20 s for the client's answer or any other sign of life; one miss ends the session, within 45 s of the last byte (mode app, profile express-text).
    The client sends heartbeats and the proxy answers them; 90 s without one end the session (mode answer, profile express-text).
    "#);
}

#[test]
fn each_leg_ends_with_what_it_sent_or_received() {
    let ends = [
        missed(),
        ending(CloseCause::SlowReader, (1006, 4408), ("", "slow reader")),
        ending(CloseCause::Closed { by: Sender::Client }, (1000, 1000), ("bye", "bye")),
        ending(CloseCause::Closed { by: Sender::Client }, (1006, 1006), ("", "")),
        ending(CloseCause::Closed { by: Sender::Server }, (1005, 1005), ("", "")),
    ];
    let all = ends.map(|ending| format!("{} {}", client_end(&ending), app_end(&ending)));
    insta::assert_snapshot!(all.join("\n"), @r#"
    The client received Close 1012 "heartbeat timeout". The app received Close 4408 "heartbeat timeout".
    The client received no Close (1006). The app received Close 4408 "slow reader".
    The client sent Close 1000 "bye". The app received Close 1000 "bye".
    The client sent no Close (1006). The app received no Close (1006).
    The client received a Close without a code (1005). The app sent a Close without a code (1005).
    "#);
}

#[test]
fn a_client_that_has_not_come_back_and_one_beside_it_differ() {
    let beside = entry();
    let registry = beside.registry();
    let Some(crate::registry::FoundSession::Live(live)) = registry.find(beside.live().id) else { panic!("it lives") };
    let live = Row::from(live);
    let ended = closed(80, missed());
    let alone = [before(&ended, &[]), after(&ended, &[]), after(&live, &[])];
    insta::assert_snapshot!(alone.join("\n"), @r#"
    No earlier session of 192.0.2.1 is open or remembered.
    No later session of 192.0.2.1 is open or remembered: the client has not come back so far.
    No later session of 192.0.2.1 is open or remembered.
    "#);
    let text = before(&ended, std::slice::from_ref(&live));
    assert!(text.starts_with("1 earlier session of 192.0.2.1. The last, 0000000700000001, opened "), "{text}");
    assert!(text.ends_with(" before this one and is open."), "{text}");
}

#[test]
fn sizes_are_rounded_down_to_two_figures() {
    let sizes = [0, 1023, 1024, 3_500, 10_240, 1_048_576, u64::from(u32::MAX)].map(bytes);
    assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "3.4 KiB", "10 KiB", "1.0 MiB", "3.9 GiB"]);
}
