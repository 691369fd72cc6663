//! Tests of the description of heartbeats by `pulsegate check`.

use super::*;

/// Returns the description of the route `/`, as text and as JSON, of a file whose section `heartbeat` has this content.
fn described(name: &str, heartbeat: &str) -> (String, Value) {
    let file = File::new(name, &format!("[heartbeat]\n{heartbeat}\n{}", &VALID[..VALID.find("[[").expect("a route")]));
    let (verdict, human) = file.check(OutputFormat::Human, Ok(()));
    assert_eq!(verdict, CheckResult::Valid, "{heartbeat}\n{human}");
    let (_, machine) = file.check(OutputFormat::Json, Ok(()));
    let machine: Value = serde_json::from_str(&machine).expect("JSON");
    let (_, route) = human.split_once("  route        /  ").expect("a route");
    let (route, _) = route.split_once("\nwarning: ").expect("a warning of open origins");
    (route.trim_end().to_owned(), machine["serves"]["routes"][0].clone())
}

#[test]
#[expect(clippy::too_many_lines, reason = "one line for each case, and two of what is said of it")]
fn each_heartbeat_is_explained_with_its_bound() {
    let mut all = Vec::new();
    for (at, heartbeat) in [
        "mode = \"off\"",
        "max_missed = 2",
        "profile = \"express-text\"",
        "profile = \"express-text\"\nmode = \"answer\"",
        "profile = \"graphql-transport-ws\"\nmode = \"answer\"\nwindow = \"2m\"",
        "profile = { send = \"a\", expect = \"b\" }\nadaptive = true",
        "profile = { send = \"a\", expect = \"b\", start_after = \"hello\" }\nmode = \"answer\"\nwindow = \"10s\"",
        "profile = { expect = \"b\" }\nmode = \"passive\"\nliveness = \"pong_only\"",
        "profile = { send = \"a\", expect = \"b\" }\nmode = \"passive\"",
        "profile = { send = \"a\", expect = \"b\" }\nmode = \"passive\"\nmax_missed = 2",
        "profile = { send = \"alive?\", expect = \"alive\" }\nmode = \"passive\"",
        "profile = \"engine.io\"",
        "profile = \"engine.io\"\nliveness = \"pong_only\"\ntimeout = \"5s\"",
        "profile = \"graphql-ws\"",
        "profile = \"signalr\"",
        "profile = \"signalr\"\nwindow = \"1m\"",
        "profile = \"stomp\"",
        "profile = \"stomp\"\nwindow = \"1m\"",
        "profile = \"mqtt\"\ninterval = \"10s\"",
        "profile = \"phoenix\"",
        "profile = \"actioncable\"",
        "profile = \"pusher\"",
        "profile = \"pusher\"\nwindow = \"1m\"",
    ]
    .into_iter()
    .enumerate()
    {
        let (human, machine) = described(&format!("told-{at}"), heartbeat);
        let facts = ["heartbeat", "profile", "detection_s", "compression"].map(|key| machine[key].to_string());
        all.push(format!("{}\n    {human}\n    {}", heartbeat.replace('\n', ", "), facts.join(" ")));
    }
    assert_snapshot!(all.join("\n"), @r#"
mode = "off"
    no heartbeat
    "off" null null true
max_missed = 2
    pinged after 25s of silence, a dead client is gone within 65 s
    "protocol" null 65.0 true
profile = "express-text"
    probed (express-text) after 25s of silence, a dead client is gone within 45 s, no compression
    "app" "express-text" 45.0 false
profile = "express-text", mode = "answer"
    answered (express-text), a dead client is gone within 90 s, no compression
    "answer" "express-text" 90.0 false
profile = "graphql-transport-ws", mode = "answer", window = "2m"
    answered (graphql-transport-ws), a dead client is gone within 120 s, no compression
    "answer" "graphql-transport-ws" 120.0 false
profile = { send = "a", expect = "b" }, adaptive = true
    probed (custom) after 25s of silence, a dead client is gone within 45 s (more where round trips are long), no compression
    "app" "custom" 45.0 false
profile = { send = "a", expect = "b", start_after = "hello" }, mode = "answer", window = "10s"
    answered (custom) once `start_after` has passed and pinged until then, a dead client is gone within 45 s, no compression
    "answer" "custom" 45.0 false
profile = { expect = "b" }, mode = "passive", liveness = "pong_only"
    watched (custom), a dead client is gone within 90 s, a compressed message whose content cannot be read counts as a heartbeat
    "passive" "custom" 90.0 true
profile = { send = "a", expect = "b" }, mode = "passive"
    watched (custom), a dead client is gone within the app's own interval + 20 s
    "passive" "custom" null true
profile = { send = "a", expect = "b" }, mode = "passive", max_missed = 2
    watched (custom), a dead client is gone within the app's own interval + 2 × 20 s
    "passive" "custom" null true
profile = { send = "alive?", expect = "alive" }, mode = "passive"
    watched (custom), a dead client is gone within the app's own interval + 20 s, pinged instead where the app compresses its messages with context takeover
    "passive" "custom" null true
profile = "engine.io"
    watched (engine.io), a dead client is gone within the app's own interval (25 s by Socket.IO's default) + 20 s
    "passive" "engine.io" null true
profile = "engine.io", liveness = "pong_only", timeout = "5s"
    watched (engine.io), a dead client is gone within the app's own interval (25 s by Socket.IO's default) + 5 s, a compressed message whose content cannot be read counts as a heartbeat
    "passive" "engine.io" null true
profile = "graphql-ws"
    watched (graphql-ws) and pinged after 25s of silence, a dead client is gone within 45 s
    "passive" "graphql-ws" 45.0 true
profile = "signalr"
    watched (signalr), a dead client is gone within 30 s of the app's next message
    "passive" "signalr" null true
profile = "signalr", window = "1m"
    watched (signalr), a dead client is gone within 60 s of the app's next message
    "passive" "signalr" null true
profile = "stomp"
    watched (stomp), pinged after 25s of silence until the handshake has agreed on a heartbeat, a dead client is gone within 3 × the interval that it has agreed on, 45 s while it is pinged
    "passive" "stomp" null true
profile = "stomp", window = "1m"
    watched (stomp), pinged after 25s of silence until the handshake has agreed on a heartbeat, a dead client is gone within 60 s
    "passive" "stomp" 60.0 true
profile = "mqtt", interval = "10s"
    watched (mqtt), pinged after 10s of silence until the handshake has agreed on a heartbeat, a dead client is gone within 1.5 × the keep-alive that it has agreed on, 30 s while it is pinged
    "passive" "mqtt" null true
profile = "phoenix"
    watched (phoenix), a dead client is gone within 120 s
    "passive" "phoenix" 120.0 true
profile = "actioncable"
    watched (actioncable) and pinged after 25s of silence, a dead client is gone within 45 s
    "passive" "actioncable" 45.0 true
profile = "pusher"
    watched (pusher), a dead client is gone within 1.5 × the app's activity timeout (180 s where it names none) of the last message of either side
    "passive" "pusher" null true
profile = "pusher", window = "1m"
    watched (pusher), a dead client is gone within 60 s of the last message of either side
    "passive" "pusher" 60.0 true
"#);
}

#[test]
fn auto_lists_what_each_session_may_be() {
    let (human, machine) = described("auto", "profile = \"auto\"");
    assert_snapshot!(human, @"
the heartbeat selected by the upgrade:
                    subprotocol graphql-transport-ws: probed (graphql-transport-ws) after 25s of silence, a dead client is gone within 45 s, no compression
                    subprotocol graphql-ws: watched (graphql-ws) and pinged after 25s of silence, a dead client is gone within 45 s
                    subprotocol of STOMP: watched (stomp), pinged after 25s of silence until the handshake has agreed on a heartbeat, a dead client is gone within 3 × the interval that it has agreed on, 45 s while it is pinged
                    subprotocol of MQTT: watched (mqtt), pinged after 25s of silence until the handshake has agreed on a heartbeat, a dead client is gone within 1.5 × the keep-alive that it has agreed on, 45 s while it is pinged
                    subprotocol phoenix: watched (phoenix), a dead client is gone within 120 s
                    subprotocol actioncable-v1-json: watched (actioncable) and pinged after 25s of silence, a dead client is gone within 45 s
                    query EIO=4&transport=websocket: watched (engine.io), a dead client is gone within the app's own interval (25 s by Socket.IO's default) + 20 s
                    path …/websocket, query vsn: watched (phoenix), a dead client is gone within 120 s
                    path …/app/…, query protocol: watched (pusher), a dead client is gone within 1.5 × the app's activity timeout (180 s where it names none) of the last message of either side
                    anything else: pinged after 25s of silence, a dead client is gone within 45 s
");
    assert_eq!(machine["heartbeat"], "auto");
    assert_eq!(machine["detection_s"], Value::Null, "it depends on the session");
    let sessions = machine["sessions"].as_array().expect("a list").iter();
    let sessions: Vec<String> = sessions
        .map(|session| {
            ["shown_by", "heartbeat", "profile", "detection_s"].map(|key| session[key].to_string()).join(" ")
        })
        .collect();
    assert_snapshot!(sessions.join("\n"), @r#"
"subprotocol graphql-transport-ws" "app" "graphql-transport-ws" 45.0
"subprotocol graphql-ws" "passive" "graphql-ws" 45.0
"subprotocol of STOMP" "passive" "stomp" null
"subprotocol of MQTT" "passive" "mqtt" null
"subprotocol phoenix" "passive" "phoenix" 120.0
"subprotocol actioncable-v1-json" "passive" "actioncable" 45.0
"query EIO=4&transport=websocket" "passive" "engine.io" null
"path …/websocket, query vsn" "passive" "phoenix" 120.0
"path …/app/…, query protocol" "passive" "pusher" null
null "protocol" null 45.0
"#);
}
