use std::time::Duration;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn of(mode: Mode, seconds: u32) -> Arc<Policy> {
    Arc::new(Policy { mode, interval: SECOND * seconds, timeout: SECOND * seconds, ..Policy::default() })
}

/// Streams of which the first has handed `handed` bytes to the library.
fn handed(handed: usize) -> Streams {
    let mut streams = Streams::default();
    streams.open(1, Kind::WebSocket);
    streams.open(3, Kind::WebSocket);
    streams.hand(1, handed);
    streams
}

/// The library writes `bytes` of a stream in one frame.
fn write(streams: &mut Streams, id: u32, bytes: usize) {
    streams.spend(id, bytes);
    streams.emit(id, bytes, false);
}

#[test]
fn s72_what_the_library_holds_has_not_come_as_far_as_the_connection() {
    let mut streams = handed(50_000);
    write(&mut streams, 1, 20_000);
    streams.drained(20_100, &mut Vec::new());
    assert_eq!(streams.end_of(1), None, "30,000 bytes are left, in an open window");
    assert_eq!(streams.acked(1, 15_000), 15_000, "it moves with the connection");
    write(&mut streams, 1, 30_000);
    assert_eq!(streams.end_of(1), None, "not in the socket yet");
    streams.drained(50_200, &mut Vec::new());
    assert_eq!(streams.end_of(1), Some(50_200));
    assert_eq!(streams.acked(1, 50_199), 50_199, "on its way");
    assert_eq!(streams.acked(1, 99_999), 50_200, "arrived; what others send says nothing about it");
}

#[test]
fn s41_a_stream_whose_window_is_shut_does_not_move_with_the_connection() {
    let mut streams = handed(100_000);
    streams.set_initial_window(16_000);
    write(&mut streams, 1, 16_000);
    streams.drained(16_100, &mut Vec::new());
    assert_eq!(streams.acked(1, 16_100), 16_100);
    write(&mut streams, 3, 9_000);
    streams.drained(26_000, &mut Vec::new());
    assert_eq!(streams.acked(1, 26_000), 16_100, "the others' progress is not its own");
    streams.widen(1, 8_000);
    assert_eq!(streams.acked(1, 26_000), 26_000, "it waits for its turn");
    write(&mut streams, 1, 8_000);
    streams.drained(34_100, &mut Vec::new());
    streams.set_initial_window(8_000);
    assert_eq!(streams.acked(1, 99_999), 34_100, "SETTINGS have shut it (RFC 9113 §6.9.2)");
    streams.set_initial_window(1_000_000);
    streams.spend(3, 65_535 - 16_000 - 9_000 - 8_000);
    assert_eq!(streams.acked(1, 99_999), 34_100, "the connection's window is shut");
    streams.widen(0, 1);
    assert_eq!(streams.acked(1, 99_999), 99_999);
}

#[test]
fn s74_the_clocks_are_those_of_the_most_patient() {
    let mut streams = Streams::default();
    assert_eq!(streams.heartbeats.clocks(), None);
    for id in [1, 3, 5] {
        streams.open(id, Kind::WebSocket);
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
    streams.open(1, Kind::WebSocket);
    let patient = Policy { max_missed: 3, timeout: 2 * SECOND, ..Policy::default() };
    streams.follow(1, &Arc::new(patient.clone()));
    assert_eq!(streams.heartbeats.clocks().and_then(|clocks| clocks.timeout), Some(6 * SECOND));
    streams.follow(1, &Arc::new(Policy { adaptive: true, ..patient }));
    assert_eq!(streams.heartbeats.clocks().and_then(|clocks| clocks.timeout), Some(180 * SECOND));
}

#[test]
fn s75_a_stream_is_judged_by_the_answers_to_later_pings_while_its_connection_is_heard() {
    let probed = Instant::now();
    let mut streams = handed(0);
    streams.follow(1, &of(Mode::Protocol, 20));
    streams.ping_sent();
    assert!(streams.is_on_its_way(1, probed, probed, false), "the connection is heard");
    streams.ping_answered();
    let deadline = probed + 20 * SECOND;
    let heard = deadline - SECOND;
    assert!(streams.is_on_its_way(1, deadline, heard, false), "that PING was sent before the probe");
    for answer in 1..=2 {
        assert!(streams.wants_ping());
        streams.ping_sent();
        assert!(!streams.wants_ping() || answer == 1);
        assert!(streams.is_on_its_way(1, deadline, heard, false), "{answer} PINGs sent");
        streams.ping_answered();
    }
    assert!(streams.is_on_its_way(1, deadline, heard, true), "bytes are about to be read");
    assert!(!streams.is_on_its_way(1, deadline, heard, true), "but not for ever");
}

#[test]
fn s75_a_stream_is_judged_when_its_connection_has_been_quiet_or_it_was_heard_itself() {
    let probed = Instant::now();
    let mut streams = handed(0);
    streams.follow(1, &of(Mode::Protocol, 20));
    assert!(!streams.is_on_its_way(1, probed + 20 * SECOND, probed, false), "quiet for its window");
    assert!(streams.is_on_its_way(1, probed + 19 * SECOND, probed, false));
    assert!(!streams.is_on_its_way(1, probed + 20 * SECOND, probed, false), "quiet since");
    streams.heard(1);
    streams.ping_sent();
    streams.ping_answered();
    streams.ping_sent();
    streams.ping_answered();
    assert!(streams.is_on_its_way(1, probed + 21 * SECOND, probed + 20 * SECOND, false), "a new round");
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
        assert_eq!(streams.acked(1, written), written, "what the app sends and the client takes is progress");
    }
    write(&mut streams, 3, 50_000);
    streams.drained(written + 50_009, &mut Vec::new());
    assert_eq!(streams.acked(1, written + 50_009), written, "what others take is not");
}

#[test]
fn s72_a_stream_that_is_next_has_not_arrived_before_its_bytes_are_in_the_socket() {
    let mut streams = handed(10);
    assert!(streams.is_next(1, 1010));
    assert_eq!(streams.acked(1, 1000), 1000);
    assert_eq!(streams.acked(1, 5000), 1009, "what others put before it is no arrival");
    write(&mut streams, 1, 10);
    assert_eq!(streams.acked(1, 5000), 1009, "nor is the buffer");
    streams.drained(6041, &mut Vec::new());
    assert_eq!(streams.acked(1, 6040), 6040);
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
