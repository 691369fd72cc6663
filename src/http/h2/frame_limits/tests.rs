use super::super::frame::{PING, PRIORITY, window_update};
use super::super::streams::StreamKind;
use super::*;

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    frame_on(1, kind, flags, payload)
}

fn frame_on(stream: u8, kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("small").to_be_bytes();
    let mut bytes = vec![len[1], len[2], len[3], kind, flags, 0, 0, 0, stream];
    bytes.extend_from_slice(payload);
    bytes
}

const SECOND: Duration = Duration::from_secs(1);

/// The preface of every connection, and a request.
fn begun() -> Vec<u8> {
    [vec![b'P'; PREFACE], frame_on(0, SETTINGS, 0, b""), frame(HEADERS, END_HEADERS, b"\x82")].concat()
}

/// A connection on which [`begun`] has passed.
fn frames(now: Instant) -> Frames {
    let mut frames = Frames::new(now);
    through(&mut frames, &begun(), 64, now);
    frames
}

/// Returns the part of `stream` that passes, cut into pieces of `size`.
fn through(frames: &mut Frames, stream: &[u8], size: usize, now: Instant) -> Vec<u8> {
    through_with(&mut Streams::default(), frames, stream, size, now)
}

/// Does the same as [`through`], with live streams.
fn through_with(streams: &mut Streams, frames: &mut Frames, stream: &[u8], size: usize, now: Instant) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in stream.chunks(size) {
        let mut bytes = frames.held().to_vec();
        bytes.extend_from_slice(piece);
        let kept = frames.sift(&mut bytes, now, streams);
        out.extend_from_slice(&bytes[..kept]);
    }
    out
}

#[test]
fn empty_data_frames_are_taken_out_wherever_the_stream_is_cut() {
    let kept = [
        begun(),
        frame(HEADERS, END_HEADERS, b"\x82"),
        frame(DATA, 0, b"hello"),
        frame(DATA, 0, &[0; 300]),
        frame(DATA, END_STREAM, b""),
    ];
    let empty = frame(DATA, 0, b"");
    let sent: Vec<u8> = kept.iter().flat_map(|frame| [frame.clone(), empty.clone()].concat()).collect();
    let now = Instant::now();
    for size in 1..=sent.len() {
        let mut frames = Frames::new(now);
        assert_eq!(through(&mut frames, &sent, size, now), kept.concat(), "pieces of {size}");
        assert!(frames.held().is_empty());
        assert_eq!(frames.small(), 2, "`hello` and the end");
    }
}

#[test]
fn what_may_not_be_missed_stays() {
    let now = Instant::now();
    for stays in [
        [frame(HEADERS, 0, b"\x82"), frame(DATA, 0, b"")].concat(),
        frame(DATA, PADDED, b""),
        frame(DATA, END_STREAM, b""),
        frame_on(0, SETTINGS, 0, b""),
    ] {
        let sent = [begun(), stays].concat();
        assert_eq!(through(&mut Frames::new(now), &sent, 7, now), sent);
    }
}

#[test]
fn a_flood_of_empty_frames_is_not_hidden() {
    let now = Instant::now();
    let mut frames = frames(now);
    let out = through(&mut frames, &frame(DATA, 0, b"").repeat(2000), 4096, now);
    assert_eq!(out.len(), 1000 * HEADER);
    let later = now + Duration::from_secs(1);
    assert_eq!(through(&mut frames, &frame(DATA, 0, b"").repeat(150), 4096, later).len(), 50 * HEADER);
}

#[test]
fn a_header_block_is_under_way_until_its_last_byte() {
    let begun = Instant::now();
    let limit = Duration::from_secs(10);
    let mut frames = frames(begun);
    through(&mut frames, &frame(HEADERS, 0, b""), 64, begun);
    assert_eq!(frames.block_until(limit), Some(begun + limit));
    let last = frame(CONTINUATION, END_HEADERS, b"\x84\x84\x84\x84");
    through(&mut frames, &last[..last.len() - 1], 64, begun + SECOND * 10);
    assert!(frames.block_until(limit).is_some());
    through(&mut frames, &last[last.len() - 1..], 64, begun + SECOND * 10);
    assert_eq!(frames.block_until(limit), None);
    through(&mut frames, &frame(HEADERS, END_HEADERS, b""), 64, begun);
    assert_eq!(frames.block_until(limit), None, "an empty block is over at once");
}

#[test]
fn s76_a_header_block_that_progresses_has_more_time_and_not_for_ever() {
    let begun = Instant::now();
    let limit = Duration::from_secs(10);
    let mut frames = frames(begun);
    let block = frame(HEADERS, END_HEADERS, &[0; 16_384]);
    let mut arrived = 0;
    for second in 1..=26 {
        let now = begun + Duration::from_secs(second);
        through(&mut frames, &block[arrived..arrived + 600], 64, now);
        arrived += 600;
        assert!(frames.block_until(limit).is_some_and(|until| until > now), "after {second} s at 600 bytes a second");
    }
    assert_eq!(frames.block_until(limit), Some(begun + Duration::from_secs(1) + limit * 4), "it began after a second");

    let mut frames = self::frames(begun);
    through(&mut frames, &block[..HEADER + 1000], 64, begun);
    assert_eq!(frames.block_until(limit), Some(begun + limit + Duration::from_secs(2)), "1000 bytes at once");
    frames.excuse(Duration::from_secs(7));
    assert_eq!(frames.block_until(limit), Some(begun + limit + Duration::from_secs(9)), "the process stood still");
}

#[test]
fn s76_a_frame_of_padding_is_taken_out_and_its_window_given_back() {
    let now = Instant::now();
    let padding = frame(DATA, PADDED, &[&[255][..], &[0; 255]].concat());
    let ends = frame(DATA, PADDED | END_STREAM, &[2, 0, 0]);
    let data = frame(DATA, PADDED, &[2, b'x', 0, 0]);
    let single = frame(DATA, PADDED, &[0]);
    let sent = [&begun()[..], &padding, &data, &single, &padding, &ends].concat();
    for size in [1, 2, 9, 10, 11, 64, sent.len()] {
        let (mut frames, mut streams) = (Frames::new(now), Streams::default());
        streams.open(1, StreamKind::Plain);
        let out = through_with(&mut streams, &mut frames, &sent, size, now);
        assert_eq!(out, [&begun()[..], &data, &ends].concat(), "pieces of {size}");
        assert_eq!(streams.take_credits(), [(1, 513), (0, 513)]);
        assert_eq!(streams.take_credits(), []);
    }
}

#[test]
fn s76_a_window_update_of_zero_is_a_reset_of_its_stream() {
    let now = Instant::now();
    let update = |stream, increment| window_update(stream, increment);
    let sent = [&begun()[..], &update(1, 7), &update(1, 0), &update(3, 0), &update(0, 0)].concat();
    let reset = protocol_error(1);
    let expected = [&begun()[..], &update(1, 7), &reset, &update(3, 0), &update(0, 0)].concat();
    for size in [1, 2, 9, 12, 13, 14, sent.len()] {
        let (mut frames, mut streams) = (Frames::new(now), Streams::default());
        assert_eq!(through_with(&mut streams, &mut frames, &sent, size, now), expected, "pieces of {size}");
        assert_eq!(
            (frames.take_broken(), streams.tolerance.losses()),
            (vec![1], 1),
            "a stream that was never opened is no stream"
        );
    }
}

#[test]
fn s56_the_beginning_of_a_data_frame_is_known_with_its_stream() {
    let begun = Instant::now();
    let mut frames = frames(begun);
    let data = frame(DATA, 0, &[7; 100]);
    through(&mut frames, &data[..HEADER], 64, begun);
    assert_eq!(frames.data(), Some(DataPrefix { stream: 1, len: 0, at: begun }));
    let later = begun + Duration::from_secs(5);
    through(&mut frames, &data[HEADER..HEADER + 30], 64, later);
    assert_eq!(frames.data(), Some(DataPrefix { stream: 1, len: 30, at: later }));
    through(&mut frames, &data[HEADER + 30..], 64, later);
    assert_eq!(frames.data(), None, "the library has the whole of it");
}

/// A sequence of frames that ends a connection, with the code.
type Offence = (&'static str, Vec<u8>, Reason);

fn offences() -> Vec<Offence> {
    let setting = |id: u8, value: [u8; 4]| frame_on(0, SETTINGS, 0, &[&[0, id][..], &value].concat());
    vec![
        ("DATA on no stream", frame_on(0, DATA, 0, b""), Reason::PROTOCOL_ERROR),
        ("DATA on a stream that was never opened", frame_on(3, DATA, 0, b""), Reason::PROTOCOL_ERROR),
        ("DATA on a stream of the server's", frame_on(2, DATA, 0, b""), Reason::PROTOCOL_ERROR),
        ("padding on no stream", frame_on(0, DATA, PADDED, &[0]), Reason::PROTOCOL_ERROR),
        ("a reset of a stream that was never opened", frame_on(3, RST_STREAM, 0, &[0; 4]), Reason::PROTOCOL_ERROR),
        ("a push", frame(0x5, END_HEADERS, &[0, 0, 0, 2]), Reason::PROTOCOL_ERROR),
        ("a short PING", frame_on(0, PING, 0, b"1234567"), Reason::FRAME_SIZE_ERROR),
        ("a long reset", frame(RST_STREAM, 0, &[0; 5]), Reason::FRAME_SIZE_ERROR),
        ("a short update", frame(WINDOW_UPDATE, 0, &[0; 3]), Reason::FRAME_SIZE_ERROR),
        ("a short priority", frame(PRIORITY, 0, &[0; 4]), Reason::FRAME_SIZE_ERROR),
        ("a short goodbye", frame_on(0, 0x7, 0, &[0; 7]), Reason::FRAME_SIZE_ERROR),
        ("half a setting", frame_on(0, SETTINGS, 0, &[0; 3]), Reason::FRAME_SIZE_ERROR),
        ("an acknowledgement of settings with some", frame_on(0, SETTINGS, ACK, &[0; 6]), Reason::FRAME_SIZE_ERROR),
        ("a window that is too large", setting(4, [0x80, 0, 0, 0]), Reason::FLOW_CONTROL_ERROR),
        ("an index that stands for nothing", frame_on(3, HEADERS, END_HEADERS, b"\xbe"), Reason::COMPRESSION_ERROR),
        (
            "a block that is cut off, over two frames",
            [frame_on(3, HEADERS, 0, b"\x82\x44"), frame_on(3, CONTINUATION, END_HEADERS, b"\x7f")].concat(),
            Reason::COMPRESSION_ERROR,
        ),
        ("a frame that is too long", frame_on(3, 0xbb, 0, &[0; 16_385]), Reason::FRAME_SIZE_ERROR),
    ]
}

#[test]
fn what_ends_a_connection_is_found_wherever_it_is_cut_and_nothing_passes_behind_it() {
    let now = Instant::now();
    for (what, offence, code) in offences() {
        let sent = [&begun()[..], &offence, &frame_on(0, PING, 0, b"12345678")].concat();
        for size in [1, 2, 3, 9, 10, 13, 64, sent.len()] {
            let mut frames = Frames::new(now);
            let out = through(&mut frames, &sent, size, now);
            assert_eq!(frames.fault().map(|fault| fault.code), Some(code), "{what}, in pieces of {size}");
            let passed = begun().len()..begun().len() + offence.len();
            assert!(passed.contains(&out.len()), "{what}, in pieces of {size}: {} bytes passed", out.len());
            assert_eq!(out, sent[..out.len()]);
            assert!(frames.held().is_empty());
        }
    }
}

#[test]
fn the_first_frame_is_settings() {
    let now = Instant::now();
    for first in [frame_on(0, PING, 0, b"12345678"), frame_on(0, SETTINGS, ACK, b""), frame(HEADERS, END_HEADERS, b"")]
    {
        let mut frames = Frames::new(now);
        let out = through(&mut frames, &[&[b'P'; PREFACE][..], &first].concat(), 7, now);
        assert_eq!(out.len(), PREFACE);
        assert_eq!(frames.fault().map(|fault| fault.code), Some(Reason::PROTOCOL_ERROR), "{first:?}");
    }
}

#[test]
fn trailers_with_pseudo_fields_are_malformed_and_reach_the_library_all_the_same() {
    let now = Instant::now();
    let trailers = |flags, payload: &[u8]| frame(HEADERS, END_STREAM | flags, payload);
    let last = |payload: &[u8]| frame(CONTINUATION, END_HEADERS, payload);
    for (sent, expected) in [
        (trailers(END_HEADERS, b"\x00\x05x-sum\x017"), vec![]),
        (trailers(END_HEADERS, b"\x00\x05x-sum\x017\x84"), vec![1]),
        (trailers(END_HEADERS | PADDED, b"\x03\x00\x05x-sum\x017\x84\x84\x84"), vec![]),
        (trailers(END_HEADERS | PADDED | PRIORITIZED, b"\x01\x84\x84\x84\x84\x84\x84\x00"), vec![1]),
        ([trailers(0, b"\x00\x05x-sum"), last(b"\x017\x84")].concat(), vec![1]),
        ([trailers(0, b""), last(b"\x84")].concat(), vec![1]),
    ] {
        for size in [1, 9, 10, sent.len()] {
            let mut frames = frames(now);
            assert_eq!(through(&mut frames, &sent, size, now), sent, "pieces of {size}");
            assert_eq!((frames.take_malformed(), frames.fault()), (expected.clone(), None), "{sent:x?}, {size}");
        }
    }
}

#[test]
fn frames_of_unknown_types_are_taken_out_but_never_out_of_a_header_block() {
    let now = Instant::now();
    let (unknown, ping) = (frame_on(0, 0xbb, 0xff, b"whatever"), frame_on(0, PING, 0, b"12345678"));
    for size in [1, 9, 64] {
        let sent = [&unknown[..], &ping, &unknown].concat();
        assert_eq!(through(&mut frames(now), &sent, size, now), ping, "pieces of {size}");
        let within = [&frame(HEADERS, 0, b"\x82")[..], &unknown].concat();
        assert_eq!(through(&mut frames(now), &within, size, now), within, "pieces of {size}");
    }
}

#[test]
fn floods_end_a_connection_and_the_frames_of_a_download_do_not() {
    let now = Instant::now();
    for (what, flood) in [
        ("PING", frame_on(0, PING, 0, b"12345678")),
        ("SETTINGS", frame_on(0, SETTINGS, 0, b"")),
        ("PRIORITY", frame(PRIORITY, 0, &[0, 0, 0, 3, 1])),
        ("WINDOW_UPDATE", window_update(1, 1).to_vec()),
        ("RST_STREAM", frame(RST_STREAM, 0, &[0, 0, 0, 8])),
        ("unknown frames", frame_on(0, 0xbb, 0, b"")),
    ] {
        let mut frames = frames(now);
        through_with(&mut Streams::default(), &mut frames, &flood.repeat(20_000), 4096, now);
        assert_eq!(frames.fault().map(|fault| fault.word), Some("flood"), "{what}");
    }
    let (mut frames, mut streams) = (frames(now), Streams::default());
    for _ in 0..10_000 {
        streams.tolerance.data(16 * 1024);
        let updates = [window_update(1, 4096), window_update(0, 4096)].concat().repeat(4);
        through_with(&mut streams, &mut frames, &updates, 4096, now);
    }
    assert_eq!(frames.fault(), None);
}
