//! The API's responses, as far as they are shown. Fields that another version omits or adds are no error.

use serde::Deserialize;

/// A session. Times are in seconds since 1970, durations in seconds.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(in crate::cli) struct SessionReport {
    pub(in crate::cli) id: String,
    pub(in crate::cli) state: String,
    pub(in crate::cli) route: String,
    pub(in crate::cli) path: String,
    pub(in crate::cli) client: String,
    pub(in crate::cli) protocol: String,
    pub(in crate::cli) closed_at: Option<f64>,
    pub(in crate::cli) duration_s: Option<f64>,
    pub(in crate::cli) idle_s: Option<f64>,
    pub(in crate::cli) heartbeat: HeartbeatReport,
    /// The flow from the client.
    #[serde(rename = "in")]
    pub(in crate::cli) incoming: DirectionReport,
    /// The flow to the client.
    #[serde(rename = "out")]
    pub(in crate::cli) outgoing: DirectionReport,
    pub(in crate::cli) close: Option<CloseReport>,
}

/// The state of a session's heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(in crate::cli) struct HeartbeatReport {
    /// The number of consecutive misses.
    pub(in crate::cli) misses: Option<u64>,
    /// The number of consecutive misses that ends the session.
    pub(in crate::cli) max: Option<u64>,
    pub(in crate::cli) rtt_s: Option<f64>,
}

/// The traffic in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(in crate::cli) struct DirectionReport {
    #[serde(rename = "msgs")]
    pub(in crate::cli) messages: Option<u64>,
    pub(in crate::cli) bytes: Option<u64>,
    /// The bytes held in this direction.
    pub(in crate::cli) buffered: Option<u64>,
}

/// The end of a session.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(in crate::cli) struct CloseReport {
    pub(in crate::cli) reason: Option<String>,
    pub(in crate::cli) code: Option<u16>,
    /// The end as a sentence.
    pub(in crate::cli) sentence: Option<String>,
}

/// The proxy's process and version.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::cli) struct Info {
    pub(in crate::cli) version: String,
    pub(in crate::cli) pid: u32,
    pub(in crate::cli) started_at: Option<f64>,
    pub(in crate::cli) now: Option<f64>,
}

/// The figures of the whole proxy, sent once a second.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(in crate::cli) struct StatsReport {
    pub(in crate::cli) at: f64,
    pub(in crate::cli) open: u64,
    pub(in crate::cli) opened_total: u64,
    pub(in crate::cli) closed_total: u64,
    #[serde(rename = "in")]
    pub(in crate::cli) incoming: DirectionReport,
    #[serde(rename = "out")]
    pub(in crate::cli) outgoing: DirectionReport,
    pub(in crate::cli) buffered: u64,
    pub(in crate::cli) rtt: Rtt,
    pub(in crate::cli) missing: u64,
    pub(in crate::cli) phase: String,
    pub(in crate::cli) generation: u64,
}

/// The round trips of all sessions.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(in crate::cli) struct Rtt {
    #[serde(rename = "p50_s")]
    pub(in crate::cli) p50: Option<f64>,
    #[serde(rename = "p99_s")]
    pub(in crate::cli) p99: Option<f64>,
    #[serde(rename = "max_s")]
    pub(in crate::cli) max: Option<f64>,
}

/// The result of closing sessions.
#[derive(Clone, Debug, Deserialize)]
pub(in crate::cli) struct Shut {
    pub(in crate::cli) matched: u64,
    pub(in crate::cli) closed: u64,
    /// At most 100 ids.
    pub(in crate::cli) ids: Vec<String>,
}

/// The diagnosis of one session.
#[derive(Clone, Debug, Deserialize)]
pub(in crate::cli) struct Diagnosis {
    pub(in crate::cli) story: Vec<StoryParagraph>,
}

/// Some sentences on one topic.
#[derive(Clone, Debug, Deserialize)]
pub(in crate::cli) struct StoryParagraph {
    pub(in crate::cli) topic: String,
    pub(in crate::cli) text: String,
}

/// The progress of a drain.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(in crate::cli) struct Draining {
    pub(in crate::cli) phase: String,
    pub(in crate::cli) sessions: u64,
    /// The time of the last cancellation in this process, in seconds since 1970.
    #[serde(default)]
    pub(in crate::cli) cancelled_at: Option<f64>,
}

/// The result of a reload.
#[derive(Clone, Debug, Deserialize)]
pub(in crate::cli) struct Reloaded {
    pub(in crate::cli) result: String,
    pub(in crate::cli) generation: u64,
    #[serde(default)]
    pub(in crate::cli) requires_restart: Vec<String>,
    #[serde(default)]
    pub(in crate::cli) error: Option<String>,
}
