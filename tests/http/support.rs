//! The proxy between a client and an app that the test plays byte by byte.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::{Arc, Once};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pulsegate::config::{
    Admin, Drain, EdgeLimits, Forwarded, Http2, Level, Listen, Log, LogFormat, Route, Settings, TlsSettings,
    UpstreamSettings, UpstreamTarget,
};
use pulsegate::generation::{CurrentGeneration, Generation};
use pulsegate::heartbeat::UpstreamPolicy;
use pulsegate::http::{self, Edge, Peer, Protocol, TlsFacts};
use pulsegate::registry::Registry;
use pulsegate::relay::Leg;
use pulsegate::telemetry::metrics::Metrics;
use pulsegate::telemetry::otel::Spans;
use pulsegate::tls::{Identity, Terminator};
use pulsegate::upstream::AppSet;
use rcgen::{CertificateParams, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The time limit of every wait of a test, after which it shows what it has read.
const DEADLINE: Duration = Duration::from_secs(10);

/// The address of the client's end.
pub const CLIENT: &str = "192.0.2.7:40000";
pub const CLIENT_ADDRESS: &str = "192.0.2.7";
pub const CLIENT_PORT: u16 = 40000;

/// The HTTP side of one worker.
pub struct Proxy {
    edge: Arc<Edge>,
    current: Arc<CurrentGeneration>,
    pub registry: Arc<Registry>,
    pub metrics: Arc<Metrics>,
    pub draining: CancellationToken,
    tracker: TaskTracker,
}

impl Proxy {
    /// Starts a proxy before `app`.
    pub fn before(app: &App) -> Self {
        Self::with(app.target(), |_| {})
    }

    /// Starts a proxy before `target` with altered settings.
    pub fn with(target: UpstreamTarget, alter: impl FnOnce(&mut Settings)) -> Self {
        let settings = Self::settings(target, alter);
        let registry = Arc::new(Registry::new(1));
        let metrics = Arc::new(Metrics::new());
        let apps = AppSet::open(&settings, Instant::now()).expect("the TLS files are there");
        let (tracker, draining) = (TaskTracker::new(), CancellationToken::new());
        let terminator = Arc::new(Terminator::new(identity()).expect("a terminator"));
        let current = CurrentGeneration::new(Generation::first(Arc::new(settings), terminator, apps));
        let edge = Edge::new(
            &current,
            Arc::clone(&registry),
            Arc::clone(&metrics),
            Spans::default(),
            tracker.clone(),
            draining.clone(),
        );
        Self { edge, current, registry, metrics, draining, tracker }
    }

    /// Puts other settings in force, as a reload does.
    pub fn reload(&self, target: UpstreamTarget, alter: impl FnOnce(&mut Settings)) {
        let before = self.current.load_full();
        let mut settings = Self::settings(target, alter);
        assert_eq!(settings.follow(&before.settings), [], "nothing of it waits for a restart");
        let apps = AppSet::open(&settings, Instant::now()).expect("the TLS files are there");
        let apps = apps.after(&before.apps, |_| false);
        self.current.publish(before.next(Arc::new(settings), before.terminator.clone(), apps));
    }

    /// Returns the settings of a proxy before `target`, altered.
    pub fn settings(target: UpstreamTarget, alter: impl FnOnce(&mut Settings)) -> Settings {
        let mut settings = settings(target);
        alter(&mut settings);
        settings
    }

    /// Returns a client's connection to it.
    pub fn connect(&self) -> Wire<DuplexStream> {
        self.connect_through(64 * 1024)
    }

    /// As [`Self::connect`], with a buffer of `bytes` in each direction.
    pub fn connect_through(&self, bytes: usize) -> Wire<DuplexStream> {
        let (ours, theirs) = tokio::io::duplex(bytes);
        let tls = TlsFacts {
            version: "1.3",
            group: Some("X25519MLKEM768"),
            protocol: Protocol::H1,
            server_name: None,
            client: None,
        };
        let peer = Peer { tls: Some(tls), ..Peer::at(CLIENT.parse().unwrap()) };
        self.tracker.spawn(http::serve(ClientLeg(theirs), peer, Arc::clone(&self.edge)));
        Wire::new("client", ours)
    }

    /// Returns whether the metrics have this line.
    pub fn counts(&self, line: &str) -> bool {
        self.metrics.encode().lines().any(|written| written == line)
    }

    /// Waits until every task has ended.
    pub async fn ended(&self) {
        self.draining.cancel();
        self.tracker.close();
        let left = || format!("{} tasks are left", self.tracker.len());
        timeout(DEADLINE, self.tracker.wait()).await.unwrap_or_else(|_| panic!("{}", left()));
    }
}

/// Returns the proxy's certificate for clients' handshakes.
fn identity() -> Identity {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a valid name");
    let certificate = params.self_signed(&key).expect("a certificate");
    Identity::from_der(vec![certificate.der().to_vec()], key.serialize_der()).expect("a pair")
}

/// Alters the app of every route.
pub fn alter_app(settings: &mut Settings, alter: impl Fn(&mut UpstreamSettings)) {
    alter(Arc::make_mut(&mut settings.upstream));
    for route in &mut settings.routes {
        Arc::make_mut(route).upstream = Arc::clone(&settings.upstream);
    }
}

fn settings(target: UpstreamTarget) -> Settings {
    let upstream = Arc::new(UpstreamSettings {
        connect_timeout: Duration::from_secs(5),
        response_timeout: Duration::from_secs(5),
        heartbeat: UpstreamPolicy { interval: None, ..UpstreamPolicy::default() },
        ..UpstreamSettings::at(target)
    });
    let route = |path: &str| Arc::new(Route { path: path.into(), ..Route::to(Arc::clone(&upstream)) });
    Settings {
        listen: Listen {
            address: "127.0.0.1:0".parse().unwrap(),
            workers: NonZeroUsize::MIN,
            proxy_protocol: None,
            redirect: None,
            http2: Http2::default(),
        },
        tls: TlsSettings::of("unused", "unused").into(),
        routes: vec![route("/chat/"), route("/")],
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

/// The proxy's end of a client connection.
struct ClientLeg(DuplexStream);

impl Leg for ClientLeg {}

impl AsyncRead for ClientLeg {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for ClientLeg {
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

/// The app: a listener on a port of the system's choice.
pub struct App {
    listener: TcpListener,
    address: SocketAddr,
}

impl App {
    pub async fn start() -> Self {
        LogPage::install();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    pub fn target(&self) -> UpstreamTarget {
        UpstreamTarget::Tcp { host: "127.0.0.1".into(), port: self.address.port() }
    }

    /// Returns its authority, the host and port.
    pub fn authority(&self) -> String {
        self.address.to_string()
    }

    /// Accepts the proxy's next connection.
    pub async fn accept(&self) -> Wire<TcpStream> {
        let accepted = timeout(DEADLINE, self.listener.accept()).await.expect("the proxy did not connect");
        Wire::new("app", accepted.unwrap().0)
    }

    /// Returns whether the proxy has opened a connection that was not accepted yet.
    pub async fn is_dialled_within(&self, time: Duration) -> bool {
        timeout(time, self.listener.accept()).await.is_ok()
    }
}

/// One end of a connection, read and written byte by byte.
pub struct Wire<S> {
    name: &'static str,
    stream: S,
    /// Bytes read and not yet consumed.
    ahead: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub fn new(name: &'static str, stream: S) -> Self {
        Self { name, stream, ahead: Vec::new() }
    }

    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// Sends `there` and receives `back`; `other` does the opposite.
    pub async fn exchange<O>(&mut self, there: &[u8], other: &mut Wire<O>, back: &[u8])
    where
        O: AsyncRead + AsyncWrite + Unpin,
    {
        async fn whole<S>(wire: &mut Wire<S>, sent: &[u8], wanted: &[u8])
        where
            S: AsyncRead + AsyncWrite + Unpin,
        {
            assert!(wire.ahead.is_empty(), "{}: {} is left", wire.name, wire.seen());
            let mut came = vec![0; wanted.len()];
            let (mut reads, mut writes) = tokio::io::split(&mut wire.stream);
            let sending = async {
                writes.write_all(sent).await?;
                writes.flush().await
            };
            let both = timeout(DEADLINE, async { tokio::try_join!(sending, reads.read_exact(&mut came)) }).await;
            both.unwrap_or_else(|_| panic!("{}: it does not get through", wire.name)).unwrap();
            assert!(came == wanted, "{}: other bytes came", wire.name);
        }
        tokio::join!(whole(self, there, back), whole(other, back, there));
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let name = self.name;
        let sending = async {
            self.stream.write_all(bytes.as_ref()).await?;
            self.stream.flush().await
        };
        let sent = timeout(DEADLINE, sending).await;
        sent.unwrap_or_else(|_| panic!("{name}: nobody reads")).unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    /// Reads the head of a message: its first line and its fields, names in lower case.
    pub async fn head(&mut self) -> Head {
        let end = loop {
            if let Some(end) = self.ahead.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            assert!(self.more().await, "{}: ended in a head: {}", self.name, self.seen());
        };
        let text = String::from_utf8(self.ahead.drain(..end + 4).collect()).unwrap();
        let mut lines = text.trim_end().split("\r\n");
        let line = lines.next().unwrap().to_owned();
        let field = |line: &str| {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no field: {line:?} in {text:?}"));
            (name.to_owned(), value.trim().to_owned())
        };
        let written: Vec<(String, String)> = lines.map(field).collect();
        let fields = written.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
        Head { line, fields, names: written.into_iter().map(|(name, _)| name).collect() }
    }

    /// Reads exactly what is expected.
    pub async fn expect(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        while self.ahead.len() < expected.len() && self.more().await {}
        let came: Vec<u8> = self.ahead.drain(..expected.len().min(self.ahead.len())).collect();
        let (came, expected) = (came.escape_ascii().to_string(), expected.escape_ascii().to_string());
        assert_eq!(came, expected, "{}: then {}", self.name, self.seen());
    }

    /// Reads to the end of the stream; a reset is an end as well.
    pub async fn rest(&mut self) -> String {
        while self.more().await {}
        String::from_utf8(std::mem::take(&mut self.ahead)).unwrap()
    }

    /// Returns whether nothing at all arrives for `time`, not even an end.
    pub async fn is_silent_for(&mut self, time: Duration) -> bool {
        let mut byte = [0];
        match timeout(time, self.stream.read(&mut byte)).await {
            Ok(Ok(count)) => {
                self.ahead.extend_from_slice(&byte[..count]);
                false
            }
            Ok(Err(_)) => false,
            Err(_) => self.ahead.is_empty(),
        }
    }

    async fn more(&mut self) -> bool {
        let mut buffer = [0; 4096];
        match timeout(DEADLINE, self.stream.read(&mut buffer)).await {
            Ok(Ok(count)) => {
                self.ahead.extend_from_slice(&buffer[..count]);
                count > 0
            }
            Ok(Err(_)) => false,
            Err(elapsed) => panic!("{}: nothing more comes after {}: {elapsed}", self.name, self.seen()),
        }
    }

    fn seen(&self) -> String {
        format!("\"{}\"", self.ahead.escape_ascii())
    }
}

/// The head of a request or a response.
#[derive(Debug)]
pub struct Head {
    pub line: String,
    fields: Vec<(String, String)>,
    /// The names of the fields as they were written.
    pub names: Vec<String>,
}

impl Head {
    /// Returns the only value of a field, or `None` without it.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(field, _)| field == name).map(|(_, value)| &**value);
        let value = values.next();
        assert_eq!(values.next(), None, "{name} comes twice in {self:?}");
        value
    }

    /// Returns all fields but those named, for comparison; a field that repeats is joined.
    pub fn without(&self, names: &[&str]) -> BTreeMap<&str, String> {
        let mut fields: BTreeMap<&str, String> = BTreeMap::new();
        for (name, value) in self.fields.iter().filter(|(name, _)| !names.contains(&&**name)) {
            let joined = fields.entry(name).or_default();
            *joined = if joined.is_empty() { value.clone() } else { format!("{joined}, {value}") };
        }
        fields
    }
}

thread_local! {
    /// The log of this test's thread.
    static PAGE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The log lines of this thread, as JSON.
///
/// One subscriber serves all threads of the process: a scoped one for each test would appear and disappear while the
/// threads of other tests check for an active subscriber.
pub struct LogPage;

impl LogPage {
    /// Returns an empty page.
    pub fn open() -> Self {
        Self::install();
        PAGE.take();
        Self
    }

    /// Makes every thread log to its page, from the first test on.
    pub fn install() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(|| PageWriter).finish();
            tracing::subscriber::set_global_default(subscriber).expect("the only subscriber");
        });
    }

    /// Waits for the line `name` and returns it.
    pub async fn line(&self, name: &str) -> serde_json::Value {
        let waited = timeout(DEADLINE, async {
            loop {
                if let Some(line) = Self::text().lines().map(parse).find(|line| line["message"] == name) {
                    break line;
                }
                tokio::task::yield_now().await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("no {name} in {}", Self::text()))
    }

    fn text() -> String {
        PAGE.with_borrow(|page| String::from_utf8_lossy(page).into_owned())
    }
}

fn parse(line: &str) -> serde_json::Value {
    serde_json::from_str(line).unwrap()
}

struct PageWriter;

impl io::Write for PageWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        PAGE.with_borrow_mut(|page| page.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
