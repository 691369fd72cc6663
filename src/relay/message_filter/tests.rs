//! Tests of the message filter, compressed messages included.

use std::sync::Arc;

use flate2::{Compress, Compression, FlushCompress};

use super::*;
use crate::heartbeat::{Builtin, Liveness, Matching, Mode, Pattern, Policy, Profile, RecordFormat, Role};

const TEXT: u8 = 0x01;
const CONTINUATION: u8 = 0x00;
const LAST: u8 = 0x80;
const KEY: [u8; 4] = [0xA1, 0xB2, 0xC3, 0xD4];

fn listener(mode: Mode) -> MessageMatcher {
    MessageMatcher::new(&Policy { mode, ..Policy::default() }).expect("there is something to listen for")
}

fn app() -> MessageMatcher {
    listener(Builtin::ExpressText.mode(Role::App))
}

/// A client's frame with a payload of at most 65,535 bytes.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u8::try_from(payload.len()) {
        Ok(len @ 0..=125) => frame.push(0x80 | len),
        _ => {
            frame.push(0x80 | 0x7E);
            frame.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
    }
    frame.extend(KEY);
    frame.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// Shows a whole frame to `tap` in one piece.
fn show(tap: &mut Tap, listener: &mut MessageMatcher, first: u8, payload: &[u8]) -> Sight {
    tap.piece(&frame(first, payload), true, first & LAST != 0, listener)
}

fn gathering(tap: &Tap) -> &Gathering {
    match &tap.message {
        Message::Gathering(gathering) => gathering,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_short_message_in_one_piece_is_known_at_once() {
    let (mut tap, mut listener) = (Tap::new(Sender::Client), app());
    assert_eq!(show(&mut tap, &mut listener, LAST | TEXT, b"pong"), Sight::Message(MessageKind::Heartbeat));
    tap.end();
    // The same length and beginning, but not the same.
    assert_eq!(show(&mut tap, &mut listener, LAST | TEXT, b"pang"), Sight::Message(MessageKind::Nothing));
    tap.pass(true);
    for other in [&b"ping pong"[..], b"x", b"pongs", &[b'p'; 60_000]] {
        assert_eq!(show(&mut tap, &mut listener, LAST | TEXT, other), Sight::Pass);
        assert!(matches!(tap.message, Message::Between));
    }
}

#[test]
fn what_cannot_be_a_heartbeat_is_not_gathered() {
    let (mut tap, mut listener) = (Tap::new(Sender::Client), app());
    for (first, payload) in [(TEXT, &b"other"[..]), (0x02, b"pong"), (TEXT, b"pongs")] {
        assert_eq!(show(&mut tap, &mut listener, first, payload), Sight::Pass);
        assert!(matches!(tap.message, Message::Passing), "{payload:?}");
        // Not even if it goes on like one.
        assert_eq!(show(&mut tap, &mut listener, LAST | CONTINUATION, b"pong"), Sight::Pass);
        assert!(matches!(tap.message, Message::Between));
    }
}

#[test]
fn the_length_of_a_frame_counts_before_its_bytes_have_come() {
    let (mut tap, mut listener) = (Tap::new(Sender::Client), app());
    assert_eq!(show(&mut tap, &mut listener, TEXT, b"po"), Sight::Hold);
    let long = frame(LAST | CONTINUATION, &[b'n'; 60_000]);
    assert_eq!(tap.piece(&long[..8], true, false, &mut listener), Sight::Release, "the header alone shows it");
    assert_eq!(tap.take_held(), frame(TEXT, b"po"));
    tap.pass(false);
    assert_eq!(tap.piece(&long[8..], false, true, &mut listener), Sight::Pass);
}

#[test]
fn bytes_are_unmasked_at_their_place_in_their_own_frame() {
    let (mut tap, mut listener) = (Tap::new(Sender::Client), app());
    let frames = [frame(TEXT, b"p"), frame(CONTINUATION, b"on"), frame(LAST | CONTINUATION, b"g")];
    for (at, frame) in frames.iter().enumerate() {
        for cut in 0..frame.len() - 6 {
            // The header and the first bytes, then one by one.
            let piece = if cut == 0 { &frame[..7] } else { &frame[6 + cut..7 + cut] };
            let sight = tap.piece(piece, cut == 0, at == 2, &mut listener);
            assert_eq!(sight, if at == 2 { Sight::Message(MessageKind::Heartbeat) } else { Sight::Hold });
        }
    }
    assert_eq!(tap.take_held(), frames[..2].concat());
}

#[test]
fn what_is_held_is_bounded() {
    let mut listener = listener(Builtin::GraphqlTransportWs.mode(Role::App));
    let mut tap = Tap::new(Sender::Client);
    assert_eq!(show(&mut tap, &mut listener, TEXT, b"{"), Sight::Hold);
    let (mut most, mut shown) = (0, 0);
    loop {
        // Now and then one without content.
        let payload: &[u8] = if shown % 5 == 0 { b"" } else { b" " };
        shown += 1;
        match show(&mut tap, &mut listener, CONTINUATION, payload) {
            Sight::Hold => most = most.max(gathering(&tap).held.len()),
            sight => break assert_eq!(sight, Sight::Message(MessageKind::Nothing), "too long"),
        }
    }
    assert!(shown > 256 && most <= 256 * 7 + (MOST_EMPTY + 1) * 6, "{most} bytes held after {shown}");

    let mut tap = Tap::new(Sender::Client);
    assert_eq!(show(&mut tap, &mut listener, TEXT, b"{"), Sight::Hold);
    let empty = (0..1000).take_while(|_| show(&mut tap, &mut listener, CONTINUATION, b"") == Sight::Hold).count();
    assert_eq!(empty, MOST_EMPTY);
    assert_eq!(tap.take_held().len(), 7 + 6 * MOST_EMPTY);
}

#[test]
fn a_watcher_keeps_no_more_than_it_reads() {
    let mut listener = listener(Builtin::Stomp.mode(Role::Passive));
    let mut tap = Tap::new(Sender::Client);
    assert_eq!(show(&mut tap, &mut listener, TEXT, &[b'\n'; 3000]), Sight::Pass);
    let gathering = gathering(&tap);
    assert_eq!((gathering.payload.len(), gathering.held.len()), (3000, 0));
    assert!(!tap.holds());
    assert_eq!(show(&mut tap, &mut listener, CONTINUATION, &[b'\n'; 60_000]), Sight::Message(MessageKind::Nothing));
}

/// Returns the frames of a client that compresses `messages`, which may refer to those before them.
fn compressed(messages: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut stream = Compress::new(Compression::default(), false);
    let compress = |message: &&[u8]| {
        let mut out = Vec::with_capacity(message.len() + 64);
        stream.compress_vec(message, &mut out, FlushCompress::Sync).unwrap();
        assert_eq!(out.split_off(out.len() - 4), DEFLATE_TAIL);
        out
    };
    messages.iter().map(compress).collect()
}

#[test]
fn a_compressed_message_is_read() {
    let beat = br#"[null,"6","phoenix","heartbeat",{}]"#;
    let sent = compressed(&[beat]).remove(0);
    assert_eq!(inflate(&sent, true, 256), Some((beat.to_vec(), true)));
    // The examples of RFC 7692 §7.2.3: fixed codes, stored, with BFINAL, in two blocks.
    let hello: [&[u8]; 4] = [
        &[0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00],
        &[0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00],
        &[0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00],
        &[0xF2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xCA, 0xC9, 0xC9, 0x07, 0x00],
    ];
    for hello in hello {
        assert_eq!(inflate(hello, true, 256), Some((b"Hello".to_vec(), true)), "{hello:02x?}");
    }
    assert_eq!(inflate(&[0], true, 256), Some((Vec::new(), true)), "an empty message");
}

#[test]
fn a_reference_to_an_earlier_message_cannot_be_read() {
    let beat: &[u8] = br#"{"event":"pusher:ping","data":{}}"#;
    let sent = compressed(&[beat, beat]);
    assert!(sent[1].len() < 8, "it is a reference: {:02x?}", sent[1]);
    assert_eq!(inflate(&sent[1], true, 256), None);
    let mode = Builtin::Pusher.mode(Role::Passive);
    let mut listener =
        MessageMatcher::new(&Policy { mode, liveness: Liveness::PongOnly, ..Policy::default() }).expect("it listens");
    let mut tap = Tap::new(Sender::Client);
    for (sent, heard) in sent.iter().zip([MessageKind::Heartbeat, MessageKind::Unreadable]) {
        assert_eq!(show(&mut tap, &mut listener, LAST | RSV_DEFLATE | TEXT, sent), Sight::Message(heard));
        tap.pass(true);
    }
}

#[test]
fn little_that_becomes_much_is_read_only_as_far_as_it_matters() {
    let bomb = compressed(&[&vec![b' '; 200_000]]).remove(0);
    assert!(bomb.len() < 256, "{}", bomb.len());
    assert_eq!(inflate(&bomb, true, 256), Some((vec![b' '; 256], false)));
}

#[test]
fn the_beginning_of_a_compressed_message_is_read_without_its_end() {
    let connect = format!("CONNECT\nheart-beat:500,500\n\n{}\0", "0123456789abcdef".repeat(7));
    let sent = compressed(&[connect.as_bytes()]).remove(0);
    let (beginning, _) = inflate(&sent[..sent.len() / 2], false, 4096).expect("it is as good as the whole");
    assert!(connect.as_bytes().starts_with(&beginning) && beginning.len() > 10, "{beginning:?}");
}

#[test]
fn noise_that_says_that_it_is_compressed_does_no_harm() {
    let mut random = fastrand::Rng::with_seed(7692);
    for _ in 0..20_000 {
        let noise: Vec<u8> = (0..random.usize(0..300)).map(|_| random.u8(..)).collect();
        if let Some((inflated, _)) = inflate(&noise, random.bool(), 256) {
            assert!(inflated.len() <= 256);
        }
    }
}

#[test]
fn a_profile_with_long_messages_gathers_them_whole() {
    let long = "x".repeat(1000);
    let expect = vec![Pattern::new(Opcode::TEXT, long.as_bytes(), Matching::Exact).unwrap()];
    let profile = Profile { expect, max_len: 1000, ..Builtin::ExpressText.profile(Role::Answer) };
    let mut listener = listener(Mode::Answer(Arc::new(profile)));
    let mut tap = Tap::new(Sender::Client);
    assert_eq!(show(&mut tap, &mut listener, LAST | TEXT, long.as_bytes()), Sight::Message(MessageKind::Heartbeat));
    tap.end();
    let frame = frame(LAST | TEXT, long.as_bytes());
    assert_eq!(tap.piece(&frame[..500], true, false, &mut listener), Sight::Hold);
    assert_eq!(tap.piece(&frame[500..], false, true, &mut listener), Sight::Message(MessageKind::Heartbeat));
    assert_eq!(tap.take_held(), frame[..500]);
}

/// A listener for a profile of which nothing but its heartbeats counts.
fn pong_only(builtin: Builtin) -> MessageMatcher {
    let mode = builtin.mode(Role::Passive);
    MessageMatcher::new(&Policy { mode, liveness: Liveness::PongOnly, ..Policy::default() })
        .expect("it listens for them")
}

#[test]
fn s65_a_heartbeat_among_other_records_counts() {
    const BINARY: u8 = 0x02;
    let invocation = "{\"type\":1,\"target\":\"send\",\"arguments\":[]}\u{1e}";
    let [before, behind] = [format!("{invocation}{{\"type\": 6}}\u{1e}"), format!("{{\"type\":6}}\u{1e}{invocation}")];
    let (mut tap, mut listener) = (Tap::new(Sender::Client), pong_only(Builtin::Signalr));
    for (opcode, payload, heard) in [
        (TEXT, before.as_bytes(), MessageKind::Heartbeat),
        (TEXT, behind.as_bytes(), MessageKind::Heartbeat),
        (TEXT, invocation.as_bytes(), MessageKind::Nothing),
        (BINARY, &[0x03, 0x92, 0x07, 0xC0, 0x02, 0x91, 0x06], MessageKind::Heartbeat),
        (BINARY, &[0x03, 0x92, 0x07, 0xC0], MessageKind::Nothing),
        (BINARY, before.as_bytes(), MessageKind::Nothing),
        (TEXT, &[0x02, 0x91, 0x06], MessageKind::Nothing),
    ] {
        let sight = show(&mut tap, &mut listener, LAST | opcode, payload);
        let is_none = sight == Sight::Pass && heard == MessageKind::Nothing;
        assert!(is_none || sight == Sight::Message(heard), "{sight:?}: {:?}", payload.escape_ascii().to_string());
        tap.pass(true);
    }
}

#[test]
fn s65_records_are_read_across_fragments_as_far_as_a_profile_reads() {
    let (mut tap, mut listener) = (Tap::new(Sender::Client), pong_only(Builtin::Signalr));
    let record = "{\"type\":1,\"target\":\"send\",\"arguments\":[\"0123456789\"]}\u{1e}";
    for (records, heard) in [(3, MessageKind::Heartbeat), (8, MessageKind::Nothing)] {
        let message = record.repeat(records) + "{\"type\": 6}\u{1e}";
        let pieces: Vec<&[u8]> = message.as_bytes().chunks(7).collect();
        let mut last = Sight::Pass;
        for (at, piece) in pieces.iter().enumerate() {
            let opcode = if at == 0 { TEXT } else { CONTINUATION };
            let fin = if at + 1 == pieces.len() { LAST } else { 0 };
            match show(&mut tap, &mut listener, fin | opcode, piece) {
                // Too long: the rest passes unseen.
                Sight::Message(MessageKind::Nothing) if fin == 0 => tap.pass(false),
                sight => last = sight,
            }
            assert!(!tap.holds() && tap.kept() <= 1024, "what is watched is not held: {}", tap.kept());
        }
        let is_none = last == Sight::Pass && heard == MessageKind::Nothing;
        assert!(is_none || last == Sight::Message(heard), "{records} records before it: {last:?}");
        tap.pass(true);
    }
}

#[test]
fn s65_only_a_message_of_nothing_else_is_taken_out() {
    let expect = vec![Pattern::record(RecordFormat::SignalrJson)];
    let profile = || Arc::new(Profile { expect: expect.clone(), ..Builtin::ExpressText.profile(Role::Answer) });
    for mode in [Mode::App(profile()), Mode::Answer(profile())] {
        let (mut tap, mut listener) = (Tap::new(Sender::Client), listener(mode));
        for (message, heard) in [
            ("{\"type\":6}\u{1e}", MessageKind::Heartbeat),
            ("{\"type\": 6.0}\u{1e} {\"type\":6}\u{1e}", MessageKind::Heartbeat),
            ("{\"type\":6}\u{1e}{\"type\":7}\u{1e}", MessageKind::Nothing),
            ("{\"type\":6}\u{1e}{\"type\":1", MessageKind::Nothing),
        ] {
            let sight = show(&mut tap, &mut listener, LAST | TEXT, message.as_bytes());
            assert_eq!(sight, Sight::Message(heard), "{message:?}");
            tap.end();
        }
    }
}

#[test]
fn s65_json_is_compared_by_value_on_its_way() {
    let pattern = Pattern::new(Opcode::TEXT, br#"{"op":11}"#, Matching::Json).unwrap();
    let profile = Profile { expect: vec![pattern], ..Builtin::ExpressText.profile(Role::App) };
    let mut listener = listener(Mode::App(Arc::new(profile)));
    let mut tap = Tap::new(Sender::Client);
    for beat in [r#"{"op":11}"#, r#"{"op":11.0}"#, "{\n\t\"d\": null, \"op\" : 1.1e1\n}", r#"{"\u006fp":110e-1}"#] {
        assert_eq!(
            show(&mut tap, &mut listener, LAST | TEXT, beat.as_bytes()),
            Sight::Message(MessageKind::Heartbeat),
            "{beat}"
        );
        tap.end();
        let (start, end) = beat.as_bytes().split_at(4);
        assert_eq!(show(&mut tap, &mut listener, TEXT, start), Sight::Hold, "{beat}");
        assert_eq!(
            show(&mut tap, &mut listener, LAST | CONTINUATION, end),
            Sight::Message(MessageKind::Heartbeat),
            "{beat}"
        );
        tap.end();
    }
    assert_eq!(show(&mut tap, &mut listener, LAST | TEXT, br#"{"op":1}"#), Sight::Message(MessageKind::Nothing));
}
