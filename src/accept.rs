//! The accept loop: one for each worker, on a listener of its own.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::http::Peer;
use crate::telemetry::metrics::{Active, Metrics};
use crate::tls::{ClientStream, Terminator};

/// Connections that the kernel holds for a worker until it takes them; the system's `somaxconn` may be lower.
const BACKLOG: i32 = 4096;

/// How long the loop rests when the system has no room for another connection.
const BACK_OFF: Duration = Duration::from_millis(100);

/// At most one log line about that in this time.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(5);

/// Opens `count` listeners on one address; the kernel spreads connections over them (`SO_REUSEPORT`). With port 0 the
/// first takes any free port and the others share it.
pub fn listeners(address: SocketAddr, count: NonZeroUsize) -> io::Result<Vec<StdListener>> {
    // With SO_REUSEPORT alone, a second pulsegate of the same user would start without a word and take half of the
    // connections of the first. A bind without the option fails when anybody listens there.
    drop(bound(address, Sharing::Exclusive)?);
    let first = listen(address)?;
    let address = first.local_addr()?;
    let others = (1..count.get()).map(|_| listen(address));
    std::iter::once(Ok(first)).chain(others).collect()
}

fn listen(address: SocketAddr) -> io::Result<StdListener> {
    let socket = bound(address, Sharing::Workers)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Exclusive,
    Workers,
}

fn bound(address: SocketAddr, sharing: Sharing) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // Connections of an earlier run that are still in TIME_WAIT must not hold up a restart.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(sharing == Sharing::Workers)?;
    if address.is_ipv6() {
        // `[::]` means every address, IPv4 included, whatever the system's default is.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// What one accept loop works with.
#[derive(Clone)]
pub struct Accept {
    /// Performs the handshakes.
    pub terminator: Arc<Terminator>,
    /// How long a handshake may take.
    pub handshake: Duration,
    /// Where connections and handshakes are counted.
    pub metrics: Arc<Metrics>,
    /// Owns the task of every connection.
    pub tracker: TaskTracker,
}

impl Accept {
    /// Accepts until `stop`, and closes the listener. Each connection is a task: the handshake, which `stop` ends too,
    /// then `next`, which is left alone.
    pub async fn run<N, F>(self, listener: TcpListener, stop: CancellationToken, next: N)
    where
        N: Fn(ClientStream, Peer) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let mut complaints = Complaints::default();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((tcp, address)) => self.spawn(tcp, address, stop.clone(), next.clone()),
                Err(error) if concerns_one_connection(&error) => tracing::debug!(%error, "accept failed"),
                Err(error) => {
                    complaints.accept_failed(&error);
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(BACK_OFF) => {}
                    }
                }
            }
        }
    }

    fn spawn<N, F>(&self, tcp: TcpStream, address: SocketAddr, stop: CancellationToken, next: N)
    where
        N: FnOnce(ClientStream, Peer) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let place = self.metrics.connection();
        let deadline = Instant::now() + self.handshake;
        // An IPv4 client of a listener on `[::]` appears under its IPv4 address.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let (terminator, metrics) = (Arc::clone(&self.terminator), Arc::clone(&self.metrics));
        self.tracker.spawn(async move {
            let greeted = tokio::select! {
                biased;
                greeted = greet(&terminator, &metrics, tcp, address, place, deadline) => greeted,
                // There is no service to shake hands for, and a silent client must not hold up the end.
                () = stop.cancelled() => {
                    metrics.handshake("draining");
                    None
                }
            };
            drop((terminator, metrics, stop));
            if let Some((stream, peer)) = greeted {
                next(stream, peer).await;
            }
        });
    }
}

/// The handshake, counted and logged.
async fn greet(
    terminator: &Terminator,
    metrics: &Metrics,
    tcp: TcpStream,
    address: SocketAddr,
    place: Active,
    deadline: Instant,
) -> Option<(ClientStream, Peer)> {
    match terminator.handshake(tcp, deadline).await {
        Ok((mut stream, tls)) => {
            metrics.handshake("ok");
            stream.hold(place);
            Some((stream, Peer { address, tls: Some(tls) }))
        }
        Err(error) => {
            let outcome = error.outcome();
            metrics.handshake(outcome);
            if error.is_routine() {
                tracing::debug!(client.address = %address.ip(), outcome, %error, "tls.handshake_failed");
            } else {
                tracing::info!(client.address = %address.ip(), outcome, %error, "tls.handshake_failed");
            }
            None
        }
    }
}

/// Whether the error belongs to a connection that died in the queue: the next one may be taken at once.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
        || error.raw_os_error() == Some(libc::EPROTO)
}

/// Says at most once per [`COMPLAINT_INTERVAL`] that connections cannot be accepted, and how often that was so.
#[derive(Debug, Default)]
struct Complaints {
    last: Option<Instant>,
    silent: u64,
}

impl Complaints {
    fn accept_failed(&mut self, error: &io::Error) {
        if let Some(failures) = self.due(Instant::now()) {
            let mend = match error.raw_os_error() {
                Some(libc::EMFILE) => "raise this process's limit of open files (ulimit -n, LimitNOFILE)",
                Some(libc::ENFILE) => "raise the system's limit of open files (fs.file-max)",
                _ => "",
            };
            tracing::error!(%error, failures, mend, "accept failed");
        }
    }

    /// How many failures the line due now stands for; `None` if the last line is too recent.
    fn due(&mut self, now: Instant) -> Option<u64> {
        self.silent += 1;
        if self.last.is_some_and(|last| now.duration_since(last) < COMPLAINT_INTERVAL) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.silent))
    }
}

#[cfg(test)]
#[path = "accept_tests.rs"]
mod tests;
