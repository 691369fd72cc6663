//! Sessions as a table: each column defines its cells, and its priority on a narrow terminal.

use crate::cli::remote::SessionReport;
use crate::cli::text::{printable, truncate, truncate_middle};
use crate::cli::units::{self, UNKNOWN};

/// The blanks between two columns.
const GAP: usize = 2;

/// A column.
struct Column {
    title: &'static str,
    /// Set for figures, which are aligned on the right.
    right: bool,
    /// The priority of removal: the column with the highest number is removed first; those with 0 stay.
    removal: u8,
    /// The narrowest width, and the part of a cell that is cut at that width.
    narrow: Narrow,
    /// The values without information: a column in which all cells have the same one of them is removed before all
    /// others.
    trivial: &'static [&'static str],
    cell: fn(&SessionReport, Look) -> String,
}

/// The way in which a column becomes narrower.
#[derive(Clone, Copy)]
enum Narrow {
    /// The app. It does not mask.
    Never,
    /// To this width, by cutting the end of each cell.
    End(usize),
    /// To this width, by cutting the middle of each cell.
    Middle(usize),
}

/// The context of a table.
#[derive(Clone, Copy)]
struct Look {
    /// The proxy's time, in seconds since 1970.
    now: f64,
    /// Set if the table is for a terminal.
    terminal: bool,
}

const PLAIN: Column =
    Column { title: "", right: false, removal: 0, narrow: Narrow::Never, trivial: &[], cell: |_, _| String::new() };

const COLUMNS: [Column; 17] = [
    Column { title: "ID", cell: |conn, _| conn.id.clone(), ..PLAIN },
    Column { title: "STATE", removal: 9, trivial: &["open", "closed"], cell: |conn, _| conn.state.clone(), ..PLAIN },
    Column {
        title: "ROUTE",
        removal: 7,
        narrow: Narrow::End(6),
        trivial: &["/"],
        cell: |conn, _| conn.route.clone(),
        ..PLAIN
    },
    Column { title: "PATH", removal: 6, narrow: Narrow::End(8), cell: |conn, _| conn.path.clone(), ..PLAIN },
    // The address stays whole if possible, and the port always: clients behind one address differ by it.
    Column { title: "CLIENT", narrow: Narrow::Middle(21), cell: |conn, _| conn.client.clone(), ..PLAIN },
    Column { title: "PROTO", removal: 11, trivial: &["h1", "h2"], cell: |conn, _| conn.protocol.clone(), ..PLAIN },
    Column { title: "AGE", right: true, removal: 5, cell: |conn, _| known(conn.duration_s, units::span), ..PLAIN },
    Column {
        title: "IDLE",
        right: true,
        removal: 2,
        trivial: &[UNKNOWN],
        cell: |conn, _| known(conn.idle_s, units::span),
        ..PLAIN
    },
    Column {
        title: "RTT",
        right: true,
        removal: 3,
        cell: |conn, _| known(conn.heartbeat.rtt_s, units::round_trip),
        ..PLAIN
    },
    Column { title: "MISS", right: true, removal: 4, cell: |conn, _| misses(conn), ..PLAIN },
    Column {
        title: "MSGS-IN",
        right: true,
        removal: 13,
        cell: |conn, _| known(conn.incoming.messages, units::count),
        ..PLAIN
    },
    Column { title: "IN", right: true, removal: 10, cell: |conn, _| known(conn.incoming.bytes, units::bytes), ..PLAIN },
    Column {
        title: "MSGS-OUT",
        right: true,
        removal: 14,
        cell: |conn, _| known(conn.outgoing.messages, units::count),
        ..PLAIN
    },
    Column {
        title: "OUT",
        right: true,
        removal: 12,
        cell: |conn, _| known(conn.outgoing.bytes, units::bytes),
        ..PLAIN
    },
    Column { title: "HELD", right: true, removal: 8, trivial: &["0B", UNKNOWN], cell: |conn, _| held(conn), ..PLAIN },
    Column { title: "CLOSED-AT", removal: 1, trivial: &[UNKNOWN], cell: closed_at, ..PLAIN },
    Column { title: "CLOSED", narrow: Narrow::End(25), trivial: &[UNKNOWN], cell: |conn, _| close(conn), ..PLAIN },
];

/// The number of columns about closed sessions, omitted from tables without such sessions.
const OF_ENDS: usize = 2;

/// Formats `conns` as lines, with a heading; `now` is the proxy's time in seconds since 1970. The lines fit `width`;
/// with `None`, all columns are present and nothing is cut.
pub(in crate::cli) fn lines(conns: &[SessionReport], width: Option<usize>, now: f64) -> Vec<String> {
    let look = Look { now, terminal: width.is_some() };
    let ended = conns.iter().any(|conn| conn.close.is_some());
    let shown = if ended { COLUMNS.len() } else { COLUMNS.len() - OF_ENDS };
    let columns = COLUMNS[..shown].iter().map(|column| Filled::new(column, conns, look));
    let columns = fit(columns.collect(), width);
    let row = |row: usize| {
        let mut line = String::new();
        for (at, column) in columns.iter().enumerate() {
            let text = column.cut(&column.cells[row]);
            let pad = column.width - text.chars().count();
            let (before, behind) = if column.column.right { (pad, 0) } else { (0, pad) };
            line.extend(std::iter::repeat_n(' ', before + if at > 0 { GAP } else { 0 }));
            line.push_str(&text);
            line.extend(std::iter::repeat_n(' ', behind));
        }
        // On a very narrow terminal even the last column may not fit.
        truncate(line.trim_end(), width.unwrap_or(usize::MAX))
    };
    (0..=conns.len()).map(row).collect()
}

/// A column with its title, its cells and its width.
struct Filled<'c> {
    column: &'c Column,
    cells: Vec<String>,
    width: usize,
}

impl<'c> Filled<'c> {
    fn new(column: &'c Column, conns: &[SessionReport], look: Look) -> Self {
        let cell = |conn| {
            let text = printable(&(column.cell)(conn, look));
            // No cell is empty, so that programs that split lines at blanks find each cell at its position.
            if text.is_empty() { UNKNOWN.to_owned() } else { text }
        };
        let cells: Vec<String> = std::iter::once(column.title.to_owned()).chain(conns.iter().map(cell)).collect();
        let width = cells.iter().map(|cell| cell.chars().count()).max().unwrap_or_default();
        Self { column, cells, width }
    }

    fn least(&self) -> usize {
        match self.column.narrow {
            Narrow::Never => self.width,
            Narrow::End(least) | Narrow::Middle(least) => self.width.min(least),
        }
    }

    /// Returns `cell`, cut to the column's width.
    fn cut(&self, cell: &str) -> String {
        match self.column.narrow {
            Narrow::Middle(_) => truncate_middle(cell, self.width),
            Narrow::Never | Narrow::End(_) => truncate(cell, self.width),
        }
    }

    /// Returns whether every cell has the same value without information.
    fn is_trivial(&self) -> bool {
        let mut cells = self.cells.iter().skip(1);
        cells.next().is_some_and(|first| self.column.trivial.contains(&&**first) && cells.all(|cell| cell == first))
    }

    /// Returns the priority of removal, the highest first; `None` if the column always stays.
    fn removal(&self) -> Option<(bool, u8)> {
        (self.column.removal > 0).then(|| (self.is_trivial(), self.column.removal))
    }
}

/// Removes columns until the narrowest form of the others fits, then narrows the widest.
fn fit(mut columns: Vec<Filled<'_>>, width: Option<usize>) -> Vec<Filled<'_>> {
    let Some(width) = width else { return columns };
    let gaps = |columns: &[Filled<'_>]| GAP * columns.len().saturating_sub(1);
    while columns.iter().map(Filled::least).sum::<usize>() + gaps(&columns) > width {
        let first = columns.iter().enumerate().max_by_key(|(_, filled)| filled.removal());
        match first {
            Some((at, filled)) if filled.removal().is_some() => drop(columns.remove(at)),
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

/// Formats the consecutive misses, and the number that ends the session.
fn misses(conn: &SessionReport) -> String {
    match (conn.heartbeat.misses, conn.heartbeat.max) {
        (Some(misses), Some(max)) => format!("{misses}/{max}"),
        (misses, _) => known(misses, |misses| misses.to_string()),
    }
}

/// Formats the bytes held for both sides; a closed session holds none.
fn held(conn: &SessionReport) -> String {
    let both = conn.incoming.buffered.zip(conn.outgoing.buffered).map(|(to_app, to_client)| to_app + to_client);
    known(both.filter(|_| conn.close.is_none()), units::bytes)
}

/// Formats the time of closing in UTC: date and time in a pipe; on a terminal, where width is scarce, the time of day,
/// and for another day month, day, hour and minute.
fn closed_at(conn: &SessionReport, look: Look) -> String {
    let Some(at) = conn.closed_at else { return String::new() };
    let text = units::time(at);
    if !look.terminal {
        return text;
    }
    let today = units::time(look.now);
    match text.split_once('T') {
        Some((day, time)) if today.starts_with(day) => time.to_owned(),
        _ => format!("{}Z", text.get(5..16).unwrap_or(&text)),
    }
}

fn close(conn: &SessionReport) -> String {
    let Some(close) = &conn.close else { return String::new() };
    let code = close.code.map_or_else(String::new, |code| format!("{code} "));
    format!("{code}{}", close.sentence.as_deref().or(close.reason.as_deref()).unwrap_or_default()).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn conn(id: &str, close: &serde_json::Value) -> SessionReport {
        let value = json!({
            "id": id, "state": if close.is_null() { "open" } else { "closed" }, "route": "/socket.io/", "path": "/socket.io/x",
            "closed_at": if close.is_null() { json!(null) } else { json!(1_795_881_600.5) }, "client": "198.51.100.23:52114", "protocol": "h2", "duration_s": 7_500.2,
            "idle_s": if close.is_null() { json!(3.9) } else { json!(null) },
            "heartbeat": { "misses": 1, "max": 2, "rtt_s": 0.0412 },
            "in": { "msgs": 1_234, "bytes": 3_500, "buffered": 24 }, "out": { "msgs": 0, "bytes": null, "buffered": 1000 },
            "close": close, "something_new": true
        });
        serde_json::from_value(value).expect("a session")
    }

    /// A time later on the day of `closed_at`.
    const NOW: f64 = 1_795_906_800.0;

    fn words(line: &str) -> Vec<&str> {
        line.split_whitespace().collect()
    }

    fn open(id: &str) -> SessionReport {
        conn(id, &json!(null))
    }

    #[test]
    fn a_pipe_gets_every_column_and_every_cell() {
        let table = lines(&[open("00000000000000a1"), SessionReport::default()], None, NOW);
        let titles = "ID STATE ROUTE PATH CLIENT PROTO AGE IDLE RTT MISS MSGS-IN IN MSGS-OUT OUT HELD";
        assert_eq!(words(&table[0]), words(titles));
        let row = "00000000000000a1 open /socket.io/ /socket.io/x 198.51.100.23:52114 h2 2h05m 3s 41ms 1/2 1.2k 3.4KiB 0 - 1.0KiB";
        assert_eq!(words(&table[1]), words(row));
        assert_eq!(words(&table[2]), ["-"; 15], "what is not known is a cell, too");
        assert_eq!(table.iter().map(|line| line.chars().count()).max(), Some(table[0].chars().count()));
    }

    #[test]
    fn the_end_has_its_time_and_its_reason() {
        let close = json!({ "reason": "heartbeat_timeout", "code": 1012, "sentence": "client stopped answering" });
        let ended = conn("00000000000000a1", &close);
        let piped = lines(&[ended.clone(), open("00000000000000a2")], None, NOW);
        assert!(piped[0].ends_with("  HELD  CLOSED-AT             CLOSED"), "{piped:?}");
        assert!(piped[1].ends_with(" -  2026-11-28T16:00:00Z  1012 client stopped answering"), "{piped:?}");
        assert!(piped[2].ends_with(" 1.0KiB  -                     -"), "{piped:?}");
        let on_a_terminal = |now| lines(std::slice::from_ref(&ended), Some(80), now).swap_remove(1);
        assert_eq!(
            on_a_terminal(NOW),
            "00000000000000a1  198.51.100.23:52114  16:00:00Z  1012 client stopped answering"
        );
        assert_eq!(
            on_a_terminal(NOW + 86_400.0),
            "00000000000000a1  198.51.100.23:52114  11-28T16:00Z  1012 client stopped answer…"
        );
    }

    #[test]
    fn every_width_is_kept_and_what_matters_stays_longest() {
        let sentence = "client stopped answering: last pong 45.2 s ago, RTT was 41 ms";
        let close = json!({ "reason": "heartbeat_timeout", "code": 1012, "sentence": sentence });
        for conns in [vec![open("00000000000000a1")], vec![conn("00000000000000a1", &close)]] {
            for width in 1..200 {
                for line in lines(&conns, Some(width), NOW) {
                    assert!(line.chars().count() <= width, "{width}: {line:?}");
                }
            }
        }
        let heading = |width| lines(&[open("00000000000000a1")], Some(width), NOW).swap_remove(0);
        assert_eq!(words(&heading(59)), ["ID", "CLIENT", "IDLE", "RTT", "MISS"]);
        let whole = lines(&[conn("00000000000000a1", &close)], None, NOW);
        assert!(whole[1].ends_with(&format!("1012 {sentence}")), "{whole:?}");
        let cut = lines(&[conn("00000000000000a1", &close)], Some(80), NOW);
        assert!(cut[1].contains("1012 client stopped") && cut[1].ends_with('…'), "{cut:?}");
    }

    #[test]
    fn a_column_that_says_nothing_gives_way_to_the_clients_port() {
        let client = |address: &str, route: &str| SessionReport {
            client: address.into(),
            route: route.into(),
            idle_s: Some(36_000.0),
            ..open("00000000000000a1")
        };
        for address in ["255.255.255.255:65535", "[2001:db8:1234:5678:9abc:def0:1234:5678]:65535"] {
            for width in 40..=80 {
                let table = lines(&[client(address, "/"), client(address, "/")], Some(width), NOW);
                assert!(table[1].contains(":65535"), "{width}: {table:?}");
            }
            let at_80 = lines(&[client(address, "/"), client(address, "/")], Some(80), NOW);
            assert!(!at_80[0].contains("ROUTE") && at_80[0].contains("PATH"), "{at_80:?}");
            let useful = lines(&[client(address, "/"), client(address, "/chat")], Some(100), NOW);
            assert!(useful[0].contains("ROUTE"), "{useful:?}");
        }
    }

    #[test]
    fn nothing_of_a_client_moves_the_cursor() {
        let mut conn = open("00000000000000a1");
        conn.route = "/\x1b[31m\n".into();
        conn.path = "/\x1b[31m\n".into();
        assert!(!lines(&[conn], None, NOW)[1].contains(['\x1b', '\n']));
    }
}
