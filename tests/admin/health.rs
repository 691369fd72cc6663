//! Health probes and metrics.

use pulsegate_test_kit::http1::Response;
use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::{wait_for, wait_until, wait_until_async};
use tokio::io::AsyncWriteExt;

use crate::PULSEGATE;
use crate::admin::rig::{Reply, Rig, exchange, request};

const PLAIN: &str = "text/plain; charset=utf-8";

/// Returns status, content type and body of one request to the health port.
async fn probe(proxy: &Proxy, method: &str, path: &str) -> (u16, String, String) {
    let line = proxy.logged("listening").swap_remove(0);
    let address = line["health"].as_str().expect("a health port").to_owned();
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    // Orchestrators use an arbitrary Host.
    let request = request(method, path, ["Host: 10.1.2.3:9090"], "");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let answer = wait_for("an answer", Response::read(&mut stream)).await.expect("an answer");
    let kind = answer.header("content-type").unwrap_or_default().to_owned();
    (answer.status, kind, answer.body)
}

/// Polls `/readyz` until it has this answer; the metric must agree.
async fn becomes(proxy: &Proxy, status: u16, word: &str) {
    let expected = (status, PLAIN.to_owned(), format!("{word}\n"));
    let found = async || probe(proxy, "GET", "/readyz").await;
    wait_until_async(&format!("/readyz is {status} {word}"), found, |found| *found == expected).await;
    let metric = format!("\npulsegate_ready {}\n", u8::from(status == 200));
    let metrics = probe(proxy, "GET", "/metrics").await.2;
    assert!(metrics.contains(&metric), "no {metric:?} while /readyz is {status} {word}:\n{metrics}");
}

#[tokio::test]
async fn a_healthy_proxy_passes_every_probe() {
    let rig = Rig::start().await;
    let proxy = &rig.proxy;
    // Its app has to be reached first.
    becomes(proxy, 200, "ready").await;
    for (path, word) in [("/livez", "alive"), ("/readyz", "ready"), ("/startupz", "started")] {
        assert_eq!(probe(proxy, "GET", path).await, (200, PLAIN.to_owned(), format!("{word}\n")), "{path}");
    }
    let (status, kind, body) = probe(proxy, "GET", "/metrics").await;
    assert_eq!((status, &*kind), (200, "text/plain; version=0.0.4; charset=utf-8"));
    assert!(body.contains("pulsegate_websockets_active") && body.contains("process_open_fds"), "{body}");

    let (status, kind, body) = probe(proxy, "GET", "/v1/info").await;
    assert_eq!((status, &*kind, &*body), (404, PLAIN, "not_found\n"), "nothing of the API is served here");
    for path in ["/", "/livez/", "/metrics/x", "/LIVEZ"] {
        assert_eq!(probe(proxy, "GET", path).await.0, 404, "{path}");
    }
    for path in ["/livez", "/readyz", "/startupz", "/metrics"] {
        for method in ["POST", "DELETE", "OPTIONS"] {
            let reply = exchange(&mut rig.health().await, &request(method, path, ["Host: x"], "")).await;
            reply.refuses(405, "method", &["GET"]);
            assert_eq!(reply.header("allow"), Some("GET, HEAD"), "{method} {path}");
        }
        let Reply { status, head, .. } =
            exchange(&mut rig.health().await, &request("HEAD", path, ["Host: x"], "")).await;
        assert!(status == 200 && head.to_ascii_lowercase().contains("\r\ncontent-length: "), "HEAD {path}: {head}");
    }
    rig.proxy.finish().await;
}

#[tokio::test]
async fn a_drain_makes_it_unready_and_leaves_it_alive() {
    let rig = Rig::with(|config| config.drain("delay = \"60s\"").drain("window = \"0s\"")).await;
    becomes(&rig.proxy, 200, "ready").await;
    assert_eq!(rig.post("/v1/drain", "").await.status, 202);
    becomes(&rig.proxy, 503, "draining").await;
    for (path, word) in [("/livez", "alive"), ("/startupz", "started")] {
        assert_eq!(probe(&rig.proxy, "GET", path).await, (200, PLAIN.to_owned(), format!("{word}\n")), "{path}");
    }
    assert_eq!(probe(&rig.proxy, "GET", "/metrics").await.0, 200);
}

#[tokio::test]
async fn an_app_that_is_found_dead_makes_it_unready_until_it_is_back() {
    let app = NodeApp::bare().await;
    let config = Config::to(PULSEGATE, &app.url).admin("health = \"127.0.0.1:0\"").admin("socket = \"off\"");
    let config = config.upstream("interval = \"300ms\"\ntimeout = \"400ms\"\ngive_up = \"60s\"");
    let proxy = Proxy::start(config).await;
    becomes(&proxy, 200, "ready").await;
    let _session = proxy.websocket("/ws").await;
    app.stop();
    becomes(&proxy, 503, "upstream").await;
    assert_eq!(probe(&proxy, "GET", "/livez").await.0, 200);
    assert_eq!(probe(&proxy, "GET", "/startupz").await.0, 200, "that never depends on the app");
    app.resume();
    becomes(&proxy, 200, "ready").await;
    wait_until("the recovery is logged", || proxy.logged("upstream.recovered").len(), |count| *count > 0).await;
    proxy.finish().await;
}
