//! Compiled under `#[cfg(test)]` only.

use super::*;

fn framing() -> Framing {
    Framing::new(HeadLimits { bytes: 1000, fields: 10 })
}

/// What passes of `bytes` when they come in pieces of `piece`, and the fault that stops them.
fn walk(framing: &mut Framing, bytes: &[u8], piece: usize) -> (Vec<u8>, Option<Ambiguous>) {
    let (mut passed, mut held) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(piece) {
        held.extend_from_slice(piece);
        while !held.is_empty() {
            match framing.step(&held) {
                Ok(Step::More) => break,
                Ok(Step::Pass(len)) => passed.extend(held.drain(..len)),
                Ok(Step::Replace(len, other)) => {
                    drop(held.drain(..len));
                    passed.extend(other);
                }
                Err(fault) => return (passed, Some(fault)),
            }
        }
    }
    (passed, None)
}

/// In every chunking the same comes out; what it is.
fn through(bytes: &str) -> (String, Option<&'static str>, Vec<Note>) {
    let outcome = |piece| {
        let mut framing = framing();
        let (passed, fault) = walk(&mut framing, bytes.as_bytes(), piece);
        let notes = (0..framing.heads).map(|_| framing.next_request()).collect::<Vec<_>>();
        (String::from_utf8(passed).unwrap(), fault.map(|Ambiguous(what)| what), notes)
    };
    let whole = outcome(bytes.len());
    for piece in 1..bytes.len() {
        assert_eq!(outcome(piece), whole, "in pieces of {piece}: {bytes:?}");
    }
    whole
}

/// A chunked request whose body is `body`.
fn chunked(body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
}

const NEXT: &str = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn requests_pass_as_they_are() {
    for request in [
        NEXT.to_owned(),
        format!("\r\n\n{NEXT}"),
        NEXT.replace("\r\n", "\n"),
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n".to_owned(),
        chunked("5;ext=\"a\"\r\nhello\r\n10 \r\n0123456789abcdef\r\n0\r\n\r\n"),
        chunked("0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n"),
    ] {
        let twice = format!("{request}{NEXT}");
        let (passed, fault, notes) = through(&twice);
        assert_eq!((passed, fault), (twice, None));
        assert_eq!(notes, [Note::default(), Note::default()], "two requests: {request:?}");
    }
}

#[test]
fn an_end_that_two_readers_see_elsewhere_stops_the_connection() {
    for (body, fault) in [
        ("0\r\n\n", "a trailer line ends in a bare LF"),
        ("0\r\nX-T: 1\n\r\n", "a trailer line ends in a bare LF"),
        ("0\r\nX-T: 1\n\n", "a trailer line ends in a bare LF"),
        ("0\r\nX-T: 1\r\n\n", "a trailer line ends in a bare LF"),
        ("0\r\nX-T: 1\r\r\n\r\n", "a line has a bare CR"),
        ("0\n\r\n", "a chunk line ends in a bare LF"),
        ("0;a\nb\r\n\r\n", "a chunk line ends in a bare LF"),
        ("0\r\r\n", "a line has a bare CR"),
        ("\r\n", "a chunk has no size"),
        ("x\r\n", "a chunk has no size"),
        ("-1\r\n", "a chunk has no size"),
        ("1 1\r\n", "a chunk has no size"),
        ("1000000000000000\r\n", "a chunk is too large"),
        ("ffffffffffffffff1\r\n", "a chunk is too large"),
    ] {
        let (passed, found, _) = through(&format!("{}{NEXT}", chunked(body)));
        assert_eq!(found, Some(fault), "{body:?}");
        assert!(!passed.contains("/next"), "{body:?} let {passed:?} through");
    }
    let (_, found, _) = through(&chunked("00000000000000000000000\r\n\r\n"));
    assert_eq!(found, None, "leading zeros add nothing");
}

#[test]
fn lines_of_any_length_are_not_held() {
    for body in [format!("0;{}", "x".repeat(LINES_MOST)), format!("0\r\nX: {}", "x".repeat(LINES_MOST))] {
        let (_, fault) = walk(&mut framing(), chunked(&body).as_bytes(), 4000);
        assert!(fault.is_some(), "{} bytes", body.len());
    }
    // The library refuses a head that is too long, and has to see it for that.
    let head = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(2000));
    assert_eq!(walk(&mut framing(), head.as_bytes(), 100), (head.as_bytes().to_vec(), None));
}

#[test]
fn targets_that_the_library_refuses_are_spelt_otherwise_and_kept() {
    for (target, given) in [
        (r#"/a?filter={"room":1}"#, "/a?filter=%7B%22room%22:1%7D"),
        ("/a?<b>|^`", "/a?%3Cb%3E%7C%5E%60"),
        ("/<a>", "/%3Ca%3E"),
    ] {
        let request = |target| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let (passed, _, mut notes) = through(&format!("{}{NEXT}", request(target)));
        assert_eq!(passed, format!("{}{NEXT}", request(given)));
        assert_eq!(notes.remove(0).target.as_deref(), Some(target.as_bytes()));
        assert_eq!(notes, [Note::default()]);
    }
    for target in ["/a?b={c}|^`", "/a%22?b=%3C", "/", "*", "/ü"] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(through(&request), (request, None, vec![Note::default()]), "{target} passes as it is");
    }
}

#[test]
fn what_the_library_drops_of_a_target_is_noted() {
    let note = |line: &str| through(&format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n")).2.remove(0);
    assert!(note("GET /x#y").is_refused);
    assert!(note("GET /x?a#y").is_refused);
    assert!(note("OPTIONS https://a").is_asterisk);
    assert!(note("OPTIONS https://a:443").is_asterisk);
    for line in ["OPTIONS https://a/", "OPTIONS /", "OPTIONS *", "GET https://a", "GET /?u=https://a"] {
        assert_eq!(note(line), Note::default(), "{line}");
    }
}

#[test]
fn a_length_that_not_every_reader_can_hold_is_malformed() {
    let post = |length: &str| format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\nabc{NEXT}");
    for length in ["18446744073709551615", "9223372036854775808", "99999999999999999999999"] {
        assert!(through(&post(length)).0.starts_with('\0'), "{length}");
    }
    let largest = post("9223372036854775807");
    assert_eq!(through(&largest).0, largest);
}

#[test]
fn what_follows_an_upgrade_is_left_alone_and_a_refusal_is_followed_by_requests() {
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    let frames = "\u{1}\u{2}GET # HTTP/1.1\r\n\r\n0\r\n\n";
    let mut framing = framing();
    let all = format!("{upgrade}{frames}");
    assert_eq!(walk(&mut framing, all.as_bytes(), 7), (all.into_bytes(), None));
    assert!(!framing.resume(), "what came cannot be told apart from a request");

    let mut framing = self::framing();
    walk(&mut framing, upgrade.as_bytes(), 1000);
    assert!(framing.resume());
    let (_, fault) = walk(&mut framing, chunked("0\r\n\n").as_bytes(), 1000);
    assert!(fault.is_some(), "it looks on");
}
