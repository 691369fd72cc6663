//! The stream of events, as server-sent events (WHATWG HTML §9.2).
//!
//! A stream holds no event back for its reader: it has a cursor into the ring that all sessions write to. Who reads
//! too slowly is overtaken there, and told how much was lost. A reader that was cut off names the last event it got
//! and goes on behind it.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::unfold;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::response::{self, Body, RequestRefusal};
use super::session_view::{Row, ViewClock, unix};
use super::stats::{ProxyStats, Shared};
use crate::registry::{Event, EventCursor, NextEvent};

/// Streams at once; so many are never in the way of a request.
const STREAMS: usize = 64;
/// The maximum age of the totals: a little less than the time between two reports.
const STATS_AGE: Duration = Duration::from_millis(900);
/// The time between two reports of the totals.
const STATS: Duration = Duration::from_secs(1);
/// The delay before a client reconnects, in milliseconds.
const RETRY: &str = "retry: 1000\n\n";
/// The last event that a client got (WHATWG HTML §9.2.4).
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The source of all streams of events.
pub(super) struct Feed {
    context: Arc<Context>,
    stop: CancellationToken,
    streams: Arc<Semaphore>,
    stats: Mutex<Shared>,
}

/// One reader.
struct Stream {
    feed: Arc<Feed>,
    cursor: EventCursor,
    stats: Interval,
    stop: CancellationToken,
    begun: bool,
    _place: OwnedSemaphorePermit,
}

#[derive(Serialize)]
struct Miss {
    id: String,
    misses: u32,
    max: u32,
    at: f64,
}

#[derive(Serialize)]
struct Lost {
    count: u64,
}

impl Feed {
    pub(super) fn new(context: Arc<Context>, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self { context, stop, streams: Arc::new(Semaphore::new(STREAMS)), stats: Mutex::default() })
    }

    /// Streams all events from now on, or those behind the one that `headers` name.
    pub(super) fn stream(self: &Arc<Self>, headers: &HeaderMap) -> Result<Response<Body>, RequestRefusal> {
        let last = last(headers)?;
        let place = Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            let message =
                format!("{STREAMS} streams of events are open; end one of them, or ask for /v1/connections instead");
            RequestRefusal::new(StatusCode::SERVICE_UNAVAILABLE, "streams", message)
                .with(RETRY_AFTER, HeaderValue::from(5))
        })?;
        let mut stats = interval(STATS);
        stats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let cursor = self.context.registry.events().since(last);
        let stop = self.stop.clone();
        let stream = Stream { feed: Arc::clone(self), cursor, stats, stop, begun: false, _place: place };
        let frames = unfold(stream, |mut stream| async move {
            let text = stream.next().await?;
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from(text))), stream))
        });
        let body = StreamBody::new(frames).boxed_unsync();
        Ok(response::of(StatusCode::OK, HeaderValue::from_static("text/event-stream"), body))
    }

    /// Passes the totals as JSON to `read`, at most [`STATS_AGE`] old.
    fn stats<T>(&self, read: impl FnOnce(&str) -> T) -> T {
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        read(stats.within(STATS_AGE, || ProxyStats::of(&self.context, self.context.current.load().number)))
    }
}

fn last(headers: &HeaderMap) -> Result<Option<u64>, RequestRefusal> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let id = value.to_str().ok().and_then(|text| text.parse().ok());
    id.map(Some).ok_or_else(|| {
        RequestRefusal::bad(
            "last_event_id",
            format!("Last-Event-ID is {value:?}; it must be the id of an event, a whole number"),
        )
    })
}

impl Stream {
    /// Returns the next part of the stream; `None` at the end of the program, once every event is sent.
    async fn next(&mut self) -> Option<String> {
        if !std::mem::replace(&mut self.begun, true) {
            return Some(RETRY.to_owned());
        }
        tokio::select! {
            biased;
            _ = self.stats.tick() => Some(self.feed.stats(|stats| event(None, "stats", stats))),
            next = self.cursor.next() => Some(encode(&next)),
            () = self.stop.cancelled() => None,
        }
    }
}

fn encode(next: &NextEvent) -> String {
    let clock = ViewClock::now();
    let show = |row: &Row| json(&row.show(clock));
    match next {
        NextEvent::Event(id, Event::Opened(live)) => event(Some(*id), "open", &show(&Row::from(Arc::clone(live)))),
        NextEvent::Event(id, Event::Closed(closed)) => {
            event(Some(*id), "close", &show(&Row::Closed(Arc::clone(closed))))
        }
        NextEvent::Event(id, Event::Missed { id: session, misses, max, at }) => {
            let miss = Miss { id: session.to_string(), misses: *misses, max: *max, at: unix(*at) };
            event(Some(*id), "miss", &json(&miss))
        }
        NextEvent::Lost(count) => event(None, "lost", &json(&Lost { count: *count })),
    }
}

/// JSON has no line breaks of its own, so the data is one line.
fn event(id: Option<u64>, name: &str, data: &str) -> String {
    let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
    format!("{id}event: {name}\ndata: {data}\n\n")
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("structs of numbers and text have a form in JSON")
}
