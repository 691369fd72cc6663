//! The frame scanner, fed in arbitrary chunks, against a parse of the whole stream that takes its headers from
//! tungstenite: the same boundaries, header fields and verdicts, whatever the chunks.

use std::io::Cursor;

use pulsegate::ws::{FrameHeader, Limits, Opcode, Piece, RSV_ALL, RSV_DEFLATE, Scanner, Sender};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader as Oracle;

/// The received part of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ReadSummary {
    start: usize,
    header: usize,
    end: usize,
    control: bool,
    ends_frame: bool,
    ends_message: bool,
}

/// The result of a parse.
#[derive(Debug, PartialEq, Eq)]
struct Reading {
    frames: Vec<ReadSummary>,
    /// The position of the first byte that could not be consumed.
    consumed: usize,
    /// The close code of the rule that is broken there.
    broken: Option<u16>,
    at_boundary: bool,
    between_messages: bool,
}

/// Reads `data`: the sender and the extensions, a limit, four sizes of chunks, and then the stream.
pub fn run(data: &[u8]) {
    let Some((&[kinds, limit, ref sizes @ ..], stream)) = data.split_first_chunk::<6>() else { return };
    let from = if kinds & 1 == 0 { Sender::Client } else { Sender::Server };
    let rsv = [0, RSV_DEFLATE, RSV_ALL, 0][usize::from(kinds >> 1 & 3)];
    let frame = (kinds & 8 != 0).then_some(u64::from(limit) * 8);
    let message = (kinds & 16 != 0).then_some(u64::from(limit) * 16);
    let limits = Limits { frame, message, rsv, ..Limits::default() };
    let expected = reference(stream, from, &limits);
    assert_eq!(scanned(stream, from, limits, &[usize::MAX]), expected, "at once");
    let sizes: Vec<_> = sizes.iter().map(|size| usize::from(*size) + 1).collect();
    assert_eq!(scanned(stream, from, limits, &sizes), expected, "in chunks of {sizes:?}");
    assert_eq!(scanned(stream, from, limits, &[1]), expected, "byte by byte");
}

fn scanned(stream: &[u8], from: Sender, limits: Limits, sizes: &[usize]) -> Reading {
    let mut scanner = Scanner::new(from, limits);
    let (mut frames, mut broken) = (Vec::<ReadSummary>::new(), None);
    let (mut consumed, mut arrived, mut turn) = (0, 0, 0);
    while arrived < stream.len() && broken.is_none() {
        arrived = stream.len().min(arrived.saturating_add(sizes[turn % sizes.len()]));
        turn += 1;
        loop {
            let starts = scanner.at_boundary();
            match scanner.next(&stream[consumed..arrived]) {
                Ok(None) => break,
                Err(violation) => {
                    broken = Some(violation.code());
                    break;
                }
                Ok(Some(Piece::Control(header))) => {
                    let end = consumed + header.len + usize::try_from(header.payload).expect("short");
                    same_header(&stream[consumed..], from, &limits);
                    frames.push(ReadSummary {
                        start: consumed,
                        header: header.len,
                        end,
                        control: true,
                        ends_frame: true,
                        ends_message: false,
                    });
                    consumed = end;
                }
                Ok(Some(Piece::Data { len, payload, ends_frame, ends_message })) => {
                    assert!(len > 0 && payload <= len && (starts || len == payload), "a piece of nothing");
                    if starts {
                        same_header(&stream[consumed..], from, &limits);
                        let (start, header) = (consumed, len - payload);
                        frames.push(ReadSummary {
                            start,
                            header,
                            end: start,
                            control: false,
                            ends_frame,
                            ends_message,
                        });
                    }
                    consumed += len;
                    let frame = frames.last_mut().expect("a frame is under way");
                    (frame.end, frame.ends_frame, frame.ends_message) = (consumed, ends_frame, ends_message);
                }
            }
        }
        let rest = arrived - consumed;
        assert!(broken.is_some() || rest <= Scanner::MAX_REST, "{rest} bytes are left over");
    }
    let (at_boundary, between_messages) = (scanner.at_boundary(), scanner.between_messages());
    Reading { frames, consumed, broken, at_boundary, between_messages }
}

/// Compares the header at the front of `bytes` with tungstenite's.
fn same_header(bytes: &[u8], from: Sender, limits: &Limits) {
    let ours = FrameHeader::parse(bytes, from, limits).expect("valid").expect("whole");
    let mut cursor = Cursor::new(bytes);
    match Oracle::parse(&mut cursor) {
        Ok(Some((theirs, payload))) => {
            let opcodes =
                [Opcode::CONTINUATION, Opcode::TEXT, Opcode::BINARY, Opcode::CLOSE, Opcode::PING, Opcode::PONG];
            let opcode =
                opcodes[[0, 1, 2, 8, 9, 10].iter().position(|o| *o == u8::from(theirs.opcode)).expect("known")];
            let len = usize::try_from(cursor.position()).expect("short");
            assert_eq!((ours.fin, ours.opcode, ours.mask), (theirs.is_final, opcode, theirs.mask));
            assert_eq!((ours.payload, ours.len), (payload, len));
        }
        other => assert!(ours.opcode.is_reserved(), "tungstenite: {other:?}, ours: {ours:?}"),
    }
}

/// Returns a header, or the code of its violation; `None` while more bytes are needed to decide.
fn header(bytes: &[u8], from: Sender, limits: &Limits) -> Option<Result<(usize, u64), u16>> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (opcode, control, rsv) = (first & 15, first & 8 != 0, first & 0x70);
    let known = matches!(opcode, 0..=2 | 8..=10) || limits.rsv == RSV_ALL;
    let rsv_fits = match limits.rsv {
        RSV_ALL => true,
        RSV_DEFLATE => rsv == 0 || rsv == 0x40 && matches!(opcode, 1 | 2),
        _ => rsv == 0,
    };
    let masked = second & 0x80 != 0;
    let short = second & 0x7F;
    let sound =
        known && rsv_fits && masked == (from == Sender::Client) && (!control || short < 126 && first & 0x80 != 0);
    if !sound {
        return Some(Err(1002));
    }
    let (length, mut len) = match short {
        126 => (u64::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?)), 4),
        127 => (u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?), 10),
        short => (u64::from(short), 2),
    };
    if length > i64::MAX as u64 {
        return Some(Err(1002));
    }
    if masked {
        len += 4;
        bytes.get(..len)?;
    }
    Some(Ok((len, length)))
}

/// Parses the whole of `stream` at once, without the scanner.
fn reference(stream: &[u8], from: Sender, limits: &Limits) -> Reading {
    let (mut frames, mut at, mut message) = (Vec::new(), 0, None);
    let reading = |frames, consumed, broken, at_boundary, message: Option<u64>| Reading {
        frames,
        consumed,
        broken,
        at_boundary,
        between_messages: at_boundary && message.is_none(),
    };
    loop {
        let (head, length) = match header(&stream[at..], from, limits) {
            None => return reading(frames, at, None, true, message),
            Some(Err(code)) => return reading(frames, at, Some(code), true, message),
            Some(Ok(header)) => header,
        };
        let (opcode, fin) = (stream[at] & 15, stream[at] & 0x80 != 0);
        let available = stream.len() - at - head;
        let taken = usize::try_from(length).map_or(available, |length| length.min(available));
        let (end, whole) = (at + head + taken, taken as u64 == length);
        if opcode & 8 != 0 {
            if !whole {
                return reading(frames, at, None, true, message);
            }
            let (ends_frame, ends_message) = (true, false);
            frames.push(ReadSummary { start: at, header: head, end, control: true, ends_frame, ends_message });
            at = end;
            continue;
        }
        let in_order = match opcode {
            0 => message.is_some(),
            1 | 2 => message.is_none(),
            _ => true,
        };
        if !in_order {
            return reading(frames, at, Some(1002), true, message);
        }
        let total = message.unwrap_or(0).saturating_add(length);
        if limits.frame.is_some_and(|most| length > most) || limits.message.is_some_and(|most| total > most) {
            return reading(frames, at, Some(1009), true, message);
        }
        message = (!(whole && fin)).then_some(total);
        let (ends_frame, ends_message) = (whole, whole && fin);
        frames.push(ReadSummary { start: at, header: head, end, control: false, ends_frame, ends_message });
        at = end;
        if !whole {
            return reading(frames, at, None, false, message);
        }
    }
}
