//! Worlds with a deliberate fault: the judge finds each of them, by the rule that it breaks.

use crate::plan::Plan;
use crate::proxy::Flaw;
use crate::seeds::SESSIONS;
use crate::world;

/// Seeds that are tried for each fault.
const SEEDS: u64 = 12;

/// Returns the rules that the first seeds break in a world with `flaw`, until `rule` is among them.
fn broken(flaw: Flaw, rule: &str) -> Vec<&'static str> {
    let mut rules = Vec::new();
    for seed in 0..SEEDS {
        let outcome = world::run(&Plan::draw(seed, SESSIONS), flaw);
        rules.extend(outcome.failures.iter().map(|failure| failure.rule));
        if rules.contains(&rule) {
            break;
        }
    }
    rules.sort_unstable();
    rules.dedup();
    rules
}

#[track_caller]
fn is_found(flaw: Flaw, rule: &str) {
    let rules = broken(flaw, rule);
    assert!(rules.contains(&rule), "{flaw:?} breaks {rules:?} in {SEEDS} seeds, not {rule:?}");
}

#[test]
fn a_slower_policy_than_the_judge_knows_leaves_dead_clients() {
    is_found(Flaw::Slower, "dead client past its bound");
}

#[test]
fn a_stricter_policy_than_the_judge_knows_kills_live_clients() {
    is_found(Flaw::Stricter, "live client torn down");
}

#[test]
fn a_session_that_is_never_removed_is_found() {
    is_found(Flaw::Lingers, "never ended");
}

#[test]
fn a_session_that_stays_in_the_registry_is_found() {
    is_found(Flaw::Remains, "registry");
}

#[test]
fn an_end_without_a_report_is_found() {
    is_found(Flaw::Unreported, "reports");
}

#[test]
fn an_end_with_two_reports_is_found() {
    is_found(Flaw::ReportedTwice, "reports");
}

#[test]
fn a_changed_byte_is_found() {
    is_found(Flaw::Corrupt, "bytes");
}

#[test]
fn a_false_code_is_found() {
    is_found(Flaw::WrongCode, "codes");
}
