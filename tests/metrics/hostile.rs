//! Input made up by clients appears in no label, and creates no series.

use pulsegate_test_kit::client::close_of;
use pulsegate_test_kit::fake_app::{FakeApp, RequestHead};
use pulsegate_test_kit::proxy::Proxy;
use pulsegate_test_kit::wait::wait_for;
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::metrics::exposition::Exposition;
use crate::metrics::scrape::{assert_as_documented, assert_promtool_agrees, observed, text, until};

const PER_ROUND: u16 = 12;

/// Starts an app that answers with an unassigned status, a different one for each path; a WebSocket on `/echo`.
async fn app() -> FakeApp {
    FakeApp::start(|request: RequestHead, mut stream: TcpStream| async move {
        let status = 230 + request.path().bytes().map(u16::from).sum::<u16>() % 700;
        let answer = format!("HTTP/1.1 {status} Made Up\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await
}

#[tokio::test]
async fn no_word_of_a_client_becomes_a_label() {
    let app = app().await;
    let proxy = Proxy::start(observed(&app.url)).await;
    // The first round may create series: of groups, of which there are few.
    misbehave(&proxy, 0).await;
    let first = Exposition::read(&text(&proxy).await);
    misbehave(&proxy, 1).await;
    let text = text(&proxy).await;
    let second = Exposition::read(&text);
    assert_as_documented(&second, &["/"]);
    for word in ["marked", "MARKED"] {
        assert!(!text.contains(word), "a client's {word:?} is in\n{text}");
    }
    let groups = |metrics: &Exposition| metrics.series().len();
    assert!(groups(&second) <= groups(&first) + 8, "{:?} are new", second.series().difference(&first.series()));
    assert_promtool_agrees(&proxy).await;
    proxy.finish().await;
}

async fn misbehave(proxy: &Proxy, round: u16) {
    for n in round * PER_ROUND..(round + 1) * PER_ROUND {
        let mut stream = proxy.tls().await;
        let request = format!(
            "MARKED{n} /marked{n}?marked HTTP/1.1\r\nHost: marked{n}.example\r\nUser-Agent: marked\"{{}}\r\n\r\n"
        );
        proxy.ask(&mut stream, request.as_bytes()).await;
        let name = ServerName::try_from(format!("marked{n}.example")).expect("a valid name");
        let handshake = TlsConnector::from(proxy.pki.client()).connect(name, proxy.tcp().await);
        assert!(wait_for("the handshake", handshake).await.is_err(), "the certificate is not for that name");
        for code in [4000 + n * 17, 3000 + n * 31] {
            let mut websocket = proxy.websocket("/echo").await;
            websocket.close(Some(CloseFrame { code: code.into(), reason: "marked".into() })).await.expect("taken");
            assert_eq!(close_of(&mut websocket).await.0, code);
        }
    }
    let closed = u64::from((round + 1) * PER_ROUND);
    for (name, labels) in [
        ("pulsegate_websockets_closed_total", [("code", "4xxx")]),
        ("pulsegate_websockets_closed_total", [("code", "3xxx")]),
        ("pulsegate_http_requests_total", [("method", "other")]),
        ("pulsegate_tls_handshakes_total", [("outcome", "alert")]),
    ] {
        until(proxy, &format!("{closed} {name} with {labels:?}"), |metrics| metrics.sum(name, &labels) == closed).await;
    }
}
