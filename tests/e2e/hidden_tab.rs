//! A page that sends a heartbeat every 25 s, in a hidden tab, where Chromium runs its timers once a minute only.

use std::time::Duration;

use pulsegate_test_kit::browser::Browser;
use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_until;
use serde_json::Value;

use crate::PULSEGATE;

/// Routes on which the proxy answers the page's "ping": one with the default window of 90 s, one whose window is long
/// enough for a page that sends every 25 s and too short for a throttled one. On the third route the proxy probes.
const ANSWER: &str = "[heartbeat]\nmode = \"answer\"\nprofile = { send = \"pong\", expect = \"ping\" }\n\n\
                      [[route]]\npath = \"/default\"\n\n\
                      [[route]]\npath = \"/narrow\"\n[route.heartbeat]\nwindow = \"45s\"\n\n\
                      [[route]]\npath = \"/asked\"\n[route.heartbeat]\nmode = \"app\"\n\
                      interval = \"5s\"\ntimeout = \"5s\"\n\
                      profile = { send = \"heartbeat\", expect = \"heartbeat\" }\n";
/// The page's own period while it is not throttled.
const EVERY: Duration = Duration::from_secs(25);
/// A gap between two heartbeats that only a throttled minute explains: far over the page's own period, and over the
/// narrow window.
const THROTTLED: Duration = Duration::from_secs(55);
/// The time limit for such a gap: a first heartbeat, at most one gap that the alignment to Chromium's minutes made
/// shorter, one whole minute; and some seconds for a busy machine.
const LIMIT: Duration = Duration::from_secs(25 + 55 + 60 + 20);

#[tokio::test]
async fn s50_a_hidden_tab_that_beats_once_a_minute_outlives_the_default_window_and_the_app_receives_nothing() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(ANSWER)).await;
    let page = format!("/beating?every={}&path=/default&path=/narrow&answering=/asked", EVERY.as_millis());
    let mut browser = Browser::visit_to_hide(&proxy.https(&page), &proxy.pki.ca);
    for path in ["/default", "/narrow"] {
        browser.event("beat", |event| event["path"] == path && event["visibilityState"] == "visible").await;
    }
    browser.hide().await;

    // The page's own clock proves that Chromium throttles, and so does its other timer, which should run every second.
    let beat_after_a_gap =
        |event: &Value| event["event"] == "beat" && event["path"] == "/default" && gap(event) >= THROTTLED;
    let line = browser.line_within(LIMIT, "a beat after a throttled minute", |line| beat_after_a_gap(&line.json)).await;
    let beat = line.json;
    assert_eq!(beat["visibilityState"], "hidden", "{beat}");
    assert!(beat["ticks"].as_u64().is_some_and(|ticks| ticks <= 3), "a timer of one second ran on: {beat}");

    // The proxy answers it, like every heartbeat before it.
    let count = |kind: &str| browser.events(kind).iter().filter(|event| event["path"] == "/default").count();
    wait_until("the answer", || count("message"), |answers| *answers >= count("beat")).await;
    let answers = browser.events("message");
    assert!(answers.iter().all(|answer| answer["data"] == "pong"), "{}", browser.transcript());
    assert_eq!(count("message"), count("beat"), "{}", browser.transcript());

    // Such a minute ends the session if the window is shorter: the gap is not an effect of the page's clock alone.
    let narrow = app.close_of("/narrow").await.json;
    assert_eq!((&narrow["code"], &narrow["reason"]), (&4408.into(), &"heartbeat timeout".into()));
    assert_eq!(narrow["payload"], 0, "{narrow}");
    let close = browser.event("close", |_| true).await;
    assert_eq!((&close["path"], &close["code"]), (&"/narrow".into(), &1012.into()), "{close}");
    assert_eq!(proxy.ws_closes(1).await.len(), 1, "only the narrow route may end: {}", proxy.transcript());

    // Messages run the code of a page whose timers are throttled: it answered all the time.
    let asked = browser.events("asked");
    let hidden = asked.iter().filter(|event| event["visibilityState"] == "hidden").count();
    assert!(hidden >= 5, "asked {hidden} times only: {}", browser.transcript());

    // The app has received nothing of the sessions that are open.
    proxy.terminate();
    for path in ["/default", "/asked"] {
        let close = app.close_of(path).await.json;
        assert_eq!(close["payload"], 0, "the app received the page's beats: {close}");
    }
}

/// Returns the time between this heartbeat and the one before it, by the page's clock.
fn gap(beat: &Value) -> Duration {
    Duration::from_secs_f64(beat["gap"].as_f64().unwrap_or_default() / 1_000.0)
}
