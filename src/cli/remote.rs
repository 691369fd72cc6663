//! The client of a running proxy's admin API.
//!
//! ```text
//! Where (flags) → place → Remote → wire (unix, TCP, TLS) → answer
//! ```
//!
//! Every request has a connection of its own and a deadline.

mod address;
mod admin_address;
mod connection;
mod error;
mod location;
mod response;
mod sse;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::task::TaskTracker;

pub(super) use self::address::Address;
pub(super) use self::admin_address::RemoteArgs;
use self::connection::{AdminTls, ApiClient};
pub(super) use self::error::RemoteError;
pub(super) use self::location::AdminAddress;
pub(super) use self::response::{
    Diagnosis, DirectionReport, Draining, Info, Reloaded, SessionReport, Shut, StatsReport,
};
use self::sse::{Parser, SseEvent};
use crate::tls::client::Trust;

/// The time limit for a response. The API has a thread of its own, so even one second would be unusual.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// The number of sessions per page; the API allows up to 10,000.
const PAGE: usize = 1000;

/// The longest silence of the event stream, which sends figures every second.
const SILENCE: Duration = Duration::from_secs(5);

/// Runs `work` to completion on a runtime of this thread.
pub(super) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(work)
}

/// A running proxy.
#[derive(Debug)]
pub(super) struct Remote(ApiClient);

/// A page of sessions in the API's format, with all its fields.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Page {
    now: f64,
    generation: u64,
    total: u64,
    connections: Vec<Value>,
    next_cursor: Option<String>,
}

/// The sessions of one or more pages.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// The proxy's time at the first page, in seconds since 1970.
    pub(super) now: f64,
    /// The generation of the configuration at that time.
    pub(super) generation: u64,
    /// The number of sessions that match, listed or not.
    pub(super) total: u64,
    /// The sessions, each in the API's format.
    pub(super) list: Vec<Value>,
}

impl Remote {
    /// Finds the proxy that the flags name. Faults of the configuration are warnings on standard error.
    ///
    /// # Errors
    ///
    /// The address or the token cannot be determined, or the trusted authorities cannot be loaded.
    pub(super) fn find(flags: &RemoteArgs) -> Result<Self, RemoteError> {
        let (place, bearer) = flags.find(&mut |problem| eprintln!("pulsegate: warning: {problem}"))?;
        let trust = flags.ca.clone().map_or(Trust::System, Trust::File);
        let tls = AdminTls::of(&place, &trust, flags.server_name.as_deref())?;
        Ok(Self(ApiClient { place: Arc::new(place), bearer, tls, tracker: TaskTracker::new() }))
    }

    /// Finds the health listener at `address`, or the one of the configuration.
    ///
    /// # Errors
    ///
    /// The address cannot be determined.
    pub(super) fn health(address: Option<Address>, config: Option<PathBuf>) -> Result<Self, RemoteError> {
        let place = AdminAddress::health(address, config, &mut |problem| eprintln!("pulsegate: warning: {problem}"))?;
        let tls = AdminTls::of(&place, &Trust::System, None)?;
        Ok(Self(ApiClient { place: Arc::new(place), bearer: None, tls, tracker: TaskTracker::new() }))
    }

    fn place(&self) -> &Arc<AdminAddress> {
        &self.0.place
    }

    /// Requests a health endpoint, within `time_limit`; returns the status, and the first line of the body.
    pub(super) async fn probe(&self, path: &str, time_limit: Duration) -> Result<(StatusCode, String), RemoteError> {
        let answer = self.0.ask(Method::GET, path, None, time_limit).await?;
        let text = String::from_utf8_lossy(answer.body()).into_owned();
        let line = text.lines().next().unwrap_or_default().trim();
        Ok((answer.status(), super::text::truncate(&super::text::printable(line), 200)))
    }

    /// Requests `path` with GET, and parses the response.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, RemoteError> {
        let answer = self.0.ask(Method::GET, path, None, TIMEOUT).await?;
        self.read(&answer, StatusCode::is_success)
    }

    /// Requests `path` with POST and `body`, within `time_limit`. The response is parsed if its status is `fine`, and an
    /// error otherwise.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Option<&Value>,
        time_limit: Duration,
        fine: impl Fn(&StatusCode) -> bool,
    ) -> Result<T, RemoteError> {
        let answer = self.0.ask(Method::POST, path, body.map(Value::to_string), time_limit).await?;
        self.read(&answer, fine)
    }

    /// Requests the sessions that match the query `pairs`: all of them, or the first `limit`.
    pub(super) async fn connections(
        &self,
        pairs: &[(&str, String)],
        limit: Option<usize>,
    ) -> Result<Connections, RemoteError> {
        let mut all = Connections::default();
        let mut cursor: Option<String> = None;
        loop {
            let wanted = limit.map_or(PAGE, |limit| (limit - all.list.len()).min(PAGE));
            let more = [("limit", Some(wanted.to_string())), ("cursor", cursor.clone())];
            let more = more.into_iter().filter_map(|(key, value)| Some((key, value?)));
            let pairs: Vec<_> = pairs.iter().cloned().chain(more).collect();
            let page: Page = self.get(&connection::query("/v1/connections", &pairs)).await?;
            if cursor.is_none() {
                (all.now, all.generation, all.total) = (page.now, page.generation, page.total);
            }
            let came = page.connections.len();
            all.list.extend(page.connections);
            // A page without sessions counts as the last one, whatever its cursor, so that the loop ends.
            if came == 0 || page.next_cursor.is_none() || limit.is_some_and(|limit| all.list.len() >= limit) {
                all.list.truncate(limit.unwrap_or(usize::MAX));
                return Ok(all);
            }
            cursor = page.next_cursor;
        }
    }

    /// Opens the proxy's stream of events.
    pub(super) async fn events(&self) -> Result<EventStream<'_>, RemoteError> {
        let response = self.0.listen("/v1/events", TIMEOUT).await?;
        let (head, body) = response.into_parts();
        if head.status != StatusCode::OK {
            let body = self.0.within(TIMEOUT, async { Ok(body.collect().await) }).await?;
            let body = body.map_err(|error| RemoteError::exchange(self.place(), error))?.to_bytes();
            return Err(self.refused(head.status, &body));
        }
        Ok(EventStream { remote: self, body, parser: Parser::default(), ready: VecDeque::new() })
    }

    fn read<T: DeserializeOwned>(
        &self,
        answer: &Response<Bytes>,
        fine: impl Fn(&StatusCode) -> bool,
    ) -> Result<T, RemoteError> {
        if !fine(&answer.status()) {
            return Err(self.refused(answer.status(), answer.body()));
        }
        serde_json::from_slice(answer.body()).map_err(|error| {
            let what = if error.is_data() {
                format!("its answer has another format: {error}")
            } else {
                "it does not answer in JSON".to_owned()
            };
            self.not_an_admin_api(what)
        })
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> RemoteError {
        let place = Arc::clone(self.place());
        match (&self.0.bearer, status) {
            (Some(bearer), StatusCode::UNAUTHORIZED) => RemoteError::WrongToken { place, file: bearer.file.clone() },
            (None, StatusCode::UNAUTHORIZED) => RemoteError::Unauthorized { place },
            _ => RemoteError::refusal(&place, status, body),
        }
    }

    fn not_an_admin_api(&self, what: String) -> RemoteError {
        RemoteError::NotAdminApi { place: Arc::clone(self.place()), what }
    }
}

/// The stream of events.
#[derive(Debug)]
pub(super) struct EventStream<'r> {
    remote: &'r Remote,
    body: Incoming,
    parser: Parser,
    ready: VecDeque<SseEvent>,
}

impl EventStream<'_> {
    /// Waits for the next figures of the whole proxy, which arrive every second. Returns `None` when the proxy ends the
    /// stream.
    ///
    /// Cancel-safe: no event is lost if the future is dropped.
    pub(super) async fn stats(&mut self) -> Result<Option<StatsReport>, RemoteError> {
        loop {
            while let Some(event) = self.ready.pop_front() {
                if event.name == "stats" {
                    let read = serde_json::from_str(&event.data);
                    return read.map(Some).map_err(|error| {
                        self.remote.not_an_admin_api(format!("its figures have another format: {error}"))
                    });
                }
            }
            let caller = &self.remote.0;
            let Some(frame) = caller.within(SILENCE, async { Ok(self.body.frame().await) }).await? else {
                return Ok(None);
            };
            let frame = frame.map_err(|error| RemoteError::exchange(&caller.place, error))?;
            let events = frame.data_ref().map_or(Ok(Vec::new()), |data| self.parser.feed(data));
            let events = events.map_err(|_| self.remote.not_an_admin_api("an event is too long".to_owned()))?;
            self.ready.extend(events);
        }
    }
}
