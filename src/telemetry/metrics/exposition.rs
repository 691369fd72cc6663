//! The text formats of metrics and their negotiation.

use std::collections::HashSet;

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFormat {
    /// `OpenMetrics` 1.0, served on request.
    OpenMetrics,
    /// The Prometheus text format 0.0.4, which every scraper and `promtool` read.
    Text,
}

/// The media type of `OpenMetrics`.
const OPEN_METRICS: &str = "application/openmetrics-text";

impl TextFormat {
    /// Returns the format for an `Accept` field (RFC 9110 §12.5.1): `OpenMetrics` if it is named with at least the
    /// weight of plain text. Wildcards and an empty field select the text format.
    pub fn negotiate(accept: &str) -> Self {
        let ranges = || accept.split(',').map(media_range);
        let weight = |name: &str| {
            let named = ranges().filter(|(range, _)| range.eq_ignore_ascii_case(name));
            named.map(|(_, weight)| weight).reduce(f32::max)
        };
        let open_metrics = weight(OPEN_METRICS).unwrap_or(0.0);
        let text = ["text/plain", "text/*", "*/*"].into_iter().find_map(weight).unwrap_or(0.0);
        let is_chosen = open_metrics > 0.0 && open_metrics >= text;
        if is_chosen { Self::OpenMetrics } else { Self::Text }
    }

    /// Returns the value of `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Converts `text` from `OpenMetrics` into this format.
    pub(super) fn of(self, text: String) -> String {
        match self {
            Self::OpenMetrics => text,
            Self::Text => older(&text),
        }
    }
}

/// Converts `OpenMetrics` into the text format 0.0.4, in which a counter is described under the name of its samples
/// (with `_total`), and there is no end marker.
///
/// prometheus-client 0.25 writes only `OpenMetrics`. For metrics without exemplars and units, as in the catalogue,
/// there is no other difference.
fn older(text: &str) -> String {
    let counters: HashSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut older = String::with_capacity(text.len());
    for line in text.lines().filter(|line| *line != "# EOF") {
        let named = ["# HELP ", "# TYPE "].into_iter().find_map(|what| Some((what, line.strip_prefix(what)?)));
        match named.and_then(|(what, rest)| Some((what, rest.split_once(' ')?))) {
            Some((what, (name, rest))) if counters.contains(name) => {
                older.extend([what, name, "_total ", rest, "\n"]);
            }
            _ => older.extend([line, "\n"]),
        }
    }
    older
}

/// Parses a media range of `Accept` and its weight (RFC 9110 §12.5.1), by default 1.
pub(crate) fn media_range(text: &str) -> (&str, f32) {
    let mut parts = text.split(';').map(str::trim);
    let range = parts.next().unwrap_or_default();
    let weight = parts.filter_map(|part| part.split_once('=')).find(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
    (range, weight.and_then(|(_, q)| q.trim().parse().ok()).unwrap_or(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_those_who_ask_for_it() {
        // The fields of Prometheus 2.42 and 3.x.
        let old = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                   text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let new = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.4,\
                   */*;q=0.2";
        for accept in [old, new, "application/openmetrics-text", "Application/OpenMetrics-Text, text/plain"] {
            assert_eq!(TextFormat::negotiate(accept), TextFormat::OpenMetrics, "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/plain",
            "text/plain;version=0.0.4",
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "text/plain, application/openmetrics-text;q=0.5",
            "application/openmetrics-text;q=0, */*",
            "application/openmetrics-text;q=0.2, text/*",
        ] {
            assert_eq!(TextFormat::negotiate(accept), TextFormat::Text, "{accept}");
        }
    }

    #[test]
    fn counters_are_described_under_the_name_of_their_samples() {
        let open_metrics = "# HELP a A counter.\n# TYPE a counter\na_total{b=\"# EOF\"} 1\n\
                            # HELP a_b A gauge.\n# TYPE a_b gauge\na_b 2\n# EOF\n";
        let text = "# HELP a_total A counter.\n# TYPE a_total counter\na_total{b=\"# EOF\"} 1\n\
                    # HELP a_b A gauge.\n# TYPE a_b gauge\na_b 2\n";
        assert_eq!(TextFormat::Text.of(open_metrics.to_owned()), text);
        assert_eq!(TextFormat::OpenMetrics.of(open_metrics.to_owned()), open_metrics);
    }
}
