//! The diagnosis of one session: its story in sentences, and the sessions of the same address before and after it.

use std::cmp::Reverse;

use hyper::{Response, StatusCode};
use serde::Serialize;

use super::connections;
use super::context::Context;
use super::response::{Body, RequestRefusal, json};
use super::session_view::{Row, SessionView, State, ViewClock, rows};
use super::story::{self, Paragraph, Surroundings};

/// The maximum number of sessions of the same address that are listed before, and after.
const LISTED: usize = 5;

#[derive(Serialize)]
struct Diagnosis<'a> {
    now: f64,
    generation: u64,
    connection: SessionView<'a>,
    story: Vec<Paragraph>,
    /// Sessions of the address that opened earlier, newest first.
    before: Neighbours<'a>,
    /// Sessions of the address that opened later, oldest first.
    after: Neighbours<'a>,
}

#[derive(Serialize)]
struct Neighbours<'a> {
    /// The number of open and remembered sessions, including those not listed.
    total: usize,
    connections: Vec<SessionView<'a>>,
}

/// Handles `GET /v1/connections/{id}/diagnosis`.
pub(super) fn one(context: &Context, generation: u64, id: &str) -> Result<Response<Body>, RequestRefusal> {
    let row = connections::row(context, id)?;
    let clock = ViewClock::now();
    let (before, after) = neighbours(&row, rows(&context.registry, State::All));
    let surroundings = Surroundings { generation, phase: context.shutdown.phase(), before: &before, after: &after };
    let diagnosis = Diagnosis {
        now: clock.seconds(),
        generation,
        connection: row.show(clock),
        story: story::of(&row, &surroundings, clock),
        before: Neighbours::of(&before, clock),
        after: Neighbours::of(&after, clock),
    };
    Ok(json(StatusCode::OK, &diagnosis))
}

/// Returns the other sessions of the client's address among `all`: those before `row`, newest first, and those after
/// it, oldest first.
fn neighbours(row: &Row, all: Vec<Row>) -> (Vec<Row>, Vec<Row>) {
    let position = |row: &Row| (row.opened_at(), row.id());
    let others = all.into_iter().filter(|other| other.id() != row.id() && other.client() == row.client());
    let (mut before, mut after): (Vec<Row>, Vec<Row>) = others.partition(|other| position(other) < position(row));
    before.sort_unstable_by_key(|row| Reverse(position(row)));
    after.sort_unstable_by_key(position);
    (before, after)
}

impl<'a> Neighbours<'a> {
    fn of(rows: &'a [Row], clock: ViewClock) -> Self {
        let connections = rows.iter().take(LISTED).map(|row| row.show(clock)).collect();
        Self { total: rows.len(), connections }
    }
}
