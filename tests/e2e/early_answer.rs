//! Apps that answer before they have read the request, and close: the answer arrives, independent of the upload.

use std::time::Duration;

use pulsegate_test_kit::fake_app::FakeApp;
use pulsegate_test_kit::http1::Response;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_for;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::PULSEGATE;

/// As Express refuses an upload before its body parser.
const REFUSAL: &str = "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 12\r\n\r\nwho are you?";

/// Starts an app that refuses every request with its body unread, which makes its close a reset.
pub(crate) async fn refusing() -> FakeApp {
    FakeApp::start(|_, mut stream| async move {
        let _ = stream.write_all(REFUSAL.as_bytes()).await;
    })
    .await
}

#[tokio::test]
async fn a_refusal_overtakes_its_upload() {
    let app = refusing().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let connections = proxy.connections();
    for round in 0..90 {
        let size = [70_000, 200_000, 2_000_000][round % 3];
        let (mut reader, mut writer) = tokio::io::split(proxy.tls().await);
        let upload = async {
            let head = format!("POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n");
            // The proxy may end the connection before it has read everything.
            let _ = writer.write_all(head.as_bytes()).await;
            let _ = writer.write_all(&vec![b'y'; size]).await;
        };
        let (_, answer) =
            tokio::join!(timeout(Duration::from_secs(10), upload), wait_for("an answer", Response::read(&mut reader)));
        let answer = answer.unwrap_or_else(|| panic!("round {round}: no answer to {size} bytes"));
        assert_eq!((answer.status, &*answer.body), (401, "who are you?"), "round {round}, {size} bytes");
    }
    proxy.releases(connections).await;
    proxy.finish().await;
}

#[tokio::test]
async fn an_app_that_closes_without_an_answer_is_still_a_502() {
    let app = FakeApp::start(|_, stream| async move {
        stream.set_zero_linger().expect("it is open");
        drop(stream);
    })
    .await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let connections = proxy.connections();
    for size in [70_000, 2_000_000] {
        let (mut reader, mut writer) = tokio::io::split(proxy.tls().await);
        let upload = async {
            let head = format!("POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n");
            let _ = writer.write_all(head.as_bytes()).await;
            let _ = writer.write_all(&vec![b'y'; size]).await;
        };
        let (_, answer) =
            tokio::join!(timeout(Duration::from_secs(10), upload), wait_for("an answer", Response::read(&mut reader)));
        let answer = answer.expect("an answer of the proxy's own");
        assert_eq!((answer.status, &*answer.body), (502, "502 Bad Gateway: closed\n"), "{size} bytes");
    }
    proxy.releases(connections).await;
    proxy.finish().await;
}
