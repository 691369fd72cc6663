//! Figures in a short form without blanks, so that each stays one column.

use std::time::{Duration, UNIX_EPOCH};

/// The text of an unknown figure.
pub(super) const UNKNOWN: &str = "-";

/// Formats bytes in binary units: `512B`, `3.4KiB`, `120MiB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count}B");
    }
    scaled(count, 1024, &UNITS)
}

/// Formats a count in decimal units: `999`, `1.2k`, `34M`.
pub(super) fn count(count: u64) -> String {
    const UNITS: [&str; 6] = ["k", "M", "G", "T", "P", "E"];
    if count < 1000 {
        return count.to_string();
    }
    scaled(count, 1000, &UNITS)
}

/// Formats a number of seconds in its two largest units: `45s`, `3m12s`, `2h05m`, `3d04h`.
pub(super) fn span(seconds: f64) -> String {
    // Invalid figures are clamped and cause no error.
    let seconds = whole(seconds);
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// Formats a time in seconds since 1970, in UTC to the second: `2026-11-28T16:00:26Z`.
pub(super) fn time(seconds: f64) -> String {
    // Times outside the calendar are clamped to its first or last second.
    const LAST: f64 = 253_402_300_799.0;
    let at = UNIX_EPOCH + Duration::from_secs(whole(seconds.min(LAST)));
    humantime::format_rfc3339_seconds(at).to_string()
}

/// Parses a session's id of 16 hexadecimal digits, as log lines show it; returns `None` for other text.
pub(super) fn id(text: &str) -> Option<String> {
    let is_id = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| text.to_ascii_lowercase())
}

/// Parses a number from 1 on.
pub(super) fn number(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "must be a whole number from 1 on".to_owned())
}

/// Formats a round trip in seconds: `0.82ms`, `41ms`, `1.20s`.
pub(super) fn round_trip(seconds: f64) -> String {
    let millis = seconds * 1_000.0;
    if millis < 9.995 {
        format!("{millis:.2}ms")
    } else if millis < 999.5 {
        format!("{millis:.0}ms")
    } else if seconds < 99.995 {
        format!("{seconds:.2}s")
    } else {
        span(seconds)
    }
}

/// Converts a figure to a whole number, rounded down and saturating.
pub(super) fn whole(figure: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and is never negative")]
    let whole = figure.max(0.0) as u64;
    whole
}

/// Formats `count` in the largest of `units` in which it is at least one, with one decimal below ten.
fn scaled(count: u64, base: u64, units: &[&str]) -> String {
    // One decimal, rounded down: the text never exceeds the value.
    let mut tenths = u128::from(count) * 10 / u128::from(base);
    let mut unit = 0;
    while tenths / 10 >= u128::from(base) && unit + 1 < units.len() {
        tenths /= u128::from(base);
        unit += 1;
    }
    let (whole, tenth) = (tenths / 10, tenths % 10);
    if whole < 10 { format!("{whole}.{tenth}{}", units[unit]) } else { format!("{whole}{}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_whole_and_not_none() {
        assert_eq!(number("20"), Ok(20));
        for refused in ["0", "-1", "1.5", "x", "", "99999999999"] {
            assert_eq!(number(refused), Err("must be a whole number from 1 on".to_owned()), "{refused:?}");
        }
    }

    #[test]
    fn bytes_and_counts_keep_two_figures() {
        let sizes = [0, 1023, 1024, 3500, 10_240, 1_048_575, 1_048_576, u64::MAX].map(bytes);
        assert_eq!(sizes, ["0B", "1023B", "1.0KiB", "3.4KiB", "10KiB", "1023KiB", "1.0MiB", "15EiB"]);
        let counts = [0, 999, 1000, 1_299, 34_000_000, 999_999, u64::MAX].map(count);
        assert_eq!(counts, ["0", "999", "1.0k", "1.2k", "34M", "999k", "18E"]);
    }

    #[test]
    fn spans_have_two_units_and_round_trips_three_figures() {
        let spans = [0.0, 59.9, 60.0, 192.0, 7_500.0, 86_400.0 * 3.0 + 4.0 * 3_600.0, -1.0, f64::NAN].map(span);
        assert_eq!(spans, ["0s", "59s", "1m00s", "3m12s", "2h05m", "3d04h", "0s", "0s"]);
        let times = [1_795_881_626.9, -1.0, f64::NAN, f64::INFINITY].map(time);
        let (first, last) = ("1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z");
        assert_eq!(times, ["2026-11-28T16:00:26Z", first, last, last]);
        let trips = [0.000_82, 0.009_994, 0.009_996, 0.041, 0.999_4, 0.999_6, 1.2, 125.0].map(round_trip);
        assert_eq!(trips, ["0.82ms", "9.99ms", "10ms", "41ms", "999ms", "1.00s", "1.20s", "2m05s"]);
    }
}
