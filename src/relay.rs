//! The relay: one future per session drives both legs.
//!
//! Bytes are read into a buffer that belongs to the worker thread, their frame boundaries are found in place, and they
//! are written to the other leg from there, still masked. Only what the other leg does not take at once is kept, and while
//! anything is kept nothing more is read. The rules decide on control frames, the heartbeat engine on time, and the pump
//! performs their decisions.

mod closing;
mod control;
mod control_frames;
mod direction;
mod end;
mod failure;
mod flow;
mod inbound;
mod leg;
mod memory;
mod message_filter;
mod message_rate;
mod observer;
mod outbound;
mod pump;
mod report;
mod scratch;
mod slot;
mod teardown;
mod terms;
mod timer;

use std::future::Future;
use std::sync::Arc;

pub use control::{Control, SessionOrder};
pub use leg::{Leg, Legs, Partial, Unanswered};
pub use memory::{Held, Memory};
pub use observer::{Observer, Unobserved};
pub use terms::NegotiatedTerms;

pub use crate::heartbeat::Delivery;
use crate::session::Ending;

/// Relays frames between both legs until the session has ended and both are closed.
///
/// The future is the whole session: dropping it drops both legs.
pub fn run<C: Leg, U: Leg>(
    legs: Legs<C, U>,
    terms: NegotiatedTerms,
    control: Arc<Control>,
) -> impl Future<Output = Ending> {
    pump::Pump::new(legs, terms, control)
}
