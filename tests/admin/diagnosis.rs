//! The diagnosis of a session, as the API returns it.

use pulsegate_test_kit::frame::{CLOSE, FIN, Frame};
use pulsegate_test_kit::wait::wait_for;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::admin::api::is_whole;
use crate::admin::rig::{Rig, keys};

#[tokio::test]
async fn a_diagnosis_has_a_session_and_those_of_its_address() {
    let mut rig = Rig::start().await;
    let first = rig.session("/first").await;
    drop(first);
    rig.proxy.ws_closes(1).await;
    let second = rig.session("/second").await;
    let third = rig.session("/third").await;
    let (second_id, third_id) = (rig.id("/second").await, rig.id("/third").await);
    let diagnosis = rig.get(&format!("/v1/connections/{second_id}/diagnosis")).await;
    assert_eq!(keys(&diagnosis), ["after", "before", "connection", "generation", "now", "story"]);
    is_whole(&diagnosis["connection"]);
    assert_eq!(diagnosis["connection"]["id"], second_id);
    for (side, path) in [("before", "/first"), ("after", "/third")] {
        assert_eq!((keys(&diagnosis[side]), &diagnosis[side]["total"]), (vec!["connections", "total"], &1.into()));
        is_whole(&diagnosis[side]["connections"][0]);
        assert_eq!(diagnosis[side]["connections"][0]["path"], path);
    }
    let topic = |diagnosis: &Value, topic: &str| {
        let story = diagnosis["story"].as_array().expect("a list");
        let found =
            story.iter().find(|line| line["topic"] == topic).unwrap_or_else(|| panic!("no {topic} in {diagnosis}"));
        found["text"].as_str().expect("text").to_owned()
    };
    let topics: Vec<_> =
        diagnosis["story"].as_array().expect("a list").iter().map(|line| line["topic"].clone()).collect();
    assert_eq!(topics, ["state", "opened", "heartbeat", "round trips", "traffic", "held", "next", "before", "after"]);
    assert!(topic(&diagnosis, "opened").contains(" over HTTP/1.1 with TLS 1.3 ("), "{diagnosis}");
    assert!(
        topic(&diagnosis, "opened").contains(" for /second at localhost. Route / leads to the app at http://"),
        "{diagnosis}"
    );
    assert!(topic(&diagnosis, "next").starts_with("A ping is sent at 2"), "{diagnosis}");
    assert!(topic(&diagnosis, "after").contains(&third_id), "{diagnosis}");
    let (mut client, mut app) = second;
    client
        .write_all(&Frame::client(FIN | CLOSE, [&1000_u16.to_be_bytes(), "bye".as_bytes()].concat()).bytes())
        .await
        .expect("open");
    client.flush().await.expect("open");
    let close = wait_for("a Close", Frame::read_past_pings(&mut app)).await.expect("a Close");
    app.write_all(&Frame::server(FIN | CLOSE, close.payload).bytes()).await.expect("open");
    rig.proxy.ws_closes(2).await;
    let diagnosis = rig.get(&format!("/v1/connections/{second_id}/diagnosis")).await;
    assert!(
        topic(&diagnosis, "end")
            .ends_with(": client closed the session with 1000 \"bye\". The client began it (normal).")
    );
    assert_eq!(topic(&diagnosis, "client"), "The client sent Close 1000 \"bye\".");
    assert_eq!(topic(&diagnosis, "app"), "The app received Close 1000 \"bye\".");
    let unknown = rig.ask("GET", "/v1/connections/00000000000000ff/diagnosis", &[], "").await;
    unknown.refuses(404, "not_found", &["neither open nor among the last"]);
    rig.ask("GET", "/v1/connections/ff/diagnosis", &[], "").await.refuses(400, "id", &["16 hexadecimal digits"]);
    rig.post(&format!("/v1/connections/{second_id}/diagnosis"), "").await.refuses(405, "method", &["use GET or HEAD"]);
    drop(third);
    rig.proxy.finish().await;
}
