//! The accept loop of one worker, on a listener of its own.

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
use crate::connection_limits::{ConnectionLimiter, ConnectionPermit, ConnectionRefusal, LogRateLimit};
use crate::generation::CurrentGeneration;
use crate::http::{self, KEPT, Peer};
use crate::platform;
use crate::proxy_protocol::{HeaderReader, Malformed, ProxiedSource};
use crate::suspension::{self, Deadline, Expiry};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{Chain, log_events};
use crate::tls::{ClientLeg, PlainStream, Terminator};

/// The length of a listener's accept queue in connections; the system's `somaxconn` may be lower.
const BACKLOG: i32 = 4096;

/// The pause of the loop after an accept fails for lack of a system resource.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Opens `count` listeners on one address; the kernel distributes connections among them (`SO_REUSEPORT`). With port 0
/// the first takes any free port and the others share it.
///
/// # Errors
///
/// The error of the first bind or listen that fails, [`io::ErrorKind::AddrInUse`] if another process listens on the
/// port.
pub fn listeners(address: SocketAddr, count: NonZeroUsize) -> io::Result<Vec<StdListener>> {
    platform::listeners::open(address, count, BACKLOG)
}

/// Returns the remedy for a port that cannot be opened, as the end of an error message; empty for other errors.
pub fn port_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; end the program that has the port (ss -ltnp names it), or use another one",
        io::ErrorKind::AddrNotAvailable => "; use an address of this machine, or 0.0.0.0 for all of them",
        io::ErrorKind::PermissionDenied => {
            "; a port below 1024 needs CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE, \
             Kubernetes: capabilities.add: [NET_BIND_SERVICE]), or use a port from 1024 on"
        }
        _ if Errno::from_io_error(error) == Some(Errno::AFNOSUPPORT) => {
            "; the kernel has no IPv6: use an address of IPv4, such as 0.0.0.0"
        }
        _ => "",
    }
}

/// The checks that connections of one port pass before their protocol is detected: connection limits and PROXY header.
#[derive(Clone, Debug)]
pub struct ListenerLimits {
    /// The connection limits of the process.
    pub gate: Arc<ConnectionLimiter>,
    /// The configuration in force. It lists the peers that begin each connection with a PROXY header; with such a list,
    /// connections of other peers are refused.
    pub current: Arc<CurrentGeneration>,
    /// True if a TLS handshake follows, which counts towards the handshake limit of the client's address.
    pub handshakes: bool,
}

/// An accepted connection within the connection limits.
#[derive(Debug)]
pub struct AcceptedConnection {
    tcp: TcpStream,
    /// The peer's address until the PROXY header names the client.
    address: SocketAddr,
    place: ConnectionPermit,
    introduction: Identification,
}

/// The state of the client's identification.
#[derive(Debug)]
enum Identification {
    /// The client is the peer itself.
    Done,
    /// The client is the address in the PROXY header, which has not been read yet.
    Awaited(ListenerLimits),
}

/// An error in place of a valid PROXY header.
#[derive(Debug, Error)]
enum HeaderError {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the peer disconnected inside its PROXY header: {0}")]
    Cut(#[from] io::Error),
    #[error("the peer disconnected without sending a byte")]
    Nothing,
    #[error("the PROXY header did not end in time")]
    Timeout,
}

impl ListenerLimits {
    /// Accepts connections until `stop`, closes the listener, and passes accepted connections to `next`. Refused
    /// connections are reset at once, which costs least and leaves no state in the kernel.
    pub async fn open(
        &self,
        listener: TcpListener,
        stop: &CancellationToken,
        mut next: impl FnMut(AcceptedConnection),
    ) {
        let mut complaints = LogRateLimit::default();
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
                        log_accept_failure(&error, failures);
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

    /// Accepts the connections left in the queue of `listener`, and closes it. A connection still in the queue at the
    /// close would be reset, although its client considers it open and may have sent a request. The runtime may not
    /// have been notified of it yet.
    fn close(&self, listener: TcpListener, mut next: impl FnMut(AcceptedConnection)) {
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

    fn admit(&self, tcp: TcpStream, address: SocketAddr) -> Option<AcceptedConnection> {
        // An IPv4 client of a listener on `[::]` appears under its IPv4 address.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let settings = Arc::clone(&self.current.load().settings);
        let place = self.gate.acquire().and_then(|mut place| match &settings.listen.proxy_protocol {
            None => self.claim(&mut place, address).map(|()| (place, Identification::Done)),
            Some(proxies) if proxies.trusted.iter().any(|network| network.contains(address.ip())) => {
                Ok((place, Identification::Awaited(self.clone())))
            }
            Some(_) => Err(ConnectionRefusal::ProxyUntrusted),
        });
        match place {
            Ok((place, introduction)) => Some(AcceptedConnection { tcp, address, place, introduction }),
            Err(refusal) => {
                self.refuse(refusal, &tcp, address);
                None
            }
        }
    }

    fn claim(&self, place: &mut ConnectionPermit, address: SocketAddr) -> Result<(), ConnectionRefusal> {
        if self.handshakes { place.claim(address.ip()) } else { place.claim_without_handshake(address.ip()) }
    }

    /// Counts and logs the refusal, and makes the close of `tcp` a reset.
    fn refuse(&self, refusal: ConnectionRefusal, tcp: &TcpStream, address: SocketAddr) {
        self.gate.record_refusal(refusal, address);
        // Fails only on a socket that is no longer connected.
        let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
    }
}

impl AcceptedConnection {
    /// Reads the PROXY header if one is expected, and returns the connection with the client's address. Returns `None`
    /// if no valid header arrives by `deadline` or the limits refuse the client.
    pub async fn identified(self, deadline: Deadline) -> Option<(TcpStream, SocketAddr, ConnectionPermit)> {
        let Self { mut tcp, mut address, mut place, introduction } = self;
        let Identification::Awaited(limits) = introduction else {
            return Some((tcp, address, place));
        };
        let header = suspension::within(deadline, pin!(read_header(&mut tcp))).await;
        let header = header.unwrap_or(Err(HeaderError::Timeout));
        let refusal = match header {
            Ok(source) => {
                if let ProxiedSource::Client(client) = source {
                    address = client;
                }
                match limits.claim(&mut place, address) {
                    Ok(()) => return Some((tcp, address, place)),
                    Err(refusal) => Some(refusal),
                }
            }
            Err(error) => {
                let (client, port) = log_events::client(address);
                tracing::debug!(client.address = client, client.port = port, error = %Chain(&error), "proxy_header");
                error.refusal()
            }
        };
        if let Some(refusal) = refusal {
            limits.refuse(refusal, &tcp, address);
        }
        None
    }
}

impl HeaderError {
    /// Returns the reason of the refusal; `None` for a peer that connects and closes without a byte, as load balancers
    /// do to check the port: nothing was refused.
    fn refusal(&self) -> Option<ConnectionRefusal> {
        match self {
            Self::Malformed(_) => Some(ConnectionRefusal::ProxyHeader),
            Self::Cut(_) | Self::Timeout => Some(ConnectionRefusal::ProxyCut),
            Self::Nothing => None,
        }
    }
}

/// Reads the header and no byte beyond it.
async fn read_header(tcp: &mut TcpStream) -> Result<ProxiedSource, HeaderError> {
    let mut header = HeaderReader::default();
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
        // These bytes have been peeked; the read does not wait.
        tcp.read_exact(&mut space[..taken]).await?;
        if let Some(source) = source {
            return Ok(source);
        }
    }
}

/// The accept stage of the TLS port in one worker.
#[derive(Clone)]
pub struct Accept {
    /// The checks before the handshake.
    pub limits: ListenerLimits,
    /// The configuration in force, for the TLS settings and the time limit of a handshake, PROXY header included.
    pub current: Arc<CurrentGeneration>,
    /// The metrics that count handshakes.
    pub metrics: Arc<Metrics>,
    /// The tracker of every connection's tasks.
    pub tracker: TaskTracker,
}

impl Accept {
    /// Accepts until `stop`, and closes the listener. Each connection is a task for the handshake, which ends soon
    /// after `stop`, and then a second task for `next`, which `stop` does not end. A task is as large as its largest
    /// await, so a client that connects without completing the handshake does not occupy the memory of a served
    /// connection.
    pub async fn run<N, F>(self, listener: TcpListener, stop: CancellationToken, next: N)
    where
        N: Fn(ClientLeg, Peer) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        self.limits.open(listener, &stop, |arrival| self.spawn(arrival, stop.clone(), next.clone())).await;
    }

    fn spawn<N, F>(&self, arrival: AcceptedConnection, stop: CancellationToken, next: N)
    where
        N: FnOnce(ClientLeg, Peer) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let generation = self.current.load();
        let deadline = Deadline::after(generation.settings.limits.handshake);
        let (this, terminator) = (self.clone(), generation.terminator.clone());
        self.tracker.spawn(async move {
            let opening = async {
                match &terminator {
                    Some(terminator) => handshake(terminator, &this.metrics, arrival, deadline).await,
                    None => this.open_without_tls(arrival, deadline).await,
                }
            };
            let opened = tokio::select! {
                biased;
                opened = opening => opened,
                // A silent client must not delay the shutdown.
                () = request_deadline(&stop, &this.current) => {
                    if terminator.is_some() {
                        this.metrics.handshake_failed("draining");
                    }
                    None
                }
            };
            if let Some((stream, peer)) = opened {
                this.tracker.spawn(next(stream, peer));
            }
        });
    }

    /// Detects the protocol of a connection without TLS and checks that the peer is a trusted proxy. The first byte may
    /// take as long as a request head (`limits.header_read`). Returns `None` if the connection ends first.
    async fn open_without_tls(&self, arrival: AcceptedConnection, deadline: Deadline) -> Option<(ClientLeg, Peer)> {
        let proxy = arrival.address;
        let (tcp, address, place) = arrival.identified(deadline).await?;
        let local = local_address(&tcp);
        let settings = Arc::clone(&self.current.load().settings);
        let opened = suspension::timeout(settings.limits.header_read, pin!(PlainStream::open(tcp))).await;
        // Health checks of a port connect and close, which is not an error.
        let (mut stream, detected) = opened.ok()?.ok()?;
        // Without ALPN to select it, HTTP/1.1 refuses the HTTP/2 preface as a malformed request.
        let cleartext = if settings.listen.http2 == Http2::Off { http::Protocol::H1 } else { detected };
        stream.hold(place);
        // A PROXY header names the client; the proxy is the peer that sent it.
        let forbidden = !settings.forwarded.trusted_proxies.iter().any(|network| network.contains(proxy.ip()));
        if forbidden {
            self.limits.gate.record_refusal(ConnectionRefusal::UntrustedPeer, proxy);
        }
        Some((ClientLeg::Plain(stream), Peer { local, cleartext, forbidden, ..Peer::at(address) }))
    }
}

/// Completes when a drain gives up on connections without a request. Clients that the kernel accepted before the port
/// closed get the time for which an idle connection is kept, but no more than the drain window.
pub(crate) async fn request_deadline(stop: &CancellationToken, current: &CurrentGeneration) {
    stop.cancelled().await;
    let window = current.load().settings.drain.window;
    Expiry::after(window.min(KEPT)).await;
}

/// Performs the TLS handshake, counts it and logs its failure.
async fn handshake(
    terminator: &Terminator,
    metrics: &Metrics,
    arrival: AcceptedConnection,
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
            let (client, port) = log_events::client(address);
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

/// Returns the local address of a connection, an IPv4-mapped one as IPv4.
fn local_address(tcp: &TcpStream) -> Option<SocketAddr> {
    let address = tcp.local_addr().ok()?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// Returns whether the error concerns one connection that failed in the queue, so that the next can be accepted at
/// once.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
        || Errno::from_io_error(error) == Some(Errno::PROTO)
}

/// Logs that accept fails, with the number of failures since the last line.
fn log_accept_failure(error: &io::Error, failures: u64) {
    let mend = match Errno::from_io_error(error) {
        Some(Errno::MFILE) => "raise this process's limit of open files (ulimit -n, LimitNOFILE)",
        Some(Errno::NFILE) => "raise the system's limit of open files (fs.file-max)",
        _ => "",
    };
    tracing::error!(error = %Chain(&error), failures, mend, "accept failed");
}

#[cfg(test)]
mod tests;
