use super::*;

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("small").to_be_bytes();
    let mut bytes = vec![len[1], len[2], len[3], kind, flags, 0, 0, 0, 1];
    bytes.extend_from_slice(payload);
    bytes
}

/// What comes through of `stream`, cut into pieces of `size`.
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
        vec![b'P'; PREFACE],
        frame(HEADERS, END_HEADERS, b"block"),
        frame(DATA, 0, b"hello"),
        frame(DATA, 0, &[0; 300]),
        frame(DATA, END_STREAM, b""),
    ];
    let empty = frame(DATA, 0, b"");
    let sent: Vec<u8> = kept.iter().flat_map(|frame| [frame.clone(), empty.clone()].concat()).collect();
    let sent = [&sent[..PREFACE], &sent[PREFACE..]].concat();
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
        [frame(HEADERS, 0, b"part"), frame(DATA, 0, b"")].concat(),
        frame(DATA, PADDED, b""),
        frame(DATA, END_STREAM, b""),
        frame(0x4, 0, b""),
    ] {
        let sent = [vec![b'P'; PREFACE], stays].concat();
        assert_eq!(through(&mut Frames::new(now), &sent, 7, now), sent);
    }
}

#[test]
fn a_flood_of_empty_frames_is_not_hidden() {
    let now = Instant::now();
    let mut frames = Frames::new(now);
    let flood = [vec![b'P'; PREFACE], frame(DATA, 0, b"").repeat(2000)].concat();
    let out = through(&mut frames, &flood, 4096, now);
    assert_eq!(out.len(), PREFACE + 1000 * HEADER);
    let later = now + Duration::from_secs(1);
    assert_eq!(through(&mut frames, &frame(DATA, 0, b"").repeat(150), 4096, later).len(), 50 * HEADER);
}

#[test]
fn resets_count_for_ten_seconds() {
    let begun = Instant::now();
    let mut frames = Frames::new(begun);
    through(&mut frames, &[b'P'; PREFACE], 24, begun);
    let reset = frame(RST_STREAM, 0, &[0, 0, 0, 8]);
    for second in 0..20 {
        through(&mut frames, &reset, 64, begun + Duration::from_secs(second));
    }
    assert_eq!(frames.resets(), 11, "those of the seconds 9 to 19");
}

#[test]
fn a_header_block_is_under_way_until_its_last_byte() {
    let begun = Instant::now();
    let limit = Duration::from_secs(10);
    let mut frames = Frames::new(begun);
    through(&mut frames, &[b'P'; PREFACE], 24, begun);
    through(&mut frames, &frame(HEADERS, 0, b""), 64, begun);
    assert_eq!(frames.block_until(limit), Some(begun + limit));
    let last = frame(CONTINUATION, END_HEADERS, b"rest");
    through(&mut frames, &last[..last.len() - 1], 64, begun + RESET_WINDOW);
    assert!(frames.block_until(limit).is_some());
    through(&mut frames, &last[last.len() - 1..], 64, begun + RESET_WINDOW);
    assert_eq!(frames.block_until(limit), None);
    through(&mut frames, &frame(HEADERS, END_HEADERS, b""), 64, begun);
    assert_eq!(frames.block_until(limit), None, "an empty block is over at once");
}

#[test]
fn s76_a_header_block_that_progresses_has_more_time_and_not_for_ever() {
    let begun = Instant::now();
    let limit = Duration::from_secs(10);
    let mut frames = Frames::new(begun);
    through(&mut frames, &[b'P'; PREFACE], 24, begun);
    let block = frame(HEADERS, END_HEADERS, &[0; 30_000]);
    let mut arrived = 0;
    for second in 1..=39 {
        let now = begun + Duration::from_secs(second);
        through(&mut frames, &block[arrived..arrived + 600], 64, now);
        arrived += 600;
        assert!(frames.block_until(limit).is_some_and(|until| until > now), "after {second} s at 600 bytes a second");
    }
    assert_eq!(frames.block_until(limit), Some(begun + Duration::from_secs(1) + limit * 4), "it began after a second");

    let mut frames = Frames::new(begun);
    through(&mut frames, &[&[b'P'; PREFACE][..], &block[..HEADER + 1000]].concat(), 64, begun);
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
    let sent = [&[b'P'; PREFACE][..], &padding, &data, &single, &padding, &ends].concat();
    for size in [1, 2, 9, 10, 11, 64, sent.len()] {
        let (mut frames, mut streams) = (Frames::new(now), Streams::default());
        streams.open(1);
        let out = through_with(&mut streams, &mut frames, &sent, size, now);
        assert_eq!(out, [&[b'P'; PREFACE][..], &data, &ends].concat(), "pieces of {size}");
        assert_eq!(streams.take_credits(), [(1, 513), (0, 513)]);
        assert_eq!(streams.take_credits(), []);
    }
}

#[test]
fn s76_a_window_update_of_zero_is_a_reset_of_its_stream() {
    let now = Instant::now();
    let opens = frame(HEADERS, END_HEADERS, b"block");
    let update = |stream, increment| window_update(stream, increment);
    let sent = [&[b'P'; PREFACE][..], &opens, &update(1, 7), &update(1, 0), &update(3, 0), &update(0, 0)].concat();
    let reset = protocol_error(1);
    let expected = [&[b'P'; PREFACE][..], &opens, &update(1, 7), &reset, &update(3, 0), &update(0, 0)].concat();
    for size in [1, 2, 9, 12, 13, 14, sent.len()] {
        let mut frames = Frames::new(now);
        assert_eq!(through(&mut frames, &sent, size, now), expected, "pieces of {size}");
        assert_eq!(
            (frames.take_broken(), frames.resets()),
            (vec![1], 1),
            "a stream that was never opened is no stream"
        );
    }
}

#[test]
fn s56_the_beginning_of_a_data_frame_is_known_with_its_stream() {
    let begun = Instant::now();
    let mut frames = Frames::new(begun);
    through(&mut frames, &[b'P'; PREFACE], 24, begun);
    let data = frame(DATA, 0, &[7; 100]);
    through(&mut frames, &data[..HEADER], 64, begun);
    assert_eq!(frames.data(), Some(Part { stream: 1, len: 0, at: begun }));
    let later = begun + Duration::from_secs(5);
    through(&mut frames, &data[HEADER..HEADER + 30], 64, later);
    assert_eq!(frames.data(), Some(Part { stream: 1, len: 30, at: later }));
    through(&mut frames, &data[HEADER + 30..], 64, later);
    assert_eq!(frames.data(), None, "the library has the whole of it");
}
