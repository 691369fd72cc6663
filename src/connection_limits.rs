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
            } else if !usage.credit.take(each, now.into()) {
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
        Self { open: 0, paid: now, credit: Credit::new(credited.into()) }
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
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn gate(limits: EdgeLimits) -> Arc<ConnectionLimiter> {
        Arc::new(ConnectionLimiter::new(move || limits, Arc::new(Metrics::new())))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// Takes a permit for `address` at `now`.
    fn admit(
        gate: &Arc<ConnectionLimiter>,
        address: IpAddr,
        now: Instant,
    ) -> Result<ConnectionPermit, ConnectionRefusal> {
        let mut place = gate.acquire()?;
        place.claim_at(address, now, gate.per_network())?;
        Ok(place)
    }

    fn kept(gate: &ConnectionLimiter) -> usize {
        gate.shards.iter().map(|shard| shard.lock().expect("no panic").networks.len()).sum()
    }

    #[test]
    fn there_are_so_many_places_and_each_is_given_back() {
        let gate = gate(EdgeLimits { connections: ConnectionLimit::AtMost(2), ..EdgeLimits::default() });
        let one = gate.acquire().expect("the first");
        let _other = gate.acquire().expect("the second");
        assert_eq!(gate.acquire().expect_err("full"), ConnectionRefusal::Connections);
        drop(one);
        let _third = gate.acquire().expect("there is room again");
        assert_eq!(gate.acquire().expect_err("full"), ConnectionRefusal::Connections);
    }

    #[test]
    fn the_automatic_limit_holds_where_none_is_set() {
        let full = |limit: ConnectionLimit, automatic: Option<usize>| {
            let limits = EdgeLimits { connections: limit, ..EdgeLimits::default() };
            let gate =
                Arc::new(ConnectionLimiter::new(move || limits, Arc::new(Metrics::new())).with_automatic(automatic));
            let places: Vec<_> = (0..3).map_while(|_| gate.acquire().ok()).collect();
            places.len()
        };
        assert_eq!(full(ConnectionLimit::Auto, Some(2)), 2);
        assert_eq!(full(ConnectionLimit::Auto, None), 3, "there is no limit of open files");
        assert_eq!(full(ConnectionLimit::AtMost(1), Some(2)), 1);
        assert_eq!(full(ConnectionLimit::Off, Some(2)), 3);
    }

    #[test]
    fn an_address_has_so_many_places_and_its_neighbour_its_own() {
        let gate = gate(EdgeLimits { connections_per_ip: Some(1), ..EdgeLimits::default() });
        let now = Instant::now();
        for (same, other) in
            [("192.0.2.7", "192.0.2.8"), ("2001:db8::7", "2001:db8:0:1::7"), ("::ffff:198.51.100.1", "2001:db8:0:2::")]
        {
            let place = admit(&gate, address(same), now).expect("the first");
            assert_eq!(admit(&gate, address(same), now).expect_err("full"), ConnectionRefusal::ConnectionsPerIp);
            drop(admit(&gate, address(other), now).expect("another network"));
            drop(place);
            drop(admit(&gate, address(same), now).expect("there is room again"));
        }
        let _one = admit(&gate, address("2001:db8::1"), now).expect("the first of its /64");
        assert!(admit(&gate, address("2001:db8::ffff:0:1"), now).is_err(), "the same /64");
        let _v4 = admit(&gate, address("192.0.2.1"), now).expect("the first");
        assert!(admit(&gate, address("::ffff:192.0.2.1"), now).is_err(), "the same address in other clothes");
    }

    #[test]
    fn who_is_refused_takes_no_place() {
        let limits = EdgeLimits {
            connections: ConnectionLimit::AtMost(2),
            connections_per_ip: Some(1),
            ..EdgeLimits::default()
        };
        let gate = gate(limits);
        let now = Instant::now();
        let _one = admit(&gate, address("192.0.2.1"), now).expect("the first");
        for _ in 0..10 {
            admit(&gate, address("192.0.2.1"), now).expect_err("full");
        }
        let _other = admit(&gate, address("192.0.2.2"), now).expect("the second place is free still");
    }

    #[test]
    fn handshakes_are_so_many_a_second() {
        let gate = gate(EdgeLimits { handshakes_per_ip: Some(4), ..EdgeLimits::default() });
        let start = Instant::now();
        let ip = address("192.0.2.7");
        for _ in 0..4 {
            drop(admit(&gate, ip, start).expect("four at once"));
        }
        assert_eq!(admit(&gate, ip, start).expect_err("the fifth"), ConnectionRefusal::HandshakesPerIp);
        drop(admit(&gate, address("192.0.2.8"), start).expect("somebody else"));
        // A quarter of a second later one more is allowed; refused attempts have not delayed it.
        let later = start + Duration::from_millis(250);
        drop(admit(&gate, ip, later).expect("one more"));
        assert_eq!(admit(&gate, ip, later).expect_err("only one"), ConnectionRefusal::HandshakesPerIp);
        let after = start + Duration::from_secs(10);
        for _ in 0..4 {
            drop(admit(&gate, ip, after).expect("four again, never more"));
        }
        admit(&gate, ip, after).expect_err("the fifth");
    }

    #[tokio::test(start_paused = true)]
    async fn s78_handshakes_that_piled_up_in_a_stop_are_not_too_many() {
        let gate = gate(EdgeLimits { handshakes_per_ip: Some(4), ..EdgeLimits::default() });
        let now = || tokio::time::Instant::now().into_std();
        let burst = |ip| (0..1000).take_while(|_| admit(&gate, ip, now()).is_ok()).count();
        let (known, new) = (address("192.0.2.7"), address("192.0.2.8"));
        let test = async {
            assert_eq!(burst(known), 4);
            tokio::time::advance(Duration::from_secs(20)).await;
            let handshakes = (burst(known), burst(new));
            assert_eq!(handshakes, (84, 44), "the pause's worth, and a second's; ten seconds' where nothing is known");
            tokio::time::sleep(SECOND).await;
            assert_eq!((burst(known), burst(new)), (4, 4), "from then on the bound holds");
        };
        crate::suspension::with_pause_record(test).await;
    }

    #[test]
    fn addresses_are_forgotten() {
        let limits = EdgeLimits { connections_per_ip: Some(5), handshakes_per_ip: Some(5), ..EdgeLimits::default() };
        let gate = gate(limits);
        let start = Instant::now();
        let _stays = admit(&gate, address("192.0.2.7"), start).expect("a place");
        for second in 0..20_u64 {
            for number in 0..2_000_u64 {
                let network = u128::from(second * 2_000 + number) << 64;
                let now = start + Duration::from_secs(second);
                let mut place = gate.acquire().expect("a place");
                place.claim_at(Ipv6Addr::from_bits(network).into(), now, gate.per_network()).expect("its first");
                // As if dropped at once, in the test's time.
                let network = place.network.take().expect("counted");
                gate.shard(&network).release(network, now);
            }
        }
        assert!(kept(&gate) < 3 * 2_000 + SHARDS * SWEEP_AT_LEAST, "{} networks of 40,000 kept", kept(&gate));
    }

    #[test]
    fn without_limits_nothing_is_kept() {
        let gate = gate(EdgeLimits::default());
        let places: Vec<_> =
            (0..100).map(|_| admit(&gate, address("192.0.2.7"), Instant::now()).expect("a place")).collect();
        assert_eq!(kept(&gate), 0);
        drop(places);
        assert_eq!(gate.open.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_connection_without_a_handshake_counts_as_a_connection_only() {
        let limits = EdgeLimits { connections_per_ip: Some(2), handshakes_per_ip: Some(1), ..EdgeLimits::default() };
        let gate = gate(limits);
        let ip = address("192.0.2.7");
        let mut places: Vec<_> = (0..3).map(|_| gate.acquire().expect("a place")).collect();
        places[0].claim_without_handshake(ip).expect("the first");
        places[1].claim_without_handshake(ip).expect("the second");
        assert_eq!(places[2].claim_without_handshake(ip), Err(ConnectionRefusal::ConnectionsPerIp));
    }

    #[test]
    fn refusals_are_counted_each_and_told_seldom() {
        let gate = gate(EdgeLimits::default());
        for refusal in ConnectionRefusal::ALL {
            gate.record_refusal(refusal, "192.0.2.7:1".parse().expect("an address"));
            gate.record_refusal(refusal, "192.0.2.7:1".parse().expect("an address"));
            let line = format!("pulsegate_connections_refused_total{{reason=\"{}\"}} 2", refusal.reason());
            assert!(gate.metrics.encode().contains(&line), "{line}");
        }
        let mut complaints = LogRateLimit::default();
        let start = Instant::now();
        assert_eq!(complaints.due(start), Some(1), "the first at once");
        assert_eq!(complaints.due(start + Duration::from_secs(1)), None);
        assert_eq!(complaints.due(start + Duration::from_secs(4)), None);
        assert_eq!(complaints.due(start + LOG_INTERVAL), Some(3), "it stands for the silent ones too");
    }
}
