//! `pulsegate ping` as a process, against servers with every possible behaviour.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use pulsegate_test_kit::process::{Finished, Process};
use pulsegate_test_kit::wait::wait_for;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, frame::coding::CloseCode};
use tokio_tungstenite::{WebSocketStream, accept_async};

use crate::PULSEGATE;

type Socket = WebSocketStream<TcpStream>;

/// Returns a listener on loopback, and its `ws://` URL.
async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a port");
    let address = listener.local_addr().expect("bound");
    (listener, format!("ws://{address}/path"))
}

fn ping(arguments: &[&str]) -> Process {
    Process::start_without_input("pulsegate ping", Command::new(PULSEGATE).arg("ping").args(arguments))
}

/// Waits for the end; returns exit code, standard output and standard error.
async fn end(process: Process) -> (Option<i32>, String, String) {
    let Finished { code, out, err } = process.finish().await;
    (code, out, err)
}

async fn accept(listener: &TcpListener) -> Socket {
    wait_for("a WebSocket", async {
        let (stream, _) = listener.accept().await.expect("accepted");
        accept_async(stream).await.expect("upgraded")
    })
    .await
}

/// Answers as every WebSocket library does until the client closes; returns the code that it closed with.
async fn converse(socket: &mut Socket) -> Option<u16> {
    let mut code = None;
    while let Some(Ok(message)) = wait_for("the client's next frame", socket.next()).await {
        if let Message::Close(Some(frame)) = message {
            code = Some(u16::from(frame.code));
        }
    }
    code
}

/// Answers one request with `parts`, each in a packet of its own, and closes.
async fn refuse(listener: TcpListener, parts: &'static [&'static str]) {
    let (mut stream, _) = wait_for("a request", listener.accept()).await.expect("accepted");
    stream.set_nodelay(true).expect("a socket");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert_ne!(wait_for("the head", stream.read_buf(&mut head)).await.expect("read"), 0, "half a head");
    }
    for part in parts {
        stream.write_all(part.as_bytes()).await.expect("written");
        stream.flush().await.expect("flushed");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn every_pong_is_a_line_and_the_count_ends_it_with_a_summary() {
    let (listener, url) = listener().await;
    let child = ping(&["-c", "3", "-i", "20ms", &url]);
    let code = converse(&mut accept(&listener).await).await;
    let (status, out, err) = end(child).await;
    assert_eq!((status, err.as_str()), (Some(0), ""), "{out}");
    assert_eq!(code, Some(1000), "a normal end is said to be one");
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with(&format!("PING {url} (127.0.0.1:")), "{out}");
    for (seq, line) in lines.iter().enumerate().skip(1).take(3) {
        let expected = format!("pong from 127.0.0.1: seq={seq} rtt=");
        assert!(line.starts_with(&expected) && line.ends_with(" ms"), "{out}");
    }
    assert_eq!(lines[4], format!("--- {url} ---"));
    assert!(lines[5].starts_with("3 pings sent, 3 pongs received, 0% lost, "), "{out}");
    assert!(lines[6].starts_with("rtt min/avg/max/mdev = "), "{out}");
    assert_eq!(lines.len(), 7, "{out}");
}

#[tokio::test]
async fn pings_of_the_server_are_answered_and_shown_and_its_close_is_reported() {
    let (listener, url) = listener().await;
    let child = ping(&["-i", "1m", &url]);
    let mut socket = accept(&listener).await;
    let mut answered = Vec::new();
    let mut pinged = 0;
    for payload in ["first", "second"] {
        socket.send(Message::Ping(payload.into())).await.expect("sent");
        // The client's own ping comes at its own time; it must have been answered before the Close.
        while answered.last().is_none_or(|last| last != payload) || pinged == 0 {
            match wait_for("a pong", socket.next()).await.expect("open").expect("a frame") {
                Message::Pong(payload) => answered.push(payload),
                Message::Ping(_) => pinged += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    socket.flush().await.expect("flushed");
    assert_eq!(answered, ["first", "second"]);
    let close = CloseFrame { code: CloseCode::from(4001), reason: "enough".into() };
    socket.close(Some(close)).await.expect("closing");
    assert_eq!(converse(&mut socket).await, Some(4001), "the Close is answered with its own code");

    let (status, out, err) = end(child).await;
    assert_eq!((status, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.contains("\nping from server, answered\n"), "{out}");
    assert!(out.contains("\nping from server, answered, 0."), "{out}");
    assert!(out.contains("\nclosed by the server: 4001 \"enough\"\n"), "{out}");
    assert!(out.ends_with("\n2 pings from the server\n"), "{out}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_reported_as_a_failure() {
    let (listener, url) = listener().await;
    let child = ping(&["-c", "1", "--timeout", "200ms", &url]);
    // Never read from again, but it has to stay open.
    let silent = accept(&listener).await;
    let (status, out, err) = end(child).await;
    drop(silent);
    assert_eq!((status, err.as_str()), (Some(1), ""), "{out}");
    assert!(out.contains("\nno pong for seq=1 after 200ms\n"), "{out}");
    assert!(out.contains("\n1 pings sent, 0 pongs received, 100% lost, "), "{out}");
    assert!(!out.contains("rtt"), "{out}");
}

#[tokio::test]
async fn a_connection_that_breaks_is_not_mistaken_for_a_close() {
    let (listener, url) = listener().await;
    let child = ping(&["-i", "1m", &url]);
    drop(accept(&listener).await);
    let (status, out, err) = end(child).await;
    assert_eq!((status, err.as_str()), (Some(1), ""), "{out}");
    assert!(out.contains("\nconnection lost (1006): "), "{out}");
}

#[tokio::test]
async fn an_interrupt_ends_it_with_the_summary_and_a_close() {
    let (listener, url) = listener().await;
    let child = ping(&["-i", "1m", &url]);
    let mut socket = accept(&listener).await;
    let serving = tokio::spawn(async move { converse(&mut socket).await });
    child.line("a pong", |line| line.text.starts_with("pong from")).await;
    child.interrupt();
    let (status, out, _) = end(child).await;
    let summary = out.lines().any(|line| line.starts_with("1 pings sent, 1 pongs received, 0% lost"));
    assert!(summary, "{out}");
    assert_eq!(status, Some(0));
    assert_eq!(serving.await.expect("no panic"), Some(1000));
}

#[tokio::test]
async fn what_was_asked_for_is_what_the_server_sees() {
    let (listener, url) = listener().await;
    let child =
        ping(&["-c", "1", "-H", "Origin: https://app.example", "-H", "Cookie: a=b", "--subprotocol", "chat", &url]);
    let (mut stream, _) = wait_for("a request", listener.accept()).await.expect("accepted");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert_ne!(wait_for("the head", stream.read_buf(&mut head)).await.expect("read"), 0);
    }
    let head = String::from_utf8(head).expect("ASCII").to_lowercase();
    for line in ["get /path http/1.1", "origin: https://app.example", "cookie: a=b", "sec-websocket-protocol: chat"] {
        assert!(head.contains(&format!("{line}\r\n")), "no {line:?} in {head}");
    }
    drop(stream);
    assert_eq!(end(child).await.0, Some(1));
}

#[tokio::test]
async fn the_words_of_a_refusal_are_passed_on() {
    for (parts, expected) in [
        (
            &["HTTP/1.1 403 Forbidden\r\nContent-Length: 26\r\n\r\n", "origin not ", "allowed\nand more"][..],
            "the server refused the upgrade: 403 Forbidden: \"origin not allowed\"\n",
        ),
        (
            &["HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n", "log in!\n\n\r\n0\r\n\r\n"],
            "the server refused the upgrade: 401 Unauthorized: \"log in!\"\n",
        ),
        (
            &["HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>"],
            "the server refused the upgrade: 404 Not Found\n",
        ),
        (&["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"], "the server refused the upgrade: 200 OK\n"),
    ] {
        let (listener, url) = listener().await;
        let child = ping(&[&url]);
        refuse(listener, parts).await;
        let (status, out, err) = end(child).await;
        assert_eq!((status, out.as_str(), err), (Some(1), "", format!("pulsegate: {expected}")));
    }
}

#[tokio::test]
async fn a_failed_connection_prints_its_reason() {
    let (listener, _) = listener().await;
    let address: SocketAddr = listener.local_addr().expect("bound");
    drop(listener);
    let port = address.port();
    for (url, expected) in [
        (format!("ws://{address}/"), format!("cannot connect to 127.0.0.1 port {port}: Connection refused")),
        ("ws://nobody.invalid/".to_owned(), "cannot find the host nobody.invalid: ".to_owned()),
    ] {
        let (status, out, err) = end(ping(&[&url])).await;
        assert_eq!((status, out.as_str()), (Some(1), ""), "{err}");
        assert!(err.starts_with(&format!("pulsegate: {expected}")), "{err}");
    }
}

#[tokio::test]
async fn a_silent_server_is_given_up_in_time() {
    let (listener, url) = listener().await;
    let child = ping(&["--timeout", "300ms", &url]);
    let (stream, _) = wait_for("a connection", listener.accept()).await.expect("accepted");
    let (status, _, err) = end(child).await;
    drop(stream);
    assert_eq!(status, Some(1));
    assert_eq!(err, "pulsegate: the upgrade took longer than 300ms; --timeout gives it more\n");
}

#[tokio::test]
async fn tls_towards_a_server_without_it_is_named() {
    let (listener, url) = listener().await;
    let child = ping(&[&url.replacen("ws:", "wss:", 1), "--insecure"]);
    let (mut stream, _) = wait_for("a connection", listener.accept()).await.expect("accepted");
    // Read the greeting first, so that closing does not reset the connection under the answer.
    let mut greeting = [0; 1024];
    assert_ne!(wait_for("a greeting", stream.read(&mut greeting)).await.expect("read"), 0);
    stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("written");
    let (status, _, err) = end(child).await;
    assert_eq!(status, Some(1));
    assert!(err.contains("it does not speak TLS") && err.contains("reached with ws://"), "{err}");
}

#[tokio::test]
async fn wrong_usage_is_refused_with_a_way_out() {
    for (arguments, expected) in [
        (&["https://localhost/"][..], "begins with wss:// rather than https://"),
        (&["localhost"], "begins with wss:// or ws://"),
        (&["wss://user:secret@localhost/"], "-H 'Authorization: …'"),
        (&["wss://localhost/", "-i", "0s"], "must be between 1ms and 1d"),
        (&["wss://localhost/", "-i", "5"], "write it as 500ms, 25s or 5m"),
        (&["wss://localhost/", "-H", "Origin"], "a header is written 'Name: value'"),
        (&["wss://localhost/", "-H", "Upgrade: h2c"], "upgrade belongs to the upgrade itself"),
        (&["wss://localhost/", "--ca", "ca.pem", "--insecure"], "cannot be used with"),
    ] {
        let (status, out, err) = end(ping(arguments)).await;
        assert_eq!((status, out.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(err.contains(expected), "{arguments:?} gave {err}");
    }
}

#[tokio::test]
async fn a_file_of_authorities_that_holds_none_is_named() {
    let empty = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    for (file, expected) in [
        ("/nonexistent/ca.pem", "cannot read certificates from /nonexistent/ca.pem: "),
        (empty, "holds no usable certificate"),
    ] {
        let (status, _, err) = end(ping(&["--ca", file, "wss://localhost:1/"])).await;
        assert_eq!(status, Some(1));
        assert!(err.contains(expected), "{err}");
    }
}
