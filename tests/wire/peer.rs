//! One endpoint of a session: it records what it receives, at its own pace, and sends what the test asks for.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pulsegate_test_kit::frame::{CLOSE, PING, PONG, Role};
use pulsegate_test_kit::wait::wait_for;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::{Mutex as AsyncMutex, Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::wire::link::time_for;
use crate::wire::record::Record;
use crate::wire::socket::{self, Input, Output};

/// The pace at which an endpoint reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// Everything available, at once.
    Full,
    /// Nothing.
    Stopped,
    /// This many bytes a second.
    Rate(u32),
}

/// The automatic reactions of an endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    /// Answers Pings.
    pub(crate) pongs: bool,
    /// Answers a Close with the same Close, unless it has sent one itself.
    pub(crate) echoes_close: bool,
    /// Ends its direction once it has sent a Close and received one.
    pub(crate) finishes: bool,
}

/// A conforming endpoint.
pub(crate) const CONFORMING: Habits = Habits { pongs: true, echoes_close: true, finishes: true };
/// An endpoint that answers nothing.
pub(crate) const MUTE: Habits = Habits { pongs: false, echoes_close: false, finishes: false };

/// One endpoint.
pub(crate) struct Peer {
    role: Role,
    name: String,
    shared: Arc<Shared>,
    pace: watch::Sender<Pace>,
    reading: JoinHandle<()>,
}

struct Shared {
    record: Mutex<Record>,
    habits: Mutex<Habits>,
    changed: Notify,
    output: AsyncMutex<Option<Output>>,
    closing: Mutex<bool>,
}

impl Shared {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, plain: &[u8]) -> io::Result<()> {
        match &mut *self.output.lock().await {
            Some(output) => output.send(plain).await,
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

/// The options of a client's connection.
#[derive(Clone, Default)]
pub(crate) struct Connect {
    /// TLS, or none.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// Set for a small receive buffer.
    pub(crate) narrow: bool,
    /// More header fields of the upgrade request, each with its line end.
    pub(crate) fields: String,
}

impl Peer {
    /// Connects to `address` and upgrades `path`.
    pub(crate) async fn connect(address: SocketAddr, path: &str, how: Connect) -> Self {
        let stream = socket::connect(address, how.narrow).await;
        let (mut input, mut output) = match how.tls {
            Some(config) => wait_for("the TLS handshake", socket::handshake(stream, config)).await,
            None => socket::plain(stream),
        };
        let fields = how.fields;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
        );
        output.send(request.as_bytes()).await.expect("send the upgrade request");
        let (head, rest) = wait_for("the answer to the upgrade", read_head(&mut input)).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{path}: {head}");
        Self::start(Role::Client, path, input, output, &rest, CONFORMING)
    }

    /// Returns the app's endpoint of a session whose 101 has been sent.
    pub(crate) fn app(path: &str, stream: TcpStream, rest: &[u8]) -> Self {
        let (input, output) = socket::plain(stream);
        Self::start(Role::App, path, input, output, rest, CONFORMING)
    }

    fn start(role: Role, path: &str, input: Input, output: Output, rest: &[u8], habits: Habits) -> Self {
        let shared = Arc::new(Shared {
            record: Mutex::new(Record::new()),
            habits: Mutex::new(habits),
            changed: Notify::new(),
            output: AsyncMutex::new(Some(output)),
            closing: Mutex::new(false),
        });
        let (pace, paces) = watch::channel(Pace::Full);
        let reading = tokio::spawn(read(role, input, Arc::clone(&shared), paces, rest.to_vec()));
        Self { role, name: format!("{role:?} of {path}"), shared, pace, reading }
    }

    /// Sets the automatic reactions of the endpoint from now on.
    pub(crate) fn habits(&self, habits: Habits) {
        *self.shared.habits.lock().unwrap_or_else(PoisonError::into_inner) = habits;
    }

    /// Sets the pace at which the endpoint reads from now on.
    pub(crate) fn pace(&self, pace: Pace) {
        self.pace.send_replace(pace);
    }

    /// Returns everything received so far.
    pub(crate) fn record(&self) -> Record {
        self.shared.record().clone()
    }

    /// Sends bytes; an error means that the connection has ended.
    pub(crate) async fn try_send(&self, plain: &[u8]) -> io::Result<()> {
        self.shared.send(plain).await
    }

    /// Sends bytes to a peer that must take them within 20 s.
    pub(crate) async fn send(&self, plain: &[u8]) {
        let sent = wait_for(&format!("{} sends {} bytes", self.name, plain.len()), self.try_send(plain)).await;
        sent.unwrap_or_else(|error| {
            panic!("{} cannot send {} bytes: {error}; it received: {:?}", self.name, plain.len(), self.record())
        });
    }

    /// Sends a text message.
    pub(crate) async fn text(&self, text: &str) {
        self.send(&self.role.text(text)).await;
    }

    /// Sends a Close.
    pub(crate) async fn close(&self, code: u16, reason: &str) {
        self.close_after(&[], code, reason).await;
    }

    /// Sends `before` and a Close together.
    pub(crate) async fn close_after(&self, before: &[u8], code: u16, reason: &str) {
        self.sends_close();
        self.send(&[before, &self.role.close(code, reason)].concat()).await;
    }

    /// Marks a Close as sent, so that the endpoint answers none.
    pub(crate) fn sends_close(&self) {
        *self.shared.closing.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Returns whether the endpoint has sent a Close.
    pub(crate) fn is_closing(&self) -> bool {
        *self.shared.closing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Encrypts bytes into TLS records, to be sent in pieces.
    pub(crate) async fn seal(&self, plain: &[u8]) -> Vec<u8> {
        self.shared.output.lock().await.as_mut().expect("the connection is open").seal(plain)
    }

    /// Sends bytes that [`Self::seal`] made.
    pub(crate) async fn send_sealed(&self, sealed: &[u8]) -> io::Result<()> {
        match &mut *self.shared.output.lock().await {
            Some(output) => output.send_sealed(sealed).await,
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Ends this direction with a FIN.
    pub(crate) async fn finish(&self) {
        let mut output = self.shared.output.lock().await;
        // The other side may have reset the connection; its record shows that.
        let _ = output.as_mut().expect("the connection is open").finish().await;
    }

    /// Resets the connection.
    pub(crate) async fn reset(&self) {
        let output = self.shared.output.lock().await.take().expect("the connection is open");
        output.reset_when_dropped();
        self.reading.abort();
        while !self.reading.is_finished() {
            tokio::task::yield_now().await;
        }
        drop(output);
    }

    /// Waits until `wanted` accepts the record; fails after `limit` with what was received.
    pub(crate) async fn wait(&self, what: &str, limit: Duration, wanted: impl Fn(&Record) -> bool) -> Record {
        let search = async {
            loop {
                let changed = self.shared.changed.notified();
                if let Some(record) = Some(self.shared.record()).filter(|record| wanted(record)).map(|r| r.clone()) {
                    return record;
                }
                changed.await;
            }
        };
        let found = timeout(limit, search).await;
        found.unwrap_or_else(|_| panic!("{}: not within {limit:?}: {what}; received: {:?}", self.name, self.record()))
    }

    /// Waits until the connection has ended.
    pub(crate) async fn ended(&self, limit: Duration) -> Record {
        self.wait("the connection ends", limit, |record| record.end.is_some()).await
    }

    /// Waits for a Close.
    pub(crate) async fn closed(&self, limit: Duration) -> Record {
        self.wait("a Close", limit, |record| record.closed_at().is_some()).await
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

/// Reads up to the empty line that ends a head; returns the head and the bytes behind it.
pub(crate) async fn read_head(input: &mut Input) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return (String::from_utf8_lossy(&bytes).into_owned(), rest);
        }
        match input.read(16 * 1024).await {
            Ok(chunk) => bytes.extend(chunk.plain),
            Err(end) => panic!("{end:?} within a head: {:?}", String::from_utf8_lossy(&bytes)),
        }
    }
}

async fn read(role: Role, mut input: Input, shared: Arc<Shared>, mut paces: watch::Receiver<Pace>, rest: Vec<u8>) {
    const CHUNK: usize = 64 * 1024;
    receive(role, &shared, &rest);
    loop {
        let pace = *paces.borrow_and_update();
        let limit = match pace {
            Pace::Full => CHUNK,
            Pace::Rate(rate) => (rate / 50).max(1) as usize,
            Pace::Stopped => {
                if paces.changed().await.is_err() {
                    return;
                }
                continue;
            }
        };
        let started = Instant::now();
        let chunk = tokio::select! {
            chunk = input.read(limit) => chunk,
            changed = paces.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        match chunk {
            Ok(chunk) => {
                let count = chunk.plain.len();
                receive(role, &shared, &chunk.plain);
                if chunk.notified {
                    shared.record().notified_at.get_or_insert_with(Instant::now);
                }
                if let Pace::Rate(rate) = pace {
                    let due = time_for(count.max(1), rate);
                    sleep(due.saturating_sub(started.elapsed())).await;
                }
            }
            Err(end) => {
                shared.record().end = Some((end, Instant::now()));
                shared.changed.notify_waiters();
                return;
            }
        }
    }
}

fn receive(role: Role, shared: &Arc<Shared>, plain: &[u8]) {
    let habits = *shared.habits.lock().unwrap_or_else(PoisonError::into_inner);
    let mut answers = Vec::new();
    let mut finish = false;
    {
        let mut record = shared.record();
        let first = record.add(plain);
        for (frame, _) in &record.frames[first..] {
            if frame.opcode() == PING && habits.pongs {
                answers.extend(role.frame(PONG, &frame.payload));
            }
            if frame.opcode() == CLOSE {
                let mut closing = shared.closing.lock().unwrap_or_else(PoisonError::into_inner);
                if !*closing && habits.echoes_close {
                    *closing = true;
                    answers.extend(role.frame(CLOSE, &frame.payload));
                }
                finish |= *closing && habits.finishes;
            }
        }
    }
    shared.changed.notify_waiters();
    if !answers.is_empty() || finish {
        let shared = Arc::clone(shared);
        // A send that is blocked does not keep the endpoint from reading.
        tokio::spawn(async move {
            let mut output = shared.output.lock().await;
            let Some(output) = output.as_mut() else { return };
            let _ = output.send(&answers).await;
            if finish {
                let _ = output.finish().await;
            }
        });
    }
}
