//! One endpoint of a session. It runs a script, answers Pings and Closes meanwhile, and records everything.

mod reader;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use socket2::Socket;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, sleep_until};

use self::reader::Reader;
use crate::frame::{self, BINARY, CLOSE, CONTINUATION, Frame, PING, PONG, Parser, TEXT};
use crate::gate::Switch;
use crate::link::Control;
use crate::plan::{Invalid, Script, Step};
use crate::trace::{Answer, Sent, Shared};

/// The side of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The client. It masks its frames.
    Client,
    /// The app. It does not mask.
    App,
}

/// The probe of the proxy's own heartbeat in `app` mode, and its answer in `answer` mode.
pub const ASKED: &str = "hb?";
/// The client's answer, and its own heartbeat in `answer` and `passive` mode.
pub const BEAT: &str = "hb!";

/// The settings of an endpoint.
#[derive(Debug)]
pub struct Setup {
    /// Client or app.
    pub role: Role,
    /// Its actions.
    pub script: Script,
    /// The record of its observations.
    pub trace: Shared,
    /// The switch of its process.
    pub switch: Arc<Switch>,
    /// The link in front of it.
    pub link: Option<Arc<Control>>,
    /// Its socket, if it has one of its own.
    pub socket: Option<Arc<Socket>>,
    /// True if it answers [`ASKED`] with [`BEAT`].
    pub answers: bool,
    /// The interval at which it sends [`BEAT`] by itself.
    pub beats: Option<Duration>,
    /// True if permessage-deflate is agreed.
    pub deflate: bool,
    /// Seed of payloads and keys.
    pub seed: u64,
}

enum Event {
    Ping(Vec<u8>, Instant),
    Asked(Instant),
    Close(Vec<u8>),
    Violation,
    Eof,
}

/// Runs the script until the connection has ended, and drops the connection.
pub async fn run<S: AsyncRead + AsyncWrite>(stream: S, early: Vec<u8>, setup: Setup) {
    let (input, output) = tokio::io::split(stream);
    let (events, queue) = mpsc::unbounded_channel();
    let pace = (setup.script.pace > 0).then_some(setup.script.pace);
    let (paces, pace) = watch::channel(Some(pace.unwrap_or(u64::MAX)));
    let (muted, mute) = watch::channel(false);
    {
        let mut trace = setup.trace.lock();
        trace.opened = Some(Instant::now());
        trace.deflate = setup.deflate;
    }
    let parser = Parser::new(setup.role == Role::App, setup.deflate);
    let newest_only = setup.script.newest_only;
    let reader = Reader { trace: setup.trace.clone(), parser, events, pace, mute, newest_only, answers: setup.answers };
    let reading = reader.run(input, early);
    let steps = setup.script.steps.clone();
    let writer = Writer {
        rng: Rng::with_seed(setup.seed),
        next_beat: setup.beats.map(|every| Instant::now() + every),
        setup,
        output,
        queue,
        waiting: VecDeque::new(),
        paces,
        muted,
        closed: false,
        stopped: false,
        eof: false,
    };
    let writing = writer.run(steps);
    tokio::pin!(reading, writing);
    tokio::select! {
        ended = &mut writing => if ended != Ended::Reset { reading.await },
        () = &mut reading => { writing.await; }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    Done,
    Reset,
}

struct Writer<S> {
    setup: Setup,
    output: WriteHalf<S>,
    queue: mpsc::UnboundedReceiver<Event>,
    waiting: VecDeque<Event>,
    paces: watch::Sender<Option<u64>>,
    muted: watch::Sender<bool>,
    rng: Rng,
    next_beat: Option<Instant>,
    /// True once a Close is sent: no frame follows it.
    closed: bool,
    /// True once the script is cut short: the peer has closed.
    stopped: bool,
    eof: bool,
}

impl<S: AsyncRead + AsyncWrite> Writer<S> {
    async fn run(mut self, steps: Vec<Step>) -> Ended {
        let ended = self.script(steps).await;
        if let Ok(Ended::Reset) = ended {
            return Ended::Reset;
        }
        // A failed write does not stop the reading.
        Ended::Done
    }

    async fn script(&mut self, steps: Vec<Step>) -> io::Result<Ended> {
        for step in steps {
            self.serve().await?;
            if self.stopped {
                break;
            }
            if self.step(step).await? == Ended::Reset {
                return Ok(Ended::Reset);
            }
        }
        self.idle(None).await?;
        Ok(Ended::Done)
    }

    async fn step(&mut self, step: Step) -> io::Result<Ended> {
        if self.closed && (step.bytes() > 0 || matches!(step, Step::Ping(_) | Step::Pong(_))) {
            return Ok(Ended::Done);
        }
        match step {
            Step::Message { size, fragments, text, ping, rsv1 } => {
                self.message(size, fragments, text, ping, rsv1).await?;
            }
            Step::Flood { count, most } => self.flood(count, most).await?,
            Step::Torrent { millis, size, burst } => self.torrent(Duration::from_millis(millis), size, burst).await?,
            Step::Slow { size, millis, pieces } => self.slow(size, millis, pieces).await?,
            Step::Ping(size) => self.control(PING, size).await?,
            Step::Pong(size) => self.control(PONG, size).await?,
            Step::Pause(millis) => self.idle(Some(Instant::now() + Duration::from_millis(millis))).await?,
            Step::Pace(pace) => {
                if pace.is_none() && self.setup.role == Role::Client {
                    self.dies();
                }
                self.paces.send_replace(pace.map(|rate| if rate == 0 { u64::MAX } else { rate }));
            }
            Step::Freeze(time) => {
                self.setup.switch.set(true);
                if let Some(time) = time {
                    sleep(Duration::from_millis(time)).await;
                    self.setup.switch.set(false);
                } else {
                    self.dies();
                    std::future::pending::<()>().await;
                }
            }
            Step::Mute => {
                self.muted.send_replace(true);
                self.next_beat = None;
                self.dies();
            }
            Step::Vanish => {
                match &self.setup.link {
                    Some(link) => link.vanish(),
                    None => self.setup.switch.set(true),
                }
                self.dies();
                std::future::pending::<()>().await;
            }
            Step::Partial { size, sent } => {
                let (_, bytes) = self.frame(0x80 | BINARY, size);
                self.muted.send_replace(true);
                self.dies();
                self.output.write_all(&bytes[..sent.min(bytes.len() - 1)]).await?;
                self.output.flush().await?;
                self.setup.trace.lock().last_write = Some(Instant::now());
                if self.setup.role == Role::App {
                    self.setup.switch.set(true);
                }
                std::future::pending::<()>().await;
            }
            Step::Close(close) => {
                let payload = frame::close_payload(close.as_ref());
                self.closed = true;
                self.put(&[(0x80 | CLOSE, payload)]).await?;
            }
            Step::Invalid(kind) => self.invalid(kind).await?,
            Step::Fin => self.finish().await?,
            Step::Reset => {
                if let Some(socket) = &self.setup.socket {
                    let _ = socket.set_linger(Some(Duration::ZERO));
                }
                self.setup.trace.lock().reset = Some(Instant::now());
                return Ok(Ended::Reset);
            }
        }
        Ok(Ended::Done)
    }

    fn dies(&mut self) {
        self.setup.trace.lock().died.get_or_insert_with(Instant::now);
    }

    fn key(&mut self) -> Option<[u8; 4]> {
        (self.setup.role == Role::Client).then(|| self.rng.u32(..).to_be_bytes())
    }

    /// Returns letters only, so that a text is valid and no heartbeat.
    fn letters(&mut self, size: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(size + 16);
        while bytes.len() < size {
            let word = self.rng.u64(..);
            bytes.extend((0..16).map(|nibble| b'a' + u8::try_from(word >> (4 * nibble) & 15).unwrap_or(0)));
        }
        bytes.truncate(size);
        bytes
    }

    fn frame(&mut self, first: u8, size: usize) -> (Frame, Vec<u8>) {
        let payload = self.letters(size);
        let key = self.key();
        Frame::encode(first, key, &payload)
    }

    async fn put(&mut self, frames: &[(u8, Vec<u8>)]) -> io::Result<()> {
        let key = self.key();
        let (frames, bytes): (Vec<_>, Vec<_>) =
            frames.iter().map(|(first, payload)| Frame::encode(*first, key, payload)).unzip();
        self.send(frames, &bytes.concat()).await
    }

    async fn send(&mut self, frames: Vec<Frame>, bytes: &[u8]) -> io::Result<()> {
        let from = self.begin(frames);
        self.output.write_all(bytes).await?;
        self.output.flush().await?;
        self.done(from);
        Ok(())
    }

    fn begin(&mut self, frames: Vec<Frame>) -> usize {
        let (mut trace, started) = (self.setup.trace.lock(), Instant::now());
        let from = trace.sent.len();
        trace.sent.extend(frames.into_iter().map(|frame| Sent { frame, started, done: None }));
        from
    }

    fn done(&mut self, from: usize) {
        let (mut trace, now) = (self.setup.trace.lock(), Instant::now());
        trace.last_write = Some(now);
        trace.sent[from..].iter_mut().for_each(|sent| sent.done = Some(now));
    }

    async fn message(&mut self, size: usize, fragments: usize, text: bool, ping: bool, rsv1: bool) -> io::Result<()> {
        let rsv1 = if rsv1 && self.setup.deflate { 0x40 } else { 0 };
        for index in 0..fragments {
            let opcode = match (index, text) {
                (0, true) => TEXT,
                (0, false) => BINARY,
                _ => CONTINUATION,
            };
            let fin = if index + 1 == fragments { 0x80 } else { 0 };
            let first = fin | opcode | if index == 0 { rsv1 } else { 0 };
            let (frame, bytes) = self.frame(first, size / fragments);
            self.send(vec![frame], &bytes).await?;
            if ping && index == 0 {
                self.control(PING, 5).await?;
            }
            self.serve_between().await?;
        }
        Ok(())
    }

    async fn flood(&mut self, count: usize, most: usize) -> io::Result<()> {
        let mut all = Vec::new();
        let mut frames = Vec::with_capacity(count);
        for _ in 0..count {
            let size = self.rng.usize(0..=most);
            let (frame, bytes) = self.frame(0x80 | BINARY, size);
            frames.push(frame);
            all.extend(bytes);
        }
        self.send(frames, &all).await
    }

    /// Writes without a pause, and records each write as one entry, so that the proxy is slower than this endpoint.
    async fn torrent(&mut self, time: Duration, size: usize, burst: usize) -> io::Result<()> {
        let (mut frame, bytes) = self.frame(0x80 | BINARY, size);
        frame.repeats = burst as u64;
        let bytes = bytes.repeat(burst);
        let started = Instant::now();
        while started.elapsed() < time && !self.stopped {
            self.send(vec![frame.clone()], &bytes).await?;
            self.serve().await?;
        }
        Ok(())
    }

    async fn slow(&mut self, size: usize, millis: u64, pieces: usize) -> io::Result<()> {
        let (frame, bytes) = self.frame(0x80 | BINARY, size);
        let from = self.begin(vec![frame]);
        let started = Instant::now();
        let step = bytes.len().div_ceil(pieces.max(1));
        for (index, piece) in bytes.chunks(step).enumerate() {
            self.output.write_all(piece).await?;
            self.output.flush().await?;
            self.setup.trace.lock().last_write = Some(Instant::now());
            while let Ok(event) = self.queue.try_recv() {
                self.waiting.push_back(event);
            }
            let hurried =
                self.waiting.iter().any(|event| matches!(event, Event::Close(_) | Event::Violation | Event::Eof));
            if !hurried {
                let due = started
                    + Duration::from_millis(millis) * u32::try_from(index + 1).unwrap_or(1)
                        / u32::try_from(pieces.max(1)).unwrap_or(1);
                sleep_until(due.into()).await;
            }
        }
        self.done(from);
        Ok(())
    }

    async fn control(&mut self, opcode: u8, size: usize) -> io::Result<()> {
        let payload = self.letters(size.min(125));
        self.put(&[(0x80 | opcode, payload)]).await
    }

    async fn invalid(&mut self, kind: Invalid) -> io::Result<()> {
        let key = self.key();
        let other = if key.is_some() { None } else { Some([1, 2, 3, 4]) };
        let bytes = match kind {
            Invalid::Opcode => Frame::encode(0x83, key, b"odd").1,
            Invalid::Reserved => Frame::encode(0xA2, key, b"odd").1,
            Invalid::LongControl => Frame::encode(0x80 | PING, key, &[b'x'; 126]).1,
            Invalid::FragmentedControl => Frame::encode(PING, key, b"odd").1,
            Invalid::Mask => Frame::encode(0x80 | BINARY, other, b"odd").1,
            Invalid::Length => frame::head(0x80 | BINARY, key, 1 << 63),
        };
        // No frame follows a violation: the peer reads no further.
        self.closed = true;
        self.output.write_all(&bytes).await?;
        self.output.flush().await
    }

    async fn finish(&mut self) -> io::Result<()> {
        if self.setup.trace.lock().finished.is_some() {
            return Ok(());
        }
        self.closed = true;
        self.output.shutdown().await?;
        self.setup.trace.lock().finished = Some(Instant::now());
        Ok(())
    }

    /// Answers the queued Pings between two frames of a message; all other events wait.
    async fn serve_between(&mut self) -> io::Result<()> {
        while let Ok(event) = self.queue.try_recv() {
            self.waiting.push_back(event);
        }
        let (now, later) = self.waiting.drain(..).partition(|event| matches!(event, Event::Ping(..)));
        self.waiting = later;
        let now: VecDeque<Event> = now;
        for event in now {
            self.event(event).await?;
        }
        Ok(())
    }

    async fn serve(&mut self) -> io::Result<()> {
        while let Some(event) = self.waiting.pop_front().or_else(|| self.queue.try_recv().ok()) {
            self.event(event).await?;
        }
        self.beat().await
    }

    async fn beat(&mut self) -> io::Result<()> {
        if self.next_beat.is_some_and(|due| due <= Instant::now()) && !self.closed {
            self.put(&[(0x80 | TEXT, BEAT.as_bytes().to_vec())]).await?;
            self.next_beat = self.setup.beats.map(|every| Instant::now() + every);
        }
        Ok(())
    }

    /// Answers until a given time, or until the connection has ended.
    async fn idle(&mut self, until: Option<Instant>) -> io::Result<()> {
        loop {
            self.serve().await?;
            if until.is_some_and(|until| Instant::now() >= until || self.stopped) || self.eof && until.is_none() {
                return if self.eof && until.is_none() { self.finish().await } else { Ok(()) };
            }
            let beat = if self.closed { None } else { self.next_beat };
            let wake = [until, beat].into_iter().flatten().min();
            let woken = async {
                match wake {
                    Some(wake) => sleep_until(wake.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = self.queue.recv() => match event {
                    Some(event) => self.event(event).await?,
                    None => return Ok(()),
                },
                () = woken => {}
            }
        }
    }

    async fn event(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::Ping(payload, asked) => self.answer(0x80 | PONG, payload, asked).await?,
            Event::Asked(asked) => self.answer(0x80 | TEXT, BEAT.into(), asked).await?,
            Event::Close(payload) => {
                if !self.closed {
                    self.closed = true;
                    self.put(&[(0x80 | CLOSE, payload)]).await?;
                }
                self.stopped = true;
                if self.setup.role == Role::App || self.setup.script.finishes {
                    self.finish().await?;
                }
            }
            Event::Violation => {
                if !self.closed {
                    self.closed = true;
                    self.put(&[(0x80 | CLOSE, frame::close_payload(Some(&(1002, String::new()))))]).await?;
                }
                self.stopped = true;
                self.finish().await?;
            }
            Event::Eof => self.eof = true,
        }
        Ok(())
    }

    async fn answer(&mut self, first: u8, payload: Vec<u8>, asked: Instant) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        self.setup.trace.lock().answers.push(Answer { asked, done: None });
        self.put(&[(first, payload)]).await?;
        if let Some(answer) = self.setup.trace.lock().answers.last_mut() {
            answer.done = Some(Instant::now());
        }
        Ok(())
    }
}
