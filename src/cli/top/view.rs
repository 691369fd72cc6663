//! The content of `top`'s screen, as a function of the data received.

use super::keys::Key;
use crate::cli::conns::table;
use crate::cli::remote::{DirectionReport, Info, SessionReport, StatsReport};
use crate::cli::text::{printable, truncate};
use crate::cli::units::{self, UNKNOWN};

/// The lines that are not sessions: three of figures, one for an error, the heading, and the keys.
const FRAME: usize = 6;

/// The data that the screen shows.
#[derive(Debug, Default)]
pub(super) struct View {
    info: Info,
    stats: Option<StatsReport>,
    rates: Option<Rates>,
    listed: Option<Listed>,
    trouble: Option<String>,
    sort: Sort,
    offset: usize,
}

/// The first sessions in one order, as the proxy lists them.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) conns: Vec<SessionReport>,
    /// The number of sessions.
    pub(super) total: u64,
    /// The generation of the configuration.
    pub(super) generation: u64,
    /// The proxy's time, in seconds since 1970.
    pub(super) now: f64,
}

/// A line and its style.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ScreenLine {
    pub(super) style: Style,
    pub(super) text: String,
}

/// The style of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Strong,
    Heading,
    Faint,
}

/// The request of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyAction {
    /// None.
    Nothing,
    /// Other sessions, or another order.
    Look,
    /// The drain of the process.
    Quit,
}

/// Returns the order of the sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sort {
    key: String,
    descending: bool,
}

impl Default for Sort {
    /// Returns the order with the most misses first.
    fn default() -> Self {
        Self::parse("-misses")
    }
}

impl Sort {
    /// Parses an order in the API's notation.
    pub(super) fn parse(text: &str) -> Self {
        match text.strip_prefix('-') {
            Some(key) => Self { key: key.to_owned(), descending: true },
            None => Self { key: text.to_owned(), descending: false },
        }
    }

    /// Returns the order in the API's notation.
    pub(super) fn query(&self) -> String {
        format!("{}{}", if self.descending { "-" } else { "" }, self.key)
    }

    /// Sorts by `key`; if it is the present one, reverses the order. Figures begin with the largest.
    fn choose(&mut self, key: &str) {
        let same = self.key == key;
        *self = Self { key: key.to_owned(), descending: if same { !self.descending } else { key != "client" } };
    }
}

/// The rates per second, computed from two sets of figures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Rates {
    opened: f64,
    closed: f64,
    incoming: (f64, f64),
    outgoing: (f64, f64),
}

impl Rates {
    /// Returns `None` if `now` is not later, or its counters have restarted.
    fn between(before: &StatsReport, now: &StatsReport) -> Option<Self> {
        let seconds = now.at - before.at;
        if seconds <= 0.0 || now.opened_total < before.opened_total {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate is shown in two or three figures")]
        let rate = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
        let flow = |before: DirectionReport, now: DirectionReport| {
            let rate = |before: Option<u64>, now: Option<u64>| rate(before.unwrap_or(0), now.unwrap_or(0));
            (rate(before.messages, now.messages), rate(before.bytes, now.bytes))
        };
        Some(Self {
            opened: rate(before.opened_total, now.opened_total),
            closed: rate(before.closed_total, now.closed_total),
            incoming: flow(before.incoming, now.incoming),
            outgoing: flow(before.outgoing, now.outgoing),
        })
    }
}

impl View {
    /// Creates a view without data.
    pub(super) fn new(sort: Sort) -> Self {
        Self { sort, ..Self::default() }
    }

    /// Sets the proxy's process; the figures of another process are discarded.
    pub(super) fn set_info(&mut self, info: Info) {
        if info.pid != self.info.pid {
            (self.stats, self.rates) = (None, None);
        }
        self.info = info;
    }

    /// Sets the figures of the last second.
    pub(super) fn set_stats(&mut self, stats: StatsReport) {
        self.rates = self.stats.as_ref().and_then(|before| Rates::between(before, &stats));
        self.stats = Some(stats);
    }

    /// Sets the first sessions in the present order.
    pub(super) fn set_sessions(&mut self, listed: Listed) {
        (self.listed, self.trouble) = (Some(listed), None);
    }

    /// Returns whether all data of a frame has arrived, or an error explains its absence.
    pub(super) fn is_complete(&self) -> bool {
        self.trouble.is_some() || self.stats.is_some() && self.listed.is_some()
    }

    fn total(&self) -> u64 {
        self.listed.as_ref().map_or(0, |listed| listed.total)
    }

    /// Returns the number of sessions.
    fn places(&self) -> usize {
        usize::try_from(self.total()).unwrap_or(usize::MAX)
    }

    fn conns(&self) -> &[SessionReport] {
        self.listed.as_ref().map_or(&[], |listed| &listed.conns)
    }

    /// Returns the proxy's time at the last list, in seconds since 1970.
    fn now(&self) -> f64 {
        self.listed.as_ref().map_or(0.0, |listed| listed.now)
    }

    /// Records that the proxy does not respond; the data received stays on the screen.
    pub(super) fn set_error(&mut self, why: &str) {
        self.trouble = Some(printable(why));
    }

    /// Returns the order of the sessions.
    pub(super) fn sort(&self) -> &Sort {
        &self.sort
    }

    /// Returns the number of sessions to request for a screen of `rows`.
    pub(super) fn sessions_needed(&self, rows: usize) -> usize {
        // One screen more, so that a page down needs no request.
        self.offset + 2 * room(rows)
    }

    /// Applies `key` on a screen of `rows`.
    pub(super) fn press(&mut self, key: Key, rows: usize) -> KeyAction {
        let page = room(rows);
        let last = self.places().saturating_sub(page);
        let to = match key {
            Key::Char('q' | 'Q') => return KeyAction::Quit,
            Key::Char(letter) => {
                let key = match letter {
                    'r' => "rtt",
                    'i' => "idle",
                    'm' => "misses",
                    'b' => "bytes_in",
                    'h' => "held",
                    'c' => "client",
                    _ => return KeyAction::Nothing,
                };
                self.sort.choose(key);
                0
            }
            Key::Up => self.offset.saturating_sub(1),
            Key::Down => self.offset + 1,
            Key::PageUp => self.offset.saturating_sub(page),
            Key::PageDown => self.offset + page,
            Key::Home => 0,
            Key::End => last,
        };
        self.offset = to.min(last);
        KeyAction::Look
    }

    /// Returns all lines, for a pipe.
    pub(super) fn whole(&self) -> Vec<ScreenLine> {
        let mut lines = self.figures();
        lines.extend(table::lines(self.conns(), None, self.now()).into_iter().map(plain));
        lines
    }

    /// Returns the lines of a screen of `columns` and `rows`.
    pub(super) fn frame(&mut self, columns: usize, rows: usize) -> Vec<ScreenLine> {
        let room = room(rows);
        // Sessions may have closed since the last key.
        self.offset = self.offset.min(self.places().saturating_sub(room));
        let conns = self.conns();
        let from = self.offset.min(conns.len());
        let shown = &conns[from..conns.len().min(from + room)];
        let mut lines = self.figures();
        lines.push(match &self.trouble {
            Some(trouble) => ScreenLine { style: Style::Strong, text: format!("! {trouble}") },
            None => plain(self.position(shown.len())),
        });
        let mut table = table::lines(shown, Some(columns), self.now()).into_iter();
        lines.extend(table.next().map(|text| ScreenLine { style: Style::Heading, text: format!("{text:columns$}") }));
        lines.extend(shown.iter().zip(table).map(|(conn, text)| ScreenLine {
            style: if conn.heartbeat.misses.unwrap_or(0) > 0 { Style::Strong } else { Style::Plain },
            text,
        }));
        lines.resize(rows.saturating_sub(1), plain(String::new()));
        let keys = "q quit  sort by r=rtt i=idle m=misses b=bytes h=held c=client  ↑ ↓ PgUp PgDn";
        lines.push(ScreenLine { style: Style::Faint, text: keys.to_owned() });
        lines.truncate(rows);
        for line in &mut lines {
            line.text = truncate(&line.text, columns);
        }
        lines
    }

    fn figures(&self) -> Vec<ScreenLine> {
        let Info { version, pid, started_at, now } = &self.info;
        let up = started_at.zip(*now).map_or_else(|| UNKNOWN.to_owned(), |(from, to)| units::span(to - from));
        let stats = self.stats.clone().unwrap_or_default();
        let phase = if stats.phase.is_empty() { UNKNOWN.to_owned() } else { printable(&stats.phase) };
        // Both responses carry the generation; the newer one counts.
        let known = self.stats.as_ref().map(|stats| stats.generation);
        let generation = known.max(self.listed.as_ref().map(|listed| listed.generation));
        let generation = generation.map_or_else(|| UNKNOWN.to_owned(), |generation| generation.to_string());
        let head = format!("pulsegate {}  pid {pid}  up {up}  {phase}  generation {generation}", printable(version));
        let count = |rate: f64| units::count(units::whole(rate.round()));
        let bytes = |rate: f64| units::bytes(units::whole(rate.round()));
        let traffic = self.rates.map_or_else(String::new, |rates| {
            let flow = |(messages, size)| format!("{} msg/s {}/s", count(messages), bytes(size));
            let (opened, closed) = (count(rates.opened), count(rates.closed));
            format!("  +{opened}/s -{closed}/s  in {}  out {}", flow(rates.incoming), flow(rates.outgoing))
        });
        let rtt = |figure: Option<f64>| figure.map_or_else(|| UNKNOWN.to_owned(), units::round_trip);
        let trips = &stats.rtt;
        let beats = format!(
            "{} missing  rtt p50 {} p99 {} max {}  buffered {}",
            stats.missing,
            rtt(trips.p50),
            rtt(trips.p99),
            rtt(trips.max),
            units::bytes(stats.buffered)
        );
        let open = if self.stats.is_some() { stats.open } else { self.total() };
        vec![ScreenLine { style: Style::Strong, text: head }, plain(format!("{open} open{traffic}")), plain(beats)]
    }

    fn position(&self, shown: usize) -> String {
        let order = if self.sort.descending { "largest first" } else { "smallest first" };
        let from = if shown > 0 { self.offset + 1 } else { 0 };
        format!("{from}-{} of {}, by {}, {order}", self.offset + shown, self.total(), self.sort.key)
    }
}

fn plain(text: String) -> ScreenLine {
    ScreenLine { style: Style::Plain, text }
}

/// Returns the number of sessions that a screen of `rows` shows.
fn room(rows: usize) -> usize {
    rows.saturating_sub(FRAME).max(1)
}

#[cfg(test)]
mod tests;
