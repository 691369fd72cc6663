//! Trailers carry what the two ends have to say, and nothing that only a proxy says or that concerns one connection.

use pulsegate_test_kit::fake_app::FakeApp;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_for;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::PULSEGATE;
use crate::h2::raw::{self, DATA, END_HEADERS, END_STREAM, HEADERS, Raw};

/// Fields of trailers that go no further, in lower case.
const REFUSED: [(&str, &str); 9] = [
    ("x-forwarded-for", "6.6.6.6"),
    ("x-forwarded-user", "root"),
    ("forwarded", "for=6.6.6.6"),
    ("x-real-ip", "6.6.6.6"),
    ("x-request-id", "1"),
    ("x-pulsegate-connection-id", "0"),
    ("content-length", "5"),
    ("host", "evil.example"),
    ("te", "trailers"),
];

#[tokio::test]
async fn trailers_of_a_client_are_cleaned() {
    let (heads, mut seen) = mpsc::unbounded_channel();
    let app = FakeApp::start(move |request, mut stream| {
        let heads = heads.clone();
        async move {
            let mut body = Vec::new();
            while !body.ends_with(b"\r\n\r\n") {
                assert!(stream.read_buf(&mut body).await.expect("the body comes") > 0, "it broke off: {body:?}");
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            let _ = heads.send((request.head.to_lowercase(), String::from_utf8_lossy(&body).into_owned()));
        }
    })
    .await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let mut client = Raw::connect(&proxy).await;
    let names = [REFUSED.map(|(name, _)| name).join(", "), "x-sum".to_owned()].join(", ");
    let (first, second) = names.split_at(names.find(", forwarded").expect("it is there"));
    let announced = [("trailer", first), ("trailer", second.trim_start_matches(", "))];
    let post = raw::get("/").map(|(name, value)| (name, if name == ":method" { "POST" } else { value }));
    client.send(HEADERS, END_HEADERS, 1, &raw::block(&[&post[..], &announced].concat())).await;
    client.send(DATA, 0, 1, b"body").await;
    let trailers = [&REFUSED[..], &[("x-sum", "7")]].concat();
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, &raw::block(&trailers)).await;
    let (head, body) = wait_for("the request", seen.recv()).await.expect("the fake runs");
    assert!(head.contains("trailer: x-sum\r\n"), "{head}");
    assert!(body.ends_with("\r\n0\r\nx-sum: 7\r\n\r\n"), "{body}");
    client.until("an answer", |frame| frame.kind == HEADERS && frame.stream == 1).await;
    drop(client);
    proxy.finish().await;
}

#[tokio::test]
async fn trailers_of_an_app_are_cleaned() {
    let lines = REFUSED.map(|(name, value)| format!("{name}: {value}\r\n")).concat();
    let answers = [
        format!("0\r\nConnection: x-nominated\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\n{lines}X-Sum: 7\r\n\r\n"),
        "0\r\nX-Nominated: 1\r\nX-Sum: 7\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a=1\r\n\r\n".to_owned(),
        // Nothing is left of these.
        format!("0\r\n{lines}\r\n"),
    ];
    let app = FakeApp::start(move |request, mut stream| {
        let which: usize = request.path()[1..].parse().expect("a number");
        let head = "HTTP/1.1 200 OK\r\nConnection: X-Nominated\r\nTrailer: X-Sum, X-Nominated, Host\r\n\
                    Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n";
        let answer = format!("{head}{}", answers[which]);
        async move { stream.write_all(answer.as_bytes()).await.expect("answer") }
    })
    .await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let mut client = pulsegate_test_kit::http2::Http2Client::connect(&proxy).await;
    for (path, sum) in [("/0", Some("7")), ("/1", Some("7")), ("/2", None)] {
        let answer = client.get(path).await;
        assert_eq!((answer.status, &*answer.body, answer.header("trailer")), (200, "body", Some("X-Sum")), "{path}");
        let trailers = answer.trailers.unwrap_or_default();
        let left: Vec<_> =
            trailers.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("text"))).collect();
        assert_eq!(left, sum.map(|sum| ("x-sum", sum)).into_iter().collect::<Vec<_>>(), "{path}");
    }
    proxy.finish().await;
}
