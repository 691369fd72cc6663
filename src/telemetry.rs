//! Telemetry: the log (its events in [`log_events`]), [`metrics`], and spans for an OpenTelemetry collector ([`otel`]).

mod error_chain;
mod escape;
pub mod log_events;
mod log_queue;
pub mod metrics;
#[cfg(feature = "otel")]
pub mod otel;
#[cfg(not(feature = "otel"))]
#[path = "telemetry/otel_disabled.rs"]
pub mod otel;

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use thiserror::Error;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

pub use error_chain::Chain;
pub(crate) use escape::is_control;
use escape::{Escape, Escaping};
pub use log_queue::Flush;
use log_queue::LogQueue;

use crate::config::{Directives, Level, Log, LogFormat};

/// The target of heartbeat events.
const HEARTBEAT: &str = "pulsegate::heartbeat";

/// The visibility of single heartbeat events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeartbeatLogging {
    /// Subject to the log level.
    AsLevel,
    /// Always logged, whatever the level.
    Shown,
}

/// The reasons for which logging cannot begin.
#[derive(Debug, Error)]
pub enum InitError {
    /// The thread or the descriptor of the log could not be created.
    #[error("no thread or no descriptor for the log: {0}")]
    Start(#[from] io::Error),
    /// [`init`] was called before.
    #[error(transparent)]
    AlreadyStarted(#[from] TryInitError),
}

/// Sends log lines to standard error from here on, panics among them. The levels can be changed through the returned
/// [`LevelHandle`]; the last lines are written when the [`Flush`] is dropped.
///
/// # Errors
///
/// Fails when it was called before, and where there is no thread or descriptor left.
pub fn init(log: &Log, beats: HeartbeatLogging) -> Result<(LevelHandle, Flush), InitError> {
    let stderr = io::stderr();
    let terminal = stderr.is_terminal();
    let human = match log.format {
        LogFormat::Human => true,
        LogFormat::Json => false,
        LogFormat::Auto => terminal,
    };
    let shape = if human { Shape::Human { colour: terminal } } else { Shape::Json };
    // A separate descriptor: a blocked write holds no lock that another thread waits for.
    let (queue, flush) = LogQueue::start(File::from(stderr.as_fd().try_clone_to_owned()?))?;
    let (subscriber, levels) = subscriber(&log.level, beats, shape, queue);
    subscriber.try_init()?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, message = panic.payload_as_str().unwrap_or("panic"));
    }));
    Ok((levels, flush))
}

/// The handle of the log level.
#[derive(Clone, Debug)]
pub struct LevelHandle {
    filter: reload::Handle<Targets, Registry>,
    beats: HeartbeatLogging,
}

impl LevelHandle {
    /// Replaces the log level.
    pub fn set(&self, level: &Directives) {
        // Fails only when the subscriber is gone.
        let _ = self.filter.reload(targets(level, self.beats));
    }
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    Human { colour: bool },
    Json,
}

fn subscriber<W>(
    level: &Directives,
    beats: HeartbeatLogging,
    shape: Shape,
    writer: W,
) -> (Box<dyn tracing::Subscriber + Send + Sync>, LevelHandle)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(targets(level, beats));
    let base = tracing_subscriber::registry().with(filter);
    let subscriber: Box<dyn tracing::Subscriber + Send + Sync> = match shape {
        Shape::Human { colour } => {
            let writer = Escaping::new(writer, Escape::Text { has_colour: colour });
            Box::new(base.with(layer().with_ansi(colour).with_writer(writer)))
        }
        Shape::Json => {
            let lines = layer().json().flatten_event(true).with_current_span(false).with_span_list(false);
            Box::new(base.with(lines.with_writer(Escaping::new(writer, Escape::Json))))
        }
    };
    (subscriber, LevelHandle { filter: handle, beats })
}

fn targets(level: &Directives, beats: HeartbeatLogging) -> Targets {
    let default = filter(level.default);
    let named = level.targets.iter().map(|(target, level)| (&**target, filter(*level)));
    let targets = Targets::new().with_default(default).with_targets(named);
    match beats {
        HeartbeatLogging::AsLevel => targets,
        HeartbeatLogging::Shown => targets.with_target(HEARTBEAT, default.max(LevelFilter::DEBUG)),
    }
}

fn filter(level: Option<Level>) -> LevelFilter {
    match level {
        None => LevelFilter::OFF,
        Some(Level::Error) => LevelFilter::ERROR,
        Some(Level::Warn) => LevelFilter::WARN,
        Some(Level::Info) => LevelFilter::INFO,
        Some(Level::Debug) => LevelFilter::DEBUG,
        Some(Level::Trace) => LevelFilter::TRACE,
    }
}

#[cfg(test)]
pub(in crate::telemetry) mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    /// The output of a subscriber.
    #[derive(Clone, Default)]
    pub(in crate::telemetry) struct LogPage(Arc<Mutex<Vec<u8>>>);

    impl Write for LogPage {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("one writer").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns the lines that `events` write.
    pub(in crate::telemetry) fn written(
        level: impl Into<Directives>,
        beats: HeartbeatLogging,
        shape: Shape,
        events: impl FnOnce(),
    ) -> String {
        let page = LogPage::default();
        let writer = page.clone();
        let (subscriber, _) = subscriber(&level.into(), beats, shape, move || writer.clone());
        tracing::subscriber::with_default(subscriber, events);
        page.text()
    }

    impl LogPage {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("one writer").clone()).expect("lines are UTF-8")
        }
    }

    #[test]
    fn the_level_can_be_chosen_anew() {
        let page = LogPage::default();
        let writer = page.clone();
        let (subscriber, levels) =
            subscriber(&Level::Warn.into(), HeartbeatLogging::AsLevel, Shape::Json, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            // A single callsite: its cached interest must be invalidated.
            for level in [Level::Warn, Level::Debug, Level::Error, Level::Info] {
                levels.set(&level.into());
                tracing::info!(at = level.as_str(), "said");
            }
        });
        let page = page.text();
        let said = ["warn", "debug", "error", "info"].map(|at| page.contains(&format!("\"at\":\"{at}\"")));
        assert_eq!(said, [false, true, false, true], "{page}");
    }

    #[test]
    fn json_lines_carry_their_fields_at_the_top() {
        let line = written(Level::Info, HeartbeatLogging::AsLevel, Shape::Json, || {
            tracing::info!(address = "127.0.0.1:8443", workers = 2, "listening");
        });
        let value: serde_json::Value = serde_json::from_str(&line).expect("one object");
        assert_eq!(value["message"], "listening");
        assert_eq!(value["address"], "127.0.0.1:8443");
        assert_eq!(value["workers"], 2);
        assert_eq!(value["level"], "INFO");
        assert!(value["timestamp"].is_string(), "{line}");
    }

    #[test]
    fn what_a_reader_of_lines_acts_on_is_escaped_however_it_is_logged() {
        let sent = "a\u{85}b\u{2028}c\u{9b}2J\u{7f}\u{202e}d";
        let events = || {
            tracing::info!(plain = sent, shown = %sent, debug = ?sent, "message {sent}");
            tracing::error!(error = %Chain(&io::Error::other(sent)), "failed");
        };
        for shape in [Shape::Json, Shape::Human { colour: true }, Shape::Human { colour: false }] {
            let page = written(Level::Info, HeartbeatLogging::AsLevel, shape, events);
            let is_of_the_format = |c| c == '\n' || c == '\u{1b}' && matches!(shape, Shape::Human { colour: true });
            assert!(!page.chars().any(|c| is_control(c) && !is_of_the_format(c)), "{}", page.escape_debug());
            if matches!(shape, Shape::Json) {
                let line: serde_json::Value = page.lines().next().expect("a line").parse().expect("JSON");
                assert_eq!((&line["plain"], &line["shown"]), (&sent.into(), &sent.into()));
            }
        }
    }

    #[test]
    fn lines_for_people_have_no_colour_away_from_a_terminal() {
        let line = written(Level::Info, HeartbeatLogging::AsLevel, Shape::Human { colour: false }, || {
            tracing::info!(workers = 2, "listening");
        });
        assert!(line.contains("listening workers=2"), "{line}");
        assert!(!line.contains('\x1b'), "{line:?}");
    }

    #[test]
    fn the_level_holds_except_for_beats_that_are_to_be_shown() {
        let events = || {
            tracing::debug!(target: "pulsegate::heartbeat", "beat");
            tracing::debug!(target: "pulsegate::http", "detail");
            tracing::warn!(target: "pulsegate::http", "trouble");
        };
        let plain = written(Level::Warn, HeartbeatLogging::AsLevel, Shape::Json, events);
        assert!(plain.contains("trouble") && !plain.contains("beat\"") && !plain.contains("detail"), "{plain}");
        let shown = written(Level::Warn, HeartbeatLogging::Shown, Shape::Json, events);
        assert!(shown.contains("trouble") && shown.contains("beat\"") && !shown.contains("detail"), "{shown}");
    }
    #[test]
    fn each_part_has_the_level_of_its_longest_target() {
        let level = Directives {
            default: Some(Level::Warn),
            targets: vec![
                ("pulsegate::http".into(), Some(Level::Debug)),
                ("pulsegate::http::h2".into(), None),
                ("h2".into(), Some(Level::Trace)),
            ],
        };
        let page = written(level, HeartbeatLogging::AsLevel, Shape::Json, || {
            tracing::info!(target: "pulsegate::relay", "too mild");
            tracing::warn!(target: "pulsegate::relay", "severe enough");
            tracing::debug!(target: "pulsegate::http::route", "asked for");
            tracing::trace!(target: "pulsegate::http", "milder than asked for");
            tracing::error!(target: "pulsegate::http::h2", "silenced");
            tracing::trace!(target: "h2::codec", "a library's");
        });
        let said: Vec<serde_json::Value> =
            page.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect();
        let said: Vec<&str> = said.iter().filter_map(|line| line["message"].as_str()).collect();
        assert_eq!(said, ["severe enough", "asked for", "a library's"]);
        let silent = Directives { default: None, targets: Vec::new() };
        assert_eq!(written(silent, HeartbeatLogging::AsLevel, Shape::Json, || tracing::error!("lost")), "");
    }
}
