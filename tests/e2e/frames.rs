//! The bytes that one end sends are those that the other end receives.

use std::ops::Range;
use std::time::Duration;

use futures_util::SinkExt;
use pulsegate_test_kit::client::{echo, next_message};
use pulsegate_test_kit::fake_app::FakeApp;
use pulsegate_test_kit::frame::{BINARY, CONTINUATION, FIN, Frame, PING, PONG, TEXT};
use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::turn::busy_turn;
use pulsegate_test_kit::wait::{wait_for, within};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame as WireFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::PULSEGATE;

const SIZES: [usize; 8] = [0, 1, 125, 126, 127, 65_535, 65_536, 65_537];
const LARGE: usize = 64 << 20;

#[tokio::test]
async fn every_size_of_frame_comes_back_whole() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let mut websocket = proxy.websocket("/ws").await;
    for size in SIZES {
        wait_for("a text echo", echo(&mut websocket, Message::text(text(size)))).await.expect("the session lives");
        wait_for("a binary echo", echo(&mut websocket, Message::binary(noise(size)))).await.expect("the session lives");
    }
    drop(websocket);
    proxy.finish().await;
}

#[tokio::test]
async fn frames_of_64_mib_come_back_whole() {
    const LIMIT: Duration = Duration::from_mins(1);
    let _turn = busy_turn().await;
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let mut websocket = proxy.websocket("/ws").await;
    for message in [Message::binary(noise(LARGE)), Message::text(text(LARGE))] {
        within(LIMIT, "64 MiB come back", echo(&mut websocket, message)).await.expect("the session lives");
    }
    drop(websocket);
    proxy.finish().await;
}

#[tokio::test]
async fn a_fragmented_message_with_a_ping_inside_reaches_the_app_whole() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let mut websocket = proxy.websocket("/ws").await;
    let whole = noise(100_000);
    let fragment = |range: Range<usize>, opcode, last| {
        Message::Frame(WireFrame::message(whole[range].to_vec(), OpCode::Data(opcode), last))
    };
    for message in [
        fragment(0..1, Data::Binary, false),
        Message::Ping("between".into()),
        fragment(1..70_000, Data::Continue, false),
        fragment(70_000..70_000, Data::Continue, false),
        fragment(70_000..100_000, Data::Continue, true),
    ] {
        websocket.send(message).await.expect("the session lives");
    }
    let answer = wait_for("the echo", next_message(&mut websocket)).await.expect("the session lives");
    assert!(answer == Message::binary(whole), "{} other bytes came back", answer.len());
    drop(websocket);
    proxy.finish().await;
}

#[tokio::test]
async fn fragments_controls_and_masks_pass_untouched_in_both_directions() {
    let (fake, mut sessions) = FakeApp::sessions().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url)).await;
    let mut client = proxy.upgraded("/raw").await;
    let (_, mut upstream) = wait_for("the session reaches the app", sessions.recv()).await.expect("the fake runs");

    let from_client = script(Frame::client);
    let from_server = script(Frame::server);
    let mut at_upstream = vec![0; from_client.len()];
    let mut at_client = vec![0; from_server.len()];
    {
        let (mut client_reads, mut client_writes) = tokio::io::split(&mut client);
        let (mut upstream_reads, mut upstream_writes) = upstream.split();
        let exchange = async {
            tokio::try_join!(
                write_in_odd_pieces(&mut client_writes, &from_client),
                write_in_odd_pieces(&mut upstream_writes, &from_server),
                upstream_reads.read_exact(&mut at_upstream),
                client_reads.read_exact(&mut at_client),
            )
        };
        wait_for("all bytes arrive", exchange).await.expect("both legs live");
    }
    assert!(at_upstream == from_client, "the app got other bytes than the client sent");
    assert!(at_client == from_server, "the client got other bytes than the app sent");
    drop((client, upstream));
    proxy.finish().await;
}

/// Returns a conversation with everything that RFC 6455 §5.4 allows, as bytes.
fn script(frame: impl Fn(u8, Vec<u8>) -> Frame) -> Vec<u8> {
    let mut frames = vec![frame(TEXT, b"Hel".to_vec()), frame(FIN | PING, b"in a message".to_vec())];
    frames.push(frame(CONTINUATION, Vec::new()));
    frames.push(frame(FIN | PONG, Vec::new()));
    frames.push(frame(FIN | PING, noise(125)));
    frames.push(frame(FIN | CONTINUATION, "lo, wörld".into()));
    frames.extend(SIZES.map(|size| frame(FIN | BINARY, noise(size))));
    frames.push(frame(BINARY, noise(70_000)));
    frames.push(frame(FIN | CONTINUATION, noise(126)));
    frames.iter().flat_map(Frame::bytes).collect()
}

/// Writes in pieces whose ends fall on every position of a frame header.
async fn write_in_odd_pieces(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<usize> {
    let (fine, coarse) = bytes.split_at(bytes.len().min(600));
    let pieces = fine.chunks(1).chain(coarse.chunks(4_093));
    for piece in pieces {
        stream.write_all(piece).await?;
        stream.flush().await?;
    }
    Ok(bytes.len())
}

/// Returns bytes without a pattern that could hide a shifted or repeated block; the same in every run.
pub(crate) fn noise(size: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(size as u64 + 1);
    let mut bytes = vec![0; size];
    random.fill(&mut bytes);
    bytes
}

/// Returns valid UTF-8 of exactly `size` bytes, with characters of several bytes where they fit.
fn text(size: usize) -> String {
    let mut random = fastrand::Rng::with_seed(size as u64 + 1);
    let mut text = String::with_capacity(size);
    while size - text.len() >= 4 {
        text.push(random.choice(['a', 'ß', '€', '🦀', '\0', '\u{7f}', '\u{ffff}']).expect("not empty"));
    }
    text.extend(std::iter::repeat_n('.', size - text.len()));
    text
}
