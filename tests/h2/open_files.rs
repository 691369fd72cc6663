//! Few open files and many streams: connections to the app leave descriptors for the rest of the process.

use http::Method;
use pulsegate_test_kit::fake_app::{FakeApp, hold};
use pulsegate_test_kit::http1::Response;
use pulsegate_test_kit::http2::{Http2Client, request};
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_for;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::PULSEGATE;

#[tokio::test]
async fn streams_that_the_app_never_answers_leave_descriptors_for_health() {
    let fake = FakeApp::start(|_, stream| hold(stream)).await;
    let config =
        Config::to(PULSEGATE, &fake.url).listen("workers = 2").admin("health = \"127.0.0.1:0\"\nsocket = \"off\"");
    let proxy = Proxy::start_with_open_files(config, 300).await;
    let health = proxy.logged("listening")[0]["health"].as_str().expect("a health port").to_owned();
    let mut clients = Vec::new();
    let mut answers = Vec::new();
    // Three connections, and descriptors for half of their streams.
    for _ in 0..3 {
        let mut client = Http2Client::connect(&proxy).await;
        for _ in 0..100 {
            answers.push(client.send(request(Method::GET, "/never"), true).await.0);
        }
        clients.push(client);
    }
    let (first, _, waiting) = wait_for("a refusal", futures_util::future::select_all(answers)).await;
    assert_eq!(first.expect("an answer").status(), 502);
    for _ in 0..3 {
        let mut stream = wait_for("connect", TcpStream::connect(&health)).await.expect("the health port listens");
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("open");
        let answer = wait_for("/livez", Response::read(&mut stream)).await.expect("an answer");
        assert_eq!(answer.status, 200);
    }
    assert!(waiting.len() > 100, "the others wait for the app");
    assert_eq!(proxy.count(|line| line.text.contains("accept failed")), 0, "{}", proxy.transcript());
    drop((waiting, clients));
    proxy.finish().await;
}
