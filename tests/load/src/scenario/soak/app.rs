//! The app behind the proxy: an echo that has the plan of each session and reports the end of its connection.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tungstenite::handshake::derive_accept_key;

use super::plan::{Plan, Way};
use crate::frame::{Decoder, Header, Opcode, Part};
use crate::head::Head;

/// Bytes read at once.
const SCRATCH: usize = 16 * 1024;

/// The end of the app's connection of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AppEnd {
    /// The time of the first sign of the end: a Close, the end of the stream or an error was read, or the app began the
    /// end itself.
    pub(super) told: Instant,
    /// The time at which the peer closed the connection.
    pub(super) gone: Instant,
    /// The code of the Close that was read; [`None`] if the connection ended without one.
    pub(super) code: Option<u16>,
    /// A fault in the received bytes, if there was one.
    pub(super) fault: Option<String>,
}

/// The sessions that are expected at the app, by number.
#[derive(Debug, Default)]
pub(super) struct Expected {
    sessions: Mutex<HashMap<u64, Announced>>,
    open: AtomicUsize,
}

type Announced = (Plan, oneshot::Sender<AppEnd>);

impl Expected {
    /// Announces a session and returns the receiver of its end at the app.
    pub(super) fn announce(&self, plan: &Plan) -> oneshot::Receiver<AppEnd> {
        let (report, end) = oneshot::channel();
        self.sessions().insert(plan.id, (plan.clone(), report));
        end
    }

    /// Removes a session that was not opened.
    pub(super) fn forget(&self, id: u64) {
        self.sessions().remove(&id);
    }

    /// Returns the number of sessions whose connection to the app is open.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn take(&self, id: u64) -> Option<Announced> {
        self.sessions().remove(&id)
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<u64, Announced>> {
        // The map is valid even after a panic in another task.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves until it is dropped.
pub(super) async fn serve(listener: TcpListener, expected: Arc<Expected>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let expected = Arc::clone(&expected);
                tokio::spawn(async move { connection(stream, &expected).await });
            }
            Err(error) => {
                eprintln!("the soak's app cannot accept: {error}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Serves one connection. One without an expected session is closed with 404.
async fn connection(mut stream: TcpStream, expected: &Expected) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let (head, early) = Head::read(&mut stream).await.ok()?;
    let id = head.start_line().strip_prefix("GET /soak/").and_then(|rest| rest.split(' ').next()?.parse().ok());
    let (Some(id), Some(key)) = (id, head.field("Sec-WebSocket-Key")) else {
        return stream
            .write_all(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            .await
            .ok();
    };
    let (plan, report) = expected.take(id)?;
    let accept = derive_accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    let mut echo = Echo::new(plan);
    expected.open.fetch_add(1, Ordering::Relaxed);
    let outcome = match stream.write_all(answer.as_bytes()).await {
        Ok(()) => echo.run(&mut stream, early).await,
        Err(error) => Err(error),
    };
    expected.open.fetch_sub(1, Ordering::Relaxed);
    let now = Instant::now();
    if let Err(error) = outcome
        && !matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
    {
        echo.fault.get_or_insert(format!("the app's connection failed: {error}"));
    }
    // A client task that has failed needs no report.
    let _ = report.send(AppEnd { told: echo.told.unwrap_or(now), gone: now, code: echo.code, fault: echo.fault });
    Some(())
}

/// The app's end of one session.
struct Echo {
    plan: Plan,
    decoder: Decoder,
    out: Vec<u8>,
    /// Payload of the control frame in progress.
    control: Vec<u8>,
    /// Complete messages received.
    messages: usize,
    /// Numbers of the app's Pings that are unanswered, oldest first.
    asked: VecDeque<u64>,
    asked_in_all: u64,
    /// True once a Close is written.
    closed: bool,
    told: Option<Instant>,
    code: Option<u16>,
    fault: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Read,
    /// A Close was read: end this direction and read to the end.
    Finish,
    Reset,
}

impl Echo {
    fn new(plan: Plan) -> Self {
        Self {
            plan,
            decoder: Decoder::default(),
            out: Vec::new(),
            control: Vec::new(),
            messages: 0,
            asked: VecDeque::new(),
            asked_in_all: 0,
            closed: false,
            told: None,
            code: None,
            fault: None,
        }
    }

    async fn run(&mut self, stream: &mut TcpStream, early: Vec<u8>) -> io::Result<()> {
        let mut buffer = early;
        let mut next = self.feed(&mut buffer);
        buffer.resize(SCRATCH, 0);
        loop {
            stream.write_all(&self.out).await?;
            self.out.clear();
            match next {
                Next::Read => {}
                Next::Finish => break,
                Next::Reset => {
                    self.told = Some(Instant::now());
                    return stream.set_zero_linger();
                }
            }
            let read = stream.read(&mut buffer).await?;
            if read == 0 {
                self.told.get_or_insert_with(Instant::now);
                // The client, or the proxy, has ended its direction without a Close: everything is echoed by now.
                if !self.closed {
                    let mut out = Vec::new();
                    close_frame(&1000_u16.to_be_bytes(), &mut out);
                    stream.write_all(&out).await?;
                }
                return stream.shutdown().await;
            }
            next = self.feed(&mut buffer[..read]);
        }
        stream.shutdown().await?;
        while stream.read(&mut buffer).await? > 0 {}
        Ok(())
    }

    /// Turns frames into their echoes and records Pongs, Closes and faults.
    fn feed(&mut self, mut input: &mut [u8]) -> Next {
        loop {
            let part = match self.decoder.next(&mut input) {
                Ok(Some(part)) => part,
                Ok(None) => return Next::Read,
                Err(error) => return self.fail(error.to_string()),
            };
            match part {
                Part::Header(Header { mask: None, .. }) => return self.fail("an unmasked frame".into()),
                Part::Header(header) if header.opcode.is_control() => {}
                Part::Header(header) => {
                    if self.plan.way != Way::AppReset || self.messages < self.plan.messages.len() {
                        Header { mask: None, ..header }.encode(&mut self.out);
                    }
                }
                Part::Payload { header, bytes, last } if header.opcode.is_control() => {
                    self.control.extend_from_slice(bytes);
                    if last {
                        let payload = std::mem::take(&mut self.control);
                        match self.control_frame(header.opcode, &payload) {
                            Next::Read => {}
                            next => return next,
                        }
                    }
                }
                Part::Payload { header, bytes, last } => {
                    if self.plan.way == Way::AppReset && self.messages == self.plan.messages.len() {
                        return Next::Reset;
                    }
                    self.out.extend_from_slice(bytes);
                    if last && header.fin {
                        self.message_read();
                    }
                }
            }
        }
    }

    fn message_read(&mut self) {
        self.messages += 1;
        if self.plan.app_pings && !self.closed {
            self.asked_in_all += 1;
            self.asked.push_back(self.asked_in_all);
            server_frame(Opcode::Ping, &self.asked_in_all.to_be_bytes(), &mut self.out);
        }
        if let Way::AppClose(code) = self.plan.way
            && self.messages == self.plan.messages.len()
        {
            self.closed = true;
            self.told = Some(Instant::now());
            close_frame(&code.to_be_bytes(), &mut self.out);
        }
    }

    fn control_frame(&mut self, opcode: Opcode, payload: &[u8]) -> Next {
        match opcode {
            Opcode::Ping if !self.closed => server_frame(Opcode::Pong, payload, &mut self.out),
            Opcode::Pong => {
                let number = payload.try_into().map(u64::from_be_bytes);
                // A Pong may answer several Pings, of which it carries the newest (RFC 6455 §5.5.3).
                match number.ok().and_then(|number| self.asked.iter().position(|asked| *asked == number)) {
                    Some(place) => drop(self.asked.drain(..=place)),
                    None => self.note(format!("a Pong that answers no Ping of the app: {payload:?}")),
                }
            }
            Opcode::Close => {
                self.told.get_or_insert_with(Instant::now);
                self.code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                if !self.closed {
                    self.closed = true;
                    close_frame(payload, &mut self.out);
                }
                return Next::Finish;
            }
            _ => {}
        }
        Next::Read
    }

    fn note(&mut self, fault: String) {
        self.fault.get_or_insert(fault);
    }

    fn fail(&mut self, fault: String) -> Next {
        self.note(fault);
        Next::Reset
    }
}

fn server_frame(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    Header { fin: true, opcode, mask: None, length: payload.len() as u64 }.encode(out);
    out.extend_from_slice(payload);
}

fn close_frame(payload: &[u8], out: &mut Vec<u8>) {
    server_frame(Opcode::Close, payload, out);
}
