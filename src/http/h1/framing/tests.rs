//! Tests of the walk over HTTP/1.1 framing, in pieces of every size.

use super::*;

const NEXT: &str = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";

fn framing() -> Framing {
    Framing::new(1000)
}

/// Returns the part of `bytes` that passes in pieces of `piece`.
fn walk(framing: &mut Framing, bytes: &[u8], piece: usize) -> Vec<u8> {
    let (mut passed, mut rest) = (Vec::new(), bytes.to_vec());
    while !rest.is_empty() && framing.fault().is_none() && !framing.is_gated() {
        let piece = piece.min(rest.len());
        let len = framing.walk(&mut rest[..piece]);
        passed.extend(rest.drain(..len));
    }
    passed
}

/// Returns the result of `bytes`, the same in pieces of every size: the bytes that pass, the fault, the targets by heads,
/// and all heads.
fn through(bytes: &str) -> (String, Option<&'static str>, Vec<(u64, String)>, u64) {
    let outcome = |piece| {
        let mut framing = framing();
        let passed = walk(&mut framing, bytes.as_bytes(), piece);
        let noted = framing.take_noted().into_iter();
        let noted = noted.map(|Noted { head, target }| (head, String::from_utf8(target).expect("text"))).collect();
        let fault = framing.fault().map(|Ambiguous(what)| what);
        (String::from_utf8(passed).expect("text"), fault, noted, framing.heads())
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

#[test]
fn requests_pass_as_they_are() {
    for request in [
        NEXT.to_owned(),
        format!("\r\n\n{NEXT}"),
        NEXT.replace("\r\n", "\n"),
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        "POST / HTTP/1.1\r\nHost: a\r\ncontent-length:\t5 \n\n\n\n\"<#".to_owned(),
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "POST / HTTP/1.1\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n".to_owned(),
        chunked("5;ext=\"a\"\r\nhello\r\n10 \r\n0123456789abcdef\r\n0\r\n\r\n"),
        chunked("00A\t;a\r\n\r\n0\r\n\r\n\r\n\n\r\n0\r\n\r\n"),
        chunked("00000000000000000000000\r\n\r\n"),
        chunked("0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n"),
        "GET /?a={b}|^ HTTP/1.1\r\nReferer: /\"<#>\r\nTransfer-Encodings: a\r\nContent-Length-: b\r\n\r\n".to_owned(),
    ] {
        let twice = format!("{request}{NEXT}");
        assert_eq!(through(&twice), (twice.clone(), None, Vec::new(), 2), "{request:?}");
    }
}

#[test]
fn an_end_that_two_readers_see_elsewhere_stops_the_connection() {
    for (before, behind, fault) in [
        ("0\r\n", "\n", "a trailer line ends in a bare LF"),
        ("0\r\nX-T: 1", "\n\r\n", "a trailer line ends in a bare LF"),
        ("0\r\nX-T: 1", "\n\n", "a trailer line ends in a bare LF"),
        ("0\r\nX-T: 1\r\n", "\n", "a trailer line ends in a bare LF"),
        ("0\r\nX-T: 1\r", "\r\n\r\n", "a trailer line has a bare CR"),
        ("0\r\nX-T: 1\r", "X: 2\r\n\r\n", "a trailer line has a bare CR"),
        ("0\r\n\r", "\r\n", "a trailer line has a bare CR"),
        ("0", "\n\r\n", "a chunk line ends in a bare LF"),
        ("0 ", "\n\r\n", "a chunk line ends in a bare LF"),
        ("0;a", "\nb\r\n\r\n", "a chunk line ends in a bare LF"),
        ("0\r", "\r\n", "a chunk line has a bare CR"),
        ("1;a\r", "b\r\n\r\n", "a chunk line has a bare CR"),
        ("1\r\na", "\n0\r\n\r\n", "a chunk is not followed by CRLF"),
        ("1\r\na\r", "0\r\n\r\n", "a chunk is not followed by CRLF"),
        ("1\r\na", "b\r\n0\r\n\r\n", "a chunk is not followed by CRLF"),
        ("", "\r\n", "a chunk has no size"),
        ("", "x\r\n", "a chunk has no size"),
        ("", "-1\r\n", "a chunk has no size"),
        ("0", "x1\r\n", "a chunk has no size"),
        ("1 ", "1\r\n", "a chunk has no size"),
        ("100000000000000", "0\r\n", "a chunk is too large"),
    ] {
        let (passed, found, ..) = through(&format!("{}{NEXT}", chunked(&format!("{before}{behind}"))));
        assert_eq!((passed, found), (chunked(before), Some(fault)), "{before:?} {behind:?}");
    }
}

#[test]
fn targets_that_the_library_refuses_have_stand_ins_and_are_noted() {
    for (target, given) in [
        (r#"/a?filter={"room":1}"#, "/a?filter={_room_:1}"),
        ("/a?<b>|^`", "/a?_b_|^_"),
        ("/<a>", "/_a_"),
        (r#"http://h/"?""#, "http://h/_?_"),
        (r#"http://h?""#, "http://h?_"),
        ("/\"#\"", "/_#_"),
        ("/x#y", "/x#y"),
        // Not the stand-in of anything: it stays refused.
        (r#"http://"h"/"#, r#"http://"h"/"#),
        (r#"a"b"#, r#"a"b"#),
    ] {
        let request = |target| format!("GET {target} HTTP/1.1\r\nHost: \"<\r\n\r\n");
        let noted = vec![(2, target.to_owned())];
        let all = |target| format!("{NEXT}{}{NEXT}", request(target));
        assert_eq!(through(&all(target)), (all(given), None, noted, 3));
    }
}

#[test]
fn an_absolute_target_of_options_is_noted() {
    for (line, noted) in [
        ("OPTIONS https://a", Some("https://a")),
        ("OPTIONS *", Some("*")),
        ("OPTIONS /", None),
        ("GET https://a", None),
        ("GET /?u=https://a", None),
    ] {
        let request = format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n");
        let noted = noted.map(|target| (1, target.to_owned()));
        assert_eq!(through(&request), (request, None, noted.into_iter().collect(), 1));
    }
}

#[test]
fn a_length_that_not_every_reader_can_hold_is_malformed() {
    let post = |length: &str| format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\nabc{NEXT}");
    for length in ["18446744073709551615", "18446744073709551616", "9223372036854775808", "99999999999999999999999"] {
        let expected = post(length).replacen(&format!("{length}\r\n"), &format!("{length}\r\0"), 1);
        assert_eq!(through(&post(length)).0, expected);
    }
    let largest = post("9223372036854775807");
    assert_eq!(through(&largest), (largest.clone(), None, Vec::new(), 1));
}

#[test]
fn what_follows_an_upgrade_waits() {
    for message in [
        "GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        "POST / HTTP/1.1\r\nupgrade:h2c\r\nContent-Length: 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nUPGRADE: h2c\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ] {
        let all = format!("{message}\u{1}\u{2}");
        assert_eq!(through(&all), (message.to_owned(), None, Vec::new(), 1));
        let mut framing = framing();
        walk(&mut framing, message.as_bytes(), 5);
        assert!(framing.is_gated());
        framing.release();
        let bad = chunked("0\r\n\n");
        assert_eq!(walk(&mut framing, bad.as_bytes(), 5), chunked("0\r\n").as_bytes(), "it looks on");
        assert_eq!((framing.heads(), framing.fault()), (2, Some(Ambiguous("a trailer line ends in a bare LF"))));
    }
}
