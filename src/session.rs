//! The facts of a session: its id, what is known when it opens, its live figures, and how and why it ended.
//!
//! ```text
//! cause_table → close_summary → ending ─┬→ close_cause
//!                                       └→ live_stats          conn_id ← facts
//! ```
//!
//! The relay, the registry, the log, the metrics and the admin API share these types. Orders to a session are the relay's.

mod cause_table;
mod close_cause;
mod close_summary;
mod conn_id;
mod ending;
mod facts;
mod live_stats;

pub(crate) use cause_table::{LegClose, close_summary};
pub use close_cause::{Abort, Breakage, CloseCause, EndReason, Initiator, RESTART};
pub(crate) use close_summary::span;
pub use conn_id::{ConnId, NotAConnId};
pub use ending::Ending;
pub use facts::{ClientAddress, RequestFacts, SessionFacts};
pub(crate) use live_stats::LiveCounters;
pub use live_stats::{LiveStats, Traffic};
