//! Seeded worlds: the short form in every run of the tests, the long form by environment.
//!
//! `SIM_SEEDS=1000 SIM_FROM=0 SIM_CROWDS=20 cargo test --test sim -- --nocapture seeds` runs 1,000 seeds of up to 15
//! sessions and 20 of 300. `SIM_ONLY=3,9` keeps these sessions of each world alone.

use std::time::{Duration, Instant};

use crate::plan::Plan;
use crate::proxy::Flaw;
use crate::shrink;
use crate::world::{self, Outcome};

/// Sessions of an ordinary world at most, and of a crowd.
pub const SESSIONS: usize = 15;
pub const CROWD: usize = 300;
/// Sessions whose record a failure prints.
const RECORDS_SHOWN: usize = 4;

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}; set it to a whole number")),
        Err(_) => default,
    }
}

/// Drops every session that `SIM_ONLY` does not name, where it is set.
fn keep_named(plan: &mut Plan) {
    if let Ok(text) = std::env::var("SIM_ONLY") {
        let number = |part: &str| part.parse().unwrap_or_else(|_| panic!("SIM_ONLY is {text:?}; set it to numbers"));
        let kept: Vec<usize> = text.split(',').map(number).collect();
        plan.sessions.retain(|session| kept.contains(&session.number));
    }
}

/// Runs `seeds`, with worlds of up to `sessions`; returns those that fail.
fn run(kind: &str, sessions: usize, seeds: std::ops::Range<u64>) -> Vec<u64> {
    let (began, mut failing) = (Instant::now(), Vec::new());
    let (mut opened, mut simulated) = (0, Duration::ZERO);
    let count = seeds.end - seeds.start;
    for seed in seeds {
        let mut plan = Plan::draw(seed, sessions);
        keep_named(&mut plan);
        let outcome = world::run(&plan, Flaw::None);
        opened += outcome.opened;
        simulated += outcome.simulated;
        if !outcome.failures.is_empty() {
            report(kind, &plan, &outcome, failing.is_empty());
            failing.push(seed);
        }
    }
    println!(
        "{count} {kind}: {opened} sessions, {:.1} simulated hours in {:.1} minutes; failing: {failing:?}",
        simulated.as_secs_f64() / 3600.0,
        began.elapsed().as_secs_f64() / 60.0,
    );
    failing
}

/// Prints a failing seed; the first of a run is shrunk as far as possible.
fn report(kind: &str, plan: &Plan, outcome: &Outcome, shrinks: bool) {
    let env = if kind == "crowds" { "SIM_SEEDS=0 SIM_CROWDS=1" } else { "SIM_CROWDS=0 SIM_SEEDS=1" };
    println!("\nseed {} fails:", plan.seed);
    for failure in &outcome.failures {
        println!("  {failure}");
    }
    if shrinks {
        let (plan, outcome) = shrink::smallest(plan, outcome);
        println!("it still fails with\n{plan}");
        for failure in &outcome.failures {
            println!("  {failure}");
        }
        let failed = |number: &usize| outcome.failures.iter().any(|failure| failure.session == Some(*number));
        for (_, record) in outcome.records.iter().filter(|(number, _)| failed(number)).take(RECORDS_SHOWN) {
            println!("{record}");
        }
    }
    println!("replay: {env} SIM_FROM={} cargo test --test sim -- --nocapture seeds", plan.seed);
}

#[test]
fn seeds() {
    let from = setting("SIM_FROM", 0);
    let (seeds, crowds) = (setting("SIM_SEEDS", 60), setting("SIM_CROWDS", 1));
    let mut failing = run("seeds", SESSIONS, from..from + seeds);
    failing.extend(run("crowds", CROWD, from..from + crowds));
    assert_eq!(failing, Vec::<u64>::new(), "the seeds that fail are printed above");
}

#[test]
fn the_same_seed_has_the_same_record() {
    // 10 has TLS.
    for seed in [3, 10] {
        let [one, other] = [(), ()].map(|()| world::run(&Plan::draw(seed, SESSIONS), Flaw::None).records);
        assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>(), "seed {seed}");
        for (one, other) in one.values().zip(other.values()) {
            assert_eq!(one, other, "seed {seed}");
        }
    }
}
