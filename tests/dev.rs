//! `pulsegate dev` as a process: the certificate, the page, the echo, and the end of a silent client.

mod lan;
mod page;
mod trust;

use std::path::{Path, PathBuf};

use futures_util::{SinkExt, StreamExt};
use pulsegate::tls::client::{ConnectorError, Stream, TlsClient, Trust};
use pulsegate_test_kit::process::{Finished, OutputLine, OutputStream, Process};
use pulsegate_test_kit::wait::wait_for;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::PULSEGATE;

/// A running `pulsegate dev`.
struct Dev {
    process: Process,
    /// The text that it prints before it serves.
    guide: String,
    port: u16,
    authority: PathBuf,
}

impl Dev {
    /// Starts it and reads its guide.
    async fn start(arguments: &[&str]) -> Self {
        Self::from(command(arguments)).await
    }

    /// Starts `command` and reads its guide.
    async fn from(mut command: Command) -> Self {
        let process = Process::start_without_input("pulsegate dev", &mut command);
        process.line("the guide", |line| line.text.contains("Ctrl-C ends it")).await;
        let guide = process.text_of(OutputStream::Stdout);
        let port = word_after(&guide, "https://localhost:").trim_end_matches('/').parse().expect("a port");
        let authority = PathBuf::from(word_after(&guide, "curl --cacert "));
        Self { process, guide, port, authority }
    }

    async fn connect(&self, trust: &Trust, name: &str) -> Result<Stream<TcpStream>, ConnectorError> {
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).await.expect("it listens");
        wait_for("a handshake", TlsClient::new(trust, None).expect("authorities").handshake(name, tcp)).await
    }

    async fn trusted(&self) -> Stream<TcpStream> {
        self.connect(&Trust::File(self.authority.clone()), "localhost").await.expect("the file makes it trusted")
    }

    async fn websocket(&self) -> WebSocketStream<Stream<TcpStream>> {
        let url = word_after(&self.guide, "WebSocket  ");
        let stream = self.trusted().await;
        wait_for("the upgrade", Box::pin(client_async(url, stream))).await.expect("upgraded").0
    }

    /// Waits for a line of the log that contains `part`.
    async fn log_line(&self, part: &str) -> String {
        let is_it = |line: &OutputLine| line.stream == OutputStream::Stderr && line.text.contains(part);
        self.process.line(part, is_it).await.text
    }

    /// Ends it as Ctrl-C does; fails unless it exits with 0 and in time.
    async fn end(self) {
        self.process.interrupt();
        let finished = self.process.finish().await;
        assert!(finished.code == Some(0) && !finished.err.contains("out of time"), "{finished:#?}");
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(PULSEGATE);
    // A CA that the user of this machine has installed is none of the tests' business.
    command.arg("dev").args(arguments).env("XDG_DATA_HOME", "/nonexistent");
    command
}

/// Runs `pulsegate dev` in a case that it must refuse.
async fn refused(arguments: &[&str]) -> Finished {
    Process::run("pulsegate dev", &mut command(arguments)).await
}

fn word_after<'t>(text: &'t str, mark: &str) -> &'t str {
    let rest = text.split_once(mark).unwrap_or_else(|| panic!("no {mark:?} in {text}")).1;
    rest.split_whitespace().next().unwrap_or_default()
}

/// Sends a GET and reads the answer to its end.
async fn get(mut stream: Stream<TcpStream>, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    wait_for("an answer", stream.read_to_end(&mut answer)).await.expect("read");
    String::from_utf8(answer).expect("UTF-8")
}

#[tokio::test]
async fn the_page_and_the_echo_are_served_behind_a_certificate_that_can_be_trusted() {
    let dev = Dev::start(&["--listen", "127.0.0.1:0"]).await;
    assert!(dev.guide.contains("a ping after 5s of silence, 5s to answer"), "{}", dev.guide);
    let page = get(dev.trusted().await, "/").await;
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    assert!(page.contains("pings this browser after 5s of"), "{page}");
    let inspect = format!("<a href=\"{}\">", word_after(&dev.guide, "inspect    "));
    assert!(page.contains(&inspect), "no link {inspect} in {page}");
    assert!(page.contains("\nby(\"connect\").click();\n"), "it connects by itself: {page}");
    let page = page.replace(&inspect, "");
    for asset in ["src=", "url(", "@import", "http://"] {
        assert!(!page.contains(asset), "the page needs nothing else, but has {asset:?}");
    }
    assert!(get(dev.trusted().await, "/other").await.starts_with("HTTP/1.1 404 "));

    let mut socket = dev.websocket().await;
    for message in [Message::from("text"), Message::from(vec![0_u8; 70_000])] {
        socket.send(message.clone()).await.expect("sent");
        assert_eq!(wait_for("the echo", socket.next()).await.expect("open").expect("a frame"), message);
    }

    let authority = dev.authority.clone();
    assert!(authority.exists());
    dev.process.interrupt();
    let close = wait_for("a Close", socket.next()).await.expect("open").expect("a frame");
    let Message::Close(Some(frame)) = close else { panic!("{close:?}") };
    assert_eq!(u16::from(frame.code), 1012, "service restart");
    while wait_for("the end of the socket", socket.next()).await.is_some_and(|frame| frame.is_ok()) {}
    assert_eq!(dev.process.finish().await.code, Some(0));
    assert!(!authority.exists(), "nothing is left behind");
}

#[tokio::test]
async fn a_client_that_falls_silent_is_gone_from_both_legs() {
    let dev = Dev::start(&["--listen", "127.0.0.1:0", "--interval", "300ms", "--timeout", "300ms"]).await;
    let mut socket = dev.websocket().await;
    // Pings are answered by reading; this client does not read.
    let close = dev.log_line("app.close").await;
    assert!(close.contains("4408") && close.contains("heartbeat timeout"), "{close}");
    // The ping comes first: it has waited in the client's kernel.
    let message = loop {
        match wait_for("a Close", socket.next()).await.expect("open").expect("a frame") {
            Message::Ping(_) => {}
            other => break other,
        }
    };
    let Message::Close(Some(frame)) = message else { panic!("{message:?}") };
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1012, "heartbeat timeout"));
    dev.end().await;
}

#[tokio::test]
async fn a_client_that_answers_stays() {
    let dev = Dev::start(&["--listen", "127.0.0.1:0", "--interval", "100ms", "--timeout", "2s"]).await;
    let mut socket = dev.websocket().await;
    for seen in 0..10 {
        let message = wait_for("a ping", socket.next()).await.expect("open").expect("a frame");
        assert!(matches!(message, Message::Ping(_)), "{message:?} after {seen} pings");
    }
    socket.close(None).await.expect("closing");
    while wait_for("the end of the socket", socket.next()).await.is_some_and(|frame| frame.is_ok()) {}
    dev.end().await;
}

#[tokio::test]
async fn a_client_that_ignores_its_close_does_not_hold_up_the_end() {
    // Long enough for an unanswered ping when the end comes, and for its deadline to come soon after.
    let dev = Dev::start(&["--listen", "127.0.0.1:0", "--interval", "100ms", "--timeout", "1s"]).await;
    let _silent = dev.websocket().await;
    dev.log_line("heartbeat.ping").await;
    dev.end().await;
}

#[tokio::test]
async fn the_authority_covers_loopback_alone_and_is_trusted_only_where_it_is_named() {
    let dev = Dev::start(&["--listen", "127.0.0.1:0"]).await;
    let trust = Trust::File(dev.authority.clone());
    for name in ["localhost", "127.0.0.1", "::1"] {
        dev.connect(&trust, name).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let other = dev.connect(&trust, "example.com").await.expect_err("another name");
    assert!(matches!(other, ConnectorError::Certificate(_)), "{other:?}");
    // Another run's authority has the same name and another key.
    let other_run = Dev::start(&["--listen", "127.0.0.1:0"]).await;
    let refused =
        dev.connect(&Trust::File(other_run.authority.clone()), "localhost").await.expect_err("another authority");
    assert!(matches!(refused, ConnectorError::UnknownAuthority | ConnectorError::Certificate(_)), "{refused:?}");

    let url = format!("wss://localhost:{}/echo", dev.port);
    let ping = async |arguments: &[&str]| {
        let mut command = Command::new(PULSEGATE);
        let Finished { code, out, err } =
            Process::run("pulsegate ping", command.arg("ping").args(arguments).arg(&url)).await;
        (code, out + &err)
    };
    let (status, text) = ping(&["-c", "2", "-i", "10ms", "--ca", &dev.authority.to_string_lossy()]).await;
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("TLS 1.3, X25519MLKEM768)"), "{text}");
    assert!(text.contains("2 pings sent, 2 pongs received"), "{text}");
    let (status, text) = ping(&["-c", "1", "--insecure"]).await;
    assert_eq!(status, Some(0), "{text}");
    let (status, text) = ping(&["-c", "1", "--ca", &other_run.authority.to_string_lossy()]).await;
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("certificate"), "{text}");
    other_run.end().await;
    dev.end().await;
}

#[tokio::test]
async fn a_taken_port_is_left_to_its_owner() {
    // Bound by this test or by another program, the port is taken.
    let _taken = TcpListener::bind("127.0.0.1:8443").await;
    let dev = Dev::start(&[]).await;
    assert_ne!(dev.port, 8443);
    assert!(dev.guide.contains(&format!("Port 8443 is taken; this is port {}.", dev.port)), "{}", dev.guide);

    let asked = format!("127.0.0.1:{}", dev.port);
    let output = refused(&["--listen", &asked]).await;
    assert_eq!(output.code, Some(1), "a port that was asked for is not exchanged for another");
    let text = output.err;
    assert!(text.contains(&format!("cannot listen on {asked}")), "{text}");
    dev.end().await;
}

#[tokio::test]
async fn the_inspect_page_moves_aside_unless_its_port_was_asked_for() {
    // Bound by this test or by another program, the port is taken.
    let _taken = TcpListener::bind("127.0.0.1:4040").await;
    let dev = Dev::start(&["--listen", "127.0.0.1:0"]).await;
    let url = word_after(&dev.guide, "inspect    ");
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let port = address.rsplit(':').next().unwrap_or_default();
    assert_ne!(port, "4040");
    assert!(dev.guide.contains(&format!("Port 4040 is taken; the inspect page is on port {port}.")), "{}", dev.guide);
    let mut stream = wait_for("a connection", TcpStream::connect(address)).await.expect("it listens");
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut page = String::new();
    wait_for("the page", stream.read_to_string(&mut page)).await.expect("UTF-8");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("<title>pulsegate</title>"), "{page}");

    let output = refused(&["--listen", "127.0.0.1:0", "--inspect", address]).await;
    assert_eq!(output.code, Some(1), "a port that was asked for is not exchanged for another");
    let text = output.err;
    assert!(text.contains(&format!("cannot open the admin port {address}")), "{text}");
    dev.end().await;

    refused(&["--inspect", "0.0.0.0:0"]).await.failed(2, &["for this machine alone"]);
}

#[tokio::test]
async fn it_stands_in_front_of_an_app_that_runs_already() {
    let app = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a port");
    let url = format!("http://{}", app.local_addr().expect("bound"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let authority = folder.join(format!("dev-{}.pem", std::process::id()));
    let wanted = authority.to_string_lossy();
    let dev = Dev::start(&["--listen", "127.0.0.1:0", "--to", &url, "--ca-out", &wanted]).await;
    assert!(dev.guide.starts_with(&format!("TLS and heartbeats in front of {url}\n")), "{}", dev.guide);
    assert_eq!(dev.authority, authority);

    let serving = tokio::spawn(async move {
        let mut head = Vec::new();
        let mut stream = loop {
            let (mut stream, _) = app.accept().await.expect("accepted");
            while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.expect("read") > 0 {}
            // A connection without a request is a check that the app accepts, and is no more than that.
            if !head.is_empty() {
                break stream;
            }
        };
        assert!(head.ends_with(b"\r\n\r\n"), "{}", String::from_utf8_lossy(&head));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nmy app\n").await.expect("written");
        String::from_utf8(head).expect("ASCII").to_lowercase()
    });
    let answer = get(dev.trusted().await, "/some/path?q=1").await;
    assert!(answer.ends_with("\r\n\r\nmy app\n"), "{answer}");
    let head = wait_for("the request", serving).await.expect("no panic");
    assert!(head.starts_with("get /some/path?q=1 http/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nhost: localhost\r\n") && head.contains("\r\nx-forwarded-proto: https\r\n"), "{head}");

    dev.end().await;
    assert!(authority.exists(), "what was asked for stays");
    std::fs::remove_file(authority).expect("removed");
}

#[tokio::test]
async fn printed_commands_quote_the_file_for_a_shell() {
    let folder = tempfile::TempDir::new().expect("make a temporary directory");
    let path = folder.path().join("it's $HOME.pem");
    let dev = Dev::start(&["--listen", "127.0.0.1:0", "--ca-out", &path.to_string_lossy()]).await;
    let quoted = format!("'{}/it'\\''s $HOME.pem'", folder.path().display());
    for before in ["curl --cacert ", "NODE_EXTRA_CA_CERTS=", " ping --interval 1m --ca "] {
        assert!(dev.guide.contains(&format!("{before}{quoted} ")), "no {before}{quoted} in {}", dev.guide);
    }
    dev.end().await;
}

#[tokio::test]
async fn an_app_that_is_not_there_is_asked_for_once_at_the_first_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a port");
    let port = listener.local_addr().expect("bound").port();
    drop(listener);
    let url = format!("http://127.0.0.1:{port}");
    let dev = Dev::start(&["--listen", "127.0.0.1:0", "--inspect", "127.0.0.1:0", "--to", &url]).await;
    let express = "  Express    app.set('trust proxy', 'loopback'), or secure cookies are not set\n";
    assert_eq!(dev.guide.matches(express).count(), 1, "{}", dev.guide);
    for _ in 0..2 {
        assert!(get(dev.trusted().await, "/").await.starts_with("HTTP/1.1 502 "));
    }
    let hint =
        format!("Nothing answers at {url} (connection refused). Is the app started, and on 127.0.0.1 rather than ::1?");
    dev.process.interrupt();
    let finished = dev.process.finish().await;
    assert_eq!(finished.out.matches(&hint).count(), 1, "{}", finished.out);
    assert_eq!(finished.code, Some(0));
}

#[tokio::test]
async fn an_app_that_cannot_be_meant_is_refused_with_a_reason() {
    for (to, expected) in [
        ("3000", "write \"http://127.0.0.1:3000\""),
        ("ftp://127.0.0.1:3000", "http://"),
        ("127.0.0.1:3000", "http://127.0.0.1:3000"),
    ] {
        let output = refused(&["--listen", "127.0.0.1:0", "--to", to]).await;
        let text = output.err;
        assert_eq!(output.code, Some(1), "{text}");
        assert!(text.contains(expected), "{to} gave {text}");
    }
}
