//! A page that beats every 25 s, in a hidden tab where Chromium lets its timers run once a minute only.

use std::time::Duration;

use pulsegate_test_kit::browser::Browser;
use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_until;
use serde_json::Value;

use crate::PULSEGATE;

/// Where the proxy answers the page's "ping", one route keeps the default window of 90 s; another's is long enough for a
/// page that beats every 25 s, and too short for one that is throttled. On the third the proxy asks.
const ANSWER: &str = "[heartbeat]\nmode = \"answer\"\nprofile = { send = \"pong\", expect = \"ping\" }\n\n\
                      [[route]]\npath = \"/default\"\n\n\
                      [[route]]\npath = \"/narrow\"\n[route.heartbeat]\nwindow = \"45s\"\n\n\
                      [[route]]\npath = \"/asked\"\n[route.heartbeat]\nmode = \"app\"\n\
                      interval = \"5s\"\ntimeout = \"5s\"\n\
                      profile = { send = \"heartbeat\", expect = \"heartbeat\" }\n";
/// The page's own pace while it is not throttled.
const EVERY: Duration = Duration::from_secs(25);
/// A gap between two beats that only a throttled minute explains: far over the page's own pace, and over the narrow
/// window.
const THROTTLED: Duration = Duration::from_secs(55);
/// When such a gap has been seen at the latest: a first beat, at most one gap that the alignment to Chromium's
/// minutes happened to make shorter, one whole minute; and some seconds for a busy machine.
const LIMIT: Duration = Duration::from_secs(25 + 55 + 60 + 20);

#[tokio::test]
async fn s50_a_hidden_tab_that_beats_once_a_minute_outlives_the_default_window_and_the_app_hears_nothing() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(ANSWER)).await;
    let page = format!("/beating?every={}&path=/default&path=/narrow&answering=/asked", EVERY.as_millis());
    let mut browser = Browser::visit_to_hide(&proxy.https(&page), &proxy.pki.ca);
    for path in ["/default", "/narrow"] {
        browser.event("beat", |event| event["path"] == path && event["visibilityState"] == "visible").await;
    }
    browser.hide().await;

    // Chromium throttles: the proof is in the page's own clock, and in its other timer, which should run every second.
    let beat_after_a_gap =
        |event: &Value| event["event"] == "beat" && event["path"] == "/default" && gap(event) >= THROTTLED;
    let line = browser.line_within(LIMIT, "a beat after a throttled minute", |line| beat_after_a_gap(&line.json)).await;
    let beat = line.json;
    assert_eq!(beat["visibilityState"], "hidden", "{beat}");
    assert!(beat["ticks"].as_u64().is_some_and(|ticks| ticks <= 3), "a timer of one second ran on: {beat}");

    // It is answered by the proxy, as every one before it was.
    let count = |kind: &str| browser.events(kind).iter().filter(|event| event["path"] == "/default").count();
    wait_until("the answer", || count("message"), |answers| *answers >= count("beat")).await;
    let answers = browser.events("message");
    assert!(answers.iter().all(|answer| answer["data"] == "pong"), "{}", browser.transcript());
    assert_eq!(count("message"), count("beat"), "{}", browser.transcript());

    // Such a minute is death where the window is shorter: the gap was no matter of the page's clock alone.
    let narrow = app.close_of("/narrow").await.json;
    assert_eq!((&narrow["code"], &narrow["reason"]), (&4408.into(), &"heartbeat timeout".into()));
    assert_eq!(narrow["payload"], 0, "{narrow}");
    let close = browser.event("close", |_| true).await;
    assert_eq!((&close["path"], &close["code"]), (&"/narrow".into(), &1012.into()), "{close}");
    assert_eq!(proxy.logged("ws.close").len(), 1, "only the narrow route may end: {}", proxy.transcript());

    // Messages wake a page whose timers sleep: it answered all the while.
    let asked = browser.events("asked");
    let hidden = asked.iter().filter(|event| event["visibilityState"] == "hidden").count();
    assert!(hidden >= 5, "asked {hidden} times only: {}", browser.transcript());

    // What the app has heard of the sessions that live is nothing.
    proxy.terminate();
    for path in ["/default", "/asked"] {
        let close = app.close_of(path).await.json;
        assert_eq!(close["payload"], 0, "the app heard of the page's beats: {close}");
    }
}

/// How long before this beat the one before it was, by the page's clock.
fn gap(beat: &Value) -> Duration {
    Duration::from_secs_f64(beat["gap"].as_f64().unwrap_or_default() / 1_000.0)
}
