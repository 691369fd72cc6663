//! The accept loop: one for each worker, on a listener of its own.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use socket2::SockRef;
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Http2;
use crate::gate::{Complaints, Gate, Place, Refusal};
use crate::generation::Current;
use crate::http::{self, KEPT, Peer};
use crate::platform;
use crate::proxy_protocol::{Header, Malformed, Source};
use crate::suspension::{self, Deadline, Expiry};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{Chain, lines};
use crate::tls::{ClientLeg, PlainStream, Terminator};

/// Connections that the kernel holds for a worker until it takes them; the system's `somaxconn` may be lower.
const BACKLOG: i32 = 4096;

/// How long the loop rests when the system has no room for another connection.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Opens `count` listeners on one address, over which the kernel spreads connections. With port 0 the first takes any free
/// port and the others share it.
///
/// # Errors
///
/// Returns the kernel's error; `AddrInUse` where any program listens on the address, this one included.
pub fn listeners(address: SocketAddr, count: NonZeroUsize) -> io::Result<Vec<StdListener>> {
    platform::listeners::open(address, count, BACKLOG)
}

/// The remedy for a port that cannot be opened, as the end of a sentence.
pub fn port_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; end the program that has the port (ss -ltnp names it), or use another one",
        io::ErrorKind::AddrNotAvailable => "; use an address of this machine, or 0.0.0.0 for all of them",
        io::ErrorKind::PermissionDenied => {
            "; a port below 1024 needs CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE, \
             Kubernetes: capabilities.add: [NET_BIND_SERVICE]), or use a port from 1024 on"
        }
        _ => "",
    }
}

/// What connections of one port have to pass before they are anybody's.
#[derive(Clone, Debug)]
pub struct Door {
    /// How many may come in.
    pub gate: Arc<Gate>,
    /// Says which peers begin each connection with a PROXY header, without which nobody comes in then.
    pub current: Arc<Current>,
    /// Whether a handshake follows, which the client's address may begin only so many of.
    pub handshakes: bool,
}

/// A connection that was let in.
#[derive(Debug)]
pub struct Arrival {
    tcp: TcpStream,
    /// The peer's until its header has told another.
    address: SocketAddr,
    place: Place,
    introduction: Introduction,
}

/// Whether it is known who the client is.
#[derive(Debug)]
enum Introduction {
    /// The peer itself.
    Done,
    /// Whoever the header names, which is still to come.
    Awaited(Door),
}

/// What stands where a PROXY header should.
#[derive(Debug, Error)]
enum HeaderError {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the peer left in the middle of its PROXY header: {0}")]
    Cut(#[from] io::Error),
    #[error("the peer left without a word")]
    Nothing,
    #[error("the PROXY header did not end in time")]
    Timeout,
}

impl Door {
    /// Accepts until `stop`, closes the listener, and hands on what it lets in. Who is refused is cut off at once, by a
    /// reset: that costs the least, and leaves nothing behind in the kernel.
    pub async fn open(&self, listener: TcpListener, stop: &CancellationToken, mut next: impl FnMut(Arrival)) {
        let mut complaints = Complaints::default();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((tcp, address)) => {
                    if let Some(arrival) = self.admit(tcp, address) {
                        next(arrival);
                    }
                }
                Err(error) if concerns_one_connection(&error) => {
                    tracing::debug!(error = %Chain(&error), "accept failed");
                }
                Err(error) => {
                    if let Some(failures) = complaints.due(std::time::Instant::now()) {
                        complain(&error, failures);
                    }
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = tokio::time::sleep(BACK_OFF) => {}
                    }
                }
            }
        }
        self.close(listener, next);
    }

    /// Takes what the kernel holds for `listener`, and closes it: a connection that is still in the queue then is reset,
    /// although its client has seen it open, and has perhaps sent a request. The runtime may not have heard of it.
    fn close(&self, listener: TcpListener, mut next: impl FnMut(Arrival)) {
        let Ok(listener) = listener.into_std() else { return };
        for _ in 0..=BACKLOG {
            match listener.accept() {
                Ok((tcp, address)) => {
                    let tcp = tcp.set_nonblocking(true).and_then(|()| TcpStream::from_std(tcp));
                    if let Some(arrival) = tcp.ok().and_then(|tcp| self.admit(tcp, address)) {
                        next(arrival);
                    }
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(_) => return,
            }
        }
    }

    fn admit(&self, tcp: TcpStream, address: SocketAddr) -> Option<Arrival> {
        // An IPv4 client of a listener on `[::]` appears under its IPv4 address.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let settings = Arc::clone(&self.current.load().settings);
        let place = self.gate.enter().and_then(|mut place| match &settings.listen.proxy_protocol {
            None => self.claim(&mut place, address).map(|()| (place, Introduction::Done)),
            Some(proxies) if proxies.trusted.iter().any(|network| network.contains(address.ip())) => {
                Ok((place, Introduction::Awaited(self.clone())))
            }
            Some(_) => Err(Refusal::ProxyUntrusted),
        });
        match place {
            Ok((place, introduction)) => Some(Arrival { tcp, address, place, introduction }),
            Err(refusal) => {
                self.refuse(refusal, &tcp, address);
                None
            }
        }
    }

    fn claim(&self, place: &mut Place, address: SocketAddr) -> Result<(), Refusal> {
        if self.handshakes { place.claim(address.ip()) } else { place.claim_without_handshake(address.ip()) }
    }

    /// Counts, tells, and makes the close of `tcp` a reset.
    fn refuse(&self, refusal: Refusal, tcp: &TcpStream, address: SocketAddr) {
        self.gate.refused(refusal, address);
        // Fails only on a socket that is no longer connected.
        let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
    }
}

impl Arrival {
    /// Waits until it is known whose connection this is: `None` if that cannot be known by `deadline`, or if the client
    /// is one that is not let in.
    pub async fn identified(self, deadline: Deadline) -> Option<(TcpStream, SocketAddr, Place)> {
        let Self { mut tcp, mut address, mut place, introduction } = self;
        let Introduction::Awaited(door) = introduction else {
            return Some((tcp, address, place));
        };
        let header = suspension::within(deadline, pin!(read_header(&mut tcp))).await;
        let header = header.unwrap_or(Err(HeaderError::Timeout));
        let refusal = match header {
            Ok(source) => {
                if let Source::Client(client) = source {
                    address = client;
                }
                match door.claim(&mut place, address) {
                    Ok(()) => return Some((tcp, address, place)),
                    Err(refusal) => Some(refusal),
                }
            }
            Err(error) => {
                let (client, port) = lines::client(address);
                tracing::debug!(client.address = client, client.port = port, error = %Chain(&error), "proxy_header");
                error.refusal()
            }
        };
        if let Some(refusal) = refusal {
            door.refuse(refusal, &tcp, address);
        }
        None
    }
}

impl HeaderError {
    /// A load balancer that connects and goes looks whether the port is open; nobody was refused.
    fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Malformed(_) => Some(Refusal::ProxyHeader),
            Self::Cut(_) | Self::Timeout => Some(Refusal::ProxyCut),
            Self::Nothing => None,
        }
    }
}

/// Reads the header and not a byte of what follows.
async fn read_header(tcp: &mut TcpStream) -> Result<Source, HeaderError> {
    let mut header = Header::default();
    let mut space = [0; 256];
    let mut begun = false;
    loop {
        let seen = match tcp.peek(&mut space).await {
            Ok(0) | Err(_) if !begun => return Err(HeaderError::Nothing),
            Ok(0) => return Err(HeaderError::Cut(io::ErrorKind::UnexpectedEof.into())),
            seen => seen?,
        };
        begun = true;
        let (taken, source) = header.feed(&space[..seen])?;
        // These are there already: nothing is waited for.
        tcp.read_exact(&mut space[..taken]).await?;
        if let Some(source) = source {
            return Ok(source);
        }
    }
}

/// What one worker does with the connections of the TLS port.
#[derive(Clone)]
pub struct Accept {
    /// What they have to pass.
    pub door: Door,
    /// Says how hands are shaken, and how long that may take, PROXY header included.
    pub current: Arc<Current>,
    /// Where handshakes are counted.
    pub metrics: Arc<Metrics>,
    /// Owns the tasks of every connection.
    pub tracker: TaskTracker,
}

impl Accept {
    /// Accepts until `stop`, and closes the listener. Each connection is a task that shakes hands, which ends soon after
    /// `stop`, and then another that is `next`, which is left alone: a task is as large as its largest await, and whoever
    /// opens connections only to leave them so should not get the room of one that is served.
    pub async fn run<N, F>(self, listener: TcpListener, stop: CancellationToken, next: N)
    where
        N: Fn(ClientLeg, Peer) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        self.door.open(listener, &stop, |arrival| self.spawn(arrival, stop.clone(), next.clone())).await;
    }

    fn spawn<N, F>(&self, arrival: Arrival, stop: CancellationToken, next: N)
    where
        N: FnOnce(ClientLeg, Peer) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let generation = self.current.load();
        let deadline = Deadline::after(generation.settings.limits.handshake);
        let (this, terminator) = (self.clone(), generation.terminator.clone());
        self.tracker.spawn(async move {
            let greeting = async {
                match &terminator {
                    Some(terminator) => greet(terminator, &this.metrics, arrival, deadline).await,
                    None => this.greet_without_tls(arrival, deadline).await,
                }
            };
            let greeted = tokio::select! {
                biased;
                greeted = greeting => greeted,
                // A silent client must not hold up the end.
                () = given_up(&stop, &this.current) => {
                    if terminator.is_some() {
                        this.metrics.handshake_failed("draining");
                    }
                    None
                }
            };
            if let Some((stream, peer)) = greeted {
                this.tracker.spawn(next(stream, peer));
            }
        });
    }

    /// Finds out which protocol the client speaks, and whether it is a proxy that is served. Its first byte may take as
    /// long as the head of a request.
    async fn greet_without_tls(&self, arrival: Arrival, deadline: Deadline) -> Option<(ClientLeg, Peer)> {
        let proxy = arrival.address;
        let (tcp, address, place) = arrival.identified(deadline).await?;
        let local = local_address(&tcp);
        let settings = Arc::clone(&self.current.load().settings);
        let opened = suspension::timeout(settings.limits.header_read, pin!(PlainStream::open(tcp))).await;
        // Health checks of a port connect and leave: that is no error.
        let (mut stream, spoken) = opened.ok()?.ok()?;
        // Without ALPN to say so, the preface of HTTP/2 is a request that HTTP/1.1 refuses.
        let cleartext = if settings.listen.http2 == Http2::Off { http::Protocol::H1 } else { spoken };
        stream.hold(place);
        // A PROXY header names the client; the proxy is the peer that has sent it.
        let forbidden = !settings.forwarded.trusted_proxies.iter().any(|network| network.contains(proxy.ip()));
        if forbidden {
            self.door.gate.refused(Refusal::UntrustedPeer, proxy);
        }
        Some((ClientLeg::Plain(stream), Peer { local, cleartext, forbidden, ..Peer::at(address) }))
    }
}

/// Completes when a draining proxy gives up what has not come to a request: clients that the kernel let in before the port
/// closed have the time in which an idle connection is kept.
pub(crate) async fn given_up(stop: &CancellationToken, current: &Current) {
    stop.cancelled().await;
    let window = current.load().settings.drain.window;
    Expiry::after(window.min(KEPT)).await;
}

/// The handshake, counted and logged.
async fn greet(
    terminator: &Terminator,
    metrics: &Metrics,
    arrival: Arrival,
    deadline: Deadline,
) -> Option<(ClientLeg, Peer)> {
    let begun = Instant::now();
    let (tcp, address, place) = arrival.identified(deadline).await?;
    let local = local_address(&tcp);
    match terminator.handshake(tcp, deadline).await {
        Ok((mut stream, tls)) => {
            metrics.handshake(tls.version, tls.group, begun.elapsed());
            stream.hold(place);
            Some((ClientLeg::Tls(stream), Peer { local, tls: Some(tls), ..Peer::at(address) }))
        }
        Err(error) => {
            let outcome = error.outcome();
            metrics.handshake_failed(outcome);
            let (client, port) = lines::client(address);
            if error.is_routine() {
                tracing::debug!(
                    client.address = client,
                    client.port = port,
                    outcome,
                    error = %Chain(&error),
                    "tls.handshake_failed"
                );
            } else {
                tracing::info!(
                    client.address = client,
                    client.port = port,
                    outcome,
                    error = %Chain(&error),
                    "tls.handshake_failed"
                );
            }
            None
        }
    }
}

/// The proxy's own address of a connection, an IPv4 one as such.
fn local_address(tcp: &TcpStream) -> Option<SocketAddr> {
    let address = tcp.local_addr().ok()?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// Whether the error belongs to a connection that died in the queue: the next one may be taken at once.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
        || Errno::from_io_error(error) == Some(Errno::PROTO)
}

/// Says that connections cannot be accepted, and how often that was so.
fn complain(error: &io::Error, failures: u64) {
    let mend = match Errno::from_io_error(error) {
        Some(Errno::MFILE) => "raise this process's limit of open files (ulimit -n, LimitNOFILE)",
        Some(Errno::NFILE) => "raise the system's limit of open files (fs.file-max)",
        _ => "",
    };
    tracing::error!(error = %Chain(&error), failures, mend, "accept failed");
}

#[cfg(test)]
#[path = "accept_tests.rs"]
mod tests;
