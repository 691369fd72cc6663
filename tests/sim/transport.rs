//! A small TCP over the datagrams of the simulated network: windows, acknowledgements, retransmission, FIN and RST.
//!
//! The streams of the simulated network lose for good what a partition drops, and no write on them ever blocks. Here a
//! repaired link resumes, a slow reader holds its peer up, and the acknowledged bytes can be queried.

mod connection;
mod segment;
mod stream;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use turmoil::net::UdpSocket;

use connection::Connection;
pub use connection::Tuning;
use segment::{Kind, Segment};
pub use stream::{Breaker, Stream};

const PORT: u16 = 9000;
/// The time limit for the opening of a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The network stack of one host.
pub struct Stack {
    socket: UdpSocket,
    tuning: Tuning,
    /// Set while the host has power: without, it sends nothing, not even for streams that are dropped.
    power: Rc<Cell<bool>>,
    connections: RefCell<BTreeMap<u32, Rc<RefCell<Connection>>>>,
    known: RefCell<BTreeSet<u32>>,
    accepted: RefCell<VecDeque<u32>>,
    acceptor: RefCell<Option<Waker>>,
    rearmed: Notify,
    /// Set while the process that reads its streams has no readiness information yet.
    is_unaware: RefCell<Rc<Cell<bool>>>,
}

/// Returns the time of the simulation, in which every record is kept.
pub fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

impl Stack {
    /// Starts the stack of this host.
    pub async fn start(tuning: Tuning, power: Rc<Cell<bool>>) -> io::Result<Rc<Self>> {
        power.set(true);
        let stack = Rc::new(Self {
            socket: UdpSocket::bind(("0.0.0.0", PORT)).await?,
            tuning,
            power,
            connections: RefCell::default(),
            known: RefCell::default(),
            accepted: RefCell::default(),
            acceptor: RefCell::default(),
            rearmed: Notify::new(),
            is_unaware: RefCell::default(),
        });
        tokio::task::spawn_local(Rc::clone(&stack).drive());
        Ok(stack)
    }

    /// Makes reads wait while `is_unaware` is set.
    pub fn hide_readiness_while(&self, is_unaware: Rc<Cell<bool>>) {
        *self.is_unaware.borrow_mut() = is_unaware;
    }

    /// Opens the connection `id` to `host`.
    pub async fn connect(self: &Rc<Self>, host: &str, id: u32) -> io::Result<Stream> {
        let peer = SocketAddr::new(turmoil::lookup(host), PORT);
        let connection = self.enter(id, peer);
        connection.borrow_mut().open(Kind::Open, now());
        self.flush(&connection);
        let opened = poll_fn(|cx| {
            let mut connection = connection.borrow_mut();
            if connection.is_reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()));
            }
            if connection.is_open {
                return Poll::Ready(Ok(()));
            }
            connection.reader = Some(cx.waker().clone());
            Poll::Pending
        });
        let outcome = tokio::time::timeout(CONNECT_TIMEOUT, opened).await;
        let stream = Stream::new(Rc::clone(self), Rc::clone(&connection));
        match outcome {
            Ok(outcome) => outcome.map(|()| stream),
            Err(_) => {
                stream.abort();
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }

    /// Waits for the next connection of a peer; returns it with its number.
    pub async fn accept(self: &Rc<Self>) -> (u32, Stream) {
        let id = poll_fn(|cx| match self.accepted.borrow_mut().pop_front() {
            Some(id) => Poll::Ready(id),
            None => {
                *self.acceptor.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await;
        let connection = Rc::clone(&self.connections.borrow()[&id]);
        (id, Stream::new(Rc::clone(self), connection))
    }

    fn enter(&self, id: u32, peer: SocketAddr) -> Rc<RefCell<Connection>> {
        let connection = Rc::new(RefCell::new(Connection::new(id, peer, self.tuning)));
        self.known.borrow_mut().insert(id);
        self.connections.borrow_mut().insert(id, Rc::clone(&connection));
        connection
    }

    /// Sends everything that a connection has to send, and registers its timer.
    fn flush(&self, connection: &RefCell<Connection>) {
        let mut connection = connection.borrow_mut();
        let (peer, outbox) = (connection.peer, std::mem::take(&mut connection.outbox));
        let is_armed = connection.deadline().is_some();
        drop(connection);
        if !self.power.get() || !turmoil::in_simulation() {
            return;
        }
        for segment in outbox {
            self.send(&segment, peer);
        }
        if is_armed {
            self.rearmed.notify_one();
        }
    }

    fn send(&self, segment: &Segment, peer: SocketAddr) {
        // A datagram that cannot be sent is a lost one.
        let _ = self.socket.try_send_to(&segment.encode(), peer);
    }

    async fn drive(self: Rc<Self>) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let wait = self.next_timer().map_or(Duration::from_secs(3600), |at| at.saturating_sub(now()));
            tokio::select! {
                biased;
                received = self.socket.recv_from(&mut buffer) => {
                    let Ok((len, from)) = received else { return };
                    self.received(&Segment::decode(&buffer[..len]), from);
                    while let Ok((len, from)) = self.socket.try_recv_from(&mut buffer) {
                        self.received(&Segment::decode(&buffer[..len]), from);
                    }
                }
                () = tokio::time::sleep(wait) => self.expire(),
                () = self.rearmed.notified() => {}
            }
        }
    }

    fn next_timer(&self) -> Option<Duration> {
        self.connections.borrow().values().filter_map(|connection| connection.borrow().deadline()).min()
    }

    fn expire(&self) {
        let all: Vec<_> = self.connections.borrow().values().cloned().collect();
        for connection in all {
            if connection.borrow().deadline().is_some_and(|at| at <= now()) {
                connection.borrow_mut().expire(now());
                self.flush(&connection);
            }
        }
    }

    fn received(&self, segment: &Segment, from: SocketAddr) {
        let connection = self.connections.borrow().get(&segment.id).cloned();
        let connection = match (connection, segment.kind) {
            (Some(connection), _) => connection,
            (None, Kind::Open) if !self.known.borrow().contains(&segment.id) => {
                let connection = self.enter(segment.id, from);
                connection.borrow_mut().accept(segment, now());
                self.accepted.borrow_mut().push_back(segment.id);
                if let Some(acceptor) = self.acceptor.borrow_mut().take() {
                    acceptor.wake();
                }
                return self.flush(&connection);
            }
            (None, Kind::Reset) => return,
            (None, _) => {
                let reset = Segment { kind: Kind::Reset, data: bytes::Bytes::new(), ..segment.clone() };
                return self.send(&reset, from);
            }
        };
        connection.borrow_mut().input(segment, now());
        self.flush(&connection);
    }
}
