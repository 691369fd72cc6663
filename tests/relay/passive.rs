//! Heartbeats between client and app that the proxy only observes: it parses the messages, and passes them unchanged.
//!
//! The conversations are recordings of the libraries.

use std::time::Duration;

use pulsegate::heartbeat::{Builtin, Liveness, Policy, ProofOfLife, Role};
use pulsegate::session::EndReason;
use pulsegate::ws::{Limits, RSV_DEFLATE, Sender};
use tokio::time::sleep;

use crate::deflate::Deflate;
use crate::rig::{BINARY, CLOSE, CONTINUATION, Frame, PING, PONG, Plan, Rig, TEXT};

const SECOND: Duration = Duration::from_secs(1);
const LAST: u8 = 0x80 | CONTINUATION;

/// The compression of a session's messages: none, with context takeover, without it.
const CODINGS: [Option<bool>; 3] = [None, Some(true), Some(false)];

struct Talk {
    rig: Rig,
    client: Option<Deflate>,
    app: Option<Deflate>,
}

impl Talk {
    /// Creates a session with this profile; `takeover` is set where messages are compressed.
    fn new(builtin: Builtin, takeover: Option<bool>) -> Self {
        Self::with(Policy { mode: builtin.mode(Role::Passive), ..Policy::default() }, takeover)
    }

    fn with(policy: Policy, takeover: Option<bool>) -> Self {
        let limits = Limits { rsv: if takeover.is_some() { RSV_DEFLATE } else { 0 }, ..Limits::default() };
        let rig = Rig::with(Plan { policy, limits, ..Plan::default() });
        Self { rig, client: takeover.map(Deflate::new), app: takeover.map(Deflate::new) }
    }

    /// Sends `frame` from the client; the app sees the same bytes.
    async fn up(&mut self, frame: &Frame) {
        let frame = self.client.as_mut().map_or_else(|| frame.clone(), |deflate| deflate.message(frame));
        let bytes = frame.encode(true);
        self.rig.client.send_raw(&bytes).await;
        assert_eq!(self.rig.app.exactly(bytes.len()).await, bytes, "{frame:?}");
    }

    /// Sends `frame` from the app; the client sees the same bytes.
    async fn down(&mut self, frame: &Frame) {
        let frame = self.app.as_mut().map_or_else(|| frame.clone(), |deflate| deflate.message(frame));
        let bytes = frame.encode(false);
        self.rig.app.send_raw(&bytes).await;
        assert_eq!(self.rig.client.exactly(bytes.len()).await, bytes, "{frame:?}");
    }

    async fn says(&mut self, script: &[(Sender, Frame)]) {
        for (from, frame) in script {
            match from {
                Sender::Client => self.up(frame).await,
                Sender::Server => self.down(frame).await,
            }
        }
    }

    /// Asserts that, without any more traffic, the end comes after `silence`, and nothing before it.
    async fn ends_after(mut self, silence: Duration) {
        let from = self.rig.elapsed();
        assert_eq!(self.rig.client.expect().await, Frame::close(1012, "heartbeat timeout"));
        let elapsed = self.rig.elapsed() - from;
        assert!(elapsed >= silence && elapsed <= silence + SECOND / 10, "{elapsed:?}, not {silence:?}");
        assert_eq!(self.rig.app.expect().await, Frame::close(4408, "heartbeat timeout"));
        assert_eq!(self.rig.client.frame().await, None);
        assert_eq!(self.rig.ending().await.cause.reason(), EndReason::HeartbeatTimeout);
    }
}

fn client(text: &str) -> (Sender, Frame) {
    (Sender::Client, Frame::new(TEXT, text.as_bytes()))
}

fn app(text: &str) -> (Sender, Frame) {
    (Sender::Server, Frame::new(TEXT, text.as_bytes()))
}

fn text(text: &str) -> Frame {
    Frame::new(TEXT, text.as_bytes())
}

#[tokio::test(start_paused = true)]
async fn engine_io_answers_the_apps_question_or_ends() {
    for takeover in CODINGS {
        let mut talk = Talk::new(Builtin::EngineIo, takeover);
        let open = r#"0{"sid":"lv_VI97HAXpY6yYWAAAC","upgrades":[],"pingInterval":25000,"pingTimeout":20000}"#;
        talk.says(&[app(open), client("40"), app(r#"40{"sid":"wZX3oN0bSVIhsI"}"#)]).await;
        for _ in 0..10 {
            sleep(25 * SECOND).await;
            talk.down(&text("2")).await;
            sleep(15 * SECOND).await;
            talk.up(&text("3")).await;
            talk.says(&[client(r#"42["echo","hello"]"#), app(r#"42["echo","hello"]"#)]).await;
        }
        // An app that sends no probes has nothing to enforce.
        talk.rig.client.silent(600 * SECOND).await;
        talk.down(&text("2")).await;
        talk.ends_after(20 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn s49_nothing_is_put_into_an_upgrade_of_engine_io() {
    let mut talk = Talk::new(Builtin::EngineIo, None);
    talk.rig.client.silent(60 * SECOND).await;
    talk.up(&text("2probe")).await;
    talk.rig.client.silent(60 * SECOND).await;
    talk.down(&text("3probe")).await;
    talk.rig.client.silent(60 * SECOND).await;
    talk.up(&text("5")).await;
    talk.rig.client.silent(60 * SECOND).await;
    talk.rig.app.silent(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn s15_compressed_fragments_pass_unchanged_under_every_profile_that_watches() {
    for builtin in Builtin::ALL.into_iter().filter(|builtin| builtin.roles().contains(&Role::Passive)) {
        for takeover in [true, false] {
            let mut talk = Talk::new(builtin, Some(takeover));
            let mut deflate = Deflate::new(takeover);
            for message in ["3", r#"{"event":"pusher:ping","data":{}}"#, "\n", &"long ".repeat(2000)] {
                let whole = deflate.payload(message.as_bytes());
                let (one, rest) = whole.split_at(whole.len() / 3);
                let (two, three) = rest.split_at(rest.len() / 2);
                let frames = [
                    Frame { first: 0x40 | TEXT, payload: one.to_vec() },
                    Frame::new(PONG, b"between"),
                    Frame { first: CONTINUATION, payload: two.to_vec() },
                    Frame { first: LAST, payload: three.to_vec() },
                ];
                let sent: Vec<u8> = frames.iter().flat_map(|frame| frame.encode(true)).collect();
                talk.rig.client.send_raw(&sent).await;
                assert_eq!(talk.rig.app.exactly(sent.len()).await, sent, "{} {message:.40}", builtin.name());
                let sent: Vec<u8> = frames.iter().flat_map(|frame| frame.encode(false)).collect();
                talk.rig.app.send_raw(&sent).await;
                assert_eq!(talk.rig.client.exactly(sent.len()).await, sent, "{} {message:.40}", builtin.name());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn signalr_speaks_while_its_hub_does() {
    for takeover in CODINGS {
        let mut talk = Talk::new(Builtin::Signalr, takeover);
        let beat = "{\"type\":6}\u{1e}";
        talk.says(&[client("{\"protocol\":\"json\",\"version\":1}\u{1e}"), app("{}\u{1e}"), client(beat)]).await;
        for _ in 0..20 {
            sleep(15 * SECOND).await;
            talk.says(&[app(beat), client(beat)]).await;
        }
        // A hub that sends no heartbeats cannot expect them of its clients.
        talk.rig.client.silent(600 * SECOND).await;
        talk.says(&[app(beat)]).await;
        sleep(15 * SECOND).await;
        talk.says(&[app(beat)]).await;
        talk.ends_after(15 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn stomp_keeps_what_it_has_negotiated() {
    for takeover in CODINGS {
        let mut talk = Talk::new(Builtin::Stomp, takeover);
        talk.says(&[
            client("CONNECT\naccept-version:1.2,1.1,1.0\nheart-beat:500,500\n\n\0"),
            app("CONNECTED\nversion:1.2\nheart-beat:500,500\n\n\0"),
            client("SUBSCRIBE\nid:sub-0\ndestination:/queue/echo\n\n\0"),
        ])
        .await;
        for _ in 0..50 {
            sleep(SECOND / 2).await;
            talk.says(&[client("\n"), app("\n")]).await;
        }
        talk.ends_after(SECOND * 3 / 2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn stomp_without_heartbeats_is_pinged() {
    for takeover in CODINGS {
        let mut talk = Talk::new(Builtin::Stomp, takeover);
        talk.says(&[client("CONNECT\naccept-version:1.2\n\n\0"), app("CONNECTED\nversion:1.2\n\n\0")]).await;
        for _ in 0..5 {
            let ping = talk.rig.client.expect().await;
            assert_eq!(ping.opcode(), PING);
            talk.rig.client.send(&Frame::new(PONG, &ping.payload)).await;
        }
        talk.rig.app.silent(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn mqtt_keeps_the_keep_alive_of_a_connect_in_nine_messages() {
    let fields: [&[u8]; 9] = [&[0x10], &[0x1B], &[0, 4], b"MQTT", &[4], &[2], &[0, 1], &[0, 15], b"mqttjs_80509521"];
    // Nine messages as mqtt.js sends them, and one as others do; the keep-alive is 15 s.
    let cut = [fields[..6].to_vec(), vec![&[0, 15], &[0, 15], fields[8]]].concat();
    let whole = cut.concat();
    for (messages, takeover) in
        [cut.clone(), vec![&whole[..]]].iter().flat_map(|cut| CODINGS.map(|coding| (cut, coding)))
    {
        let mut talk = Talk::new(Builtin::Mqtt, takeover);
        for message in messages {
            talk.up(&Frame::new(BINARY, message)).await;
        }
        for byte in [0x20, 0x02, 0x00, 0x00] {
            talk.down(&Frame::new(BINARY, &[byte])).await;
        }
        for _ in 0..20 {
            sleep(15 * SECOND).await;
            talk.up(&Frame::new(BINARY, &[0xC0, 0])).await;
            talk.down(&Frame::new(BINARY, &[0xD0, 0])).await;
        }
        talk.ends_after(SECOND * 45 / 2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn phoenix_beats_by_itself() {
    let ProofOfLife::Sends(window) = Builtin::Phoenix.profile(Role::Passive).proof else {
        panic!("it speaks by itself")
    };
    // `pong_only`: other messages do not count, and compressed ones must be read, or be taken for heartbeats.
    for (liveness, takeover) in [Liveness::AnyBytes, Liveness::PongOnly].iter().flat_map(|l| CODINGS.map(|c| (*l, c))) {
        let mode = Builtin::Phoenix.mode(Role::Passive);
        let mut talk = Talk::with(Policy { mode, liveness, ..Policy::default() }, takeover);
        let reply = r#"["5","5","room:echo","phx_reply",{"status":"ok","response":{}}]"#;
        talk.says(&[client(r#"["5","5","room:echo","phx_join",{}]"#), app(reply)]).await;
        for beat in 6..30 {
            sleep(30 * SECOND).await;
            talk.says(&[client(&format!(r#"[null,"{beat}","phoenix","heartbeat",{{}}]"#)), app(reply)]).await;
        }
        talk.ends_after(window).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_refers_to_earlier_ones_is_not_taken_for_zeros() {
    // Both are the same bytes to the client's library; on the wire the second is a reference to the first.
    for (builtin, beat) in [
        (Builtin::Phoenix, r#"[null,"6","phoenix","heartbeat",{}]"#),
        (Builtin::Pusher, r#"{"event":"pusher:ping","data":{}}"#),
        (Builtin::Signalr, "{\"type\":6}\u{1e}"),
    ] {
        let policy = Policy {
            mode: builtin.mode(Role::Passive),
            liveness: Liveness::PongOnly,
            window: Some(10 * SECOND),
            ..Policy::default()
        };
        let mut talk = Talk::with(policy, Some(true));
        for _ in 0..20 {
            sleep(8 * SECOND).await;
            talk.says(&[app("hello"), client(beat)]).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_expected_message_is_life_where_the_route_says_so() {
    for takeover in [None, Some(false)] {
        let mode = Builtin::Phoenix.mode(Role::Passive);
        let policy = Policy { mode, liveness: Liveness::PongOnly, window: Some(10 * SECOND), ..Policy::default() };
        let mut talk = Talk::with(policy, takeover);
        talk.up(&text(r#"[null,"6","phoenix","heartbeat",{}]"#)).await;
        sleep(6 * SECOND).await;
        talk.up(&text(r#"["5","7","room:echo","echo",{"data":"hello 1"}]"#)).await;
        talk.ends_after(4 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn pusher_keeps_the_activity_timeout_of_its_app() {
    for takeover in CODINGS {
        let mut talk = Talk::new(Builtin::Pusher, takeover);
        let established =
            r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.1\",\"activity_timeout\":1}"}"#;
        talk.says(&[
            app(established),
            client(r#"{"event":"pusher:subscribe","data":{"auth":"","channel":"echo"}}"#),
            app(r#"{"event":"pusher_internal:subscription_succeeded","channel":"echo","data":"{}"}"#),
        ])
        .await;
        for _ in 0..20 {
            sleep(SECOND).await;
            talk.says(&[client(r#"{"event":"pusher:ping","data":{}}"#), app(r#"{"event":"pusher:pong","data":"{}"}"#)])
                .await;
        }
        for _ in 0..20 {
            sleep(SECOND).await;
            talk.says(&[app(r#"{"event":"news","channel":"echo","data":"{}"}"#)]).await;
        }
        talk.ends_after(SECOND * 3 / 2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn clients_that_never_answer_are_pinged_beside() {
    for builtin in [Builtin::GraphqlWs, Builtin::ActionCable] {
        let mut talk = Talk::new(builtin, None);
        let keep_alive = r#"{"type":"ping","message":1795411900}"#;
        talk.says(&[app(r#"{"type":"welcome"}"#), app(keep_alive)]).await;
        assert_eq!(talk.rig.client.expect().await.opcode(), PING, "{}", builtin.name());
        talk.says(&[app(keep_alive)]).await;
        assert_eq!(talk.rig.client.expect().await.opcode(), CLOSE, "the app's own words prove nothing");
        assert!(talk.rig.elapsed() <= 45 * SECOND);
    }
}
