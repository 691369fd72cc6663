//! Bodies are relayed as they are produced: neither side waits for the end of the other one's.

use std::time::Duration;

use pulsegate_test_kit::client::Tls;
use pulsegate_test_kit::http1::{Response, read_chunk, read_head};
use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::turn::busy_turn;
use pulsegate_test_kit::wait::{wait_for, wait_until, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::PULSEGATE;
use crate::e2e::frames::noise;

/// The time limit for many megabytes.
const LIMIT: Duration = Duration::from_mins(1);

async fn send(stream: &mut Tls, bytes: &[u8]) {
    stream.write_all(bytes).await.expect("the connection lives");
    stream.flush().await.expect("the connection lives");
}

async fn receive(stream: &mut Tls) -> Vec<u8> {
    wait_for("a chunk", read_chunk(stream)).await.expect("the connection lives")
}

#[tokio::test]
async fn a_body_streams_up_and_back_chunk_by_chunk() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let mut stream = proxy.tls().await;
    send(&mut stream, b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let mut head = None;
    for word in ["first", "second", "third"] {
        send(&mut stream, format!("{:x}\r\n{word}\r\n", word.len()).as_bytes()).await;
        if head.is_none() {
            head = wait_for("the head", read_head(&mut stream)).await;
        }
        // The next one is sent only after this one has returned.
        assert_eq!(receive(&mut stream).await, word.as_bytes());
    }
    send(&mut stream, b"0\r\n\r\n").await;
    assert!(receive(&mut stream).await.is_empty());
    let head = head.expect("a head came first");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    proxy.finish().await;
}

#[tokio::test]
async fn server_sent_events_arrive_one_by_one() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let mut listener = proxy.tls().await;
    send(&mut listener, b"GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n").await;
    let head = wait_for("the head", read_head(&mut listener)).await.expect("an answer");
    assert!(head.to_lowercase().contains("content-type: text/event-stream"), "{head}");
    let mut speaker = proxy.tls().await;
    for data in ["one", "two", "three"] {
        let request = format!("POST /events/{data} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        let answer = proxy.ask(&mut speaker, request.as_bytes()).await;
        assert_eq!(answer.body, "{\"listeners\":1}");
        assert_eq!(receive(&mut listener).await, format!("data: {data}\n\n").as_bytes());
    }
    // The app sees the close of its listener.
    drop(listener);
    let request = b"POST /events/last HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    wait_for("the app counts no listener", async {
        while proxy.ask(&mut speaker, request).await.body != "{\"listeners\":0}" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    proxy.finish().await;
}

#[tokio::test]
async fn sixteen_megabytes_come_back_whole() {
    const SIZE: usize = 16 << 20;
    let _turn = busy_turn().await;
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let mut stream = proxy.tls().await;
    let body = noise(SIZE);
    let head = format!("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: {SIZE}\r\n\r\n");
    let echoed = {
        let (mut reads, mut writes) = tokio::io::split(&mut stream);
        let upload = async {
            writes.write_all(head.as_bytes()).await?;
            writes.write_all(&body).await?;
            writes.flush().await
        };
        let download = async {
            read_head(&mut reads).await.expect("an answer");
            let mut echoed = Vec::with_capacity(SIZE);
            loop {
                let chunk = read_chunk(&mut reads).await.expect("the connection lives");
                if chunk.is_empty() {
                    return echoed;
                }
                echoed.extend(chunk);
            }
        };
        let both = async { tokio::join!(upload, download) };
        let (uploaded, echoed) = within(LIMIT, "16 MiB come back", both).await;
        uploaded.expect("the connection lives");
        echoed
    };
    assert!(echoed == body, "{} other bytes came back", echoed.len());
    proxy.finish().await;
}

#[tokio::test]
async fn a_client_that_expects_100_gets_it_before_it_sends() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let mut stream = proxy.tls().await;
    let head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    send(&mut stream, head).await;
    let interim = wait_for("the 100", read_head(&mut stream)).await.expect("an answer");
    assert!(interim.starts_with("HTTP/1.1 100"), "{interim}");
    send(&mut stream, b"hello").await;
    let answer = wait_for("the answer", Response::read(&mut stream)).await.expect("an answer");
    assert_eq!((answer.status, &*answer.body), (200, "hello"), "{answer:?}");
    proxy.finish().await;
}

#[tokio::test]
async fn a_reader_that_pauses_holds_the_app_back_instead_of_filling_memory() {
    const SIZE: usize = 64 << 20;
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let mut stream = proxy.tls().await;
    let (mut reads, mut writes) = tokio::io::split(&mut stream);
    let head = format!("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: {SIZE}\r\n\r\n");
    writes.write_all(head.as_bytes()).await.expect("the connection lives");
    // Written until nothing moves any more: the answer is not read, so the upload must stop.
    let chunk = vec![7; 64 << 10];
    let mut written = 0;
    while let Ok(result) = tokio::time::timeout(Duration::from_secs(1), writes.write(&chunk)).await {
        written += result.expect("the connection lives");
        assert!(written < SIZE, "the proxy or the app took everything without an end");
    }
    let memory = resident(&proxy);
    assert!(memory < 48 << 20, "the proxy holds {memory} bytes");
    // The reader continues, and so does everything else.
    wait_for("the head", read_head(&mut reads)).await.expect("an answer");
    let mut read = 0;
    settle_upload(&mut reads, &mut writes, SIZE - written, &mut read).await;
    assert_eq!(read, SIZE);
    drop((reads, writes));
    drop(stream);
    wait_until("the proxy is idle", || proxy.logged("http.access").len(), |count| *count == 1).await;
    proxy.finish().await;
}

/// Writes the rest of the body while the whole answer is read and counted.
async fn settle_upload(
    reads: &mut (impl AsyncReadExt + Unpin),
    writes: &mut (impl AsyncWriteExt + Unpin),
    rest: usize,
    read: &mut usize,
) {
    let rest = vec![7; rest];
    let download = async {
        loop {
            let chunk = read_chunk(reads).await.expect("the connection lives");
            if chunk.is_empty() {
                return;
            }
            assert!(chunk.iter().all(|byte| *byte == 7));
            *read += chunk.len();
        }
    };
    let upload = async {
        writes.write_all(&rest).await?;
        writes.flush().await
    };
    let both = async { tokio::join!(upload, download) };
    let (uploaded, ()) = within(LIMIT, "the rest passes", both).await;
    uploaded.expect("the connection lives");
}

/// Returns the resident bytes of the proxy (`VmRSS` of proc(5)).
fn resident(proxy: &Proxy) -> usize {
    let status = proxy.status();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel says VmRSS");
    let kilobytes: usize = line.trim().trim_end_matches("kB").trim().parse().expect("a number of kB");
    kilobytes << 10
}
