//! Messages that may be answers, and are held back until that is certain: cut anywhere, with anything in between.

use std::time::Duration;

use pulsegate::relay::SessionOrder;
use pulsegate::session::EndReason;
use tokio::time::sleep;

use crate::messages::{app, asked, fragment, masked, nothing_more, rig, text};
use crate::rig::{CONTINUATION, Frame, PING, PONG, TEXT};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);
const LAST: u8 = 0x80 | CONTINUATION;

#[tokio::test(start_paused = true)]
async fn an_answer_cut_at_every_byte_never_reaches_the_app() {
    let mut rig = rig(app());
    let answer = text("pong").encode(true);
    for cut in 1..answer.len() {
        asked(&mut rig).await;
        rig.client.send_raw(&answer[..cut]).await;
        rig.app.silent(SECOND).await;
        rig.client.send_raw(&answer[cut..]).await;
    }
    nothing_more(&mut rig).await;
}

#[tokio::test(start_paused = true)]
async fn a_near_miss_cut_at_every_byte_arrives_as_it_was() {
    let mut rig = rig(app());
    let near = masked(&[text("pang"), fragment(TEXT, b"po"), fragment(LAST, b"ngo"), text("pon"), text("x")]);
    for cut in 1..near.len() {
        rig.client.send_raw(&near[..cut]).await;
        sleep(MILLISECOND).await;
        rig.client.send_raw(&near[cut..]).await;
        assert_eq!(rig.app.exactly(near.len()).await, near, "cut at {cut}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_ping_between_the_fragments_of_an_answer_reaches_the_app_and_they_do_not() {
    let mut rig = rig(app());
    let frames = [fragment(TEXT, b"po"), Frame::new(PING, b"now"), fragment(LAST, b"ng")];
    asked(&mut rig).await;
    rig.client.send_raw(&masked(&frames)).await;
    assert_eq!(rig.app.expect().await, Frame::new(PING, b"now"));
    asked(&mut rig).await;
    for byte in masked(&frames) {
        rig.client.send_raw(&[byte]).await;
        sleep(MILLISECOND).await;
    }
    assert_eq!(rig.app.expect().await, Frame::new(PING, b"now"));
    nothing_more(&mut rig).await;
}

#[tokio::test(start_paused = true)]
async fn a_ping_between_the_fragments_of_a_near_miss_stands_in_a_legal_place() {
    let frames = [fragment(TEXT, b"po"), Frame::new(PING, b"now"), fragment(LAST, b"nk")];
    for step in [1, 7, 1000] {
        let mut rig = rig(app());
        for part in masked(&frames).chunks(step) {
            rig.client.send_raw(part).await;
            sleep(MILLISECOND).await;
        }
        let mut seen = [rig.app.expect().await, rig.app.expect().await, rig.app.expect().await];
        seen.sort_by_key(|frame| frame.opcode() != PING);
        assert_eq!(seen, [frames[1].clone(), frames[0].clone(), frames[2].clone()]);
        nothing_more(&mut rig).await;
    }
}

/// A receiver hands a message on when it is whole, so the place of a control frame among its fragments means nothing; its
/// place before or behind a whole message does.
#[tokio::test(start_paused = true)]
async fn s48_a_control_frame_overtakes_held_fragments_and_never_a_whole_message() {
    for control in [Frame::new(PING, b"now"), Frame::new(PONG, b"now")] {
        let mut rig = rig(app());
        let (first, last) = (fragment(TEXT, b"po"), fragment(LAST, b"nk"));
        rig.client.send_raw(&masked(&[first.clone(), control.clone()])).await;
        assert_eq!(rig.app.expect().await, control, "at once, the rest of the message may take long");
        rig.app.silent(SECOND).await;
        rig.client.send(&last).await;
        assert_eq!([rig.app.expect().await, rig.app.expect().await], [first.clone(), last.clone()]);

        rig.client.send_raw(&masked(&[first.clone(), last.clone(), control.clone()])).await;
        let seen = [rig.app.expect().await, rig.app.expect().await, rig.app.expect().await];
        assert_eq!(seen, [first, last, control], "behind the message that it followed");
        nothing_more(&mut rig).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_in_the_middle_of_a_held_message_passes_behind_what_was_held() {
    for together in [true, false] {
        let mut rig = rig(app());
        let frames = [fragment(TEXT, b"po"), Frame::new(PING, b"x"), Frame::close(1000, "bye")];
        if together {
            rig.client.send_raw(&masked(&frames)).await;
        } else {
            for frame in &frames {
                rig.client.send(frame).await;
                sleep(MILLISECOND).await;
            }
        }
        let mut seen = Vec::new();
        while seen.len() < 3 {
            seen.push(rig.app.expect().await);
        }
        assert_eq!(seen[2], frames[2], "{seen:?}");
        assert!(seen.contains(&frames[0]) && seen.contains(&frames[1]), "{seen:?}");
        rig.app.send(&Frame::close(1000, "bye")).await;
        assert_eq!(rig.client.expect().await, Frame::close(1000, "bye"));
        assert_eq!(rig.app.frame().await, None);
        assert_eq!(rig.ending().await.cause.reason(), EndReason::Normal);
    }
}

#[tokio::test(start_paused = true)]
async fn the_clients_end_in_the_middle_of_a_held_message_is_a_bare_fin() {
    let mut rig = rig(app());
    rig.client.send_raw(&masked(&[text("whole"), fragment(TEXT, b"po")])).await;
    rig.client.fin().await;
    assert_eq!(rig.app.expect().await, text("whole"));
    assert_eq!(rig.app.rest().await, b"", "no partial message");
}

#[tokio::test(start_paused = true)]
async fn a_teardown_in_the_middle_of_a_held_message_is_a_proper_close() {
    for cut in [7, 8] {
        let mut rig = rig(app());
        asked(&mut rig).await;
        // Once within the frame, once behind it.
        rig.client.send_raw(&fragment(TEXT, b"po").encode(true)[..cut]).await;
        rig.client.silent(10 * SECOND).await;
        rig.control.give(SessionOrder::Drain { code: 1012 });
        assert_eq!(rig.app.expect().await, Frame::close(1012, "service restart"));
        assert_eq!(rig.app.frame().await, None);
        assert_eq!(rig.client.expect().await, Frame::close(1012, "service restart"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_never_finished_is_a_miss() {
    let mut rig = rig(app());
    asked(&mut rig).await;
    rig.client.send(&fragment(TEXT, b"po")).await;
    let begun = rig.elapsed();
    assert_eq!(rig.app.expect().await, Frame::close(4408, "heartbeat timeout"), "and nothing of the message");
    assert!(rig.elapsed() - begun <= 45 * SECOND, "{:?}", rig.elapsed());
    asked(&mut rig).await;
    assert_eq!(rig.client.expect().await, Frame::close(1012, "heartbeat timeout"));
    assert_eq!(rig.app.frame().await, None);
    assert_eq!(rig.ending().await.cause.reason(), EndReason::HeartbeatTimeout);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_trickles_in_is_cut_off() {
    // Pings between its fragments change nothing: the message takes too long.
    for beside in [&[][..], &[Frame::new(PING, b"")]] {
        let mut rig = rig(app());
        rig.client.send(&fragment(TEXT, b"po")).await;
        let bytes = [masked(beside), masked(&[fragment(CONTINUATION, b"")])].concat();
        while rig.client.try_send(&bytes).await.is_ok() && rig.elapsed() < 900 * SECOND {
            rig.client.drain_some().await;
            sleep(11 * SECOND).await;
        }
        let mut seen = rig.app.expect().await;
        while seen.opcode() == PING {
            seen = rig.app.expect().await;
        }
        assert_eq!(seen, Frame::close(4408, "frame took too long"), "and nothing of the message");
        let ending = rig.ending().await;
        assert_eq!(ending.cause.reason(), EndReason::Trickle);
        assert!(ending.duration >= 600 * SECOND && ending.duration <= 603 * SECOND, "{:?}", ending.duration);
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_that_a_message_was_held_back_is_not_that_of_its_later_frames() {
    let mut rig = rig(app());
    rig.client.send(&fragment(TEXT, b"po")).await;
    while rig.elapsed() < 500 * SECOND {
        rig.client.send(&fragment(CONTINUATION, b"")).await;
        sleep(11 * SECOND).await;
    }
    let begun = rig.elapsed();
    let upload = fragment(LAST, &[b'x'; 5000]).encode(true);
    rig.app.drain_some().await;
    for part in upload.chunks(100) {
        rig.client.send_raw(part).await;
        rig.app.drain_some().await;
        sleep(11 * SECOND).await;
    }
    assert!(rig.elapsed() - begun > 500 * SECOND);
    nothing_more(&mut rig).await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_empty_fragments_are_no_answer_and_pass() {
    let mut rig = rig(app());
    asked(&mut rig).await;
    let mut frames = vec![fragment(TEXT, b"po")];
    frames.extend(vec![fragment(CONTINUATION, b""); 1000]);
    let begun = masked(&frames);
    rig.client.send_raw(&begun).await;
    assert_eq!(rig.app.exactly(begun.len()).await, begun, "none is kept");
    let end = masked(&[fragment(LAST, b"ng")]);
    rig.client.send_raw(&end).await;
    assert_eq!(rig.app.exactly(end.len()).await, end, "its beginning has passed, so must its end");
    rig.client.send(&text("pong")).await;
    nothing_more(&mut rig).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_with_megabytes_loses_no_byte() {
    let mut rig = rig(app());
    let long: Vec<u8> = b"pong".iter().copied().cycle().take(3_000_000).collect();
    let sent = masked(&[
        Frame::new(TEXT, &long),
        fragment(TEXT, b"po"),
        fragment(CONTINUATION, &long),
        fragment(CONTINUATION, b""),
        fragment(LAST, &long),
        text("end"),
    ]);
    rig.client.send_raw_soon(sent.clone());
    let seen = rig.app.exactly(sent.len()).await;
    assert!(seen == sent, "differs at {:?}", seen.iter().zip(&sent).position(|(a, b)| a != b));
}

#[tokio::test(start_paused = true)]
async fn a_probe_of_the_app_passes_a_held_message() {
    let mut rig = rig(app());
    asked(&mut rig).await;
    let answer = text("pong").encode(true);
    rig.client.send_raw(&answer[..8]).await;
    sleep(MILLISECOND).await;
    rig.control.give(SessionOrder::ProbeUpstream);
    let probe = rig.app.expect().await;
    assert_eq!((probe.opcode(), probe.payload.len()), (PING, 8));
    rig.client.send_raw(&answer[8..]).await;
    nothing_more(&mut rig).await;
}
