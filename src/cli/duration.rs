//! Durations on the command line, in the notation of the configuration file: `500ms`, `25s`, `5m`.

use std::time::Duration;

/// The longest duration that is accepted, far below the point at which adding it to a clock overflows.
const MAX: Duration = Duration::from_hours(24);

/// Parses a duration between one millisecond and one day.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| format!("{error}; write it as 500ms, 25s or 5m"))?;
    if (Duration::from_millis(1)..=MAX).contains(&duration) {
        Ok(duration)
    } else {
        Err("must be between 1ms and 1d".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_durations_that_a_timer_can_use_are_taken() {
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("1d"), Ok(MAX));
        for refused in ["0s", "999us", "2d", "10000years"] {
            assert_eq!(parse(refused), Err("must be between 1ms and 1d".to_owned()), "{refused}");
        }
        for malformed in ["", "5", "five", "-1s"] {
            let error = parse(malformed).expect_err(malformed);
            assert!(error.ends_with("write it as 500ms, 25s or 5m"), "{error}");
        }
    }
}
