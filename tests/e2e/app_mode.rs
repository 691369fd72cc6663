//! The proxy sends the app's own heartbeat, "ping", and handles the client's answers; all other frames pass bit for
//! bit.

use std::time::{Duration, Instant};

use pulsegate_test_kit::frame::{BINARY, CLOSE, CONTINUATION, FIN, Frame, PING, PONG, TEXT};
use pulsegate_test_kit::wait::wait_for;
use tokio::io::AsyncWriteExt;

use crate::e2e::spoken::Spoken;

/// Probes soon, with a long timeout.
const ASKS: &str = "interval = \"500ms\"\ntimeout = \"5s\"\nprofile = { send = \"ping\", expect = \"pong\" }\n";
/// `interval` of [`ASKS`].
const INTERVAL: Duration = Duration::from_millis(500);
/// Never probes in the time of a test.
const WAITS: &str = "interval = \"1m\"\ntimeout = \"5s\"\nprofile = { send = \"ping\", expect = \"pong\" }\n";
/// Probes soon, with a short timeout.
const STRICT: &str = "interval = \"400ms\"\ntimeout = \"600ms\"\nframe_max_time = \"2s\"\n\
                      profile = { send = \"ping\", expect = \"pong\" }\n";
/// `interval + timeout` of [`STRICT`].
const STRICT_BOUND: Duration = Duration::from_secs(1);
/// The delay that a busy machine may add to a bound.
const SLACK: Duration = Duration::from_secs(2);

#[tokio::test]
async fn an_answer_is_swallowed_and_everything_else_arrives_bit_for_bit() {
    let mut session = Spoken::open(ASKS).await;
    for _ in 0..3 {
        session.client_hears_text("ping").await;
        session.client_says("pong").await;
        session.app_hears_nothing_but_a_mark().await;
    }
    session.lives().await;
}

#[tokio::test]
async fn an_answer_among_other_messages_in_one_write_is_found() {
    let mut session = Spoken::open(ASKS).await;
    session.client_hears_text("ping").await;
    let [before, after] = ["before", "after"].map(|text| Frame::client(FIN | TEXT, text));
    let written: Vec<u8> = [&before, &pong(TEXT), &after, &pong(TEXT)].into_iter().flat_map(Frame::bytes).collect();
    session.client.write_all(&written).await.expect("the session lives");
    session.client.flush().await.expect("the session lives");
    // One probe takes one answer; the other answer belongs to none and passes.
    for frame in [&before, &after, &pong(TEXT)] {
        session.app_hears(frame).await;
    }
    session.lives().await;
}

#[tokio::test]
async fn an_answer_that_arrives_byte_by_byte_is_found() {
    let mut session = Spoken::open(ASKS).await;
    session.client_hears_text("ping").await;
    let mark = Frame::client(FIN | TEXT, "mark");
    for byte in [mark.bytes(), pong(TEXT).bytes(), mark.bytes()].concat() {
        session.client.write_all(&[byte]).await.expect("the session lives");
        // A TLS record of its own for each byte.
        session.client.flush().await.expect("the session lives");
    }
    session.app_hears(&mark).await;
    session.app_hears(&mark).await;
    session.app_hears_nothing_but_a_mark().await;
    session.lives().await;
}

#[tokio::test]
async fn any_message_is_life_whether_it_answers_or_not() {
    let mut session = Spoken::open(&STRICT.replace("600ms", "2s")).await;
    let chatter = Frame::client(FIN | TEXT, "busy");
    for _ in 0..8 {
        session.client_hears_text("ping").await;
        session.client_sends(&chatter).await;
        session.app_hears(&chatter).await;
    }
    session.lives().await;
}

#[tokio::test]
async fn s44_a_question_waits_for_the_end_of_a_fragmented_message() {
    let mut session = Spoken::open(ASKS).await;
    session.app_sends(&Frame::server(TEXT, "one ")).await;
    // A probe may have left before the message began; later ones must wait.
    loop {
        match session.client_hears().await {
            frame if frame == Frame::server(FIN | TEXT, "ping") => session.client_says("pong").await,
            frame => break assert_eq!(frame, Frame::server(TEXT, "one ")),
        }
    }
    session.client_hears_nothing_for(INTERVAL * 3).await;
    session.app_sends(&Frame::server(FIN | CONTINUATION, "two")).await;
    assert_eq!(session.client_hears().await, Frame::server(FIN | CONTINUATION, "two"));
    session.client_hears_text("ping").await;
    session.client_says("pong").await;
    session.app_hears_nothing_but_a_mark().await;
    session.lives().await;
}

#[tokio::test]
async fn s45_the_first_answer_is_the_proxys_when_it_asked_first() {
    let mut session = Spoken::open(ASKS).await;
    session.client_hears_text("ping").await;
    session.app_sends(&Frame::server(FIN | TEXT, "ping")).await;
    session.client_hears_text("ping").await;
    // Two answers that differ in their masking keys alone.
    let [first, second] = [[1, 2, 3, 4], [5, 6, 7, 8]].map(|mask| Frame { mask: Some(mask), ..pong(TEXT) });
    session.client_sends(&first).await;
    session.client_sends(&second).await;
    session.app_hears(&second).await;
    session.app_hears_nothing_but_a_mark().await;
    session.lives().await;
}

#[tokio::test]
async fn s45_the_answer_is_the_apps_when_it_alone_asked() {
    let mut session = Spoken::open(WAITS).await;
    for _ in 0..3 {
        session.app_sends(&Frame::server(FIN | TEXT, "ping")).await;
        session.client_hears_text("ping").await;
        session.client_sends(&pong(TEXT)).await;
        session.app_hears(&pong(TEXT)).await;
    }
    session.app_hears_nothing_but_a_mark().await;
    session.lives().await;
}

#[tokio::test]
async fn s46_an_unsolicited_answer_is_forwarded() {
    let mut session = Spoken::open(WAITS).await;
    session.client_sends(&pong(TEXT)).await;
    session.app_hears(&pong(TEXT)).await;
    session.app_hears_nothing_but_a_mark().await;
    session.lives().await;
}

#[tokio::test]
async fn s48_an_answer_in_fragments_is_swallowed() {
    let cuts: [&[&str]; 4] = [&["po", "ng"], &["", "pong"], &["pong", ""], &["p", "", "o", "n", "", "g"]];
    let mut session = Spoken::open(ASKS).await;
    for cut in cuts {
        session.client_hears_text("ping").await;
        for frame in fragments(cut) {
            session.client_sends(&frame).await;
        }
        session.app_hears_nothing_but_a_mark().await;
    }
    session.lives().await;
}

#[tokio::test]
async fn a_control_frame_amid_a_fragmented_answer_passes_alone() {
    let mut session = Spoken::open(ASKS).await;
    session.client_hears_text("ping").await;
    let [first, last] = &fragments(&["po", "ng"])[..] else { unreachable!("two fragments") };
    let unsolicited = Frame::client(FIN | PONG, "mine");
    for frame in [first, &unsolicited, last] {
        session.client_sends(frame).await;
    }
    session.app_hears(&unsolicited).await;
    session.app_hears_nothing_but_a_mark().await;
    session.lives().await;
}

#[tokio::test]
async fn s48_a_binary_answer_is_no_answer_to_a_text() {
    let mut session = Spoken::open(ASKS).await;
    session.client_hears_text("ping").await;
    session.client_sends(&pong(BINARY)).await;
    session.app_hears(&pong(BINARY)).await;
    session.client_says("pong").await;
    session.app_hears_nothing_but_a_mark().await;
    session.lives().await;
}

#[tokio::test]
async fn what_only_begins_like_an_answer_arrives_in_the_clients_own_fragments() {
    let cuts: [&[&str]; 5] = [&["pon"], &["pong "], &["po", "tato"], &["pong", "", "o"], &["", "p", "", "ong", "ed"]];
    let mut session = Spoken::open(ASKS).await;
    for cut in cuts {
        session.client_hears_text("ping").await;
        for frame in fragments(cut) {
            session.client_sends(&frame).await;
        }
        for frame in fragments(cut) {
            session.app_hears(&frame).await;
        }
        session.client_says("pong").await;
        session.app_hears_nothing_but_a_mark().await;
    }
    session.lives().await;
}

#[tokio::test]
async fn a_client_that_answers_with_megabytes_loses_none_of_them() {
    let megabytes = "pong".repeat(1 << 20);
    let mut session = Spoken::open(ASKS).await;
    session.client_hears_text("ping").await;
    let chunks: Vec<&str> = ["po", "ng"].into_iter().chain(std::iter::repeat_n(&megabytes[..1 << 16], 64)).collect();
    for message in [fragments(&[&megabytes]), fragments(&chunks)] {
        passes(&mut session, &message).await;
    }
    session.lives().await;
}

#[tokio::test]
async fn an_answer_in_countless_empty_fragments_is_not_waited_for_and_passes() {
    let parts: Vec<&str> = ["pon"].into_iter().chain(std::iter::repeat_n("", 5_000)).chain(["g"]).collect();
    let mut session = Spoken::open(ASKS).await;
    session.client_hears_text("ping").await;
    passes(&mut session, &fragments(&parts)).await;
    session.client_says("pong").await;
    session.app_hears_nothing_but_a_mark().await;
    session.lives().await;
}

#[tokio::test]
async fn an_answer_never_finished_ends_in_time_and_the_app_receives_no_part_of_it() {
    let mut session = Spoken::open(STRICT).await;
    session.client_hears_text("ping").await;
    session.client_sends(&Frame::client(TEXT, "po")).await;
    let silent = Instant::now();
    let end = session.ends(1012).await;
    let took = end.at - silent;
    assert!(took < STRICT_BOUND + SLACK, "torn down after {took:?}");
    assert_eq!(end.app_heard, [], "a part of a message reached the app");
    assert_eq!(end.line["close.reason"], "heartbeat_timeout", "{}", end.line);
    assert_eq!(end.line["upstream.close_code"], 4408, "{}", end.line);
}

#[tokio::test]
async fn an_answer_that_trickles_without_end_ends_in_time_and_the_app_receives_no_part_of_it() {
    let mut session = Spoken::open(STRICT).await;
    session.client_hears_text("ping").await;
    session.client_sends(&Frame::client(TEXT, "po")).await;
    let began = Instant::now();
    let end = session.ends_amid(&[Frame::client(CONTINUATION, "")], 1012).await;
    let took = end.at - began;
    assert!(took < Duration::from_secs(2) + SLACK, "torn down after {took:?}");
    assert_eq!(end.app_heard, [], "a part of a message reached the app");
    assert_eq!(end.line["close.reason"], "trickle", "{}", end.line);
}

#[tokio::test]
async fn a_flood_of_unsolicited_answers_gets_1008() {
    let mut session = Spoken::open(WAITS).await;
    let flood = pong(TEXT).bytes().repeat(200);
    session.client.write_all(&flood).await.expect("the session lives");
    session.client.flush().await.expect("the session lives");
    let end = session.ends(1008).await;
    assert_eq!(end.line["close.reason"], "rate", "{}", end.line);
    assert!(end.app_heard.len() <= 40, "the app received {} of them", end.app_heard.len());
    assert!(end.app_heard.iter().all(|frame| *frame == pong(TEXT)), "{:?}", end.app_heard);
}

#[tokio::test]
async fn pongs_of_the_protocol_are_no_sign_of_life() {
    let session = Spoken::open(STRICT).await;
    let began = Instant::now();
    let controls = [PONG, PING].map(|opcode| Frame::client(FIN | opcode, "alive"));
    let end = session.ends_amid(&controls, 1012).await;
    let took = end.at - began;
    assert!(took < STRICT_BOUND + SLACK, "torn down after {took:?}");
    assert_eq!(end.line["close.reason"], "heartbeat_timeout", "{}", end.line);
    assert!(end.app_heard.iter().all(|frame| frame.opcode() == PONG), "{:?}", end.app_heard);
}

#[tokio::test]
async fn only_the_answer_is_a_sign_of_life_under_pong_only() {
    // The client is never quiet, and is probed all the same.
    let strictest = format!("{STRICT}liveness = \"pong_only\"\nprobe_when_busy = \"400ms\"\n");
    let session = Spoken::open(&strictest).await;
    let began = Instant::now();
    let chatter = Frame::client(FIN | TEXT, "busy");
    let end = session.ends_amid(std::slice::from_ref(&chatter), 1012).await;
    let took = end.at - began;
    assert!(took < STRICT_BOUND + SLACK, "torn down after {took:?}");
    assert_eq!(end.line["close.reason"], "heartbeat_timeout", "{}", end.line);
    assert!(!end.app_heard.is_empty() && end.app_heard.iter().all(|frame| *frame == chatter), "{:?}", end.app_heard);
    let asked = Frame::server(FIN | TEXT, "ping");
    assert!(end.client_heard.contains(&asked), "it was never asked: {:?}", end.client_heard);
}

#[tokio::test]
async fn a_client_that_closes_amid_an_answer_closes_at_the_app_too() {
    let mut session = Spoken::open(ASKS).await;
    session.client_hears_text("ping").await;
    let begun = Frame::client(TEXT, "po");
    let close = Frame::client(FIN | CLOSE, [&1000_u16.to_be_bytes()[..], b"enough"].concat());
    session.client_sends(&begun).await;
    session.client_sends(&close).await;
    // As it would be without a proxy: the incomplete message arrives, and no more.
    session.app_hears(&begun).await;
    session.app_hears(&close).await;
    drop((session.client, session.app));
    let line = session.proxy.ws_close(|line| line["url.path"] == "/raw").await.json;
    assert_eq!((&line["close.initiator"], &line["close.code"]), (&"client".into(), &1000.into()), "{line}");
    session.proxy.finish().await;
}

/// Returns the whole message "pong" of this kind.
fn pong(kind: u8) -> Frame {
    Frame::client(FIN | kind, "pong")
}

/// Returns one text message of the client, cut into `parts`.
fn fragments(parts: &[&str]) -> Vec<Frame> {
    let last = parts.len() - 1;
    let first = |index| if index == 0 { TEXT } else { CONTINUATION } | if index == last { FIN } else { 0 };
    parts.iter().enumerate().map(|(index, part)| Frame::client(first(index), *part)).collect()
}

/// Fails unless every frame of the client's arrives bit for bit, at any speed of the two ends.
async fn passes(session: &mut Spoken, frames: &[Frame]) {
    let bytes: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
    let Spoken { client, app, .. } = session;
    let sending = async {
        client.write_all(&bytes).await.expect("the session lives");
        client.flush().await.expect("the session lives");
    };
    let arriving = async {
        for sent in frames {
            let heard = Frame::read_past_pings(app).await.expect("the session lives");
            let [sent_size, heard_size] = [sent, &heard].map(|frame| frame.payload.len());
            let firsts = (sent.first, heard.first);
            assert!(heard == *sent, "sent {sent_size} bytes, the app received {heard_size}; first bytes {firsts:02x?}");
        }
    };
    wait_for("every byte arrives", async { tokio::join!(sending, arriving) }).await;
}
