//! The order in which sessions are listed, and the cursors of its pages.
//!
//! A cursor holds the position (sort value and id) of the last session on the page, not an offset: sessions that open
//! or close before that position do not shift the next page. The opening time never changes, so paging by it lists
//! every session once that is live throughout. Other keys are read for each page: a session whose key moves past
//! the cursor between two pages is listed twice, or not at all.

use std::cmp::Ordering;
use std::fmt::{self, Write as _};
use std::str::FromStr;

use super::query::{Query, wrong};
use super::response::RequestRefusal;
use super::session_view::{Row, State, nanos};
use crate::session::ConnId;

/// A sort key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Opened,
    Rtt,
    Idle,
    Misses,
    BytesIn,
    BytesOut,
    Client,
    Route,
    Closed,
    Held,
}

const KEYS: [(&str, Key); 10] = [
    ("opened", Key::Opened),
    ("rtt", Key::Rtt),
    ("idle", Key::Idle),
    ("misses", Key::Misses),
    ("bytes_in", Key::BytesIn),
    ("bytes_out", Key::BytesOut),
    ("client", Key::Client),
    ("route", Key::Route),
    ("closed", Key::Closed),
    ("held", Key::Held),
];

/// A sort key and its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SortOrder {
    key: Key,
    descending: bool,
}

/// The position of a session in an order: its sort value, then its id.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Position {
    value: Value,
    id: ConnId,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Number(u128),
    Text(String),
    /// Sorts last in either direction.
    Unknown,
}

/// One page of sessions, sorted.
pub(super) struct SessionPage {
    pub(super) rows: Vec<Row>,
    /// The cursor of the next page; `None` on the last one.
    pub(super) next: Option<String>,
}

/// The order, the start and the size of one page.
pub(super) struct Window {
    order: SortOrder,
    after: Option<Position>,
    limit: usize,
}

impl Window {
    /// Reads the parameters `sort`, `limit` and `cursor` of a query for sessions in `state`. Fails when one is
    /// malformed, or when the cursor belongs to another order.
    pub(super) fn of_query(query: &Query<'_>, state: State) -> Result<Self, RequestRefusal> {
        const DEFAULT_LIMIT: usize = 100;
        const MAX_LIMIT: usize = 10_000;
        let order = query.text("sort").map_or(Ok(SortOrder::of(state)), SortOrder::parse)?;
        let must_be = format!("a whole number from 1 to {MAX_LIMIT}");
        let limit: Option<usize> = query.parse("limit", &must_be)?;
        let limit = limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(wrong("limit", &limit.to_string(), must_be));
        }
        let after = query.text("cursor").map(|text| order.parse_cursor(text)).transpose()?;
        Ok(Self { order, after, limit })
    }

    /// Returns the page that this window selects from `rows`.
    pub(super) fn page(&self, rows: Vec<Row>) -> SessionPage {
        let Self { order, after, limit } = self;
        let mut placed: Vec<_> = rows.into_iter().map(|row| (order.position(&row), row)).collect();
        if let Some(after) = after {
            placed.retain(|(position, _)| order.compare(position, after).is_gt());
        }
        placed.sort_unstable_by(|(one, _), (other, _)| order.compare(one, other));
        let next = placed.get(*limit).and(placed.get(limit - 1)).map(|(last, _)| order.cursor(last));
        placed.truncate(*limit);
        SessionPage { rows: placed.into_iter().map(|(_, row)| row).collect(), next }
    }
}

impl SortOrder {
    /// Returns the default order of sessions in `state`: latest closed first, otherwise earliest opened first.
    fn of(state: State) -> Self {
        match state {
            State::Closed => Self { key: Key::Closed, descending: true },
            State::Open | State::All => Self { key: Key::Opened, descending: false },
        }
    }

    fn parse(text: &str) -> Result<Self, RequestRefusal> {
        let (name, descending) = text.strip_prefix('-').map_or((text, false), |name| (name, true));
        match KEYS.iter().find(|(known, _)| *known == name) {
            Some((_, key)) => Ok(Self { key: *key, descending }),
            None => {
                let known: Vec<_> = KEYS.iter().map(|(name, _)| *name).collect();
                Err(wrong("sort", text, format!("one of {}, with - in front for descending", known.join(", "))))
            }
        }
    }

    fn position(self, row: &Row) -> Position {
        let number = |value: Option<u128>| value.map_or(Value::Unknown, Value::Number);
        let value = match self.key {
            Key::Opened => Value::Number(nanos(row.opened_at())),
            Key::Rtt => number(row.rtt().map(|rtt| rtt.as_nanos())),
            // Derived from the time of the last byte, which, unlike the idle time, is the same on the next page.
            Key::Idle => number(row.last_seen().map(|seen| u128::MAX - nanos(seen))),
            Key::Misses => Value::Number(row.misses().into()),
            Key::BytesIn => Value::Number(row.sent_by_client().bytes.into()),
            Key::BytesOut => Value::Number(row.sent_by_app().bytes.into()),
            Key::Client => Value::Number(match row.client() {
                std::net::IpAddr::V4(address) => address.to_bits().into(),
                std::net::IpAddr::V6(address) => address.to_bits(),
            }),
            Key::Route => Value::Text(row.route()),
            Key::Closed => number(row.closed_at().map(nanos)),
            // A closed session has no buffers.
            Key::Held => number(row.held().map(|(to_app, to_client)| (to_app + to_client) as u128)),
        };
        Position { value, id: row.id() }
    }

    fn compare(self, one: &Position, other: &Position) -> Ordering {
        let unknown = |position: &Position| position.value == Value::Unknown;
        unknown(one).cmp(&unknown(other)).then_with(|| {
            let ascending = one.value.cmp(&other.value).then(one.id.cmp(&other.id));
            if self.descending { ascending.reverse() } else { ascending }
        })
    }

    fn cursor(self, position: &Position) -> String {
        let mut text = format!("{self}~");
        // Writing to a string does not fail.
        let _ = match &position.value {
            Value::Number(number) => write!(text, "n{number:x}"),
            Value::Text(value) => {
                text.push('t');
                value.bytes().try_for_each(|byte| write!(text, "{byte:02x}"))
            }
            Value::Unknown => text.write_char('u'),
        };
        let _ = write!(text, "~{}", position.id);
        text
    }

    /// Parses `cursor`. Fails when it is malformed or belongs to another order.
    fn parse_cursor(self, cursor: &str) -> Result<Position, RequestRefusal> {
        let mut parts = cursor.split('~');
        let (order, value, id) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        let value = value.and_then(Value::parse);
        let id = id.and_then(|id| ConnId::from_str(id).ok());
        let (Some(value), Some(id), None, Ok(order)) = (value, id, parts.next(), Self::parse(order)) else {
            return Err(wrong("cursor", cursor, "the next_cursor of an answer; leave it out for the first page"));
        };
        if order != self {
            let message =
                format!("the cursor is for sort={order}, but this is sort={self}; leave it out for the first page");
            return Err(RequestRefusal::bad("cursor", message));
        }
        Ok(Position { value, id })
    }
}

impl Value {
    fn parse(text: &str) -> Option<Self> {
        match text.split_at_checked(1)? {
            ("n", digits) => u128::from_str_radix(digits, 16).ok().map(Self::Number),
            ("t", digits) => {
                let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
                let bytes: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(byte).collect();
                String::from_utf8(bytes?).ok().map(Self::Text)
            }
            ("u", "") => Some(Self::Unknown),
            _ => None,
        }
    }
}

impl fmt::Display for SortOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = KEYS.iter().find(|(_, key)| *key == self.key).map_or("", |(name, _)| *name);
        write!(f, "{}{name}", if self.descending { "-" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> ConnId {
        format!("{number:016x}").parse().expect("an id")
    }

    #[test]
    fn a_cursor_names_a_place_and_its_order() {
        for (sort, value) in [
            ("opened", Value::Number(u128::MAX)),
            ("-rtt", Value::Unknown),
            ("-route", Value::Text("app.example/a~b é".to_owned())),
            ("misses", Value::Number(0)),
        ] {
            let order = SortOrder::parse(sort).expect(sort);
            let position = Position { value, id: id(7) };
            let cursor = order.cursor(&position);
            assert!(cursor.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_~".contains(&byte)), "{cursor}");
            assert_eq!(order.parse_cursor(&cursor).expect(&cursor), position);
            let other = SortOrder { descending: !order.descending, ..order };
            assert!(other.parse_cursor(&cursor).expect_err("another order").message.contains(&format!("sort={sort}")));
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let order = SortOrder::parse("opened").expect("an order");
        for text in [
            "",
            "7",
            "opened",
            "opened~n7",
            "opened~x7~0000000000000007",
            "opened~n~0000000000000007",
            "opened~n7~7",
            "opened~n7~0000000000000007~",
            "opened~té~0000000000000007",
            "opened~u7~0000000000000007",
            "age~n7~0000000000000007",
        ] {
            assert_eq!(order.parse_cursor(text).expect_err(text).code, "cursor");
        }
    }

    #[test]
    fn the_unknown_comes_last_either_way() {
        for (sort, expected) in [("rtt", [1, 2, 3]), ("-rtt", [2, 1, 3])] {
            let order = SortOrder::parse(sort).expect(sort);
            let place = |value, number| Position { value, id: id(number) };
            let mut places = [place(Value::Unknown, 3), place(Value::Number(9), 2), place(Value::Number(4), 1)];
            places.sort_by(|one, other| order.compare(one, other));
            assert_eq!(places.map(|place| place.id), expected.map(id), "{sort}");
        }
    }
}
