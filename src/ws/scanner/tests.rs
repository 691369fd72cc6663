//! Tests of the frame scanner against tungstenite.

use proptest::prelude::*;

use super::super::{ControlFrame, RSV_DEFLATE, unmask};
use super::*;

/// A test frame before it is encoded and cut into chunks.
#[derive(Clone, Debug)]
struct Frame {
    fin: bool,
    opcode: u8,
    payload: usize,
}

fn encode(frame: &Frame, from: Sender) -> Vec<u8> {
    let mask = if from == Sender::Client { 0x80 } else { 0 };
    let mut out = vec![u8::from(frame.fin) << 7 | frame.opcode];
    match frame.payload {
        n @ 0..=125 => out.push(mask | u8::try_from(n).unwrap()),
        n @ 126..=0xFFFF => {
            out.push(mask | 0x7E);
            out.extend(u16::try_from(n).unwrap().to_be_bytes());
        }
        n => {
            out.push(mask | 0x7F);
            out.extend((n as u64).to_be_bytes());
        }
    }
    if from == Sender::Client {
        out.extend([9, 8, 7, 6]);
    }
    out.extend((0..frame.payload).map(|i| u8::try_from(i % 251).unwrap()));
    out
}

/// Scans a stream in chunks of the given sizes. Returns the bytes consumed, control frames included, and the offsets at
/// which frames and messages ended.
fn scan(stream: &[u8], cuts: &[usize], from: Sender) -> (Vec<u8>, Vec<usize>, Vec<usize>) {
    let mut scanner = Scanner::new(from, Limits::default());
    let (mut passed, mut frames, mut messages) = (Vec::new(), Vec::new(), Vec::new());
    let mut pending = Vec::new();
    let mut at = 0;
    let mut cuts = cuts.iter().copied().cycle();
    while at < stream.len() {
        let take = cuts.next().unwrap_or(1).clamp(1, stream.len() - at);
        pending.extend_from_slice(&stream[at..at + take]);
        at += take;
        while let Some(piece) = scanner.next(&pending).unwrap() {
            let (len, ends_frame, ends_message) = match piece {
                Piece::Data { len, ends_frame, ends_message, .. } => (len, ends_frame, ends_message),
                Piece::Control(header) => (header.len + usize::try_from(header.payload).unwrap(), true, false),
            };
            passed.extend(pending.drain(..len));
            if ends_frame {
                frames.push(passed.len());
            }
            if ends_message {
                messages.push(passed.len());
            }
        }
        assert!(pending.len() <= Scanner::MAX_REST, "{} bytes left over", pending.len());
    }
    assert!(pending.is_empty(), "a whole stream leaves nothing over");
    (passed, frames, messages)
}

fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let size = prop_oneof![Just(0usize), Just(1), Just(125), Just(126), Just(65_535), Just(65_536), 0usize..2_000];
    let control = (8u8..=10, 0usize..=125).prop_map(|(opcode, payload)| Frame { fin: true, opcode, payload });
    let message = (1u8..=2, proptest::collection::vec((size, proptest::option::of(control)), 1..4)).prop_map(
        |(opcode, fragments)| {
            let last = fragments.len() - 1;
            let mut out = Vec::new();
            for (i, (payload, control)) in fragments.into_iter().enumerate() {
                out.push(Frame { fin: i == last, opcode: if i == 0 { opcode } else { 0 }, payload });
                out.extend(control);
            }
            out
        },
    );
    proptest::collection::vec(message, 1..5).prop_map(|messages| messages.concat())
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_bytes_and_the_same_boundaries(
        frames in frames(),
        cuts in proptest::collection::vec(prop_oneof![1usize..20, 1usize..100_000], 1..20),
        client in any::<bool>(),
    ) {
        let from = if client { Sender::Client } else { Sender::Server };
        let mut stream = Vec::new();
        let (mut ends, mut messages) = (Vec::new(), Vec::new());
        for frame in &frames {
            stream.extend(encode(frame, from));
            ends.push(stream.len());
            if frame.fin && frame.opcode < 8 {
                messages.push(stream.len());
            }
        }
        let (passed, seen_frames, seen_messages) = scan(&stream, &cuts, from);
        prop_assert!(passed == stream, "bytes changed");
        prop_assert_eq!(seen_frames, ends);
        prop_assert_eq!(seen_messages, messages);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), client in any::<bool>()) {
        let from = if client { Sender::Client } else { Sender::Server };
        let mut scanner = Scanner::new(from, Limits { rsv: RSV_DEFLATE, ..Limits::default() });
        let mut rest = &bytes[..];
        while let Ok(Some(piece)) = scanner.next(rest) {
            let len = match piece {
                Piece::Data { len, .. } => len,
                Piece::Control(header) => header.len + usize::try_from(header.payload).unwrap(),
            };
            prop_assert!(len > 0 && len <= rest.len());
            rest = &rest[len..];
        }
    }
}

#[test]
fn a_control_frame_comes_whole_even_inside_a_fragmented_message() {
    let mut scanner = Scanner::new(Sender::Client, Limits::default());
    assert_eq!(
        scanner.next(&[0x01, 0x81, 0, 0, 0, 0, b'a']),
        Ok(Some(Piece::Data { len: 7, payload: 1, ends_frame: true, ends_message: false }))
    );
    assert!(scanner.at_boundary() && !scanner.between_messages());
    let pong = ControlFrame::new(Opcode::PONG, b"abc", Some([1, 2, 3, 4]));
    let bytes = pong.as_bytes();
    assert_eq!(scanner.next(&bytes[..bytes.len() - 1]), Ok(None), "held until it is whole");
    let Ok(Some(Piece::Control(header))) = scanner.next(bytes) else { unreachable!("a whole pong") };
    let mut payload = bytes[header.len..].to_vec();
    unmask(&mut payload, header.mask.unwrap());
    assert_eq!(payload, b"abc");
}

#[test]
fn fragments_out_of_order_are_refused() {
    let mut scanner = Scanner::new(Sender::Server, Limits::default());
    assert_eq!(scanner.next(&[0x80, 0]), Err(Violation::UnexpectedContinuation));
    let mut scanner = Scanner::new(Sender::Server, Limits::default());
    assert!(scanner.next(&[0x01, 0]).is_ok());
    assert_eq!(scanner.next(&[0x81, 0]), Err(Violation::UnfinishedMessage));
}

#[test]
fn s15_compressed_fragments_carry_rsv1_on_the_first_only() {
    let limits = Limits { rsv: RSV_DEFLATE, ..Limits::default() };
    let mut scanner = Scanner::new(Sender::Server, limits);
    assert!(scanner.next(&[0x41, 1, b'x']).is_ok());
    assert!(scanner.next(&[0x00, 1, b'x']).is_ok());
    assert_eq!(scanner.next(&[0xC0, 1, b'x']), Err(Violation::ReservedBit));
}

#[test]
fn limits_hold_for_a_frame_and_for_a_message() {
    let limits = Limits { frame: Some(4), message: Some(6), ..Limits::default() };
    let mut scanner = Scanner::new(Sender::Server, limits);
    assert_eq!(scanner.next(&[0x82, 5]), Err(Violation::FrameTooBig), "refused by its header alone");
    let mut scanner = Scanner::new(Sender::Server, limits);
    assert!(scanner.next(&[0x02, 4, 0, 0, 0, 0]).is_ok());
    assert_eq!(scanner.next(&[0x80, 3]), Err(Violation::MessageTooBig));
}
