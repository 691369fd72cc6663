//! Tests of the TLS stream of a client.

use std::future::poll_fn;
use std::sync::Arc;

use rustls::ALL_VERSIONS;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::super::Terminator;
use super::super::testing::{Localhost, TIMEOUT, client, connect, listen, localhost, within};
use super::*;
use crate::suspension::Deadline;

type Versions = &'static [&'static rustls::SupportedProtocolVersion];

static ONLY_1_3: Versions = &[&TLS13];
static ONLY_1_2: Versions = &[&TLS12];

/// Returns both ends of a connection after the handshake.
async fn pair(versions: Versions) -> (ClientStream, TlsStream<TcpStream>) {
    let Localhost { identity, certificate } = localhost();
    let (listener, address) = listen().await;
    let terminator = Terminator::new(identity).expect("terminator");
    let config = Arc::new(client(&certificate, versions));
    let server = async {
        let (tcp, _) = listener.accept().await.expect("accept");
        terminator.handshake(tcp, Deadline::after(TIMEOUT)).await.expect("handshake").0
    };
    let (server, client) = within("handshake", async { tokio::join!(server, connect(&config, address)) }).await;
    (server, client.expect("connected"))
}

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(7).fill(&mut bytes);
    bytes
}

fn holds_nothing(stream: &ClientStream) -> bool {
    stream.records.waiting() + stream.unread.bytes.capacity() + stream.outgoing.bytes.capacity() == 0
}

#[tokio::test]
async fn ten_megabytes_pass_each_way_whole_and_leave_nothing_behind() {
    for versions in [ONLY_1_3, ONLY_1_2] {
        let (mut server, client) = pair(versions).await;
        let sent = noise(10_000_000);
        let (mut reader, mut writer) = split(client);
        let write = async {
            writer.write_all(&sent).await.expect("write");
            writer.flush().await.expect("flush");
        };
        let mut received = vec![0; sent.len()];
        within("upload", async { tokio::join!(write, server.read_exact(&mut received)) }).await.1.expect("read");
        assert!(received == sent, "bytes changed on the way up");

        let write = async {
            server.write_all(&sent).await.expect("write");
            server.flush().await.expect("flush");
        };
        within("download", async { tokio::join!(write, reader.read_exact(&mut received)) }).await.1.expect("read");
        assert!(received == sent, "bytes changed on the way down");
        assert!(holds_nothing(&server), "{server:?}");
    }
}

#[tokio::test]
async fn s56_the_beginning_of_a_record_is_reported_with_the_time_of_its_last_byte() {
    let (mut server, mut client) = pair(ALL_VERSIONS).await;
    client.write_all(b"whole").await.expect("write");
    client.flush().await.expect("flush");
    within("a whole record", server.read_exact(&mut [0; 5])).await.expect("read");
    assert_eq!(server.partial(), None, "nothing is left of it");
    let before = Instant::now();
    // A record of 4 KiB: first its header and three bytes, later 100 more.
    let beginning: &[u8] = &[23, 3, 3, 16, 0, 1, 2, 3];
    let mut last = before;
    for (piece, len) in [(beginning, 8), (&[7; 100], 108)] {
        client.get_mut().0.write_all(piece).await.expect("write");
        let told = within("the beginning of a record", async {
            loop {
                let mut space = [0; 16];
                let read = poll_fn(|cx| {
                    let read = Pin::new(&mut server).poll_read(cx, &mut ReadBuf::new(&mut space));
                    Poll::Ready(read.is_pending())
                });
                assert!(read.await, "nothing can be decrypted");
                if let Some(told) = server.partial().filter(|told| told.len == len) {
                    return told;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        assert!(told.at >= last && told.at <= Instant::now(), "{told:?}");
        last = told.at;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(last >= before + Duration::from_millis(5), "the last byte counts");
}

#[tokio::test]
async fn a_reader_of_few_bytes_at_a_time_gets_them_all() {
    let (mut server, mut client) = pair(ALL_VERSIONS).await;
    let sent = noise(100_000);
    let write = async {
        client.write_all(&sent).await.expect("write");
        client.flush().await.expect("flush");
    };
    let read = async {
        let mut received = Vec::new();
        let mut some = [0; 7];
        while received.len() < sent.len() {
            let read = server.read(&mut some).await.expect("read");
            received.extend_from_slice(&some[..read]);
        }
        received
    };
    let ((), received) = within("trickle", async { tokio::join!(write, read) }).await;
    assert!(received == sent);
    assert!(holds_nothing(&server), "{server:?}");
}

#[tokio::test]
async fn records_may_be_cut_anywhere() {
    let Localhost { identity, certificate } = localhost();
    let terminator = Terminator::new(identity).expect("terminator");
    let (listener, address) = listen().await;
    let (cutter, through) = listen().await;
    // A relay between both ends forwards a few bytes at a time.
    tokio::spawn(async move {
        let (near, _) = cutter.accept().await.expect("accept");
        let far = TcpStream::connect(address).await.expect("connect");
        far.set_nodelay(true).expect("nodelay");
        let (mut near_read, mut near_write) = near.into_split();
        let (mut far_read, mut far_write) = far.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut far_read, &mut near_write).await });
        let mut random = fastrand::Rng::with_seed(3);
        let mut some = [0; 600];
        while let Ok(read @ 1..) = near_read.read(&mut some[..random.usize(1..600)]).await {
            far_write.write_all(&some[..read]).await.expect("write");
            tokio::task::yield_now().await;
        }
    });
    let config = Arc::new(client(&certificate, ALL_VERSIONS));
    let server = async {
        let (tcp, _) = listener.accept().await.expect("accept");
        terminator.handshake(tcp, Deadline::after(TIMEOUT)).await.expect("handshake").0
    };
    let (mut server, client) = within("handshake", async { tokio::join!(server, connect(&config, through)) }).await;
    let mut client = client.expect("connected");
    let sent = noise(200_000);
    let mut received = vec![0; sent.len()];
    let write = async {
        client.write_all(&sent).await.expect("write");
        client.flush().await.expect("flush");
    };
    within("cut records", async { tokio::join!(write, server.read_exact(&mut received)) }).await.1.expect("read");
    assert!(received == sent);
}

#[tokio::test]
async fn keys_may_be_renewed_in_the_middle() {
    let (mut server, mut client) = pair(ONLY_1_3).await;
    for round in 0..5u8 {
        client.get_mut().1.refresh_traffic_keys().expect("refresh");
        client.write_all(&[round; 1000]).await.expect("write");
        client.flush().await.expect("flush");
        let mut received = [0; 1000];
        within("read", server.read_exact(&mut received)).await.expect("read");
        assert_eq!(received, [round; 1000]);
        server.write_all(&received).await.expect("write");
        server.flush().await.expect("flush");
        within("read", client.read_exact(&mut received)).await.expect("read");
        assert_eq!(received, [round; 1000]);
    }
}

#[tokio::test]
async fn a_half_closed_client_still_hears() {
    let (mut server, mut client) = pair(ALL_VERSIONS).await;
    client.write_all(b"last").await.expect("write");
    client.shutdown().await.expect("close_notify and FIN");
    let mut received = Vec::new();
    within("read", server.read_to_end(&mut received)).await.expect("an orderly end");
    assert_eq!(received, b"last");
    server.write_all(b"answer").await.expect("write");
    server.shutdown().await.expect("shutdown");
    received.clear();
    within("read", client.read_to_end(&mut received)).await.expect("an orderly end");
    assert_eq!(received, b"answer");
}

#[tokio::test]
async fn an_end_without_close_notify_is_an_error() {
    let (mut server, client) = pair(ALL_VERSIONS).await;
    drop(client.into_inner().0);
    let error = within("read", server.read(&mut [0; 10])).await.expect_err("cut off");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_forged_record_is_an_error_and_the_peer_hears_of_it() {
    let (mut server, client) = pair(ONLY_1_3).await;
    let (mut tcp, mut session) = client.into_inner();
    tcp.write_all(&[23, 3, 3, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await.expect("write");
    let error = within("read", server.read(&mut [0; 10])).await.expect_err("forged");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    drop(server);
    let mut answer = Vec::new();
    let _ = within("the alert", tcp.read_to_end(&mut answer)).await;
    let mut answer = &answer[..];
    while !answer.is_empty() {
        session.read_tls(&mut answer).expect("read");
        if let Err(told) = session.process_new_packets() {
            assert_eq!(told, rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac));
            return;
        }
    }
    unreachable!("no alert arrived");
}

#[tokio::test]
async fn what_a_slow_client_does_not_take_is_bounded_and_arrives() {
    let (mut server, mut client) = pair(ALL_VERSIONS).await;
    let part = noise(MAX_PLAINTEXT);
    let mut written = 0;
    // The socket accepts some megabytes; then the bytes of one write are held here, and no more are accepted.
    while let Ok(taken) = timeout(Duration::from_millis(200), server.write(&part)).await {
        written += taken.expect("write");
        assert!(written < 1 << 30, "somebody buffers without bounds");
        assert!(server.outgoing.bytes.len() <= SCRATCH, "{} bytes wait", server.outgoing.bytes.len());
    }
    let mut received = vec![0; written];
    let flush = async { server.flush().await.expect("flush") };
    within("the rest", async { tokio::join!(flush, client.read_exact(&mut received)) }).await.1.expect("read");
    assert!(received.chunks(MAX_PLAINTEXT).all(|chunk| chunk == part), "bytes changed");
    assert!(holds_nothing(&server), "{server:?}");
}

/// Returns whether the server detects within `limit` that the client has closed, without a reader.
async fn sees_hang_up(server: &mut ClientStream, limit: Duration) -> bool {
    timeout(limit, poll_fn(|cx| server.poll_hang_up(cx))).await.is_ok()
}

#[tokio::test]
async fn the_end_is_seen_behind_bytes_that_are_not_read() {
    for versions in [ONLY_1_3, ONLY_1_2] {
        for len in [0, 1, 500, 2_000, 50_000] {
            let (mut server, mut client) = pair(versions).await;
            let sent = noise(len);
            within("write", client.write_all(&sent)).await.expect("it is open");
            within("flush", client.flush()).await.expect("it is open");
            assert!(!sees_hang_up(&mut server, Duration::from_millis(100)).await, "{len} bytes, and open");
            drop(client);
            assert!(sees_hang_up(&mut server, TIMEOUT).await, "{len} bytes");
            assert!(sees_hang_up(&mut server, TIMEOUT).await, "{len} bytes, asked again");
            // All bytes sent before the end are still there.
            let mut read = Vec::new();
            let end = within("read", server.read_to_end(&mut read)).await.expect_err("no close_notify");
            assert_eq!(
                (end.kind(), read == sent),
                (io::ErrorKind::UnexpectedEof, true),
                "{len} bytes, read {}",
                read.len()
            );
        }
    }
}

#[tokio::test]
async fn a_close_notify_behind_a_few_bytes_is_an_end_although_the_connection_is_open() {
    for versions in [ONLY_1_3, ONLY_1_2] {
        let (mut server, mut client) = pair(versions).await;
        within("write", client.write_all(b"x")).await.expect("it is open");
        within("flush", client.flush()).await.expect("it is open");
        assert!(!sees_hang_up(&mut server, Duration::from_millis(50)).await);
        let (tcp, tls) = client.get_mut();
        tls.send_close_notify();
        let mut records = Vec::new();
        tls.write_tls(&mut records).expect("a vector takes all");
        within("write", tcp.write_all(&records)).await.expect("it is open");
        assert!(sees_hang_up(&mut server, TIMEOUT).await);
        let mut read = Vec::new();
        within("read", server.read_to_end(&mut read)).await.expect("an orderly end");
        assert_eq!(read, b"x");
    }
}

#[tokio::test]
async fn bytes_that_were_overlooked_are_read_with_those_that_follow() {
    let (mut server, client) = pair(ONLY_1_3).await;
    let (mut reader, mut writer) = split(client);
    let sent = noise(3_000_000);
    let write = async {
        for piece in sent.chunks(70_001) {
            writer.write_all(piece).await.expect("it is open");
        }
        writer.flush().await.expect("it is open");
    };
    let read = async {
        let mut read = vec![0; sent.len()];
        let mut at = 0;
        while at < read.len() {
            // Checks for the end before each read, as a connection does whose reader pauses and resumes.
            assert!(poll_fn(|cx| Poll::Ready(server.poll_hang_up(cx))).await.is_pending(), "at {at}");
            let until = read.len().min(at + 10_000);
            at += server.read(&mut read[at..until]).await.expect("it is open");
        }
        assert!(read == sent, "other bytes");
        server.write_all(b"ok").await.expect("it is open");
        server.flush().await.expect("it is open");
    };
    let heard = async {
        let mut heard = [0; 2];
        reader.read_exact(&mut heard).await.expect("it is open");
    };
    within("all of it", async { tokio::join!(write, read, heard) }).await;
}
