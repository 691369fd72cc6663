//! The body of a request, streamed to the app.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::body_timeout::BodyClock;

/// The error that ends a request body early.
type Broken = Box<dyn Error + Send + Sync>;

/// The body of a request, streamed from the client, or none. Boxed: requests are moved often, and most have no body.
#[derive(Debug, Default)]
pub struct Upload(Option<Box<Streaming>>);

#[derive(Debug)]
struct Streaming {
    incoming: UnsyncBoxBody<Bytes, Broken>,
    progress: Arc<UploadProgress>,
    /// The time limit for the client, where there is one.
    clock: Option<BodyClock>,
    clean: Option<CleanTrailers>,
}

/// A filter that removes fields from trailers.
struct CleanTrailers(Box<dyn Fn(&mut HeaderMap) + Send>);

impl fmt::Debug for CleanTrailers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CleanTrailers")
    }
}

impl Upload {
    /// Streams `incoming` to the app.
    pub fn new<B>(incoming: B) -> Self
    where
        B: Body<Data = Bytes, Error: Into<Broken>> + Send + 'static,
    {
        if incoming.is_end_stream() {
            return Self(None);
        }
        let incoming = incoming.map_err(Into::into).boxed_unsync();
        let progress = Arc::new(UploadProgress::new());
        Self(Some(Box::new(Streaming { incoming, progress, clock: None, clean: None })))
    }

    /// Ends the body with an error unless 1 KiB, or its end, arrives in each interval of `time`. The time is paused
    /// while the app reads nothing.
    #[must_use]
    pub fn within(mut self, time: Duration) -> Self {
        if let Some(streaming) = &mut self.0 {
            streaming.clock = Some(BodyClock::new(time));
        }
        self
    }

    /// Applies `clean` to the trailers.
    #[must_use]
    pub fn cleaning_trailers(mut self, clean: impl Fn(&mut HeaderMap) + Send + 'static) -> Self {
        if let Some(streaming) = &mut self.0 {
            streaming.clean = Some(CleanTrailers(Box::new(clean)));
        }
        self
    }

    /// Returns whether the request has no body.
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Returns the progress of the body; `None` if there is none.
    pub fn progress(&self) -> Option<Arc<UploadProgress>> {
        self.0.as_ref().map(|streaming| Arc::clone(&streaming.progress))
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let Some(streaming) = &mut self.get_mut().0 else { return Poll::Ready(None) };
        let frame = Pin::new(&mut streaming.incoming).poll_frame(cx);
        match (&frame, &mut streaming.clock) {
            (Poll::Pending, Some(clock)) => {
                let too_slow = ready!(clock.poll_elapsed(cx));
                return Poll::Ready(Some(Err(too_slow.into())));
            }
            (Poll::Ready(Some(Ok(frame))), Some(clock)) => {
                clock.received(frame.data_ref().map_or(0, Bytes::len), Instant::now());
            }
            _ => {}
        }
        let mut frame = ready!(frame);
        if let (Some(Ok(frame)), Some(clean)) = (&mut frame, &streaming.clean)
            && let Some(trailers) = frame.trailers_mut()
        {
            (clean.0)(trailers);
        }
        let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
        streaming.progress.moved(bytes);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|streaming| streaming.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or(SizeHint::with_exact(0), |streaming| streaming.incoming.size_hint())
    }
}

/// The number of bytes passed to the app, and the time of the last one. The app's response timeout counts from there: a
/// slow upload is no timeout.
#[derive(Debug)]
pub struct UploadProgress {
    begun: Instant,
    /// The time of the last byte, in milliseconds after `begun`.
    last: AtomicU64,
    bytes: AtomicU64,
}

impl UploadProgress {
    fn new() -> Self {
        Self { begun: Instant::now(), last: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    /// Returns the number of bytes passed to the app.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn moved(&self, bytes: usize) {
        let passed = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(passed, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn last(&self) -> Instant {
        self.begun + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }
}
