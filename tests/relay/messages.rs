//! Heartbeats that are messages, in `app` mode: the probes, the swallowed answers, and the matching of the two.

use std::sync::Arc;
use std::time::Duration;

use pulsegate::heartbeat::{Builtin, Matching, MessageTemplate, Mode, Pattern, Policy, Profile, Role};
use pulsegate::session::{EndReason, Initiator};
use pulsegate::ws::Opcode;
use tokio::time::sleep;

use crate::rig::{BINARY, CLOSE, CONTINUATION, Frame, PING, PONG, Plan, Rig, TEXT};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);
const LAST: u8 = 0x80 | CONTINUATION;

pub fn app() -> Policy {
    Policy { mode: Builtin::ExpressText.mode(Role::App), ..Policy::default() }
}

pub fn rig(policy: Policy) -> Rig {
    Rig::with(Plan { policy, ..Plan::default() })
}

pub fn text(text: &str) -> Frame {
    Frame::new(TEXT, text.as_bytes())
}

pub fn fragment(first: u8, payload: &[u8]) -> Frame {
    Frame { first, payload: payload.to_vec() }
}

pub fn masked(frames: &[Frame]) -> Vec<u8> {
    frames.iter().flat_map(|frame| frame.encode(true)).collect()
}

/// Expects the proxy's probe at the client.
pub async fn asked(rig: &mut Rig) {
    assert_eq!(rig.client.expect().await, text("ping"));
}

/// Asserts that the app has received nothing but what the test has read.
pub async fn nothing_more(rig: &mut Rig) {
    rig.client.send(&text("end")).await;
    assert_eq!(rig.app.expect().await, text("end"), "the next thing that the app sees");
}

#[tokio::test(start_paused = true)]
async fn s01_an_idle_client_is_asked_once_with_an_unmasked_message() {
    let mut rig = rig(app());
    assert_eq!(rig.client.exactly(6).await, b"\x81\x04ping", "FIN, RSV 0, text, no mask");
    assert!(rig.elapsed() <= 25 * SECOND && rig.elapsed() >= 12 * SECOND, "{:?}", rig.elapsed());
    rig.client.silent(10 * SECOND).await;
    rig.client.send(&text("pong")).await;
    let answered = rig.elapsed();
    asked(&mut rig).await;
    let quiet = rig.elapsed() - answered;
    assert!(quiet >= 20 * SECOND && quiet <= 25 * SECOND, "{quiet:?}");
}

#[tokio::test(start_paused = true)]
async fn s02_the_answer_to_our_question_never_reaches_the_app() {
    let mut rig = rig(app());
    for _ in 0..10 {
        asked(&mut rig).await;
        rig.client.send(&text("pong")).await;
    }
    nothing_more(&mut rig).await;
}

#[tokio::test(start_paused = true)]
async fn s03_a_client_that_does_not_answer_is_gone_from_both_legs_within_the_bound() {
    let mut rig = rig(app());
    asked(&mut rig).await;
    assert_eq!(rig.app.expect().await, Frame::close(4408, "heartbeat timeout"));
    assert!(rig.elapsed() <= 45 * SECOND, "interval + timeout, not {:?}", rig.elapsed());
    assert_eq!(rig.client.expect().await, Frame::close(1012, "heartbeat timeout"));
    assert_eq!(rig.client.frame().await, None);
    assert_eq!(rig.app.frame().await, None);
    let ending = rig.ending().await;
    assert_eq!((ending.cause.initiator(), ending.cause.reason()), (Initiator::Proxy, EndReason::HeartbeatTimeout));
    assert_eq!((ending.heartbeat.pings, ending.heartbeat.missed), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn s04_the_apps_own_question_and_its_answer_pass_untouched() {
    let mut rig = rig(app());
    rig.app.send(&text("ping")).await;
    assert_eq!(rig.client.expect().await, text("ping"));
    let answer = text("pong").encode(true);
    rig.client.send_raw(&answer).await;
    assert_eq!(rig.app.exactly(answer.len()).await, answer, "the client's own mask and all");
}

#[tokio::test(start_paused = true)]
async fn s07_an_answer_that_is_nearly_right_is_alive_and_forwarded() {
    for near in ["p0ng", "pon", "pongs", "Pong", " pong", "pong\n"] {
        let mut rig = rig(app());
        asked(&mut rig).await;
        rig.client.send(&text(near)).await;
        assert_eq!(rig.app.expect().await, text(near));
        asked(&mut rig).await;
    }
}

#[tokio::test(start_paused = true)]
async fn s08_s46_an_answer_to_nothing_is_forwarded_and_never_answered() {
    let mut rig = rig(app());
    rig.client.send(&text("pong")).await;
    assert_eq!(rig.app.expect().await, text("pong"));
    rig.client.silent(10 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn s10_questions_of_both_are_never_mixed_up() {
    let mut rig = rig(Policy { interval: 4 * SECOND, ..app() });
    let mut ours = 0;
    for _ in 0..20 {
        rig.app.send(&text("ping")).await;
        let mut questions = 0;
        while let Ok(question) = tokio::time::timeout(9 * SECOND / 2, rig.client.expect()).await {
            assert_eq!(question, text("ping"));
            rig.client.send(&text("pong")).await;
            questions += 1;
            if questions == 3 {
                break;
            }
        }
        ours += questions - 1;
        assert_eq!(rig.app.expect().await, text("pong"), "its own answer");
    }
    assert_eq!(ours, 40, "two of ours beside each of the app's");
    nothing_more(&mut rig).await;
}

#[tokio::test(start_paused = true)]
async fn s45_two_answers_go_to_whom_they_belong_in_wire_order() {
    for ours_first in [true, false] {
        let mut rig = rig(Policy { interval: 10 * SECOND, ..app() });
        if ours_first {
            asked(&mut rig).await;
            rig.app.send(&text("ping")).await;
        } else {
            sleep(4 * SECOND).await;
            rig.app.send(&text("ping")).await;
            asked(&mut rig).await;
            // Data instead of the answer: the client is alive, so that the proxy probes it too while the app still
            // waits.
            rig.client.send(&text("data")).await;
            assert_eq!(rig.app.expect().await, text("data"));
        }
        asked(&mut rig).await;
        // The two differ in their masks only.
        let answers = [[0x81, 0x84, 1, 1, 1, 1, b'p' ^ 1, b'o' ^ 1, b'n' ^ 1, b'g' ^ 1], *b"\x81\x84\0\0\0\0pong"];
        rig.client.send_raw(&answers.concat()).await;
        let forwarded = answers[usize::from(ours_first)];
        assert_eq!(rig.app.exactly(10).await, forwarded, "ours first: {ours_first}");
        nothing_more(&mut rig).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_apps_own_question_is_the_probe() {
    let mut rig = rig(app());
    sleep(SECOND).await;
    rig.app.send(&text("ping")).await;
    assert_eq!(rig.client.expect().await, text("ping"));
    assert_eq!(rig.client.expect().await, Frame::close(1012, "heartbeat timeout"), "no second question");
    assert!(rig.elapsed() <= 22 * SECOND, "{:?}", rig.elapsed());
}

#[tokio::test(start_paused = true)]
async fn s12_twenty_answers_a_second_to_nothing_pass_and_more_end_the_session() {
    let mut rig = rig(app());
    rig.client.send_raw(&masked(&vec![text("pong"); 30])).await;
    for _ in 0..20 {
        assert_eq!(rig.app.expect().await, text("pong"));
    }
    assert_eq!(rig.app.expect().await, Frame::close(1008, "too many heartbeats"), "not one more");
    assert_eq!(rig.client.expect().await, Frame::close(1008, "too many heartbeats"));
    assert_eq!(rig.ending().await.cause.reason(), EndReason::Rate);
}

#[tokio::test(start_paused = true)]
async fn s23_a_hung_page_whose_browser_answers_pings_is_torn_down() {
    let mut rig = rig(app());
    let mut asked = false;
    while rig.elapsed() < 60 * SECOND {
        sleep(SECOND).await;
        if rig.client.try_send(&masked(&[Frame::new(PONG, b"alive"), Frame::new(PING, b"alive")])).await.is_err() {
            break;
        }
        while let Ok(Some(frame)) = tokio::time::timeout(MILLISECOND, rig.client.frame()).await {
            asked |= frame == text("ping");
            if frame.opcode() == CLOSE {
                assert_eq!(frame, Frame::close(1012, "heartbeat timeout"));
                assert!(asked && rig.elapsed() <= 46 * SECOND, "{:?}", rig.elapsed());
                return;
            }
        }
    }
    panic!("alive after {:?}", rig.elapsed());
}

#[tokio::test(start_paused = true)]
async fn s24_a_hung_page_that_takes_no_bytes_is_a_slow_reader() {
    let mut rig = Rig::with(Plan { policy: app(), pipe: 4096, ..Plan::default() });
    rig.app.send_raw_soon(Frame::new(BINARY, &vec![7; 1_000_000]).encode(false));
    let ending = rig.ending().await;
    assert_eq!(ending.cause.reason(), EndReason::SlowReader);
    assert!(ending.duration >= 45 * SECOND && ending.duration <= 53 * SECOND, "{:?}", ending.duration);
}

#[tokio::test(start_paused = true)]
async fn s34_a_client_that_echoes_the_close_gets_fin_at_once() {
    let mut rig = rig(app());
    asked(&mut rig).await;
    let close = rig.client.expect().await;
    rig.client.send(&close).await;
    let echoed = rig.elapsed();
    assert_eq!(rig.client.frame().await, None);
    assert_eq!(rig.elapsed(), echoed, "no grace is waited for");
}

#[tokio::test(start_paused = true)]
async fn s44_a_question_waits_for_the_end_of_a_fragmented_message() {
    let mut rig = rig(app());
    sleep(12 * SECOND).await;
    let fragments = [fragment(TEXT, b"one"), fragment(CONTINUATION, b"two"), fragment(LAST, b"three")];
    for (step, part) in fragments.iter().enumerate() {
        rig.app.send(part).await;
        assert_eq!(rig.client.expect().await, *part, "fragment {step}");
        if step < 2 {
            rig.client.silent(8 * SECOND).await;
        }
    }
    asked(&mut rig).await;
    assert!(rig.elapsed() <= 29 * SECOND, "right behind it, not at {:?}", rig.elapsed());
    rig.client.send(&text("pong")).await;
    nothing_more(&mut rig).await;
}

#[tokio::test(start_paused = true)]
async fn s44_a_message_cut_in_the_middle_of_one_write_still_has_the_question_behind_it() {
    let mut rig = rig(app());
    rig.app.send(&fragment(TEXT, b"one")).await;
    assert_eq!(rig.client.expect().await, fragment(TEXT, b"one"));
    sleep(26 * SECOND).await;
    let rest = [fragment(LAST, b"two").encode(false), fragment(TEXT, b"three").encode(false)].concat();
    rig.app.send_raw(&rest).await;
    assert_eq!(rig.client.expect().await, fragment(LAST, b"two"));
    asked(&mut rig).await;
    assert_eq!(rig.client.expect().await, fragment(TEXT, b"three"));
}

#[tokio::test(start_paused = true)]
async fn s44_a_message_that_the_app_leaves_open_gives_way_to_a_ping() {
    let mut rig = rig(app());
    rig.app.send(&fragment(TEXT, b"one")).await;
    assert_eq!(rig.client.expect().await, fragment(TEXT, b"one"));
    let ping = rig.client.expect().await;
    assert_eq!(ping.opcode(), PING, "between the fragments no message may stand");
    assert!(rig.elapsed() <= 46 * SECOND, "{:?}", rig.elapsed());
    rig.client.send(&Frame::new(PONG, &ping.payload)).await;
    sleep(SECOND).await;
    rig.app.send(&fragment(LAST, b"two")).await;
    assert_eq!(rig.client.expect().await, fragment(LAST, b"two"));
    asked(&mut rig).await;
    rig.client.send(&text("pong")).await;
    nothing_more(&mut rig).await;
}

#[tokio::test(start_paused = true)]
async fn s48_an_answer_in_fragments_is_reassembled_however_it_is_cut() {
    let mut rig = rig(app());
    let cuts: [&[&[u8]]; 7] = [
        &[b"po", b"ng"],
        &[b"p", b"o", b"n", b"g"],
        &[b"pong", b""],
        &[b"", b"pong"],
        &[b"", b"", b"po", b"", b"ng", b"", b""],
        &[b"pon", b"g", b""],
        &[b"", b"", b"", b"", b"", b"", b"", b"", b"pong", b"", b"", b"", b"", b"", b"", b"", b""],
    ];
    for cut in cuts {
        let frames = fragments(cut);
        asked(&mut rig).await;
        rig.client.send_raw(&masked(&frames)).await;
        rig.app.silent(SECOND).await;
        asked(&mut rig).await;
        for frame in &frames {
            rig.client.send(frame).await;
            rig.app.silent(SECOND).await;
        }
        asked(&mut rig).await;
        for byte in masked(&frames) {
            rig.client.send_raw(&[byte]).await;
            rig.app.silent(MILLISECOND).await;
        }
    }
    nothing_more(&mut rig).await;
}

/// Returns one message, cut into `parts`.
pub fn fragments(parts: &[&[u8]]) -> Vec<Frame> {
    let last = parts.len() - 1;
    let first = |at| if at == 0 { TEXT } else { CONTINUATION } | if at == last { 0x80 } else { 0 };
    parts.iter().enumerate().map(|(at, part)| fragment(first(at), part)).collect()
}

#[tokio::test(start_paused = true)]
async fn s48_a_binary_answer_is_not_one_in_a_profile_of_texts() {
    let mut rig = rig(app());
    asked(&mut rig).await;
    let answers = [Frame::new(BINARY, b"pong"), fragment(BINARY, b"po"), fragment(LAST, b"ng")];
    rig.client.send_raw(&masked(&answers)).await;
    for answer in answers {
        assert_eq!(rig.app.expect().await, answer);
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_answer_in_many_small_fragments_is_still_one() {
    let question = r#"{"type":"ping"}"#;
    let mut rig = rig(Policy { mode: Builtin::GraphqlTransportWs.mode(Role::App), ..Policy::default() });
    let answer = format!(r#"{{"type":"pong","payload":{{"note":"{}"}}}}"#, "x".repeat(180));
    let parts: Vec<&[u8]> = answer.as_bytes().chunks(1).collect();
    assert_eq!(rig.client.expect().await, text(question));
    rig.client.send_raw(&masked(&fragments(&parts))).await;
    nothing_more(&mut rig).await;
}

#[tokio::test(start_paused = true)]
async fn json_answers_may_have_members_beside_those_that_are_named() {
    let mut rig = rig(Policy { mode: Builtin::GraphqlTransportWs.mode(Role::App), ..Policy::default() });
    for answer in [
        r#"{"type":"pong"}"#,
        r#"{"type":"pong","payload":{"at":17}}"#,
        "{ \"payload\" : null,\n \"type\" : \"pong\" }",
        r#"{"type":"\u0070ong"}"#,
    ] {
        assert_eq!(rig.client.expect().await, text(r#"{"type":"ping"}"#));
        rig.client.send(&text(answer)).await;
    }
    assert_eq!(rig.client.expect().await, text(r#"{"type":"ping"}"#));
    let other = r#"{"type":"next","payload":{"type":"pong"}}"#;
    rig.client.send(&text(other)).await;
    assert_eq!(rig.app.expect().await, text(other), "the first that the app sees");
}

fn after_hello(role: Role) -> Policy {
    let pattern = |text: &str| Pattern::new(Opcode::TEXT, text.as_bytes(), Matching::Exact).unwrap();
    let profile = Profile {
        send: Some(MessageTemplate::new(Opcode::TEXT, b"ping")),
        asks: (role == Role::App).then(|| pattern("ping")),
        expect: vec![pattern("pong")],
        start_after: Some(pattern("hello")),
        ..Builtin::ExpressText.profile(role)
    };
    Policy { mode: role.with(Arc::new(profile)), ..Policy::default() }
}

#[tokio::test(start_paused = true)]
async fn before_start_after_the_client_is_pinged_and_its_messages_pass() {
    for starter in ["client", "app"] {
        let mut rig = rig(after_hello(Role::App));
        let ping = rig.client.expect().await;
        assert_eq!(ping.opcode(), PING, "not a message");
        rig.client.send(&Frame::new(PONG, &ping.payload)).await;
        rig.client.send(&text("pong")).await;
        assert_eq!(rig.app.expect().await, text("pong"));
        if starter == "client" {
            rig.client.send_raw(&masked(&[fragment(TEXT, b"hel"), fragment(LAST, b"lo")])).await;
            assert_eq!(rig.app.expect().await, fragment(TEXT, b"hel"));
            assert_eq!(rig.app.expect().await, fragment(LAST, b"lo"));
        } else {
            rig.app.send(&text("hello")).await;
            assert_eq!(rig.client.expect().await, text("hello"));
        }
        asked(&mut rig).await;
        rig.client.send(&text("pong")).await;
        nothing_more(&mut rig).await;
    }
}

#[tokio::test(start_paused = true)]
async fn before_start_after_nothing_is_answered() {
    let mut rig = rig(after_hello(Role::Answer));
    rig.client.send(&text("pong")).await;
    assert_eq!(rig.app.expect().await, text("pong"));
    rig.client.silent(10 * SECOND).await;
    rig.app.send(&text("hello")).await;
    assert_eq!(rig.client.expect().await, text("hello"));
    rig.client.send(&text("pong")).await;
    assert_eq!(rig.client.expect().await, text("ping"));
    nothing_more(&mut rig).await;
}

#[tokio::test(start_paused = true)]
async fn the_mode_takes_binary_messages_where_the_profile_says_so() {
    let profile = Profile {
        send: Some(MessageTemplate::new(Opcode::BINARY, &[0xC0])),
        expect: vec![Pattern::new(Opcode::BINARY, &[0xD0], Matching::Exact).unwrap()],
        ..Builtin::ExpressText.profile(Role::App)
    };
    let mut rig = rig(Policy { mode: Mode::App(Arc::new(profile)), ..Policy::default() });
    assert_eq!(rig.client.expect().await, Frame::new(BINARY, &[0xC0]));
    rig.client.send(&Frame::new(BINARY, &[0xD0])).await;
    rig.client.send(&Frame::new(TEXT, &[0x50])).await;
    assert_eq!(rig.app.expect().await, Frame::new(TEXT, &[0x50]));
}
