//! One request to the app, one response back.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::pool::{Connection, Counted, Lease};
use super::{BUFFER, CROWD, Failure, Upload, Upstream, UpstreamStream};
use crate::suspension::{self, Deadline};

impl Upstream {
    /// Sends a plain request and waits for the head of its response; both bodies stream. The lease is to be given
    /// back when the response's body has come in whole.
    ///
    /// A pooled connection may be closed by the app at the very moment it is used. The request then goes out once
    /// more, on a fresh connection, if it never left, or if it is idempotent (RFC 9110 §9.2.2), has no body, and not
    /// a byte of an answer came back.
    ///
    /// Waits at most `upstream.response_timeout`, counted from the last piece of the request's body.
    pub async fn send(&self, mut request: Request<Upload>) -> Result<(Response<Incoming>, Lease), Failure> {
        let repeatable = repeatable(&request);
        if !repeatable {
            // A FIN that has arrived is known only once the runtime has looked. It looks before it comes back here,
            // and the connection's driver runs first: this request has but one try.
            tokio::task::yield_now().await;
        }
        if let Some(lease) = self.pool.take() {
            let spare = repeatable.then(|| copy(&request));
            let read = Arc::clone(&lease.connection.read);
            let before = read.load(Ordering::Relaxed);
            let Broken { failure, unsent } = match self.exchange(lease, request).await {
                Ok(answered) => return Ok(answered),
                Err(broken) => broken,
            };
            let silent = matches!(failure, Failure::Closed(_)) && read.load(Ordering::Relaxed) == before;
            request = match (unsent, spare) {
                (Some(unsent), _) => *unsent,
                (None, Some(spare)) if silent => spare,
                _ => return Err(failure),
            };
        }
        // Boxed, for a pooled connection is what most requests find.
        let lease = Box::pin(self.connect()).await?;
        self.exchange(lease, request).await.map_err(|broken| broken.failure)
    }

    /// Sends an upgrade request on a connection of its own. After a 101 that connection is to be had from
    /// [`hyper::upgrade::on`] as a [`TokioIo`] of [`UpstreamStream`]; it never sees the pool. After any other
    /// response it closes when the body has come in.
    pub async fn send_upgrade(&self, request: Request<Empty<Bytes>>) -> Result<Response<Incoming>, Failure> {
        let stream = self.dial().await?;
        let io: TokioIo<UpstreamStream> = TokioIo::new(stream);
        let (mut sender, connection) =
            http1::Builder::new().max_buf_size(BUFFER).handshake(io).await.map_err(Failure::from_exchange)?;
        self.tracker.spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(error = %error, "upstream.connection");
            }
        });
        let limit = self.response_timeout();
        match suspension::timeout(limit, pin!(sender.send_request(request))).await {
            Ok(answered) => {
                let response = answered.map_err(Failure::from_exchange)?;
                self.app.answered(Instant::now().into_std());
                Ok(response)
            }
            Err(_) => Err(Failure::Timeout { limit }),
        }
    }

    fn response_timeout(&self) -> Duration {
        self.app.settings().response_timeout
    }

    async fn connect(&self) -> Result<Lease, Failure> {
        self.pool.ensure_swept();
        let stream = self.dial().await?;
        if self.tracker.len() > CROWD {
            stream.limit_received();
        }
        let (stream, read) = Counted::new(stream);
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(BUFFER)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(Failure::from_exchange)?;
        self.tracker.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, "upstream.connection");
            }
        });
        Ok(Lease::new(Connection { sender, read }, Arc::clone(&self.pool)))
    }

    async fn exchange(
        &self,
        mut lease: Lease,
        request: Request<Upload>,
    ) -> Result<(Response<Incoming>, Lease), Broken> {
        let progress = request.body().progress();
        let limit = self.response_timeout();
        let mut since = Instant::now();
        // Dropping this future, as the timeout does, closes the connection.
        let mut answer = pin!(lease.connection.sender.try_send_request(request));
        let answered = loop {
            match suspension::within(Deadline::since(since, limit), &mut answer).await {
                Ok(answered) => break answered,
                Err(_) => match progress.as_ref().map(|progress| progress.last()) {
                    Some(later) if later > since => since = later,
                    _ => return Err(Broken { failure: Failure::Timeout { limit }, unsent: None }),
                },
            }
        };
        match answered {
            Ok(response) => {
                self.app.answered(Instant::now().into_std());
                lease.heed(response.headers());
                Ok((response, lease))
            }
            Err(mut failed) => {
                let unsent = failed.take_message().map(Box::new);
                Err(Broken { failure: Failure::from_exchange(failed.into_error()), unsent })
            }
        }
    }
}

/// An exchange that came to nothing.
struct Broken {
    failure: Failure,
    /// The request, when not a byte of it was written: whatever it asks for, it is safe to send again.
    unsent: Option<Box<Request<Upload>>>,
}

fn repeatable(request: &Request<Upload>) -> bool {
    request.method().is_idempotent() && request.body().is_none()
}

/// A copy of a request without a body.
fn copy(request: &Request<Upload>) -> Request<Upload> {
    let mut copy = Request::new(Upload::default());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    copy.headers_mut().clone_from(request.headers());
    copy
}
