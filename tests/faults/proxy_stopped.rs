//! The proxy is stopped while its sessions are in the middle of an operation.

use std::time::Duration;

use pulsegate_test_kit::client::{Neighbour, close_of, echo, next_message};
use pulsegate_test_kit::fake_app::FakeApp;
use pulsegate_test_kit::frame::{BINARY, CLOSE, CONTINUATION, FIN, Frame};
use pulsegate_test_kit::http2::Http2Client;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_for;
use tokio::io::AsyncWriteExt;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;

use crate::PULSEGATE;

/// `interval + timeout` is 1.2 s.
const HEARTBEAT: &str =
    "[heartbeat]\ninterval = \"500ms\"\ntimeout = \"700ms\"\nwrite_stall = \"1500ms\"\nclose_grace = \"700ms\"\n";
/// Over every bound of [`HEARTBEAT`], and over `stall_guard`.
const STOPPED: Duration = Duration::from_secs(4);

#[tokio::test]
async fn s77_a_proxy_that_is_stopped_in_the_middle_of_frames_and_closing_handshakes_goes_on() {
    let (fake, mut sessions) = FakeApp::sessions().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with(HEARTBEAT)).await;
    let mut next = async || wait_for("a session", sessions.recv()).await.expect("the fake runs").1;
    let neighbour = Neighbour::join(&proxy, "/echo").await;
    let mut h2 = Http2Client::connect(&proxy).await;
    let mut stream = h2.websocket("/echo").await;
    stream.echoes("open").await;

    let big = Frame::client(FIN | BINARY, vec![7; 3000]);
    let bytes = big.bytes();
    let (first, rest) = bytes.split_at(1000);
    let mut up = proxy.upgraded("/up").await;
    let mut up_app = next().await;
    up.write_all(first).await.expect("the proxy reads");
    up.flush().await.expect("the proxy reads");

    let mut fragments = proxy.websocket("/fragments").await;
    let mut fragments_app = next().await;
    fragments_app.write_all(&Frame::server(BINARY, "first ").bytes()).await.expect("the proxy reads");

    let mut down = proxy.websocket("/down").await;
    let mut down_app = next().await;
    let whole = Frame::server(FIN | BINARY, vec![8; 3000]).bytes();
    down_app.write_all(&whole[..1000]).await.expect("the proxy reads");

    let mut leaving = proxy.websocket("/leaving").await;
    let mut leaving_app = next().await;
    leaving.close(None).await.expect("the Close goes out");
    let close = wait_for("the Close", Frame::read_past_pings(&mut leaving_app)).await.expect("the Close");
    assert_eq!(close.opcode(), CLOSE);

    let mut left = proxy.websocket("/left").await;
    let mut left_app = next().await;
    sleep(Duration::from_millis(300)).await;

    proxy.stop();
    leaving_app.write_all(&Frame::server(FIN | CLOSE, "").bytes()).await.expect("the kernel takes it");
    let mut reason = 4001_u16.to_be_bytes().to_vec();
    reason.extend(b"app");
    left_app.write_all(&Frame::server(FIN | CLOSE, reason).bytes()).await.expect("the kernel takes it");
    down_app.write_all(&whole[1000..]).await.expect("the kernel takes it");
    fragments_app.write_all(&Frame::server(FIN | CONTINUATION, "last").bytes()).await.expect("the kernel takes it");
    up.write_all(rest).await.expect("the kernel takes it");
    up.flush().await.expect("the kernel takes it");
    sleep(STOPPED).await;
    proxy.resume();

    let log = || proxy.transcript();
    let message = wait_for("a frame", Frame::read_past_pings(&mut up_app)).await;
    assert!(message.as_ref().is_some_and(|frame| frame.payload == big.payload), "up: {message:?}\n{}", log());
    let message = wait_for("a message", next_message(&mut fragments)).await;
    assert_eq!(message.unwrap_or_else(|error| panic!("{error}\n{}", log())), Message::binary("first last"));
    let message = wait_for("a message", next_message(&mut down)).await;
    assert_eq!(message.unwrap_or_else(|error| panic!("{error}\n{}", log())), Message::binary(vec![8; 3000]));
    assert_eq!(close_of(&mut leaving).await.0, 1005, "{}", log());
    assert_eq!(close_of(&mut left).await, (4001, "app".into()), "{}", log());
    let line = proxy.ws_close(|line| line["url.path"] == "/leaving").await;
    assert_eq!(line.json["close.initiator"], "client", "{}", line.text);
    stream.echoes("still here").await;
    neighbour.echoes().await;
    drop((up, fragments, down, left, stream, h2));
    proxy.finish().await;
}

#[tokio::test]
async fn s77_a_slow_reader_has_its_write_stall_anew_after_a_stop() {
    let (fake, mut sessions) = FakeApp::sessions().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with(HEARTBEAT)).await;
    let mut slow = proxy.websocket("/slow").await;
    let (_, mut app) = wait_for("a session", sessions.recv()).await.expect("the fake runs");
    let messages = tokio::spawn(async move {
        for _ in 0..400 {
            app.write_all(&Frame::server(FIN | BINARY, vec![9; 32_768]).bytes()).await?;
        }
        Ok::<_, std::io::Error>(app)
    });
    // Reads a little, so that all buffers between the app and it are full, and continues with the proxy.
    for _ in 0..5 {
        wait_for("a message", next_message(&mut slow)).await.expect("the session lives");
    }
    sleep(Duration::from_millis(600)).await;
    proxy.stop();
    sleep(STOPPED).await;
    proxy.resume();
    for turn in 5..400 {
        let message = wait_for("a message", next_message(&mut slow)).await;
        let message = message.unwrap_or_else(|error| panic!("{turn}: {error}; the log:\n{}", proxy.transcript()));
        assert_eq!(message.len(), 32_768);
    }
    let app = wait_for("the app has written all", messages).await.expect("no panic").expect("the session lives");
    let mut beside = proxy.websocket("/echo").await;
    wait_for("an echo", echo(&mut beside, "beside".into())).await.expect("an echo");
    assert!(proxy.logged("ws.close").is_empty(), "{}", proxy.transcript());
    drop((slow, beside, app));
    proxy.finish().await;
}
