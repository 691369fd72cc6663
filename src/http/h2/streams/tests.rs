use std::time::Duration;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn of(mode: Mode, seconds: u32) -> Arc<Policy> {
    Arc::new(Policy { mode, interval: SECOND * seconds, timeout: SECOND * seconds, ..Policy::default() })
}

/// Streams of which the first has handed `handed` bytes to the library.
fn handed(handed: usize) -> Streams {
    let mut streams = Streams::default();
    streams.open(1, StreamKind::WebSocket);
    streams.open(3, StreamKind::WebSocket);
    streams.hand(1, handed);
    streams
}

/// The library writes `bytes` of a stream in one frame.
fn write(streams: &mut Streams, id: u32, bytes: usize) {
    streams.spend(id, bytes, Instant::now());
    streams.emit(id, bytes, false);
}

/// Returns the position of stream `id` on a connection with `of_all` acknowledged bytes that is quiet.
fn position(streams: &mut Streams, id: u32, of_all: u64) -> u64 {
    let now = Instant::now();
    streams.acked(id, Delivery { acked: of_all, unread: false }, now, now)
}

#[test]
fn s72_what_the_library_holds_has_not_come_as_far_as_the_connection() {
    let mut streams = handed(50_000);
    write(&mut streams, 1, 20_000);
    streams.drained(20_100, &mut Vec::new());
    assert_eq!(streams.end_of(1), None, "30,000 bytes are left, in an open window");
    assert_eq!(position(&mut streams, 1, 15_000), 15_000, "it moves with the connection");
    write(&mut streams, 1, 30_000);
    assert_eq!(streams.end_of(1), None, "not in the socket yet");
    streams.drained(50_200, &mut Vec::new());
    assert_eq!(streams.end_of(1), Some(50_200));
    assert_eq!(position(&mut streams, 1, 50_199), 50_199, "on its way");
    assert_eq!(position(&mut streams, 1, 99_999), 50_200, "arrived; what others send says nothing about it");
}

#[test]
fn s41_a_stream_whose_window_is_shut_does_not_move_with_the_connection() {
    let mut streams = handed(100_000);
    streams.set_initial_window(16_000);
    write(&mut streams, 1, 16_000);
    streams.drained(16_100, &mut Vec::new());
    assert_eq!(position(&mut streams, 1, 16_100), 16_100);
    write(&mut streams, 3, 9_000);
    streams.drained(26_000, &mut Vec::new());
    assert_eq!(position(&mut streams, 1, 26_000), 16_100, "the others' progress is not its own");
    streams.widen(1, 8_000);
    assert_eq!(position(&mut streams, 1, 26_000), 26_000, "it waits for its turn");
    write(&mut streams, 1, 8_000);
    streams.drained(34_100, &mut Vec::new());
    streams.set_initial_window(8_000);
    assert_eq!(position(&mut streams, 1, 99_999), 34_100, "SETTINGS have shut it (RFC 9113 §6.9.2)");
    streams.set_initial_window(1_000_000);
    streams.spend(3, 65_535 - 16_000 - 9_000 - 8_000, Instant::now());
    assert_eq!(position(&mut streams, 1, 99_999), 34_100, "the connection's window is shut");
    streams.widen(0, 1);
    assert_eq!(position(&mut streams, 1, 99_999), 99_999);
}

#[test]
fn s73_a_stream_that_waits_for_the_window_of_the_connection_moves_with_the_bytes_of_others() {
    // Its bytes are in the library, or find no room there.
    for held in [50_000, 0] {
        let mut streams = handed(held);
        streams.widen(3, 1_000_000);
        streams.want_room(1);
        let mut written = 0;
        for turn in 1..=5 {
            write(&mut streams, 3, 65_535);
            let acked = written + 30_000;
            assert_eq!(
                position(&mut streams, 1, acked),
                acked,
                "{held} held, turn {turn}: bytes of the other are written"
            );
            written += 65_535 + 9;
            streams.drained(written, &mut Vec::new());
            assert_eq!(position(&mut streams, 1, written), written, "{held} held, turn {turn}: the window is used up");
            streams.widen(0, 65_535);
        }
        streams.spend(3, 65_535, Instant::now());
        streams.emit_ping();
        streams.drained(written + 17, &mut Vec::new());
        assert_eq!(position(&mut streams, 1, written + 17), written, "a PING is no progress while the window is shut");
        streams.widen(0, 65_535);
        streams.set_initial_window(0);
        write(&mut streams, 3, 1000);
        streams.drained(written + 1026, &mut Vec::new());
        assert_eq!(position(&mut streams, 1, written + 1026), written, "nor are bytes of others while its own is shut");
    }
}

#[test]
fn s74_the_clocks_are_those_of_the_most_patient() {
    let mut streams = Streams::default();
    assert_eq!(streams.heartbeats.clocks(), None);
    for id in [1, 3, 5] {
        streams.open(id, StreamKind::WebSocket);
    }
    let (quick, slow, off) = (of(Mode::Protocol, 1), of(Mode::Protocol, 30), of(Mode::Off, 1));
    streams.follow(1, &quick);
    assert!(streams.heartbeats.take_changed());
    assert_eq!(
        streams.heartbeats.clocks().map(|clocks| (clocks.interval, clocks.timeout)),
        Some((SECOND, Some(SECOND)))
    );
    streams.follow(3, &slow);
    let clocks = streams.heartbeats.clocks().expect("two streams");
    assert_eq!((clocks.interval, clocks.timeout, clocks.spares_some), (SECOND * 30, Some(SECOND * 30), false));
    streams.follow(5, &off);
    let clocks = streams.heartbeats.clocks().expect("three streams");
    assert_eq!((clocks.timeout, clocks.spares_some), (Some(SECOND * 30), true));
    assert!(streams.is_off(5) && !streams.is_off(3));
    streams.close(3);
    assert_eq!(streams.heartbeats.clocks().and_then(|clocks| clocks.timeout), Some(SECOND));
    streams.close(1);
    assert_eq!(streams.heartbeats.clocks().map(|clocks| (clocks.timeout, clocks.spares_some)), Some((None, true)));
    assert!(streams.heartbeats.take_changed() && !streams.heartbeats.take_changed());
}

#[test]
fn a_session_that_may_miss_several_has_that_much_time() {
    let mut streams = Streams::default();
    streams.open(1, StreamKind::WebSocket);
    let patient = Policy { max_missed: 3, timeout: 2 * SECOND, ..Policy::default() };
    streams.follow(1, &Arc::new(patient.clone()));
    assert_eq!(streams.heartbeats.clocks().and_then(|clocks| clocks.timeout), Some(6 * SECOND));
    streams.follow(1, &Arc::new(Policy { adaptive: true, ..patient }));
    assert_eq!(streams.heartbeats.clocks().and_then(|clocks| clocks.timeout), Some(180 * SECOND));
}

/// Answers the PINGs that are wanted, which must be `count`.
fn answer_pings(streams: &mut Streams, count: usize) {
    for turn in 0..count {
        assert!(streams.wants_ping(), "PING {turn} of {count}");
        streams.ping_sent();
        streams.ping_answered();
    }
    assert!(!streams.wants_ping(), "more than {count} PINGs");
}

#[test]
fn s75_what_shows_that_a_stream_is_silent_is_there_when_its_time_is_over() {
    let probed = Instant::now();
    let window = 20 * SECOND;
    let mut streams = handed(0);
    streams.follow(1, &of(Mode::Protocol, 20));
    streams.take_changed();
    streams.await_answer(1, probed, window);
    assert!(streams.take_changed(), "the connection's timer is to be set");
    streams.inquire(probed + 9 * SECOND);
    assert!(!streams.wants_ping());
    let half = streams.inquire_at().expect("PINGs in time");
    assert_eq!(half, probed + window / 2);
    streams.inquire(half);
    answer_pings(&mut streams, 2);
    let (deadline, heard) = (probed + window, probed + 19 * SECOND);
    assert!(!streams.is_on_its_way(1, deadline, heard, false), "judged at its deadline, not later");
    assert!(!streams.is_on_its_way(1, deadline + SECOND, heard, false), "and so at every later look");
    assert_eq!(streams.inquire_at(), None);
}

#[test]
fn s75_a_stream_is_spared_while_later_pings_of_its_connection_are_not_answered() {
    let probed = Instant::now();
    let mut streams = handed(0);
    streams.follow(1, &of(Mode::Protocol, 20));
    streams.await_answer(1, probed, 20 * SECOND);
    streams.inquire(probed + 10 * SECOND);
    let (deadline, heard) = (probed + 20 * SECOND, probed + 19 * SECOND);
    streams.ping_sent();
    assert!(streams.is_on_its_way(1, deadline, heard, false));
    streams.ping_answered();
    assert!(streams.is_on_its_way(1, deadline, heard, false), "the first answer may be ahead of what is queued");
    answer_pings(&mut streams, 1);
    assert!(streams.is_on_its_way(1, deadline, heard, true), "bytes are about to be read");
    assert!(!streams.is_on_its_way(1, deadline + SECOND, deadline + SECOND, true), "they have been");
    assert!(!streams.is_on_its_way(1, deadline, heard, false));

    // A later probe is another question; one that was answered asks for no PING.
    streams.await_answer(1, deadline, 20 * SECOND);
    assert!(streams.is_on_its_way(1, deadline + SECOND, deadline, false));
    streams.record_received(1);
    streams.inquire(deadline + 10 * SECOND);
    assert!(!streams.wants_ping());
    // What was heard may have been no answer.
    assert!(streams.is_on_its_way(1, deadline + 20 * SECOND, deadline + 19 * SECOND, false));
    answer_pings(&mut streams, 2);
    streams.record_received(1);
    assert!(!streams.is_on_its_way(1, deadline + 21 * SECOND, deadline + 20 * SECOND, false), "nor was this");
}

#[test]
fn s75_a_wait_that_moves_a_little_with_every_look_keeps_its_pings() {
    const MS: Duration = Duration::from_millis(1);
    let probed = Instant::now();
    let window = 500 * MS;
    let mut streams = handed(0);
    streams.follow(1, &of(Mode::Protocol, 20));
    streams.await_answer(1, probed, window);
    streams.inquire(probed + window / 2);
    let mut now = probed + window;
    // Each look comes a little late, which moves the wait, and finds one PING answered.
    for look in 1..=5 {
        streams.await_answer(1, probed + look * MS, window);
        streams.inquire(now);
        if !streams.is_on_its_way(1, now, now, false) {
            return;
        }
        assert!(streams.wants_ping(), "nothing is waited for, at look {look}");
        streams.ping_sent();
        streams.ping_answered();
        now += 101 * MS;
    }
    panic!("five PINGs were answered, and the stream is spared still");
}

#[test]
fn s75_a_wait_that_begins_anew_needs_pings_of_its_own() {
    let probed = Instant::now();
    let mut streams = handed(0);
    streams.follow(1, &of(Mode::Protocol, 20));
    streams.await_answer(1, probed, 20 * SECOND);
    streams.inquire(probed + 10 * SECOND);
    answer_pings(&mut streams, 2);
    // The process was stopped, and the client has a fresh window.
    let (resumed, deadline) = (probed + 60 * SECOND, probed + 80 * SECOND);
    streams.await_answer(1, resumed, 20 * SECOND);
    streams.inquire(resumed + 10 * SECOND);
    assert!(streams.is_on_its_way(1, deadline, deadline, false));
    answer_pings(&mut streams, 2);
    assert!(!streams.is_on_its_way(1, deadline, deadline, false));
}

#[test]
fn s75_a_stream_is_judged_when_its_connection_has_been_quiet() {
    let probed = Instant::now();
    let mut streams = handed(0);
    streams.follow(1, &of(Mode::Protocol, 20));
    streams.await_answer(1, probed, 20 * SECOND);
    assert!(streams.is_on_its_way(1, probed + 19 * SECOND, probed, false));
    assert!(!streams.is_on_its_way(1, probed + 20 * SECOND, probed, false), "quiet for its window");
}

#[test]
fn s41_a_stream_whose_window_update_may_be_on_its_way_is_spared() {
    let shut = Instant::now();
    for of_connection in [false, true] {
        let mut streams = handed(100_000);
        let policy = Policy { write_stall: 8 * SECOND, ..Policy::default() };
        streams.follow(1, &Arc::new(policy));
        streams.widen(u32::from(of_connection), 1_000_000);
        streams.spend(1, 65_535, shut);
        streams.emit(1, 65_535, false);
        streams.drained(65_544, &mut Vec::new());
        let look = |streams: &mut Streams, after: u32, heard: u32| {
            let of_all = Delivery { acked: 65_544, unread: false };
            streams.acked(1, of_all, shut + after * SECOND, shut + heard * SECOND)
        };
        let arrived = look(&mut streams, 1, 1);
        assert_eq!(look(&mut streams, 3, 3), arrived);
        assert!(!streams.wants_ping(), "a short wait costs nothing");
        assert_eq!(look(&mut streams, 4, 4), arrived);
        assert!(streams.wants_ping(), "half of write_stall is left for the answers");
        streams.ping_sent();
        let spared = look(&mut streams, 8, 8);
        assert!(spared > arrived, "the PING is not answered: the WINDOW_UPDATE may stand before the answer");
        assert_eq!(look(&mut streams, 9, 1), spared, "nothing has come for write_stall");
        streams.ping_answered();
        answer_pings(&mut streams, 1);
        assert_eq!(look(&mut streams, 16, 16), spared, "the client does not read the stream");

        // Another wait is another question.
        streams.widen(u32::from(!of_connection), 10);
        streams.spend(1, 10, shut + 20 * SECOND);
        let before = look(&mut streams, 21, 21);
        assert!(!streams.wants_ping());
        assert!(look(&mut streams, 28, 28) > before, "a proxy that was stopped asks first");
        answer_pings(&mut streams, 2);
    }
}

#[test]
fn s73_a_response_that_waits_for_its_turn_is_measured_by_what_the_client_takes_of_others() {
    let (now, stall) = (Instant::now(), 8 * SECOND);
    let mut streams = Streams::default();
    streams.open(1, StreamKind::Plain);
    streams.open(3, StreamKind::Plain);
    streams.widen(1, 1_000_000);
    streams.widen(3, 1_000_000);
    let look = |streams: &mut Streams, of_all: u64, after: u32| {
        let of_all = Delivery { acked: of_all, unread: false };
        streams.taken(1, Some(of_all), now + after * SECOND, now + after * SECOND, stall)
    };
    assert!(!look(&mut streams, 0, 0).is_behind, "nothing waits");
    streams.want_room(1);
    write(&mut streams, 3, 65_535);
    streams.drained(65_544, &mut Vec::new());
    streams.emit_ping();
    streams.drained(65_561, &mut Vec::new());
    let taken = look(&mut streams, 65_561, 1);
    assert_eq!((taken.of_all, taken.is_behind), (Some(65_544), true), "a PING is no progress");
    assert!(!look(&mut streams, 65_561, 5).awaits_update, "there is time left");
    assert!(streams.wants_ping(), "for the answers that show whether the client reads");
    assert!(look(&mut streams, 65_561, 8).awaits_update, "the WINDOW_UPDATE may stand before the answer");
    answer_pings(&mut streams, 2);
    assert!(!look(&mut streams, 65_561, 8).awaits_update, "the client takes nothing");
    streams.set_initial_window(0);
    streams.spend(1, 1_000_000, now);
    assert!(!look(&mut streams, 65_561, 8).is_behind, "its own window is shut");
}

#[test]
fn s57_a_stream_of_which_nothing_is_held_moves_as_its_own_bytes_are_acknowledged() {
    let mut streams = handed(0);
    let mut written = 0;
    for _ in 0..5 {
        streams.hand(1, 1000);
        write(&mut streams, 1, 1000);
        written += 1009;
        streams.drained(written, &mut Vec::new());
        assert_eq!(position(&mut streams, 1, written), written, "what the app sends and the client takes is progress");
    }
    write(&mut streams, 3, 50_000);
    streams.drained(written + 50_009, &mut Vec::new());
    assert_eq!(position(&mut streams, 1, written + 50_009), written, "what others take is not");
}

#[test]
fn s72_a_stream_that_is_next_has_not_arrived_before_its_bytes_are_in_the_socket() {
    let mut streams = handed(10);
    assert!(streams.is_next(1, 1010));
    assert_eq!(position(&mut streams, 1, 1000), 1000);
    assert_eq!(position(&mut streams, 1, 5000), 1001, "what others put before it is no arrival, but progress");
    assert_eq!(position(&mut streams, 1, 5000), 1001, "as long as they move");
    for look in 1..20 {
        let position = position(&mut streams, 1, 5000 + look);
        assert_eq!(position, (1001 + look).min(1009), "it is not reached before its bytes are written");
    }
    write(&mut streams, 1, 10);
    assert_eq!(position(&mut streams, 1, 5020), 1009, "nor while they are in the buffer");
    streams.drained(6041, &mut Vec::new());
    assert_eq!(position(&mut streams, 1, 6040), 6040);
    streams.hand(1, 70_000);
    assert!(!streams.is_next(1, 80_000), "more than the window");
    streams.widen(0, 100_000);
    streams.widen(1, 100_000);
    assert!(streams.is_next(1, 80_000));
    streams.hand(3, 65_537);
    assert!(!streams.is_next(1, 80_000), "others hold much, which may go first");
    streams.close(3);
    assert!(streams.is_next(1, 80_000), "what is gone holds nothing");
}

#[test]
fn s41_a_window_that_is_widened_before_its_stream_is_entered_counts() {
    let mut streams = Streams::default();
    streams.set_initial_window(0);
    streams.widen(1, 1_000);
    streams.widen(3, 2_000);
    streams.open(3, StreamKind::WebSocket);
    streams.hand(3, 10);
    assert!(streams.is_next(3, 100), "the client has made room");
    streams.open(5, StreamKind::WebSocket);
    streams.hand(5, 10);
    assert!(!streams.is_next(5, 100), "it has made none for this one");
    streams.widen(1, 1_000);
    assert!(streams.early.is_empty(), "of a stream that will not be entered any more nothing is kept");
}
