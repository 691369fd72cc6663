//! A whole run: many seeds in batches, a report, and the smallest plan of a seed that fails.

use std::collections::VecDeque;
use std::time::Instant;

use anyhow::Result;
use tokio::task::JoinSet;

use crate::draw::{self, BATCH, Block};
use crate::judge::{self, Promise, Verdict};
use crate::plan::Plan;
use crate::run::{self, Batch, Options};

/// The result of a run.
#[derive(Debug, Default)]
pub struct Summary {
    /// Seeds without a fault.
    pub passed: u64,
    /// Seeds with a fault.
    pub failed: Vec<u64>,
    /// Faults that the lateness of the machine explains.
    pub discarded: usize,
    /// Faults of batches: descriptors, `/readyz`, the exit.
    pub batch_faults: usize,
    /// The promises that were broken.
    pub broken: Vec<(u64, Promise)>,
    /// The report.
    pub text: Vec<String>,
}

impl Summary {
    /// Adds another summary.
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.discarded += other.discarded;
        self.batch_faults += other.batch_faults;
        self.broken.extend(other.broken);
        self.text.extend(other.text);
    }

    /// Returns true if no fault was found.
    pub fn is_clean(&self) -> bool {
        self.failed.is_empty() && self.batch_faults == 0
    }
}

/// The seeds of a run and its options.
#[derive(Clone, Debug)]
pub struct Seeds {
    /// The first.
    pub from: u64,
    /// The number of seeds.
    pub count: u64,
    /// Concurrent batches.
    pub jobs: usize,
    /// True if windows are as short as the configuration allows.
    pub tight: bool,
    /// True if each batch prints its findings as soon as it has ended.
    pub print: bool,
}

/// Runs seeds in batches of consecutive ones.
///
/// # Errors
///
/// Returns failures of the judge itself.
pub async fn seeds(options: &Options, seeds: &Seeds) -> Result<Summary> {
    let end = seeds.from + seeds.count;
    let mut waiting: VecDeque<(u64, u64)> = VecDeque::new();
    let mut from = seeds.from;
    while from < end {
        let to = ((from / BATCH + 1) * BATCH).min(end);
        waiting.push_back((from, to));
        from = to;
    }
    let mut running = JoinSet::new();
    let mut summary = Summary::default();
    loop {
        while running.len() < seeds.jobs.max(1) {
            let Some((from, to)) = waiting.pop_front() else { break };
            let (options, tight, print) = (options.clone(), seeds.tight, seeds.print);
            running.spawn(async move {
                let plans = (from..to).map(|seed| draw::plan(seed, tight)).collect();
                let part = plans_together(&options, &Block::of(from, tight), plans).await?;
                if print {
                    part.text.iter().for_each(|text| println!("{text}"));
                }
                anyhow::Ok(part)
            });
        }
        match running.join_next().await {
            Some(part) => summary.add(part??),
            None => return Ok(summary),
        }
    }
}

/// Runs plans through one proxy and judges them.
///
/// # Errors
///
/// Returns failures of the judge itself.
pub async fn plans_together(options: &Options, block: &Block, plans: Vec<Plan>) -> Result<Summary> {
    let (first, count, started) = (plans.first().map_or(0, |plan| plan.seed), plans.len(), Instant::now());
    let batch = run::batch(options, block, plans).await?;
    let mut summary = Summary::default();
    for outcome in &batch.outcomes {
        let verdict = judge::judge(&batch, outcome);
        summary.discarded += verdict.discarded.len();
        for fault in &verdict.discarded {
            summary.text.push(format!("discarded: seed {}: {}", outcome.plan.seed, fault.text));
        }
        if verdict.faults.is_empty() {
            summary.passed += 1;
        } else {
            summary.failed.push(outcome.plan.seed);
            summary.broken.extend(verdict.faults.iter().map(|fault| (outcome.plan.seed, fault.promise)));
            summary.text.push(report(&batch, outcome, &verdict));
        }
    }
    let mut faults = batch.faults.clone();
    faults.extend(judge::readiness(&batch, block.freezes));
    summary.batch_faults = faults.len();
    for fault in faults {
        summary.text.push(format!("FAILED batch of seed {first}: {fault}"));
    }
    let seconds = started.elapsed().as_secs_f64();
    summary
        .text
        .push(format!("batch of seed {first}: {count} seeds in {seconds:.1} s, {} failed", summary.failed.len()));
    Ok(summary)
}

fn report(batch: &Batch, outcome: &run::Outcome, verdict: &Verdict) -> String {
    let mut lines = vec![format!("FAILED seed {}", outcome.plan.seed), outcome.plan.to_string()];
    for fault in &verdict.faults {
        lines.push(format!("  fault ({:?}): {}", fault.promise, fault.text));
    }
    for (index, pair) in outcome.proxied.iter().enumerate() {
        lines.push(format!("  session {index}, client: {}", pair.client));
        lines.push(format!("  session {index}, app:    {}", pair.app));
        if let Some(Some(direct)) = outcome.direct.get(index) {
            lines.push(format!("  without a proxy, client: {}", direct.client));
            lines.push(format!("  without a proxy, app:    {}", direct.app));
        }
        let path = outcome.paths.get(index).map(String::as_str).unwrap_or_default();
        let start = pair.client.start;
        for (at, line) in batch.log.iter().filter(|(_, line)| line["url.path"] == path) {
            lines.push(format!("  log +{}: {line}", at.saturating_duration_since(start).as_millis()));
        }
        if let Some((from, to)) = batch.stopped {
            let at = |instant: Instant| instant.saturating_duration_since(start).as_millis();
            lines.push(format!("  the proxy was stopped from +{} to +{}", at(from), at(to)));
        }
    }
    lines.push(format!("  replay: cargo run -p pulsegate-torture -- --seed {}", outcome.plan.seed));
    lines.join("\n")
}
