//! One exchange with the app: a request and its response.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustix::io::Errno;
use tokio::time::Instant;

use super::byte_counts::CountedStream;
use super::dial::{ClientAddresses, DialError, authority};
use super::driver::{AbortGuard, drive, drive_upgrade};
use super::pool::{Lease, PooledConnection};
use super::target::Rewrite;
use super::{BUFFER, CROWD, RawTarget, RequestFailure, Upload, Upstream, UpstreamStream};
use crate::descriptors;
use crate::heartbeat::ConnectOutcome;
use crate::suspension::{self, Deadline, Expiry};

impl Upstream {
    /// Opens a connection within `upstream.connect_timeout`, name resolution and TLS handshake included. The connection
    /// is counted, and its outcome reported to the app's monitor. Its PROXY header, if configured, names `client`.
    pub(super) async fn dial(&self, client: Option<ClientAddresses>) -> Result<UpstreamStream, DialError> {
        let begun = Instant::now();
        let result = match descriptors::upstream_slot() {
            Some(slot) => self.dialer.dial(client).await.map(|mut stream| {
                stream.hold(slot);
                stream
            }),
            // The same error as at the process's limit: the remaining descriptors are reserved for other purposes.
            None => Err(DialError::Connect { place: authority(self.target()).into(), source: Errno::MFILE.into() }),
        };
        match &result {
            Ok(_) => self.metrics.upstream_connect(begun.elapsed()),
            Err(error) => self.metrics.upstream_connect_error(error.reason()),
        }
        // A failure during a suspension of the proxy's own process is no evidence against the app.
        let late = !suspension::paused_since(begun).is_zero();
        match &result {
            Ok(_) => self.app.connected(ConnectOutcome::Opened, None),
            Err(error) => match error.outcome() {
                Some(ConnectOutcome::Failed) if late => {}
                Some(outcome) => self.app.connected(outcome, Some(error)),
                None => {}
            },
        }
        result
    }
}

impl Upstream {
    /// Sends a plain request and waits for the head of its response; both bodies stream. The lease is to be given
    /// back when the response's body has come in whole.
    ///
    /// The app may close a pooled connection at the moment it is used. The request is then sent once more, on a new
    /// connection, if no byte of it was written, or if it is idempotent (RFC 9110 §9.2.2), has no body, and no byte of
    /// a response arrived.
    ///
    /// Waits at most `upstream.response_timeout`, counted from the last piece of the request's body. Once the app has
    /// begun to respond, it may read and send nothing for `stall` before all of the request is read.
    ///
    /// `client` is `None` except for an app with PROXY headers ([`sends_proxy_header`](Self::sends_proxy_header)), and
    /// restricts the pool to connections for the same client. With `keeps_case`, header names keep their case.
    ///
    /// # Errors
    ///
    /// No complete head of a response arrived; see [`RequestFailure`].
    pub async fn send(
        &self,
        mut request: Request<Upload>,
        client: Option<ClientAddresses>,
        stall: Duration,
        keeps_case: bool,
    ) -> Result<(Response<Incoming>, Lease), RequestFailure> {
        let repeatable = repeatable(&request);
        if !repeatable {
            // A FIN that has arrived is seen only after the runtime has polled the socket. The yield gives it, and then
            // the connection's task, a turn before this request, which has one attempt only.
            tokio::task::yield_now().await;
        }
        if let Some(lease) = self.pool.take(client, keeps_case) {
            let spare = repeatable.then(|| copy(&request));
            let flow = Arc::clone(&lease.connection.flow);
            let before = flow.read();
            let Broken { failure, unsent } = match self.exchange(lease, request).await {
                Ok(answered) => return Ok(answered),
                Err(broken) => broken,
            };
            let silent = matches!(failure, RequestFailure::Closed(_)) && flow.read() == before;
            request = match (unsent, spare) {
                (Some(unsent), _) => *unsent,
                (None, Some(spare)) if silent => spare,
                _ => return Err(failure),
            };
        }
        // Boxed: most requests find a pooled connection.
        let lease = Box::pin(self.connect(client, stall, keeps_case)).await?;
        self.exchange(lease, request).await.map_err(|broken| broken.failure)
    }

    /// Sends an upgrade request on a connection of its own. After a 101, [`hyper::upgrade::on`] returns that connection
    /// as a [`TokioIo`] of [`UpstreamStream`]; it never enters the pool. After any other response it closes at the end
    /// of the body.
    ///
    /// # Errors
    ///
    /// No complete head of a response arrived; see [`RequestFailure`].
    pub async fn send_upgrade(
        &self,
        request: Request<Empty<Bytes>>,
        client: Option<ClientAddresses>,
    ) -> Result<Response<Incoming>, RequestFailure> {
        let mut stream = self.dial(client).await?;
        if let Some(rewrite) = rewrite(&request) {
            stream.restore(rewrite);
        }
        let io: TokioIo<UpstreamStream> = TokioIo::new(stream);
        let (mut sender, connection) =
            self.protocol(true).handshake(io).await.map_err(RequestFailure::from_exchange)?;
        let limit = self.response_timeout();
        let (mut hold, aborted) = AbortGuard::new();
        self.tracker.spawn(drive_upgrade(connection.with_upgrades(), aborted));
        match suspension::timeout(limit, pin!(sender.send_request(request))).await {
            Ok(answered) => {
                let response = answered.map_err(RequestFailure::from_exchange)?;
                hold.disarm();
                self.app.record_response(Instant::now().into_std());
                Ok(response)
            }
            Err(_) => Err(RequestFailure::Timeout { limit }),
        }
    }

    /// Returns the HTTP/1.1 settings of app connections.
    fn protocol(&self, keeps_case: bool) -> http1::Builder {
        let mut protocol = http1::Builder::new();
        protocol.max_buf_size(BUFFER).max_headers(self.response_headers).preserve_header_case(keeps_case);
        protocol
    }

    fn response_timeout(&self) -> Duration {
        self.app.settings().response_timeout
    }

    async fn connect(
        &self,
        client: Option<ClientAddresses>,
        stall: Duration,
        keeps_case: bool,
    ) -> Result<Lease, RequestFailure> {
        self.pool.ensure_swept();
        let stream = self.dial(client).await?;
        if self.tracker.len() > CROWD {
            stream.limit_received();
        }
        let (stream, flow) = CountedStream::new(stream);
        let (sender, connection) =
            self.protocol(keeps_case).handshake(TokioIo::new(stream)).await.map_err(RequestFailure::from_exchange)?;
        let (hold, aborted) = AbortGuard::new();
        self.tracker.spawn(drive(connection, aborted, Arc::clone(&flow), stall));
        let connection = PooledConnection { sender, flow, hold, clock: None, client, keeps_case };
        Ok(Lease::new(Box::new(connection), Arc::clone(&self.pool)))
    }

    async fn exchange(
        &self,
        mut lease: Lease,
        request: Request<Upload>,
    ) -> Result<(Response<Incoming>, Lease), Broken> {
        let progress = request.body().progress();
        lease.connection.flow.note_request();
        if let Some(rewrite) = rewrite(&request) {
            lease.connection.flow.restore(rewrite);
        }
        let limit = self.response_timeout();
        let mut deadline = Deadline::since(Instant::now(), limit);
        // Dropping the lease, as the timeout does, closes the connection.
        let PooledConnection { sender, clock, .. } = &mut *lease.connection;
        let mut answer = pin!(sender.try_send_request(request));
        let answered = poll_fn(|cx| {
            if let Poll::Ready(answered) = answer.as_mut().poll(cx) {
                return Poll::Ready(Some(answered));
            }
            // The timer of an earlier request is reused: it fires early and is set again, which costs less than setting
            // it for each request.
            let clock = clock.get_or_insert_with(|| Expiry::new(deadline));
            loop {
                ready!(Pin::new(&mut *clock).poll(cx));
                if clock.deadline() == deadline {
                    match progress.as_ref().map(|progress| Deadline::since(progress.last(), limit)) {
                        Some(later) if later.at() > deadline.at() => deadline = later,
                        _ => return Poll::Ready(None),
                    }
                }
                clock.reset(deadline);
            }
        })
        .await;
        let Some(answered) = answered else {
            return Err(Broken { failure: RequestFailure::Timeout { limit }, unsent: None });
        };
        match answered {
            Ok(response) => {
                self.app.record_response(Instant::now().into_std());
                lease.read_keep_alive(response.headers());
                Ok((response, lease))
            }
            Err(mut failed) => {
                let unsent = failed.take_message().map(Box::new);
                Err(Broken { failure: RequestFailure::from_exchange(failed.into_error()), unsent })
            }
        }
    }
}

/// A failed exchange.
struct Broken {
    failure: RequestFailure,
    /// The request, if no byte of it was written, so that it is safe to send again.
    unsent: Option<Box<Request<Upload>>>,
}

fn repeatable(request: &Request<Upload>) -> bool {
    request.method().is_idempotent() && request.body().is_none()
}

/// Returns the rewrite of the request line; `None` if no byte of its target was replaced.
fn rewrite<B>(request: &Request<B>) -> Option<Rewrite> {
    let target: &RawTarget = request.extensions().get()?;
    Some(Rewrite::new(request.method(), target))
}

/// Returns a copy of a request without a body.
fn copy(request: &Request<Upload>) -> Request<Upload> {
    let mut copy = Request::new(Upload::default());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    copy.headers_mut().clone_from(request.headers());
    if let Some(target) = request.extensions().get::<RawTarget>() {
        copy.extensions_mut().insert(target.clone());
    }
    copy
}
