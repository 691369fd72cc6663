//! Routes with apps of their own: a failure of one app has no effect on the other.

use pulsegate_test_kit::client::{Neighbour, close_of};
use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::proxy::{Config, Proxy};

use crate::PULSEGATE;

/// Returns a configuration that sends `/live/` to `live`, and everything else to `shop`, with a short liveness check of
/// both.
fn config(shop: &NodeApp, live: &NodeApp) -> Config {
    let route = format!("[[route]]\npath = \"/live/\"\nupstream = \"{}\"\n", live.url);
    Config::to(PULSEGATE, &shop.url)
        .upstream("interval = \"300ms\"\ntimeout = \"400ms\"\ngive_up = \"1500ms\"")
        .with("[heartbeat]\nmode = \"off\"\n")
        .with(&route)
}

#[tokio::test]
async fn each_app_gets_what_is_meant_for_it() {
    let (shop, live) = (NodeApp::bare().await, NodeApp::bare().await);
    let proxy = Proxy::start(config(&shop, &live)).await;
    let sessions = [("/live/ws?name=here", &live, &shop), ("/ws?name=there", &shop, &live)];
    for (path, own, other) in sessions {
        let (bare, name) = path.split_once("?name=").expect("a name");
        let session = Neighbour::join(&proxy, path).await;
        own.event("open", |event| event["name"] == name).await;
        assert!(other.events("open").iter().all(|event| event["name"] != name), "{}", other.transcript());
        drop(session);
        proxy.ws_close(|line| line["url.path"] == bare).await;
        own.close_of(name).await;
    }
    let mut stream = proxy.tls().await;
    // A path that parsers disagree about, so that it may belong to either app, reaches neither.
    for path in ["/live/../request", "/public/..//live/x"] {
        proxy.ask(&mut stream, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await;
        let access = proxy.line("its http.access", |line| line.json["url.path"] == path).await.json;
        assert_eq!(
            (&access["http.response.status_code"], &access["reason"]),
            (&400.into(), &"path".into()),
            "{access}"
        );
    }
    drop(stream);
    proxy.finish().await;
}

#[tokio::test]
async fn an_app_that_hangs_takes_its_own_sessions_with_it_and_no_others() {
    let (shop, live) = (NodeApp::bare().await, NodeApp::bare().await);
    let proxy = Proxy::start(config(&shop, &live)).await;
    let elsewhere = Neighbour::join(&proxy, "/ws").await;
    let mut hung = proxy.websocket("/live/ws").await;
    live.stop();
    assert_eq!(close_of(&mut hung).await, (1012, "upstream unresponsive".into()));
    let given_up = proxy.line("an app is given up", |line| line.json["message"] == "upstream.given_up").await.json;
    assert_eq!((&given_up["upstream"], &given_up["sessions"]), (&live.url.as_str().into(), &1.into()), "{given_up}");
    elsewhere.echoes().await;
    assert!(shop.events("close").is_empty(), "{}", shop.transcript());
    live.resume();
    Neighbour::join(&proxy, "/live/ws").await.echoes().await;
    proxy.finish().await;
}
