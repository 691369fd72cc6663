//! The walk over the frames that an HTTP/2 client sends, in any chunks, against a walk over the whole stream: the same
//! bytes pass, the same are taken out, replaced and counted.

use pulsegate::http::FrameGuard;
use tokio::time::Instant;

const PREFACE: usize = 24;
const HEADER: usize = 9;
/// Empty frames that are taken out at a stretch.
const EMPTY_MOST: u32 = 1000;

/// What was made of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Walk {
    passed: Vec<u8>,
    held: Vec<u8>,
    small: usize,
    resets: usize,
    data: Option<(u32, usize)>,
    in_block: bool,
    broken: Vec<u32>,
    credits: Vec<(u32, u32)>,
}

/// Reads `data`: which of four streams are open, three sizes of chunks, and then the stream behind the preface.
pub fn run(data: &[u8]) {
    let Some((&[kinds, ref sizes @ ..], frames)) = data.split_first_chunk::<4>() else { return };
    let live: Vec<u32> = [1, 3, 5, 7].into_iter().filter(|id| kinds >> id & 1 != 0).collect();
    let stream = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], frames].concat();
    let expected = reference(&stream, &live);
    assert_eq!(guarded(&stream, &live, &[stream.len()]), expected, "at once");
    let sizes: Vec<_> = sizes.iter().map(|size| usize::from(*size) + 1).collect();
    assert_eq!(guarded(&stream, &live, &sizes), expected, "in chunks of {sizes:?}");
    assert_eq!(guarded(&stream, &live, &[1]), expected, "byte by byte");
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
        assert!(guard.held().len() <= HEADER + 4, "{} bytes are held", guard.held().len());
        rest = behind;
    }
    let (broken, mut credits) = guard.take();
    credits.sort_unstable();
    Walk {
        passed,
        held: guard.held().to_vec(),
        small: guard.small(),
        resets: guard.resets(),
        data: guard.data(),
        in_block: guard.is_in_block(),
        broken,
        credits,
    }
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

/// Walks over the whole of `stream` (RFC 9113 §4.1, §6).
fn reference(stream: &[u8], live: &[u32]) -> Walk {
    let (preface, mut rest) = stream.split_at(PREFACE);
    let mut walk = Walk { passed: preface.to_vec(), ..Walk::default() };
    let (mut allowed, mut highest, mut open) = (EMPTY_MOST, 0, false);
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
        if !open && kind == 8 && length == 4 {
            let Some(increment) = body.first_chunk::<4>() else {
                walk.held = rest.to_vec();
                break;
            };
            let increment = number(increment) & 0x7FFF_FFFF;
            if increment == 0 && (1..=highest).contains(&id) {
                walk.passed.extend([0, 0, 4, 3, 0]);
                walk.passed.extend(id.to_be_bytes());
                walk.passed.extend([0, 0, 0, 1]);
                walk.broken.push(id);
                walk.resets += 1;
                rest = &body[4..];
                continue;
            }
        }
        let payload = &body[..body.len().min(length)];
        let whole = payload.len() == length;
        walk.passed.extend_from_slice(head);
        walk.passed.extend_from_slice(payload);
        walk.small += usize::from(kind == 0 && length < 256);
        walk.resets += usize::from(kind == 3);
        walk.data = (kind == 0 && !whole).then_some((id, payload.len()));
        if kind == 1 || kind == 9 {
            highest = highest.max(id);
            open = flags & 4 == 0;
            walk.in_block = open || !whole;
        }
        rest = &body[payload.len()..];
    }
    let credits = credit.iter().enumerate().filter(|(_, credit)| **credit > 0);
    walk.credits = credits.map(|(id, credit)| (u32::try_from(id).expect("small"), *credit)).collect();
    walk
}
