//! Both ends of a session: a client and an app that send exactly what a test asks for.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use pulsegate::heartbeat::{Policy, UpstreamLiveness};
use pulsegate::registry::Registry;
use pulsegate::relay::{self, Control, Delivery, Leg, Legs, Memory, NegotiatedTerms, Observer, Partial, Unobserved};
use pulsegate::session::Ending;
use pulsegate::ws::Limits;
use pulsegate_test_kit::frame::{self, KEY, LengthForm};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf, WriteHalf, duplex, split,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

pub use pulsegate_test_kit::frame::{BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT};

/// Longer than any wait of a test, in paused time.
const NEVER: Duration = Duration::from_secs(3600);

/// A frame as an end of the session sees it, unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub first: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(opcode: u8, payload: &[u8]) -> Self {
        Self { first: 0x80 | opcode, payload: payload.to_vec() }
    }

    pub fn close(code: u16, reason: &str) -> Self {
        Self::new(CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat())
    }

    pub fn opcode(&self) -> u8 {
        self.first & 0x0F
    }

    pub fn encode(&self, masked: bool) -> Vec<u8> {
        frame::encode(self.first, masked.then_some(KEY), LengthForm::Minimal, &self.payload)
    }
}

/// One end of the session, on the far side of a leg.
pub struct End {
    io: ReadHalf<DuplexStream>,
    /// Shared with a writer in the background, while a test reads.
    out: Arc<tokio::sync::Mutex<WriteHalf<DuplexStream>>>,
    masks: bool,
}

impl End {
    fn new(io: DuplexStream, masks: bool) -> Self {
        let (io, out) = split(io);
        Self { io, out: Arc::new(out.into()), masks }
    }

    pub async fn send(&mut self, frame: &Frame) {
        self.send_raw(&frame.encode(self.masks)).await;
    }

    pub async fn send_raw(&mut self, bytes: &[u8]) {
        self.try_send(bytes).await.expect("the relay reads");
    }

    pub async fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        timeout(NEVER, self.out.lock()).await.expect("no writer holds on").write_all(bytes).await
    }

    /// Sends in the background, however long the other side takes.
    pub fn send_raw_soon(&mut self, bytes: Vec<u8>) {
        let out = Arc::clone(&self.out);
        let mut held = Arc::clone(&out).try_lock_owned().expect("one writer at a time");
        tokio::spawn(async move { held.write_all(&bytes).await });
    }

    /// Sends in the background, with a pause between two chunks, so that each is read by itself.
    pub fn send_chunks_soon(&mut self, chunks: Vec<Vec<u8>>) -> JoinHandle<()> {
        let out = Arc::clone(&self.out);
        tokio::spawn(async move {
            for chunk in chunks {
                out.lock().await.write_all(&chunk).await.expect("the relay reads");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    }

    /// Ends the stream behind everything sent so far.
    pub fn fin_soon(&mut self) {
        let out = Arc::clone(&self.out);
        tokio::spawn(async move { out.lock().await.shutdown().await });
    }

    pub async fn fin(&mut self) {
        self.out.lock().await.shutdown().await.expect("the relay is there");
    }

    /// Reads and discards the bytes that are there.
    pub async fn drain_some(&mut self) {
        let mut some = vec![0; 256 * 1024];
        while let Ok(Ok(1..)) = timeout(Duration::from_millis(1), self.io.read(&mut some)).await {}
    }

    /// Returns the next frame, or `None` at the end of the stream.
    pub async fn frame(&mut self) -> Option<Frame> {
        timeout(NEVER, self.read_frame()).await.expect("a frame or the end within an hour of paused time")
    }

    /// Returns the next frame; the stream must not end before.
    pub async fn expect(&mut self) -> Frame {
        self.frame().await.expect("a frame, not the end of the stream")
    }

    /// Returns up to `count` bytes, as many as are there within a second; none at the end of the stream.
    pub async fn some(&mut self, count: usize) -> Vec<u8> {
        let mut all = Vec::new();
        let mut bytes = vec![0; count];
        while all.len() < count {
            let wanted = count - all.len();
            // A reset is an end like any other.
            match timeout(Duration::from_secs(1), self.io.read(&mut bytes[..wanted])).await {
                Ok(Ok(read @ 1..)) => all.extend_from_slice(&bytes[..read]),
                Ok(_) => break,
                Err(_) if all.is_empty() => {}
                Err(_) => break,
            }
        }
        all
    }

    /// Returns everything up to the end of the stream.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        timeout(NEVER, self.io.read_to_end(&mut rest)).await.expect("the end within an hour").ok();
        rest
    }

    /// Asserts that nothing arrives for `quiet`.
    pub async fn silent(&mut self, quiet: Duration) {
        if let Ok(frame) = timeout(quiet, self.read_frame()).await {
            panic!("expected silence, saw {frame:?}");
        }
    }

    pub async fn exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        timeout(NEVER, self.io.read_exact(&mut bytes)).await.expect("bytes within an hour").expect("bytes");
        bytes
    }

    async fn read_frame(&mut self) -> Option<Frame> {
        let frame = frame::Frame::read(&mut self.io).await?;
        assert_eq!(frame.mask.is_some(), !self.masks, "clients mask, servers do not");
        Some(Frame { first: frame.first, payload: frame.payload })
    }
}

/// A leg in memory. The test sets what a kernel would report.
pub struct TestLeg {
    io: DuplexStream,
    written: u64,
    kernel: Arc<Mutex<Option<Delivery>>>,
    aborted: Arc<AtomicBool>,
    broken: Arc<Mutex<Option<io::ErrorKind>>>,
    partial: Arc<Mutex<Option<Partial>>>,
    fin_blocked: Arc<AtomicBool>,
    /// Failed attempts to send FIN.
    fins: u32,
}

impl AsyncRead for TestLeg {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for TestLeg {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        // As a kernel reports it: the cause once, and a broken pipe from then on.
        let broken = self.broken.lock().unwrap().replace(io::ErrorKind::BrokenPipe);
        match broken {
            Some(cause) => return Poll::Ready(Err(cause.into())),
            None => *self.broken.lock().unwrap() = None,
        }
        let written = std::task::ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.written += written as u64;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.fin_blocked.load(Ordering::Relaxed) {
            self.fins += 1;
            assert!(self.fins < 1000, "the session spins");
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl Leg for TestLeg {
    fn delivery(&self) -> Option<Delivery> {
        *self.kernel.lock().unwrap()
    }

    fn written(&self) -> u64 {
        self.written
    }

    fn partial(&self) -> Option<Partial> {
        *self.partial.lock().unwrap()
    }

    fn abort_on_drop(&mut self) {
        self.aborted.store(true, Ordering::Relaxed);
    }
}

/// A session between two ends that the test holds.
pub struct Rig {
    pub client: End,
    pub app: End,
    pub control: Arc<Control>,
    /// The acknowledgements that the client's kernel reports.
    pub kernel: Arc<Mutex<Option<Delivery>>>,
    pub client_aborted: Arc<AtomicBool>,
    /// Bytes of the client that cannot be read yet.
    pub client_partial: Arc<Mutex<Option<Partial>>>,
    /// The error of the next write to the client.
    pub client_broken: Arc<Mutex<Option<io::ErrorKind>>>,
    /// The error of the next write to the app.
    pub app_broken: Arc<Mutex<Option<io::ErrorKind>>>,
    /// Set while FIN to the client is blocked.
    pub client_fin_blocked: Arc<AtomicBool>,
    /// The memory that the session holds.
    pub memory: Arc<Memory>,
    pub opened: Instant,
    session: JoinHandle<Ending>,
}

/// The parameters of a rig.
pub struct Plan {
    pub policy: Policy,
    pub limits: Limits,
    /// The bytes that each leg's pipe takes before it blocks.
    pub pipe: usize,
    pub client_early: Vec<u8>,
    pub upstream_early: Vec<u8>,
    pub observer: Arc<dyn Observer>,
    pub max_age: Option<Duration>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            limits: Limits::default(),
            pipe: 256 * 1024,
            client_early: Vec::new(),
            upstream_early: Vec::new(),
            observer: Arc::new(Unobserved),
            max_age: None,
        }
    }
}

impl Rig {
    pub fn new() -> Self {
        Self::with(Plan::default())
    }

    pub fn with(plan: Plan) -> Self {
        let (client, client_leg) = duplex(plan.pipe);
        let (app, upstream_leg) = duplex(plan.pipe);
        let leg = |io| TestLeg {
            io,
            written: 0,
            kernel: Arc::default(),
            aborted: Arc::default(),
            broken: Arc::default(),
            partial: Arc::default(),
            fin_blocked: Arc::default(),
            fins: 0,
        };
        let (client_leg, upstream_leg) = (leg(client_leg), leg(upstream_leg));
        let kernel = Arc::clone(&client_leg.kernel);
        let client_aborted = Arc::clone(&client_leg.aborted);
        let client_broken = Arc::clone(&client_leg.broken);
        let app_broken = Arc::clone(&upstream_leg.broken);
        let client_partial = Arc::clone(&client_leg.partial);
        let client_fin_blocked = Arc::clone(&client_leg.fin_blocked);
        let control = Arc::new(Control::default());
        let memory = Arc::<Memory>::default();
        let opened = Instant::now();
        let terms = NegotiatedTerms {
            policy: Arc::new(plan.policy),
            limits: plan.limits,
            memory: Arc::clone(&memory),
            liveness: Arc::new(UpstreamLiveness::new(opened.into_std())),
            observer: plan.observer,
            id: Registry::new(0).next_id(),
            seed: 42,
            max_age: plan.max_age,
        };
        let legs = Legs {
            client: client_leg,
            client_early: Bytes::from(plan.client_early),
            upstream: upstream_leg,
            upstream_early: Bytes::from(plan.upstream_early),
        };
        let session = tokio::spawn(relay::run(legs, terms, Arc::clone(&control)));
        Self {
            client: End::new(client, true),
            app: End::new(app, false),
            control,
            kernel,
            client_aborted,
            client_broken,
            app_broken,
            client_partial,
            client_fin_blocked,
            memory,
            opened,
            session,
        }
    }

    /// Returns the end of the session.
    pub async fn ending(self) -> Ending {
        timeout(NEVER, self.session).await.expect("the session ends within an hour").expect("no panic")
    }

    pub fn elapsed(&self) -> Duration {
        self.opened.elapsed()
    }
}

pub fn aborted(flag: &AtomicBool) -> bool {
    flag.load(Ordering::Relaxed)
}
