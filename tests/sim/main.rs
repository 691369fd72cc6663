//! The relay on a simulated network: partitions, held links and long round trips, in simulated time.
//!
//! The scenarios of this file have three hosts: a client and an app that use WebSocket through tungstenite, and the
//! proxy's relay between them. The seeded worlds of `seeds` have many, their own frames, and a judge.

mod cases;
mod flaws;
mod frames;
mod judge;
mod legs;
mod peer;
mod plan;
mod process;
mod proxy;
mod seeds;
mod shrink;
mod transport;
mod wire;
mod world;

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use pulsegate::heartbeat::{Policy, UpstreamLiveness};
use pulsegate::registry::Registry;
use pulsegate::relay::{self, Control, Leg, Legs, NegotiatedTerms, SessionOrder, Unobserved};
use pulsegate::session::{EndReason, Ending, Initiator};
use pulsegate::ws::Limits;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error, Message};
use turmoil::net::{TcpListener, TcpStream};
use turmoil::{Builder, Sim};

const SECOND: Duration = Duration::from_secs(1);
const PORT: u16 = 9000;

type Socket = WebSocketStream<TcpStream>;

/// A leg on the simulated network, without the counters of a kernel.
struct SimLeg(TcpStream);

impl Leg for SimLeg {}

impl AsyncRead for SimLeg {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for SimLeg {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The record of a run.
#[derive(Clone, Default)]
struct Story {
    ending: Arc<Mutex<Option<Ending>>>,
    app_heard: Arc<Mutex<Option<Heard>>>,
    control: Arc<Control>,
}

/// The time at which a stream ended, and its Close.
type Heard = (Duration, Option<CloseFrame>);

impl Story {
    fn ending(&self) -> Ending {
        self.ending.lock().unwrap().clone().expect("the session ended")
    }

    fn app_heard(&self) -> Heard {
        self.app_heard.lock().unwrap().clone().expect("the app heard of the end")
    }

    fn is_open(&self) -> bool {
        self.ending.lock().unwrap().is_none()
    }
}

/// Returns a simulation with the app and the proxy in it; the test adds the client.
fn simulation(policy: Policy, latency: Duration) -> (Sim<'static>, Story) {
    let mut sim = Builder::new()
        .rng_seed(1)
        .simulation_duration(1000 * SECOND)
        .tick_duration(Duration::from_millis(50))
        .min_message_latency(latency)
        .max_message_latency(latency)
        .tcp_capacity(10_000)
        .build();
    let story = Story::default();
    let told = story.clone();
    sim.host("app", move || app(told.clone()));
    let told = story.clone();
    sim.host("proxy", move || proxy(policy.clone(), told.clone()));
    (sim, story)
}

async fn app(story: Story) -> turmoil::Result {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    let (stream, _) = listener.accept().await?;
    let opened = Instant::now();
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    let mut close = None;
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Close(frame) => close = frame,
            Message::Text(_) => socket.send(message).await?,
            _ => {}
        }
    }
    *story.app_heard.lock().unwrap() = Some((opened.elapsed(), close));
    std::future::pending().await
}

async fn proxy(policy: Policy, story: Story) -> turmoil::Result {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    let (client, _) = listener.accept().await?;
    let upstream = TcpStream::connect(("app", PORT)).await?;
    let legs = Legs {
        client: SimLeg(client),
        client_early: Bytes::new(),
        upstream: SimLeg(upstream),
        upstream_early: Bytes::new(),
    };
    let terms = NegotiatedTerms {
        policy: Arc::new(policy),
        limits: Limits::default(),
        memory: Arc::default(),
        liveness: Arc::new(UpstreamLiveness::new(Instant::now().into_std())),
        observer: Arc::new(Unobserved),
        id: Registry::new(0).next_id(),
        seed: 3,
        max_age: None,
    };
    let ending = relay::run(legs, terms, Arc::clone(&story.control)).await;
    *story.ending.lock().unwrap() = Some(ending);
    std::future::pending().await
}

async fn connect() -> Socket {
    let stream = TcpStream::connect(("proxy", PORT)).await.expect("the proxy listens");
    WebSocketStream::from_raw_socket(stream, Role::Client, None).await
}

/// Reads, and so answers pings, for `time`; returns what ends the stream.
async fn listen(socket: &mut Socket, time: Duration) -> Option<Result<Message, Error>> {
    let until = Instant::now() + time;
    loop {
        match tokio::time::timeout_at(until, socket.next()).await {
            Err(_) => return None,
            Ok(Some(Ok(Message::Ping(_) | Message::Text(_)))) => {}
            Ok(Some(other)) => return Some(other),
            Ok(None) => return Some(Err(Error::ConnectionClosed)),
        }
    }
}

#[test]
fn s03_a_client_behind_a_cut_cable_is_gone_within_the_bound() {
    let (mut sim, story) = simulation(Policy::default(), SECOND / 10);
    sim.client("client", async {
        let mut socket = connect().await;
        assert!(listen(&mut socket, 60 * SECOND).await.is_none(), "alive for several windows");
        turmoil::partition("client", "proxy");
        sleep(60 * SECOND).await;
        Ok(())
    });
    sim.run().unwrap();
    let (after, close) = story.app_heard();
    let close = close.expect("a Close");
    assert_eq!((u16::from(close.code), close.reason.as_str()), (4408, "heartbeat timeout"));
    assert!(after > 60 * SECOND && after <= 60 * SECOND + 46 * SECOND, "{after:?}");
    assert_eq!(story.ending().cause.reason(), EndReason::HeartbeatTimeout);
}

#[test]
fn a_link_that_is_held_for_less_than_the_timeout_costs_nothing() {
    let (mut sim, story) = simulation(Policy::default(), SECOND / 10);
    sim.client("client", async {
        let mut socket = connect().await;
        for _ in 0..5 {
            assert!(listen(&mut socket, 30 * SECOND).await.is_none());
            turmoil::hold("client", "proxy");
            assert!(listen(&mut socket, 15 * SECOND).await.is_none());
            turmoil::release("client", "proxy");
        }
        socket.send("still here".into()).await?;
        let echoed = tokio::time::timeout(5 * SECOND, socket.next()).await?;
        assert!(matches!(echoed, Some(Ok(Message::Text(_) | Message::Ping(_)))), "{echoed:?}");
        Ok(())
    });
    sim.run().unwrap();
    assert!(story.is_open(), "{:?}", story.ending.lock().unwrap());
}

#[test]
fn s26_an_uploader_whose_downlink_is_blackholed_is_found() {
    let policy = Policy { probe_when_busy: 30 * SECOND, ..Policy::default() };
    let (mut sim, story) = simulation(policy, SECOND / 20);
    sim.client("client", async {
        let mut socket = connect().await;
        assert!(listen(&mut socket, 10 * SECOND).await.is_none());
        turmoil::partition_oneway("proxy", "client");
        for _ in 0..150 {
            socket.send(Message::Binary(Bytes::from_static(b"upload"))).await?;
            sleep(SECOND).await;
        }
        Ok(())
    });
    sim.run().unwrap();
    assert_eq!(story.ending().cause.reason(), EndReason::SlowReader);
    let (after, close) = story.app_heard();
    // The busy probe, its window, and `write_stall` from then on; without it the uploads would count for ever.
    assert!(after <= (10 + 30 + 20 + 45 + 6) * SECOND, "{after:?}");
    assert_eq!(close.expect("a Close").reason.as_str(), "slow reader");
}

#[test]
fn s30_a_long_round_trip_is_no_death() {
    let policy = Policy { adaptive: true, ..Policy::default() };
    let (mut sim, story) = simulation(policy, 8 * SECOND);
    sim.client("client", async {
        let mut socket = connect().await;
        assert!(listen(&mut socket, 400 * SECOND).await.is_none(), "16 s round trips");
        Ok(())
    });
    sim.run().unwrap();
    assert!(story.is_open());
}

#[test]
fn a_drain_reaches_the_client_over_a_slow_link() {
    let (mut sim, story) = simulation(Policy::default(), SECOND / 2);
    let control = Arc::clone(&story.control);
    sim.client("client", async move {
        let mut socket = connect().await;
        assert!(listen(&mut socket, 40 * SECOND).await.is_none());
        control.give(SessionOrder::Drain { code: 1012 });
        match listen(&mut socket, 5 * SECOND).await {
            Some(Ok(Message::Close(Some(close)))) => assert_eq!(u16::from(close.code), 1012),
            other => panic!("expected Close 1012, saw {other:?}"),
        }
        // Reading on sends the answer and takes the end of the stream.
        assert!(matches!(listen(&mut socket, 5 * SECOND).await, Some(Err(Error::ConnectionClosed))));
        sleep(5 * SECOND).await;
        Ok(())
    });
    sim.run().unwrap();
    let ending = story.ending();
    assert_eq!((ending.cause.initiator(), ending.cause.reason()), (Initiator::Proxy, EndReason::Drain));
}
