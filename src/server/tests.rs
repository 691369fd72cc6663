//! Tests of whole servers, with an echo in place of the http stage.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::sync::mpsc;
use std::thread;

use rustls::ALL_VERSIONS;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::*;
use crate::config::{
    Admin, Drain, EdgeLimits, Forwarded, Http2, Level, Listen, Log, LogFormat, Route, TlsSettings, UpstreamSettings,
    UpstreamTarget,
};
use crate::generation::testing::current;
use crate::heartbeat::Policy;
use crate::tls::testing::{Localhost, client, connect, localhost};

const PATIENCE: Duration = Duration::from_secs(20);

fn settings(workers: usize, close_grace: Duration) -> Settings {
    let upstream = Arc::new(UpstreamSettings {
        connect_timeout: Duration::from_secs(1),
        response_timeout: Duration::from_secs(1),
        ..UpstreamSettings::at(UpstreamTarget::Tcp { host: "127.0.0.1".into(), port: 1 })
    });
    Settings {
        listen: Listen {
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            workers: NonZeroUsize::new(workers).expect("at least one"),
            proxy_protocol: None,
            redirect: None,
            http2: Http2::default(),
        },
        tls: TlsSettings::of("unused", "unused").into(),
        routes: vec![Arc::new(Route {
            heartbeat: Policy { close_grace, ..Policy::default() }.into(),
            ..Route::to(Arc::clone(&upstream))
        })],
        upstream,
        limits: EdgeLimits {
            handshake: Duration::from_secs(5),
            header_read: Duration::from_secs(5),
            ..EdgeLimits::default()
        },
        forwarded: Forwarded::default(),
        drain: Drain { delay: Duration::ZERO, window: Duration::ZERO, ..Drain::default() },
        admin: Admin { health: None, socket: None, ..Admin::default() },
        log: Log { level: Level::Info.into(), format: LogFormat::Json },
        otel: None,
    }
}

/// The behaviour of a connection once the drain begins.
#[derive(Clone, Copy)]
enum Habit {
    /// Sends a last message and closes.
    Leaves,
    /// Stays open for ever.
    Stays,
}

/// A server on threads of its own, with an echo in place of the http stage.
struct Running {
    address: SocketAddr,
    certificate: rustls::pki_types::CertificateDer<'static>,
    shutdown: Shutdown,
    result: mpsc::Receiver<Result<(), RunError>>,
}

impl Running {
    fn start(workers: usize, habit: Habit) -> Self {
        Self::start_with(workers, habit, Duration::from_secs(2))
    }

    fn start_with(workers: usize, habit: Habit, close_grace: Duration) -> Self {
        let Localhost { identity, certificate } = localhost();
        let server = Server::bind(settings(workers, close_grace), identity).expect("bind");
        let (address, shutdown) = (server.address(), Shutdown::on_request());
        let (send, result) = mpsc::channel();
        let handle = shutdown.clone();
        thread::spawn(move || {
            let result = server.run_stage(
                handle,
                Prelude::announcing(|| Ok(())),
                move |_: &Shared, _: TaskTracker, draining: CancellationToken| {
                    move |stream, _: Peer| echo(stream, draining.clone(), habit)
                },
            );
            let _ = send.send(result);
        });
        Self { address, certificate, shutdown, result }
    }

    async fn connect(&self) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
        let config = Arc::new(client(&self.certificate, ALL_VERSIONS));
        timeout(PATIENCE, connect(&config, self.address)).await.expect("in time").expect("connected")
    }

    /// Waits for the end; returns the result of the run and the time it took from this call.
    fn end(self) -> (Result<(), RunError>, Duration) {
        let began = Instant::now();
        (self.result.recv_timeout(PATIENCE).expect("the run ends"), began.elapsed())
    }
}

async fn echo(mut stream: ClientLeg, draining: CancellationToken, habit: Habit) {
    let mut buffer = [0; 64];
    loop {
        let read = tokio::select! {
            read = stream.read(&mut buffer) => read,
            () = draining.cancelled() => match habit {
                Habit::Leaves => {
                    let _ = stream.write_all(b"farewell").await;
                    let _ = stream.shutdown().await;
                    return;
                }
                Habit::Stays => std::future::pending().await,
            },
        };
        match read {
            Ok(length @ 1..) => stream.write_all(&buffer[..length]).await.expect("echo"),
            _ => return,
        }
    }
}

async fn exchange(stream: &mut tokio_rustls::client::TlsStream<tokio::net::TcpStream>) {
    stream.write_all(b"hello").await.expect("write");
    let mut echo = [0; 5];
    timeout(PATIENCE, stream.read_exact(&mut echo)).await.expect("in time").expect("echo");
    assert_eq!(&echo, b"hello");
}

#[tokio::test]
async fn a_drain_lets_every_connection_say_farewell() {
    let server = Running::start(2, Habit::Leaves);
    let mut streams = Vec::new();
    for _ in 0..8 {
        let mut stream = server.connect().await;
        exchange(&mut stream).await;
        streams.push(stream);
    }
    assert_eq!(server.shutdown.advance(), DrainPhase::Announced);
    for stream in &mut streams {
        let mut rest = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("in time").expect("an orderly end");
        assert_eq!(rest, b"farewell");
    }
    let address = server.address;
    let (result, took) = server.end();
    result.expect("ended as asked");
    assert!(took < drain::DRAIN_MARGIN, "nobody was left to wait for, yet it took {took:?}");
    tokio::net::TcpStream::connect(address).await.expect_err("the port is closed");
}

#[tokio::test]
async fn who_was_only_asked_to_drain_stays_until_it_is_asked_to_end() {
    let server = Running::start(2, Habit::Leaves);
    let mut stream = server.connect().await;
    exchange(&mut stream).await;
    assert_eq!(server.shutdown.drain(), DrainPhase::Announced);
    timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.expect("in time").expect("an orderly end");
    let began = Instant::now();
    while server.shutdown.phase() != DrainPhase::Drained {
        assert!(began.elapsed() < PATIENCE, "still {:?}", server.shutdown.phase());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::net::TcpStream::connect(server.address).await.expect_err("the port is closed");
    assert!(server.result.try_recv().is_err(), "nobody has asked it to end");
    assert_eq!(server.shutdown.advance(), DrainPhase::Drained);
    server.end().0.expect("ended as asked");
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cut_off_and_that_is_an_end_in_order() {
    let server = Running::start_with(1, Habit::Stays, Duration::ZERO);
    let mut stream = server.connect().await;
    exchange(&mut stream).await;
    server.shutdown.advance();
    let cut_off = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.expect("in time");
    cut_off.expect_err("no orderly end");
    let shutdown = server.shutdown.clone();
    server.end().0.expect("the process has done what it could");
    assert_eq!(shutdown.phase(), DrainPhase::Drained);
}

#[tokio::test]
async fn a_second_request_aborts_what_is_left() {
    let server = Running::start(2, Habit::Stays);
    let mut stream = server.connect().await;
    exchange(&mut stream).await;
    server.shutdown.advance();
    server.shutdown.advance();
    let cut_off = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.expect("in time");
    cut_off.expect_err("no orderly end");
    let (result, took) = server.end();
    assert!(matches!(result, Err(RunError::Aborted)), "{result:?}");
    assert!(took < drain::DRAIN_MARGIN, "{took:?}");
}

#[test]
fn the_drain_waits_for_the_longest_grace() {
    let mut settings = settings(1, Duration::from_secs(2));
    let patient = Policy { close_grace: Duration::from_secs(30), ..Policy::default() };
    settings.routes.insert(
        0,
        Arc::new(Route {
            path: "/slow".into(),
            heartbeat: patient.into(),
            ..Route::to(Arc::clone(&settings.upstream))
        }),
    );
    let generation = current(settings).load_full();
    assert_eq!(plan(&generation).bound(), Duration::from_secs(30) + drain::DRAIN_MARGIN);
}

#[test]
fn a_worker_that_is_lost_ends_the_run() {
    let server = Server::bind(settings(2, Duration::from_secs(2)), localhost().identity).expect("bind");
    let (send, result) = mpsc::channel();
    thread::spawn(move || {
        let fails = |_: &Shared, _: TaskTracker, _: CancellationToken| {
            assert_ne!(thread::current().name(), Some("worker-1"), "this worker fails, as the test wants it");
            |_: ClientLeg, _: Peer| async {}
        };
        let _ = send.send(server.run_stage(Shutdown::on_request(), Prelude::announcing(|| Ok(())), fails));
    });
    let result = result.recv_timeout(PATIENCE).expect("the run ends");
    assert!(matches!(result, Err(RunError::WorkerLost)), "{result:?}");
}

#[test]
fn a_port_in_use_is_named() {
    let first = Server::bind(settings(1, Duration::ZERO), localhost().identity).expect("bind");
    let mut second = settings(1, Duration::ZERO);
    second.listen.address = first.address();
    let error = Server::bind(second, localhost().identity).map(drop).expect_err("in use").to_string();
    assert!(error.contains(&first.address().to_string()) && error.contains("in use"), "{error}");
}
