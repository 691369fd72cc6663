//! Sessions as a table: each column knows how it is filled and when it gives way on a narrow terminal.

use crate::cli::remote::Conn;
use crate::cli::text::{cut, printable};
use crate::cli::units::{self, UNKNOWN};

/// Between two columns.
const GAP: usize = 2;

/// A column.
struct Column {
    title: &'static str,
    /// Whether figures stand below each other.
    right: bool,
    /// The column with the highest figure gives way first; those with 0 stay.
    gives_way: u8,
    /// The narrowest that it can be; 0 for a column that is shown as it is or not at all.
    least: usize,
    cell: fn(&Conn) -> String,
}

/// How sessions ended is a column of its own, where there are any that have.
const CLOSE: Column = Column { title: "CLOSED", right: false, gives_way: 0, least: 24, cell: close };

const COLUMNS: [Column; 13] = [
    Column { title: "ID", right: false, gives_way: 0, least: 0, cell: |conn| conn.id.clone() },
    Column { title: "STATE", right: false, gives_way: 7, least: 0, cell: |conn| conn.state.clone() },
    Column { title: "ROUTE", right: false, gives_way: 5, least: 6, cell: |conn| conn.route.clone() },
    Column { title: "CLIENT", right: false, gives_way: 0, least: 9, cell: |conn| conn.client.clone() },
    Column { title: "PROTO", right: false, gives_way: 9, least: 0, cell: |conn| conn.protocol.clone() },
    Column { title: "AGE", right: true, gives_way: 6, least: 0, cell: |conn| known(conn.duration_s, units::span) },
    Column { title: "IDLE", right: true, gives_way: 1, least: 0, cell: |conn| known(conn.idle_s, units::span) },
    Column {
        title: "RTT",
        right: true,
        gives_way: 2,
        least: 0,
        cell: |conn| known(conn.heartbeat.rtt_s, units::round_trip),
    },
    Column { title: "MISS", right: true, gives_way: 3, least: 0, cell: misses },
    Column {
        title: "MSGS-IN",
        right: true,
        gives_way: 11,
        least: 0,
        cell: |conn| known(conn.incoming.messages, units::count),
    },
    Column { title: "IN", right: true, gives_way: 8, least: 0, cell: |conn| known(conn.incoming.bytes, units::bytes) },
    Column {
        title: "MSGS-OUT",
        right: true,
        gives_way: 12,
        least: 0,
        cell: |conn| known(conn.outgoing.messages, units::count),
    },
    Column {
        title: "OUT",
        right: true,
        gives_way: 10,
        least: 0,
        cell: |conn| known(conn.outgoing.bytes, units::bytes),
    },
];

/// `conns` as lines, a heading first. They are no longer than `width`, if that is any; without it every column is
/// there and nothing is cut, for whoever reads a pipe.
pub(in crate::cli) fn lines(conns: &[Conn], width: Option<usize>) -> Vec<String> {
    let closed = conns.iter().any(|conn| conn.close.is_some());
    let columns = COLUMNS.iter().chain(closed.then_some(&CLOSE)).map(|column| Filled::new(column, conns));
    let columns = fit(columns.collect(), width);
    let row = |row: usize| {
        let mut line = String::new();
        for (at, column) in columns.iter().enumerate() {
            let text = cut(&column.cells[row], column.width);
            let pad = column.width - text.chars().count();
            let (before, behind) = if column.column.right { (pad, 0) } else { (0, pad) };
            line.extend(std::iter::repeat_n(' ', before + if at > 0 { GAP } else { 0 }));
            line.push_str(&text);
            line.extend(std::iter::repeat_n(' ', behind));
        }
        // Even the last column that stays may not fit where there is room for next to nothing.
        cut(line.trim_end(), width.unwrap_or(usize::MAX))
    };
    (0..=conns.len()).map(row).collect()
}

/// A column, its title and cells, and how wide it shall be.
struct Filled<'c> {
    column: &'c Column,
    cells: Vec<String>,
    width: usize,
}

impl<'c> Filled<'c> {
    fn new(column: &'c Column, conns: &[Conn]) -> Self {
        let cell = |conn| {
            let text = printable(&(column.cell)(conn));
            // No cell is empty, so that whatever splits lines at blanks finds each in its place.
            if text.is_empty() { UNKNOWN.to_owned() } else { text }
        };
        let cells: Vec<String> = std::iter::once(column.title.to_owned()).chain(conns.iter().map(cell)).collect();
        let width = cells.iter().map(|cell| cell.chars().count()).max().unwrap_or_default();
        Self { column, cells, width }
    }

    fn least(&self) -> usize {
        if self.column.least == 0 { self.width } else { self.width.min(self.column.least) }
    }
}

/// Leaves columns out until the narrowest form of those that stay fits, then narrows the widest.
fn fit(mut columns: Vec<Filled<'_>>, width: Option<usize>) -> Vec<Filled<'_>> {
    let Some(width) = width else { return columns };
    let gaps = |columns: &[Filled<'_>]| GAP * columns.len().saturating_sub(1);
    while columns.iter().map(Filled::least).sum::<usize>() + gaps(&columns) > width {
        let first = columns.iter().enumerate().max_by_key(|(_, filled)| filled.column.gives_way);
        match first {
            Some((at, filled)) if filled.column.gives_way > 0 => drop(columns.remove(at)),
            _ => break,
        }
    }
    while columns.iter().map(|filled| filled.width).sum::<usize>() + gaps(&columns) > width {
        let widest =
            columns.iter_mut().filter(|filled| filled.width > filled.least()).max_by_key(|filled| filled.width);
        let Some(widest) = widest else { break };
        widest.width -= 1;
    }
    columns
}

fn known<T>(figure: Option<T>, show: fn(T) -> String) -> String {
    figure.map_or_else(|| UNKNOWN.to_owned(), show)
}

/// How many beats in a row were missed, of how many that may be.
fn misses(conn: &Conn) -> String {
    match (conn.heartbeat.misses, conn.heartbeat.max) {
        (Some(misses), Some(max)) => format!("{misses}/{max}"),
        (misses, _) => known(misses, |misses| misses.to_string()),
    }
}

fn close(conn: &Conn) -> String {
    let Some(close) = &conn.close else { return String::new() };
    let code = close.code.map_or_else(String::new, |code| format!("{code} "));
    format!("{code}{}", close.sentence.as_deref().or(close.reason.as_deref()).unwrap_or_default()).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn conn(id: &str, close: &serde_json::Value) -> Conn {
        let value = json!({
            "id": id, "state": if close.is_null() { "open" } else { "closed" }, "route": "/socket.io/",
            "client": "198.51.100.23:52114", "protocol": "h2", "duration_s": 7_500.2, "idle_s": 3.9,
            "heartbeat": { "misses": 1, "max": 2, "rtt_s": 0.0412 },
            "in": { "msgs": 1_234, "bytes": 3_500, "buffered": 0 }, "out": { "msgs": 0, "bytes": null },
            "close": close, "something_new": true
        });
        serde_json::from_value(value).expect("a session")
    }

    #[test]
    fn a_pipe_gets_every_column_and_every_cell() {
        let lines = lines(&[conn("00000000000000a1", &json!(null)), Conn::default()], None);
        let cells: Vec<Vec<&str>> = lines.iter().map(|line| line.split_whitespace().collect()).collect();
        let titles = "ID STATE ROUTE CLIENT PROTO AGE IDLE RTT MISS MSGS-IN IN MSGS-OUT OUT";
        assert_eq!(cells[0], titles.split(' ').collect::<Vec<_>>());
        let row = "00000000000000a1 open /socket.io/ 198.51.100.23:52114 h2 2h05m 3s 41ms 1/2 1.2k 3.4KiB 0 -";
        assert_eq!(cells[1], row.split(' ').collect::<Vec<_>>());
        assert_eq!(cells[2], ["-"; 13], "what is not known is a cell, too");
        assert_eq!(lines.iter().map(|line| line.chars().count()).max(), Some(lines[0].chars().count()));
    }

    #[test]
    fn every_width_is_kept_and_what_matters_stays_longest() {
        let sentence = "client stopped answering: last pong 45.2 s ago, RTT was 41 ms";
        let close = json!({ "reason": "heartbeat_timeout", "code": 1012, "sentence": sentence });
        for conns in [vec![conn("00000000000000a1", &json!(null))], vec![conn("00000000000000a1", &close)]] {
            for width in 1..200 {
                for line in lines(&conns, Some(width)) {
                    assert!(line.chars().count() <= width, "{width}: {line:?}");
                }
            }
        }
        let heading = |width| lines(&[conn("00000000000000a1", &json!(null))], Some(width)).swap_remove(0);
        assert_eq!(
            heading(59).split_whitespace().collect::<Vec<_>>(),
            ["ID", "ROUTE", "CLIENT", "IDLE", "RTT", "MISS"]
        );
        assert_eq!([106, 105].map(|width| heading(width).split_whitespace().count()), [13, 12]);
        let told = lines(&[conn("00000000000000a1", &close)], None);
        assert!(told[1].ends_with(&format!("1012 {sentence}")), "{told:?}");
        let cut = lines(&[conn("00000000000000a1", &close)], Some(80));
        assert!(cut[1].contains("1012 client stopped") && cut[1].ends_with('…'), "{cut:?}");
    }

    #[test]
    fn nothing_of_a_client_moves_the_cursor() {
        let mut conn = conn("00000000000000a1", &json!(null));
        conn.route = "/\x1b[31m\n".into();
        assert!(!lines(&[conn], None)[1].contains(['\x1b', '\n']));
    }
}
