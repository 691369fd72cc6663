//! The scan of the frames that an HTTP/2 client sends, in any chunks, against a scan of the whole stream: the same
//! bytes pass, the same are removed, replaced and counted.

use pulsegate::http::FrameGuard;
use tokio::time::Instant;

const PREFACE: usize = 24;
const HEADER: usize = 9;
/// The maximum number of consecutive empty frames that are removed.
const EMPTY_MOST: u32 = 1000;

/// The maximum number of frames without data in a burst.
const FRAMES_MOST: u64 = 10_000;

/// The result of a scan.
#[derive(Debug, Default, PartialEq, Eq)]
struct Walk {
    passed: Vec<u8>,
    held: Vec<u8>,
    small: usize,
    losses: u32,
    data: Option<(u32, usize)>,
    in_block: bool,
    broken: Vec<u32>,
    credits: Vec<(u32, u32)>,
    fault: Option<(&'static str, u32)>,
    malformed: Vec<u32>,
}

/// Reads `data`: the set of open streams out of four and whether SETTINGS come first, three sizes of chunks, and then
/// the stream after the preface.
pub fn run(data: &[u8]) {
    let Some((&[kinds, ref sizes @ ..], frames)) = data.split_first_chunk::<4>() else { return };
    let live: Vec<u32> = [1, 3, 5, 7].into_iter().filter(|id| kinds >> id & 1 != 0).collect();
    let mut stream = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    if kinds & 1 == 0 {
        stream.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
        for id in &live {
            // `:method: GET`
            stream.extend([0, 0, 1, 1, 4]);
            stream.extend(id.to_be_bytes());
            stream.push(0x82);
        }
    }
    stream.extend(frames);
    let mut walk = guarded(&stream, &live, &[stream.len()]);
    let sizes: Vec<_> = sizes.iter().map(|size| usize::from(*size) + 1).collect();
    assert_eq!(guarded(&stream, &live, &sizes), walk, "in chunks of {sizes:?}");
    assert_eq!(guarded(&stream, &live, &[1]), walk, "byte by byte");
    let mut expected = reference(&stream, &live);
    // The reference decodes no header blocks; the tests of `http/h2/hpack.rs` do, which has placeholders for some
    // bytes.
    blank_blocks(&mut walk.passed);
    blank_blocks(&mut expected.passed);
    if matches!(walk.fault, Some(("compression", 9))) {
        assert!(expected.passed.starts_with(&walk.passed), "{walk:?}\n{expected:?}");
        return;
    }
    walk.malformed.clear();
    assert_eq!(walk, expected, "at once");
}

fn guarded(stream: &[u8], live: &[u32], sizes: &[usize]) -> Walk {
    let mut guard = FrameGuard::new(Instant::now(), live);
    let (mut passed, mut rest) = (Vec::new(), stream);
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (chunk, behind) = rest.split_at(rest.len().min(*size));
        passed.extend(guard.sift(chunk));
        // The longest held part is a header block of one frame.
        assert!(guard.held().len() < HEADER + 16_384, "{} bytes are held", guard.held().len());
        rest = behind;
    }
    let (broken, mut credits) = guard.take();
    credits.sort_unstable();
    if guard.fault().is_some() {
        // The invalid frame never passes whole, so that the library does not act on it.
        passed.truncate(whole_frames(&passed));
    }
    Walk {
        passed,
        held: guard.held().to_vec(),
        small: guard.small(),
        losses: guard.losses(),
        data: guard.data(),
        in_block: guard.is_in_block(),
        broken,
        credits,
        fault: guard.fault(),
        malformed: guard.take_malformed(),
    }
}

/// Blanks the header blocks that consist of one frame.
fn blank_blocks(passed: &mut [u8]) {
    let mut rest = passed.get_mut(PREFACE..).unwrap_or_default();
    while rest.len() > HEADER {
        let (head, body) = rest.split_at_mut(HEADER);
        let len = body.len().min(number(&head[..3]) as usize);
        let (payload, behind) = body.split_at_mut(len);
        if head[3] == 1 && head[4] & 4 != 0 {
            payload.fill(0);
        }
        rest = behind;
    }
}

/// Returns the length of the preface and the whole frames at the front of `bytes`.
fn whole_frames(bytes: &[u8]) -> usize {
    let mut end = PREFACE;
    while let Some(head) = bytes[end..].first_chunk::<HEADER>() {
        let next = end + HEADER + number(&head[..3]) as usize;
        if next > bytes.len() {
            break;
        }
        end = next;
    }
    end
}

/// Returns the connection error for this frame outside a header block, by its header alone, where `highest` is the
/// highest stream that was opened (RFC 9113 §4.2, §5.1, §6).
fn fault_of(kind: u8, flags: u8, length: usize, id: u32, highest: u32) -> Option<(&'static str, u32)> {
    const PROTOCOL: Option<(&str, u32)> = Some(("protocol_error", 1));
    const SIZE: Option<(&str, u32)> = Some(("frame_size", 6));
    let idle = id > highest || id.is_multiple_of(2);
    let sizes_fit = match kind {
        2 => length == 5,
        3 | 8 => length == 4,
        4 => length.is_multiple_of(6) && (flags & 1 == 0 || length == 0),
        6 => length == 8,
        7 => length >= 8,
        _ => true,
    };
    if length > 16_384 || !sizes_fit {
        return SIZE;
    }
    match kind {
        0 | 3 if idle => PROTOCOL,
        7 if id != 0 => PROTOCOL,
        5 => PROTOCOL,
        _ => None,
    }
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

/// Returns the cost of a frame in the count of those without data.
fn cost(kind: u8, flags: u8) -> u64 {
    match kind {
        0 | 1 => 0,
        4 if flags & 1 == 0 => 10,
        3 => 5,
        _ => 1,
    }
}

/// Scans the whole of `stream` (RFC 9113 §4.1, §6).
fn reference(stream: &[u8], live: &[u32]) -> Walk {
    let (preface, mut rest) = stream.split_at(PREFACE);
    let mut walk = Walk { passed: preface.to_vec(), ..Walk::default() };
    let (mut allowed, mut highest, mut open, mut begun, mut frames) = (EMPTY_MOST, 0, false, false, FRAMES_MOST);
    let mut credit = [0; 8];
    while !rest.is_empty() {
        let Some(head) = rest.first_chunk::<HEADER>() else {
            walk.held = rest.to_vec();
            break;
        };
        let (length, kind, flags) = (number(&head[..3]) as usize, head[3], head[4]);
        let id = number(&head[5..]) & 0x7FFF_FFFF;
        let body = &rest[HEADER..];
        let padded = flags & 8 != 0;
        if !open {
            let wrong_start = !begun && (kind != 4 || flags & 1 != 0);
            begun = true;
            walk.fault =
                if wrong_start { Some(("protocol_error", 1)) } else { fault_of(kind, flags, length, id, highest) };
            if walk.fault.is_some() {
                break;
            }
            if kind == 8 && body.len() < 4 {
                walk.held = rest.to_vec();
                break;
            }
            let Some(left) = frames.checked_sub(cost(kind, flags)) else {
                walk.fault = Some(("flood", 11));
                break;
            };
            frames = left;
            if kind == 1 && flags & 4 != 0 && body.len() < length {
                walk.held = rest.to_vec();
                walk.in_block = true;
                break;
            }
            if kind > 9 {
                rest = &rest[rest.len().min(HEADER + length)..];
                continue;
            }
        }
        if !open
            && kind == 0
            && flags & 1 == 0
            && (length == 0 && !padded || length > 0 && padded && live.contains(&id))
        {
            let Some(padding) = (if length == 0 { Some(&0) } else { body.first() }) else {
                walk.held = rest.to_vec();
                break;
            };
            let nothing_else = length == 0 || usize::from(*padding) == length - 1;
            if nothing_else && allowed > 0 {
                allowed -= 1;
                if length > 0 {
                    credit[0] += u32::from(*padding) + 1;
                    credit[id as usize] += u32::from(*padding) + 1;
                }
                rest = &rest[rest.len().min(HEADER + length)..];
                continue;
            }
        }
        if !open && kind == 8 {
            let increment = number(&body[..4]) & 0x7FFF_FFFF;
            if increment == 0 && (1..=highest).contains(&id) {
                walk.passed.extend([0, 0, 4, 3, 0]);
                walk.passed.extend(id.to_be_bytes());
                walk.passed.extend([0, 0, 0, 1]);
                walk.broken.push(id);
                walk.losses += 1;
                rest = &body[4..];
                continue;
            }
        }
        let payload = &body[..body.len().min(length)];
        let whole = payload.len() == length;
        let is_too_wide = |setting: &[u8]| number(&setting[..2]) == 4 && number(&setting[2..]) > 0x7FFF_FFFF;
        if !open && kind == 4 && payload.chunks_exact(6).any(is_too_wide) {
            walk.fault = Some(("flow_control", 3));
            break;
        }
        walk.passed.extend_from_slice(head);
        walk.passed.extend_from_slice(payload);
        walk.small += usize::from(kind == 0 && length < 256);
        walk.data = (kind == 0 && !whole).then_some((id, payload.len()));
        if kind == 0 && length > 0 {
            frames = FRAMES_MOST.min(frames + 4 + length as u64 / 1024);
        }
        if kind == 1 && id > highest {
            highest = id;
            frames = FRAMES_MOST.min(frames + 4);
        }
        if kind == 1 || kind == 9 {
            open = flags & 4 == 0;
            walk.in_block = open || !whole;
        }
        rest = &body[payload.len()..];
    }
    let credits = credit.iter().enumerate().filter(|(_, credit)| **credit > 0);
    walk.credits = credits.map(|(id, credit)| (u32::try_from(id).expect("small"), *credit)).collect();
    walk
}
