//! A failing plan made smaller: sessions and events are dropped while one of its rules is still broken.

use std::time::{Duration, Instant};

use crate::plan::Plan;
use crate::proxy::Flaw;
use crate::world::{self, Outcome};

/// Worlds that are tried at most.
const TRIES: usize = 60;
/// The time limit of a search: the world of a crowd takes a minute by itself.
const TIME: Duration = Duration::from_secs(60);

/// Returns the smallest plan found that breaks a rule that `outcome` broke.
pub fn smallest(plan: &Plan, outcome: &Outcome) -> (Plan, Outcome) {
    let Some(rule) = outcome.failures.first().map(|failure| failure.rule) else {
        return (plan.clone(), world::run(plan, Flaw::None));
    };
    let mut best = (plan.clone(), None);
    let (mut tries, began) = (0, Instant::now());
    let mut try_without = |best: &mut (Plan, Option<Outcome>), smaller: Plan| {
        tries += 1;
        if tries > TRIES || began.elapsed() > TIME {
            return false;
        }
        let outcome = world::run(&smaller, Flaw::None);
        let fails = outcome.failures.iter().any(|failure| failure.rule == rule);
        if fails {
            *best = (smaller, Some(outcome));
        }
        fails
    };
    // The session that failed is the best guess, by itself.
    if let Some(number) = outcome.failures.first().and_then(|failure| failure.session) {
        let mut alone = plan.clone();
        alone.sessions.retain(|session| session.number == number);
        try_without(&mut best, alone);
    }
    let mut at = 0;
    while best.0.sessions.len() > 1 && at < best.0.sessions.len() {
        let mut smaller = best.0.clone();
        smaller.sessions.remove(at);
        if !try_without(&mut best, smaller) {
            at += 1;
        }
    }
    let mut at = 0;
    while at < best.0.events.len() {
        let mut smaller = best.0.clone();
        smaller.events.remove(at);
        if !try_without(&mut best, smaller) {
            at += 1;
        }
    }
    let (plan, outcome) = best;
    let outcome = outcome.unwrap_or_else(|| world::run(&plan, Flaw::None));
    (plan, outcome)
}
