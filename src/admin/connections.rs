//! Endpoints that list, show and close sessions.

use std::str::FromStr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use serde::Serialize;

use super::context::Context;
use super::fields::Fields;
use super::filter::Filter;
use super::query::Query;
use super::response::{Body, RequestRefusal, json, short};
use super::session_view::{Row, SessionView, State, ViewClock, rows};
use super::sorting::Window;
use crate::registry::{FoundSession, Live};
use crate::session::{ConnId, close_summary};
use crate::ws::{MAX_CONTROL_PAYLOAD, may_be_sent};

/// The maximum number of ids in a response.
const MAX_IDS: usize = 100;
/// The target of the log lines, the same as in [`log_events`](crate::telemetry::log_events).
const TARGET: &str = "pulsegate";

#[derive(Serialize)]
struct List<'a> {
    now: f64,
    generation: u64,
    /// The number of matching sessions on all pages.
    total: usize,
    connections: Vec<SessionView<'a>>,
    next_cursor: Option<String>,
}

#[derive(Serialize)]
struct Ended {
    matched: usize,
    closed: usize,
    ids: Vec<String>,
}

#[derive(Serialize)]
struct Named {
    id: String,
}

/// Handles `GET /v1/connections`.
pub(super) fn list(context: &Context, generation: u64, query: Option<&str>) -> Result<Response<Body>, RequestRefusal> {
    let known = ["sort", "route", "client", "state", "misses_gte", "limit", "cursor"];
    let query = Query::of(query, &known)?;
    let state = query.parse("state", "open, closed or all")?.unwrap_or(State::Open);
    let filter = Filter::of_query(&query)?;
    let window = Window::of_query(&query, state)?;
    let clock = ViewClock::now();
    let mut rows = rows(&context.registry, state);
    rows.retain(|row| filter.matches(row));
    let total = rows.len();
    let page = window.page(rows);
    let connections = page.rows.iter().map(|row| row.show(clock)).collect();
    let list = List { now: clock.seconds(), generation, total, connections, next_cursor: page.next };
    Ok(json(StatusCode::OK, &list))
}

/// Handles `GET /v1/connections/{id}`.
pub(super) fn one(context: &Context, id: &str) -> Result<Response<Body>, RequestRefusal> {
    Ok(json(StatusCode::OK, &row(context, id)?.show(ViewClock::now())))
}

/// Returns a snapshot of the session `id`. Fails with 400 (malformed id) or 404 (unknown session).
pub(super) fn row(context: &Context, id: &str) -> Result<Row, RequestRefusal> {
    Ok(match find(context, id)? {
        FoundSession::Live(live) => Row::from(live),
        FoundSession::Closed(closed) => Row::Closed(closed),
    })
}

/// Handles `POST /v1/connections/{id}/close`.
pub(super) async fn close_one(
    context: &Context,
    id: &str,
    request: Request<Incoming>,
) -> Result<Response<Body>, RequestRefusal> {
    let command = CloseCommand::of(&mut Fields::read(request, &["code", "reason", "now"]).await?)?;
    let live = find_live(context, id)?;
    command.apply(std::slice::from_ref(&live));
    Ok(json(StatusCode::OK, &Ended { matched: 1, closed: 1, ids: vec![live.id.to_string()] }))
}

/// Handles `POST /v1/connections/close`.
pub(super) async fn close_many(
    context: &Context,
    request: Request<Incoming>,
) -> Result<Response<Body>, RequestRefusal> {
    let mut fields = Fields::read(request, &["filter", "code", "reason", "now", "dry_run"]).await?;
    let command = CloseCommand::of(&mut fields)?;
    let dry_run = fields.flag("dry_run")?;
    let filter = Filter::of_fields(&mut fields)?;
    if filter.is_empty() {
        let message = "name the sessions: {\"filter\": {…}} with at least one of route, client, misses_gte and ids; \
                       {\"client\": \"0.0.0.0/0\"} and {\"client\": \"::/0\"} are all of them";
        return Err(RequestRefusal::bad("filter", message));
    }
    let matching = context.registry.sessions().into_iter().filter(|live| filter.matches(&Row::from(Arc::clone(live))));
    let matching: Vec<_> = matching.collect();
    if !dry_run {
        command.apply(&matching);
    }
    let ids = matching.iter().take(MAX_IDS).map(|live| live.id.to_string()).collect();
    let closed = if dry_run { 0 } else { matching.len() };
    Ok(json(StatusCode::OK, &Ended { matched: matching.len(), closed, ids }))
}

/// Handles `POST /v1/connections/{id}/simulate-dead`, in `pulsegate dev` only.
pub(super) async fn simulate_dead(
    context: &Context,
    id: &str,
    request: Request<Incoming>,
) -> Result<Response<Body>, RequestRefusal> {
    if !context.dev {
        let message = "simulate-dead is available in \"pulsegate dev\" only";
        return Err(RequestRefusal::new(StatusCode::NOT_FOUND, "not_found", message));
    }
    Fields::read(request, &[]).await?;
    let live = find_live(context, id)?;
    live.play_dead();
    tracing::info!(target: TARGET, conn_id = %live.id, "admin.simulate_dead");
    Ok(json(StatusCode::OK, &Named { id: live.id.to_string() }))
}

fn find(context: &Context, id: &str) -> Result<FoundSession, RequestRefusal> {
    let named = ConnId::from_str(id).map_err(|_| {
        RequestRefusal::bad("id", format!("{:?} is no id of a connection: those are 16 hexadecimal digits", short(id)))
    })?;
    context.registry.find(named).ok_or_else(|| {
        let message = format!("connection {id} is neither open nor among the last that were closed");
        RequestRefusal::new(StatusCode::NOT_FOUND, "not_found", message)
    })
}

fn find_live(context: &Context, id: &str) -> Result<Arc<Live>, RequestRefusal> {
    match find(context, id)? {
        FoundSession::Live(live) => Ok(live),
        FoundSession::Closed(closed) => {
            let why = close_summary(&closed.ending, &closed.facts.heartbeat.policy);
            let message = format!("connection {id} has ended already: {why}");
            Err(RequestRefusal::new(StatusCode::CONFLICT, "closed", message))
        }
    }
}

/// A close command of the operator.
enum CloseCommand {
    /// Sends a Close on both legs.
    Close { code: u16, reason: String },
    /// Resets both legs at once, without a Close.
    Now,
}

impl CloseCommand {
    /// The default code, policy violation (RFC 6455 §7.4.1): the client is not meant to reconnect at once.
    const CODE: u16 = 1008;
    const REASON: &str = "closed by the operator";
    /// The maximum length of a Close reason in bytes (RFC 6455 §5.5).
    const MAX_REASON: usize = MAX_CONTROL_PAYLOAD - 2;

    fn of(fields: &mut Fields) -> Result<Self, RequestRefusal> {
        let (code, reason) = (fields.number("code", "a close code")?, fields.text("reason")?);
        if fields.flag("now")? {
            if code.is_some() || reason.is_some() {
                let message = "now resets both legs without a Close; leave code and reason out";
                return Err(RequestRefusal::bad("now", message));
            }
            return Ok(Self::Now);
        }
        let code = code.unwrap_or(Self::CODE);
        if !may_be_sent(code) {
            let message = format!("code is {code}; it must be 1000-1003, 1007-1014 or 3000-4999 (RFC 6455 §7.4)");
            return Err(RequestRefusal::bad("code", message));
        }
        let reason = reason.unwrap_or_else(|| Self::REASON.to_owned());
        if reason.len() > Self::MAX_REASON {
            let message = format!("reason has {} bytes; a Close has room for {}", reason.len(), Self::MAX_REASON);
            return Err(RequestRefusal::bad("reason", message));
        }
        Ok(Self::Close { code, reason })
    }

    fn apply(&self, sessions: &[Arc<Live>]) {
        let only = if let [live] = sessions { Some(tracing::field::display(live.id)) } else { None };
        let count = sessions.len();
        match self {
            Self::Close { code, reason } => {
                for live in sessions {
                    live.close(*code, reason);
                }
                tracing::info!(target: TARGET, conn_id = only, sessions = count, code, reason, "admin.close");
            }
            Self::Now => {
                for live in sessions {
                    live.abort();
                }
                tracing::info!(target: TARGET, conn_id = only, sessions = count, now = true, "admin.close");
            }
        }
    }
}
