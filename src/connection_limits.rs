//! Connection limits: connections in all and per address, and handshakes a second per address.
//!
//! One limiter serves the whole process. A limit that is not set costs nothing. The entry of an address is dropped when
//! it no longer limits anything, so that a flood of addresses takes no more memory than one second of it.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{Cidr, ConnectionLimit, EdgeLimits};
use crate::suspension::Credit;
use crate::telemetry::log_events;
use crate::telemetry::metrics::{GaugeGuard, Metrics};

/// The target of this module's log lines, which `log.level` names.
const TARGET: &str = "pulsegate::gate";

/// The minimum interval between two log lines of one kind.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// The period over which `handshakes_per_ip` counts.
const SECOND: Duration = Duration::from_secs(1);

/// The period before an address is first seen for which pauses of the process are credited: connections that waited in
/// the kernel's queue are accepted right after the pause.
const CREDITED: Duration = Duration::from_secs(10);

/// The number of locks, so that workers seldom wait for one another.
const SHARDS: usize = 16;

/// The minimum number of networks at which a shard is swept; it is swept when it has grown to twice what the last sweep
/// left.
const SWEEP_AT_LEAST: usize = 64;

/// The connection limiter of the process.
#[derive(Debug)]
pub struct ConnectionLimiter {
    limits: Limits,
    /// The meaning of `limits.connections = "auto"`; `None` is unlimited.
    automatic: Option<usize>,
    open: AtomicUsize,
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
    metrics: Arc<Metrics>,
    complaints: [Mutex<LogRateLimit>; ConnectionRefusal::ALL.len()],
}

/// Reads the limits in force.
struct Limits(Box<dyn Fn() -> EdgeLimits + Send + Sync>);

impl Limits {
    fn now(&self) -> EdgeLimits {
        (self.0)()
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.now().fmt(f)
    }
}

/// The reason for closing a connection before anything was read from it, or before its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionRefusal {
    /// The process has reached `limits.connections`.
    Connections,
    /// The client's address has reached `limits.connections_per_ip`.
    ConnectionsPerIp,
    /// The client's address has begun `limits.handshakes_per_ip` handshakes within a second.
    HandshakesPerIp,
    /// The peer is not among those trusted to send a PROXY header.
    ProxyUntrusted,
    /// A trusted peer sent something other than a PROXY header.
    ProxyHeader,
    /// A trusted peer did not finish its PROXY header in time, or closed the connection in the middle of it.
    ProxyCut,
    /// The peer of a port without TLS is not a trusted proxy; its requests get 403.
    UntrustedPeer,
}

/// The limits of one network, an IPv4 address or an IPv6 /64.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    connections: Option<usize>,
    handshakes: Option<u32>,
}

#[derive(Debug, Default)]
struct Shard {
    networks: HashMap<Cidr, Usage>,
    /// The number of networks left by the last sweep.
    swept: usize,
}

/// The usage of one network.
#[derive(Debug)]
struct Usage {
    open: usize,
    /// The instant at which all its handshakes are paid for, at one per [`SECOND`] divided by the limit; at most a
    /// second ahead. An instant in the past means that no handshake counts any more.
    paid: Instant,
    /// The credit for handshakes that accumulated while the process was stopped.
    credit: Credit,
}

/// The permit of one connection, released on drop.
#[derive(Debug)]
pub struct ConnectionPermit {
    _active: GaugeGuard,
    gate: Arc<ConnectionLimiter>,
    /// The network whose connections are counted, if limited.
    network: Option<Cidr>,
}

impl ConnectionRefusal {
    const ALL: [Self; 7] = [
        Self::Connections,
        Self::ConnectionsPerIp,
        Self::HandshakesPerIp,
        Self::ProxyUntrusted,
        Self::ProxyHeader,
        Self::ProxyCut,
        Self::UntrustedPeer,
    ];

    /// Returns the label for logs and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsPerIp => "connections_per_ip",
            Self::HandshakesPerIp => "handshakes_per_ip",
            Self::ProxyUntrusted => "proxy_untrusted",
            Self::ProxyHeader => "proxy_header",
            Self::ProxyCut => "proxy_cut",
            Self::UntrustedPeer => "untrusted_peer",
        }
    }

    /// Returns the remedy for the operator, where the name of the limit does not imply it.
    fn remedy(self, limit: ConnectionLimit) -> Option<&'static str> {
        match (self, limit) {
            (Self::Connections, ConnectionLimit::Auto) => {
                Some("raise the limit of open files (ulimit -n, LimitNOFILE), of which limits.connections is derived")
            }
            (Self::UntrustedPeer, _) => Some("add the proxy to forwarded.trusted_proxies"),
            _ => None,
        }
    }
}

impl ConnectionLimiter {
    /// Creates a limiter without connections that applies the limits in force and counts accepted and refused
    /// connections in `metrics`. A limit per address counts only connections accepted while it was set.
    pub fn new(limits: impl Fn() -> EdgeLimits + Send + Sync + 'static, metrics: Arc<Metrics>) -> Self {
        Self {
            limits: Limits(Box::new(limits)),
            automatic: None,
            open: AtomicUsize::new(0),
            hasher: RandomState::new(),
            shards: Default::default(),
            metrics,
            complaints: Default::default(),
        }
    }

    /// Sets the meaning of `limits.connections = "auto"`.
    #[must_use]
    pub fn with_automatic(self, connections: Option<usize>) -> Self {
        Self { automatic: connections, ..self }
    }

    /// Takes a permit among all connections; the client's address is added by [`ConnectionPermit::claim`].
    ///
    /// # Errors
    ///
    /// [`ConnectionRefusal::Connections`] at the limit.
    pub fn acquire(self: &Arc<Self>) -> Result<ConnectionPermit, ConnectionRefusal> {
        let most = match self.limits.now().connections {
            ConnectionLimit::Auto => self.automatic.unwrap_or(usize::MAX),
            ConnectionLimit::AtMost(most) => most,
            ConnectionLimit::Off => usize::MAX,
        };
        let bounded = |open: usize| (open < most).then(|| open + 1);
        self.open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, bounded)
            .map_err(|_| ConnectionRefusal::Connections)?;
        Ok(ConnectionPermit { _active: self.metrics.connection(), gate: Arc::clone(self), network: None })
    }

    /// Counts a refusal and logs it, at most once in 5 s for each reason.
    pub fn record_refusal(&self, refusal: ConnectionRefusal, client: SocketAddr) {
        self.metrics.connection_refused(refusal.reason());
        let mut complaints = self.complaints[refusal as usize].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(refusals) = complaints.due(Instant::now()) {
            let mend = refusal.remedy(self.limits.now().connections);
            let (reason, (address, port)) = (refusal.reason(), log_events::client(client));
            tracing::warn!(target: TARGET, reason, client.address = address, client.port = port, refusals, mend, "connection.refused");
        }
    }

    fn per_network(&self) -> Bounds {
        let limits = self.limits.now();
        Bounds { connections: limits.connections_per_ip, handshakes: limits.handshakes_per_ip }
    }

    fn shard(&self, network: &Cidr) -> MutexGuard<'_, Shard> {
        let index = self.hasher.hash_one(network) % SHARDS as u64;
        let shard = &self.shards[usize::try_from(index).unwrap_or(0)];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionPermit {
    /// Assigns the permit to `address`; to be called once.
    ///
    /// # Errors
    ///
    /// [`ConnectionRefusal::ConnectionsPerIp`] or [`ConnectionRefusal::HandshakesPerIp`] at a limit of the address.
    pub fn claim(&mut self, address: IpAddr) -> Result<(), ConnectionRefusal> {
        self.claim_at(address, Instant::now(), self.gate.per_network())
    }

    /// As [`claim`](Self::claim), for a connection without a TLS handshake: only the limit of
    /// connections applies.
    pub fn claim_without_handshake(&mut self, address: IpAddr) -> Result<(), ConnectionRefusal> {
        let bounds = Bounds { handshakes: None, ..self.gate.per_network() };
        self.claim_at(address, Instant::now(), bounds)
    }

    fn claim_at(&mut self, address: IpAddr, now: Instant, bounds: Bounds) -> Result<(), ConnectionRefusal> {
        if bounds.connections.is_none() && bounds.handshakes.is_none() {
            return Ok(());
        }
        let network = network_of(address);
        self.gate.shard(&network).claim(network, now, bounds)?;
        self.network = bounds.connections.map(|_| network);
        Ok(())
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        if let Some(network) = self.network {
            self.gate.shard(&network).release(network, Instant::now());
        }
        self.gate.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shard {
    fn claim(&mut self, network: Cidr, now: Instant, bounds: Bounds) -> Result<(), ConnectionRefusal> {
        if self.networks.len() >= SWEEP_AT_LEAST.max(2 * self.swept) {
            self.networks.retain(|_, usage| usage.counts(now));
            self.swept = self.networks.len();
        }
        let usage = self.networks.entry(network).or_insert_with(|| Usage::new(now));
        if bounds.connections.is_some_and(|most| usage.open >= most) {
            return Err(ConnectionRefusal::ConnectionsPerIp);
        }
        if let Some(most) = bounds.handshakes {
            let each = SECOND / most;
            let paid = usage.paid.max(now) + each;
            if paid <= now + SECOND {
                usage.paid = paid;
            } else if !usage.credit.take(each) {
                return Err(ConnectionRefusal::HandshakesPerIp);
            }
        }
        usage.open += usize::from(bounds.connections.is_some());
        Ok(())
    }

    fn release(&mut self, network: Cidr, now: Instant) {
        if let Some(usage) = self.networks.get_mut(&network) {
            usage.open = usage.open.saturating_sub(1);
            if !usage.counts(now) {
                self.networks.remove(&network);
            }
        }
    }
}

impl Usage {
    fn new(now: Instant) -> Self {
        let credited = now.checked_sub(CREDITED).unwrap_or(now);
        Self { open: 0, paid: now, credit: Credit::since(credited.into()) }
    }

    /// Returns whether it still limits anything.
    fn counts(&self, now: Instant) -> bool {
        self.open > 0 || self.paid > now
    }
}

/// Returns the network that shares the limits of `address`: an IPv6 client has all 2⁶⁴ addresses of its /64.
fn network_of(address: IpAddr) -> Cidr {
    match address.to_canonical() {
        IpAddr::V4(address) => Cidr::containing(address.into(), 32),
        IpAddr::V6(address) => Cidr::containing(address.into(), 64),
    }
}

/// A rate limit for one kind of log line: one per [`LOG_INTERVAL`], with the number of events since the last.
#[derive(Debug, Default)]
pub(crate) struct LogRateLimit {
    last: Option<Instant>,
    silent: u64,
}

impl LogRateLimit {
    /// Returns the number of events for the line due now; `None` if the last line is too recent.
    pub(crate) fn due(&mut self, now: Instant) -> Option<u64> {
        self.silent += 1;
        if self.last.is_some_and(|last| now.duration_since(last) < LOG_INTERVAL) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.silent))
    }
}

#[cfg(test)]
mod tests;
