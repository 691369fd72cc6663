//! The figures of many runs as one Markdown table: medians over the rounds, ratios between the proxies, targets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use thiserror::Error;

use crate::stats::median;

/// The proxies in the order of the table's columns.
const PEERS: [&str; 3] = ["nginx", "haproxy", OURS];
/// The proxy with targets.
const OURS: &str = "pulsegate";

/// A line of the table.
struct Row {
    case: &'static str,
    figure: &'static str,
    label: &'static str,
    decimals: usize,
    target: Target,
}

/// The target of a figure.
#[derive(Clone, Copy)]
enum Target {
    /// At most this share of the better peer's figure.
    OfBetter(f64),
    /// At most this share of `HAProxy`'s figure.
    OfHaproxy(f64),
    /// At most this share of nginx's figure.
    OfNginx(f64),
    /// At most this figure.
    AtMost(f64),
    /// None: the figure is only shown.
    Shown,
    /// None, and the greater of two figures is the better.
    Rate,
}

const fn row(case: &'static str, figure: &'static str, label: &'static str, decimals: usize, target: Target) -> Row {
    Row { case, figure, label, decimals, target }
}

const ROWS: &[Row] = &[
    row("echo-64", "cpu_us_per_message", "CPU per echoed message, 64 B (µs)", 2, Target::OfBetter(0.95)),
    row("echo-4096", "cpu_us_per_message", "CPU per echoed message, 4 KiB (µs)", 2, Target::OfBetter(0.95)),
    row("echo-65536", "cpu_us_per_message", "CPU per echoed message, 64 KiB (µs)", 2, Target::OfBetter(0.95)),
    row("echo-64", "latency_p99_us", "p99 latency, 64 B (µs)", 0, Target::Shown),
    row("echo-4096", "latency_p99_us", "p99 latency, 4 KiB (µs)", 0, Target::Shown),
    row("echo-65536", "latency_p99_us", "p99 latency, 64 KiB (µs)", 0, Target::Shown),
    row("idle", "pss_kib_per_session", "PSS per idle TLS session (KiB)", 2, Target::AtMost(10.0)),
    row("idle", "pss_kib_per_session_at_margin", "the same at the margin (KiB)", 2, Target::Shown),
    row("idle", "pss_growth_percent", "its growth after a 100 KB echo (%)", 1, Target::AtMost(10.0)),
    row("kept", "pss_kib_per_connection_at_margin", "PSS per idle kept connection (KiB)", 2, Target::AtMost(15.0)),
    row("handshake", "cpu_us_per_upgrade", "CPU per TLS handshake, upgrade and close (µs)", 0, Target::OfNginx(0.5)),
    row("beat", "sessions", "sessions under a 1 s heartbeat", 0, Target::Shown),
    row("beat", "pings_per_second", "pings answered per second", 0, Target::Shown),
    row("beat", "false_teardowns", "live sessions torn down", 0, Target::AtMost(0.0)),
    row("beat", "cpu_share_percent", "CPU of one core for it (%)", 1, Target::Shown),
    row("silent", "sessions", "silent sessions, 1 s heartbeat and 1 s timeout", 0, Target::Shown),
    row("silent", "still_open", "silent sessions not torn down", 0, Target::AtMost(0.0)),
    row("silent", "close_s_median", "until their Close, median (s)", 2, Target::Shown),
    row("silent", "close_s_max", "until their Close, longest (s)", 2, Target::Shown),
    row("soak", "minutes", "soak: minutes", 0, Target::Shown),
    row("soak", "sessions", "soak: sessions", 0, Target::Shown),
    row("soak", "sessions_http2", "soak: of these, over HTTP/2", 0, Target::Shown),
    row("soak", "messages", "soak: messages, every byte checked", 0, Target::Shown),
    row("soak", "megabytes_each_way", "soak: their bytes, each way (MB)", 0, Target::Shown),
    row("soak", "not_opened", "soak: sessions that could not be opened", 0, Target::AtMost(0.0)),
    row("soak", "live_ended", "soak: live sessions ended", 0, Target::AtMost(0.0)),
    row("soak", "dead_late", "soak: dead sessions ended late", 0, Target::AtMost(0.0)),
    row("soak", "wrong_bytes", "soak: sessions with wrong bytes", 0, Target::AtMost(0.0)),
    row("soak", "wrong_ends", "soak: sessions with a wrong end", 0, Target::AtMost(0.0)),
    row("soak", "not_judged_percent", "soak: sessions not judged (%)", 2, Target::AtMost(1.0)),
    row("soak", "death_bound_s", "soak: interval + timeout (s)", 2, Target::Shown),
    row("soak", "death_client_s_median", "soak: from silence to the Close, median (s)", 2, Target::Shown),
    row("soak", "death_client_s_max", "soak: from silence to the Close, longest (s)", 2, Target::Shown),
    row("soak", "death_app_s_median", "soak: from silence to the app's Close, median (s)", 2, Target::Shown),
    row("soak", "death_app_s_max", "soak: from silence to the app's Close, longest (s)", 2, Target::Shown),
    row("soak", "close_reasons_differing", "soak: ends that the metrics count otherwise", 0, Target::AtMost(0.0)),
    row("soak", "pss_start_kib", "soak: PSS after a third of the time (KiB)", 0, Target::Shown),
    row("soak", "pss_end_kib", "soak: PSS at the end (KiB)", 0, Target::Shown),
    row("soak", "pss_growth_percent", "soak: growth of PSS between (%)", 1, Target::Shown),
    row("soak", "private_growth_percent", "soak: growth of private memory between (%)", 1, Target::Shown),
    row(
        "soak",
        "memory_over_tolerance_percent",
        "soak: growth of either beyond its tolerance (%)",
        1,
        Target::AtMost(0.0),
    ),
    row("soak", "memory_tolerance_percent", "soak: the tolerance (%)", 1, Target::Shown),
    row("soak", "descriptors_start", "soak: descriptors after a third of the time", 0, Target::Shown),
    row("soak", "descriptors_end", "soak: descriptors at the end", 0, Target::Shown),
    row("soak", "descriptors_growth_percent", "soak: growth of descriptors between (%)", 1, Target::AtMost(5.0)),
    row("soak", "threads_growth_percent", "soak: growth of threads between (%)", 1, Target::AtMost(0.0)),
    row(
        "soak",
        "sessions_difference_percent",
        "soak: admin API's sessions from ours, median (%)",
        1,
        Target::AtMost(2.0),
    ),
    row("soak", "sessions_left", "soak: sessions left after the last", 0, Target::AtMost(0.0)),
    row("soak", "descriptors_left", "soak: descriptors left after the last session", 0, Target::AtMost(4.0)),
    row("soak", "buffered_bytes_left", "soak: buffered bytes left after the last session", 0, Target::AtMost(0.0)),
    row("soak", "cpu_share_percent", "soak: CPU of one core (%)", 1, Target::Shown),
    row("request-h1-1024", "cpu_us_per_request", "CPU per request, HTTP/1.1, 1 KiB (µs)", 2, Target::OfHaproxy(1.0)),
    row(
        "request-h1-102400",
        "cpu_us_per_request",
        "CPU per request, HTTP/1.1, 100 KiB (µs)",
        2,
        Target::OfHaproxy(1.0),
    ),
    row("request-h2-1024", "cpu_us_per_request", "CPU per request, HTTP/2, 1 KiB (µs)", 2, Target::OfHaproxy(1.0)),
    row("request-h2-102400", "cpu_us_per_request", "CPU per request, HTTP/2, 100 KiB (µs)", 2, Target::OfHaproxy(1.0)),
    row("request-h1-1024", "requests_per_second", "requests per second, HTTP/1.1, 1 KiB", 0, Target::Rate),
    row("request-h1-102400", "requests_per_second", "requests per second, HTTP/1.1, 100 KiB", 0, Target::Rate),
    row("request-h2-1024", "requests_per_second", "requests per second, HTTP/2, 1 KiB", 0, Target::Rate),
    row("request-h2-102400", "requests_per_second", "requests per second, HTTP/2, 100 KiB", 0, Target::Rate),
    row("request-h1-1024", "latency_p99_us", "p99 latency, HTTP/1.1, 1 KiB (µs)", 0, Target::Shown),
    row("request-h2-1024", "latency_p99_us", "p99 latency, HTTP/2, 1 KiB (µs)", 0, Target::Shown),
    row("echo-h2-64", "cpu_us_per_message", "CPU per echo over HTTP/2, 64 B (µs)", 2, Target::OfHaproxy(1.0)),
    row("echo-h2-4096", "cpu_us_per_message", "CPU per echo over HTTP/2, 4 KiB (µs)", 2, Target::OfHaproxy(1.0)),
    row("echo-h2-65536", "cpu_us_per_message", "CPU per echo over HTTP/2, 64 KiB (µs)", 2, Target::OfHaproxy(1.0)),
    row("echo-h2-64", "latency_p99_us", "p99 latency over HTTP/2, 64 B (µs)", 0, Target::Shown),
    row("echo-h2-65536", "latency_p99_us", "p99 latency over HTTP/2, 64 KiB (µs)", 0, Target::Shown),
    row("idle-h2", "pss_kib_per_session", "PSS per idle WebSocket over HTTP/2 (KiB)", 2, Target::Shown),
    row("idle-h2", "pss_kib_per_session_at_margin", "the same at the margin (KiB)", 2, Target::Shown),
    row("idle-h2", "pss_growth_percent", "its growth after a 100 KB echo (%)", 1, Target::Shown),
    row("cross-check-h1-1024", "cpu_us_per_request", "h2load: CPU per request, HTTP/1.1, 1 KiB (µs)", 2, Target::Shown),
    row(
        "cross-check-h1-102400",
        "cpu_us_per_request",
        "h2load: CPU per request, HTTP/1.1, 100 KiB (µs)",
        2,
        Target::Shown,
    ),
    row("cross-check-h2-1024", "cpu_us_per_request", "h2load: CPU per request, HTTP/2, 1 KiB (µs)", 2, Target::Shown),
    row(
        "cross-check-h2-102400",
        "cpu_us_per_request",
        "h2load: CPU per request, HTTP/2, 100 KiB (µs)",
        2,
        Target::Shown,
    ),
    row("cross-check-h1-1024", "requests_per_second", "h2load: requests per second, HTTP/1.1, 1 KiB", 0, Target::Rate),
    row(
        "cross-check-h1-102400",
        "requests_per_second",
        "h2load: requests per second, HTTP/1.1, 100 KiB",
        0,
        Target::Rate,
    ),
    row("cross-check-h2-1024", "requests_per_second", "h2load: requests per second, HTTP/2, 1 KiB", 0, Target::Rate),
    row(
        "cross-check-h2-102400",
        "requests_per_second",
        "h2load: requests per second, HTTP/2, 100 KiB",
        0,
        Target::Rate,
    ),
];

/// The figures of all runs.
#[derive(Debug, Default)]
pub struct Runs {
    /// By case, figure and peer: one value of each round.
    values: BTreeMap<(String, String, String), Vec<f64>>,
}

impl Runs {
    /// Parses lines `PEER CASE FIGURE VALUE`.
    pub fn parse(text: &str) -> Result<Self, ReportError> {
        let mut runs = Self::default();
        for (number, line) in text.lines().enumerate() {
            let malformed = || ReportError { line: number + 1, text: line.into() };
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [peer, case, figure, value] = fields[..] else { return Err(malformed()) };
            let value = value.parse().map_err(|_| malformed())?;
            let key = (case.to_owned(), figure.to_owned(), peer.to_owned());
            runs.values.entry(key).or_default().push(value);
        }
        Ok(runs)
    }

    /// Returns the table. The last proxy is compared with the better of the others. Targets apply to pulsegate only.
    pub fn table(&self) -> String {
        let measured: BTreeSet<&str> = self.values.keys().map(|(_, _, peer)| peer.as_str()).collect();
        let peers: Vec<&str> = PEERS.into_iter().filter(|peer| measured.contains(peer)).collect();
        let Some((&last, others)) = peers.split_last() else { return "No figures.\n".into() };
        let judged = last == OURS;

        let mut out = format!("| measure | {} |", peers.join(" | "));
        let mut columns = peers.len() + 2;
        if !others.is_empty() {
            let _ = write!(out, " {last} ÷ {} |", if others.len() > 1 { "the better" } else { others[0] });
            columns += 1;
        }
        if judged {
            out.push_str(" target | met |");
            columns += 2;
        }
        let _ = writeln!(out, " spread |\n|---{}|", "|---:".repeat(columns - 1));

        for row in ROWS.iter().filter(|row| peers.iter().any(|peer| self.median(row, peer).is_some())) {
            let _ = write!(out, "| {} |", row.label);
            for peer in &peers {
                let _ = write!(out, " {} |", shown(self.median(row, peer), row.decimals));
            }
            let known = others.iter().filter_map(|peer| self.median(row, peer));
            let better = match row.target {
                Target::Rate => known.max_by(f64::total_cmp),
                _ => known.min_by(f64::total_cmp),
            };
            let ratio = |base: Option<f64>| Some(self.median(row, last)? / base.filter(|base| *base > 0.0)?);
            if !others.is_empty() {
                let _ = write!(out, " {} |", shown(ratio(better), 2));
            }
            if judged {
                let nginx = self.median(row, "nginx");
                let haproxy = self.median(row, "haproxy");
                let (target, met) = match row.target {
                    Target::OfHaproxy(most) => (format!("≤ {most} of haproxy"), ratio(haproxy).map(|is| is <= most)),
                    Target::OfBetter(most) => (format!("≤ {most} of the better"), ratio(better).map(|is| is <= most)),
                    Target::OfNginx(most) => (format!("≤ {most} of nginx"), ratio(nginx).map(|is| is <= most)),
                    Target::AtMost(most) => (format!("≤ {most}"), self.median(row, last).map(|is| is <= most)),
                    Target::Shown | Target::Rate => (String::new(), None),
                };
                let _ = write!(out, " {target} | {} |", met.map_or("", |met| if met { "yes" } else { "**no**" }));
            }
            let spread = peers.iter().filter_map(|peer| self.spread(row, peer)).max_by(f64::total_cmp);
            let _ = writeln!(out, " {} |", spread.map_or("–".into(), |spread| format!("{:.0} %", spread * 100.0)));
        }
        out
    }

    fn values(&self, row: &Row, peer: &str) -> Option<&[f64]> {
        self.values.get(&(row.case.to_owned(), row.figure.to_owned(), peer.to_owned())).map(Vec::as_slice)
    }

    fn median(&self, row: &Row, peer: &str) -> Option<f64> {
        median(self.values(row, peer)?)
    }

    /// Returns the range of the rounds as a share of their median; [`None`] for a single round.
    fn spread(&self, row: &Row, peer: &str) -> Option<f64> {
        let values = self.values(row, peer).filter(|values| values.len() > 1)?;
        let least = values.iter().copied().min_by(f64::total_cmp)?;
        let most = values.iter().copied().max_by(f64::total_cmp)?;
        let middle = median(values).filter(|middle| *middle != 0.0)?;
        Some((most - least) / middle.abs())
    }
}

fn shown(value: Option<f64>, decimals: usize) -> String {
    value.map_or("–".into(), |value| format!("{value:.decimals$}"))
}

/// A line that is not a figure.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("line {line} of the figures is not `PEER CASE FIGURE VALUE`: {text:?}")]
pub struct ReportError {
    line: usize,
    text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> String {
        Runs::parse(text).expect("the figures are well formed").table()
    }

    #[test]
    fn medians_ratios_and_targets() {
        let figures = "nginx echo-64 cpu_us_per_message 10\nnginx echo-64 cpu_us_per_message 30\n\
                       nginx echo-64 cpu_us_per_message 20\nhaproxy echo-64 cpu_us_per_message 16\n\
                       pulsegate echo-64 cpu_us_per_message 12\nnginx handshake cpu_us_per_upgrade 400\n\
                       haproxy handshake cpu_us_per_upgrade 300\npulsegate handshake cpu_us_per_upgrade 210\n";
        assert_eq!(
            table(figures),
            "| measure | nginx | haproxy | pulsegate | pulsegate ÷ the better | target | met | spread |\n\
             |---|---:|---:|---:|---:|---:|---:|---:|\n\
             | CPU per echoed message, 64 B (µs) | 20.00 | 16.00 | 12.00 | 0.75 | ≤ 0.95 of the better | yes | 100 % |\n\
             | CPU per TLS handshake, upgrade and close (µs) | 400 | 300 | 210 | 0.70 | ≤ 0.5 of nginx | **no** | – |\n"
        );
    }

    #[test]
    fn a_peer_may_be_left_out() {
        let figures = "haproxy idle pss_kib_per_session 19.5\nnginx idle pss_kib_per_session 39\n";
        assert_eq!(
            table(figures),
            "| measure | nginx | haproxy | haproxy ÷ nginx | spread |\n|---|---:|---:|---:|---:|\n\
             | PSS per idle TLS session (KiB) | 39.00 | 19.50 | 0.50 | – |\n"
        );
    }

    #[test]
    fn the_ratio_is_to_the_better_and_the_target_to_haproxy() {
        let figures = "nginx request-h2-1024 cpu_us_per_request 20\nhaproxy request-h2-1024 cpu_us_per_request 30\n\
                       pulsegate request-h2-1024 cpu_us_per_request 25\n\
                       nginx request-h2-1024 requests_per_second 800\n\
                       haproxy request-h2-1024 requests_per_second 1000\n\
                       pulsegate request-h2-1024 requests_per_second 1100\n\
                       haproxy echo-h2-64 cpu_us_per_message 10\npulsegate echo-h2-64 cpu_us_per_message 11\n";
        let table = table(figures);
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| CPU per request, HTTP/2, 1 KiB (µs) | 20.00 | 30.00 | 25.00 | 1.25 | ≤ 1 of haproxy | yes | – |",
                "| requests per second, HTTP/2, 1 KiB | 800 | 1000 | 1100 | 1.10 |  |  | – |",
                "| CPU per echo over HTTP/2, 64 B (µs) | – | 10.00 | 11.00 | 1.10 | ≤ 1 of haproxy | **no** | – |",
            ]
        );
    }

    #[test]
    fn no_teardown_meets_the_target_of_none() {
        let table = table("pulsegate beat false_teardowns 0\npulsegate beat false_teardowns 0\n");
        assert!(table.ends_with("| live sessions torn down | 0 | ≤ 0 | yes | – |\n"), "{table}");
    }

    #[test]
    fn a_malformed_line_is_named() {
        let error = Runs::parse("nginx idle x 1\nnginx idle x\n").expect_err("the second line is short");
        assert_eq!(error.to_string(), "line 2 of the figures is not `PEER CASE FIGURE VALUE`: \"nginx idle x\"");
    }
}
