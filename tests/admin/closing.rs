//! Sessions that an operator closes, and the reports of sessions that have ended.

use std::time::{Duration, Instant};

use pulsegate_test_kit::client::{Wss, close_of, echo};
use pulsegate_test_kit::frame::{CLOSE, FIN, Frame, PING, PONG};
use pulsegate_test_kit::wait::wait_for;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::admin::api::is_whole;
use crate::admin::events::Events;
use crate::admin::rig::{Rig, connections, keys};

#[tokio::test]
async fn both_ends_get_the_close_and_every_report_agrees() {
    let mut rig = Rig::start().await;
    let mut events = Events::follow(&rig).await;
    let (mut client, mut app) = rig.session("/raw").await;
    let id = rig.id("/raw").await;
    let reply = rig.post(&format!("/v1/connections/{id}/close"), r#"{"code": 4001, "reason": "maintenance"}"#).await;
    assert_eq!((reply.status, &reply.json), (200, &json!({"matched": 1, "closed": 1, "ids": [id]})));
    for (who, frame) in [
        ("client", wait_for("a Close", Frame::read_past_pings(&mut client)).await),
        ("app", wait_for("a Close", Frame::read_past_pings(&mut app)).await),
    ] {
        let received = frame.and_then(|frame| frame.close());
        assert_eq!(received, Some((4001, "maintenance".to_owned())), "{who}");
    }
    drop((client, app));

    let line = rig.proxy.ws_close(|line| line["conn_id"] == id).await.json;
    assert_eq!((&line["close.reason"], &line["close.initiator"]), (&"admin".into(), &"proxy".into()), "{line}");
    assert_eq!((&line["close.code"], &line["upstream.close_code"]), (&4001.into(), &4001.into()), "{line}");
    assert_eq!(line["close.text"], "maintenance", "{line}");
    let order = rig.proxy.logged("admin.close").swap_remove(0);
    assert_eq!((&order["conn_id"], &order["code"]), (&id.as_str().into(), &4001.into()), "{order}");
    assert_eq!((&order["sessions"], &order["reason"]), (&1.into(), &"maintenance".into()), "{order}");

    events.of("open").await;
    let event = events.of("close").await.data;
    let closed = rig.get("/v1/connections?state=closed").await;
    let one = rig.get(&format!("/v1/connections/{id}")).await;
    for conn in [&event, &connections(&closed)[0], &one] {
        is_whole(conn);
        let close = json!({
            "initiator": "proxy",
            "reason": "admin",
            "detail": null,
            "code": 4001,
            "upstream_code": 4001,
            "text": "maintenance",
            "sentence": "operator closed the session with 4001 \"maintenance\"",
        });
        assert_eq!(conn["close"], close);
    }
    let again = rig.post(&format!("/v1/connections/{id}/close"), "").await;
    again.refuses(409, "closed", &["has ended already: operator closed the session with 4001"]);
    rig.proxy.finish().await;
}

/// Returns the address that a client connects from.
fn address(session: &Wss) -> String {
    session.get_ref().get_ref().0.local_addr().expect("it is connected").to_string()
}

#[tokio::test]
async fn many_are_closed_by_what_they_have_in_common() {
    let rig = Rig::with(|config| config.with("[[route]]\npath = \"/echo\"\n")).await;
    let mut sessions = Vec::new();
    for _ in 0..110 {
        let mut session = rig.proxy.websocket("/echo").await;
        // A session that has echoed a message is in the list.
        echo(&mut session, "hello".into()).await.expect("an echo");
        sessions.push(session);
    }
    let close = async |body: &str| {
        let reply = rig.post("/v1/connections/close", body).await;
        assert_eq!((reply.status, keys(&reply.json)), (200, vec!["closed", "ids", "matched"]), "{body}: {reply:?}");
        let count = |key: &str| reply.json[key].as_u64().expect("a number");
        (count("matched"), count("closed"), reply.json["ids"].as_array().expect("a list").len())
    };
    assert_eq!(close(r#"{"filter": {"route": "/echo"}, "dry_run": true}"#).await, (110, 0, 100), "100 are named");
    assert_eq!(close(r#"{"filter": {"route": "/"}}"#).await, (0, 0, 0));
    assert_eq!(close(r#"{"filter": {"misses_gte": 1}}"#).await, (0, 0, 0));
    assert_eq!(close(r#"{"filter": {"client": "127.0.0.0/8", "route": "/x"}}"#).await, (0, 0, 0), "both must be true");
    assert_eq!(close(r#"{"filter": {"ids": []}}"#).await, (0, 0, 0));
    assert_eq!(rig.get("/v1/connections?limit=1").await["total"], 110, "no session is closed so far");

    let list = rig.get("/v1/connections?limit=2").await;
    let ids: Vec<_> = connections(&list).iter().map(|conn| conn["id"].clone()).collect();
    let clients: Vec<_> = connections(&list).iter().map(|conn| conn["client"].clone()).collect();
    let body = json!({"filter": {"ids": [ids[0], ids[1], "00000000000000ff"]}, "code": 1001, "reason": "two of you"});
    assert_eq!(close(&body.to_string()).await, (2, 2, 2));
    let (mut named, mut rest): (Vec<_>, Vec<_>) =
        sessions.into_iter().partition(|session| clients.contains(&address(session).into()));
    assert_eq!(named.len(), 2, "{clients:?}");
    for session in &mut named {
        assert_eq!(close_of(session).await, (1001, "two of you".to_owned()));
    }
    drop(named);
    rig.proxy.ws_closes(2).await;
    assert_eq!(close(r#"{"filter": {"client": "127.0.0.1"}}"#).await, (108, 108, 100));
    for session in &mut rest {
        assert_eq!(close_of(session).await, (1008, "closed by the operator".to_owned()));
    }
    drop(rest);
    for line in rig.proxy.ws_closes(110).await {
        assert_eq!((&line["close.reason"], &line["close.initiator"]), (&"admin".into(), &"proxy".into()), "{line}");
    }
    rig.proxy.finish().await;
}

/// Returns the seconds or milliseconds behind `word`, in seconds.
#[track_caller]
fn seconds_behind(word: &str, sentence: &str) -> f64 {
    let rest = sentence.split_once(word).unwrap_or_else(|| panic!("no {word:?} in {sentence:?}")).1;
    let mut parts = rest.split_whitespace();
    let value: f64 = parts.next().and_then(|value| value.parse().ok()).expect("a number");
    match parts.next().map(|unit| unit.trim_end_matches(',')) {
        Some("s") => value,
        Some("ms") => value / 1000.0,
        unit => panic!("{unit:?} in {sentence:?}"),
    }
}

#[tokio::test]
async fn a_client_that_falls_silent_is_reported_with_its_last_pong_and_round_trip() {
    const THINKS: Duration = Duration::from_millis(60);
    let heartbeat = "[heartbeat]\ninterval = \"500ms\"\ntimeout = \"1500ms\"\njitter = 0.0\n";
    let mut rig = Rig::with(|config| config.with(heartbeat)).await;
    let (mut client, _app) = rig.session("/raw").await;
    let id = rig.id("/raw").await;
    let (mut pongs, mut last, mut round_trip) = (0, Instant::now(), Duration::ZERO);
    let close = loop {
        let frame = wait_for("a frame", Frame::read(&mut client)).await.expect("a Close before the end");
        match frame.opcode() {
            PING if pongs < 2 => {
                let began = Instant::now();
                tokio::time::sleep(THINKS).await;
                let pong = Frame::client(FIN | PONG, frame.payload).bytes();
                client.write_all(&pong).await.expect("it is open");
                client.flush().await.expect("it is open");
                (pongs, last, round_trip) = (pongs + 1, Instant::now(), began.elapsed());
            }
            PING => {}
            CLOSE => break frame,
            other => panic!("opcode {other} came"),
        }
    };
    let silent = last.elapsed().as_secs_f64();
    assert_eq!(close.close(), Some((1012, "heartbeat timeout".to_owned())));
    drop(client);
    let line = rig.proxy.ws_close(|line| line["conn_id"] == id).await.json;
    assert_eq!(
        (&line["close.reason"], &line["pongs"], &line["missed"]),
        (&"heartbeat_timeout".into(), &2.into(), &1.into())
    );

    let conn = rig.get(&format!("/v1/connections/{id}")).await;
    let sentence = conn["close"]["sentence"].as_str().expect("a sentence");
    println!("{sentence}");
    let ago = seconds_behind("client stopped answering: last pong ", sentence);
    // The client sees the last pong a little later, and the Close as well.
    assert!((1.9..=silent + 0.5).contains(&ago), "{sentence}, but it was {silent} s");
    let rtt = seconds_behind(" s ago, RTT was ", sentence);
    let logged = line["rtt_last_s"].as_f64().expect("a number");
    assert!((rtt - logged).abs() <= 0.1, "{sentence}, but {logged} s in the log");
    // The kernels and the scheduler add to it.
    assert!((0.059..=round_trip.as_secs_f64() + 1.0).contains(&rtt), "{sentence}, but it was {round_trip:?}");
    rig.proxy.finish().await;
}
