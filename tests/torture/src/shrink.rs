//! The smallest plan that still breaks the same promise.

use std::fmt::Write as _;

use anyhow::{Result, bail};

use crate::draw::{self, Block};
use crate::judge::Promise;
use crate::plan::{Link, Plan, Script, Step};
use crate::run::Options;
use crate::session::{self, Summary};

/// Runs of one plan before it counts as passing.
const ATTEMPTS: usize = 2;

/// Removes sessions and steps of a seed's plan, and simplifies the rest, as long as it still fails. Returns the
/// smallest plan with its report.
///
/// # Errors
///
/// Fails if the seed does not fail alone. Also returns failures of the judge itself.
pub async fn smallest(options: &Options, seed: u64, tight: bool) -> Result<String> {
    let block = Block::of(seed, tight);
    let mut plan = draw::plan(seed, tight);
    let Some(mut found) = fails(options, &block, &plan, None).await? else {
        bail!("seed {seed} does not fail when it runs alone ({ATTEMPTS} times)");
    };
    let promise = found.broken.first().map(|(_, promise)| *promise);
    let (mut tried, mut index) = (0, 0);
    loop {
        let candidates = candidates(&plan);
        let Some(candidate) = candidates.into_iter().nth(index) else { break };
        tried += 1;
        if let Some(summary) = fails(options, &block, &candidate, promise).await? {
            (plan, found) = (candidate, summary);
            index = 0;
            eprintln!("smaller after {tried} runs:\n{plan}");
        } else {
            index += 1;
        }
    }
    let mut text = String::new();
    let _ = writeln!(text, "the smallest plan, after {tried} runs:\n{plan}");
    text.push_str(&found.text.join("\n"));
    Ok(text)
}

async fn fails(options: &Options, block: &Block, plan: &Plan, promise: Option<Promise>) -> Result<Option<Summary>> {
    for _ in 0..ATTEMPTS {
        let summary = session::plans_together(options, block, vec![plan.clone()]).await?;
        let same = |(_, broken): &(u64, Promise)| promise.is_none_or(|promise| *broken == promise);
        if summary.broken.iter().any(same) {
            return Ok(Some(summary));
        }
    }
    Ok(None)
}

/// Returns plans that are a little simpler.
fn candidates(plan: &Plan) -> Vec<Plan> {
    let mut all = Vec::new();
    let mut add = |change: &dyn Fn(&mut Plan)| {
        let mut candidate = plan.clone();
        change(&mut candidate);
        if candidate != *plan && !candidate.sessions.is_empty() {
            all.push(candidate);
        }
    };
    for index in (0..plan.sessions.len()).filter(|_| plan.sessions.len() > 1) {
        add(&|plan| drop(plan.sessions.remove(index)));
    }
    for index in 0..plan.transfers.len() {
        add(&|plan| {
            plan.transfers.remove(index);
        });
    }
    let needs_link = plan.sessions.iter().any(|session| session.client.steps.contains(&Step::Vanish));
    add(&|plan| plan.link = Link { present: needs_link, ..Link::default() });
    add(&|plan| plan.opening = crate::plan::Opening::default());
    for index in 0..plan.sessions.len() {
        add(&|plan| plan.sessions[index].app_link = Link::default());
        add(&|plan| plan.sessions[index].watched = None);
        add(&|plan| plan.sessions[index].deflate = false);
        for is_client in [true, false] {
            let script = move |plan: &mut Plan, change: &dyn Fn(&mut Script)| {
                let session = &mut plan.sessions[index];
                change(if is_client { &mut session.client } else { &mut session.app });
            };
            let steps = if is_client { &plan.sessions[index].client.steps } else { &plan.sessions[index].app.steps };
            for (step, kind) in steps.iter().enumerate() {
                if kind.bytes() > 0 || matches!(kind, Step::Pause(_) | Step::Ping(_) | Step::Pong(_)) {
                    add(&|plan| script(plan, &|script| drop(script.steps.remove(step))));
                }
                if let Some(smaller) = halved(kind) {
                    add(&|plan| script(plan, &|script| script.steps[step] = smaller.clone()));
                }
            }
            add(&|plan| script(plan, &|script| (script.pace, script.buffer) = (0, 0)));
            add(&|plan| script(plan, &|script| script.newest_only = false));
        }
    }
    all
}

fn halved(step: &Step) -> Option<Step> {
    Some(match *step {
        Step::Message { size, fragments, text, ping, rsv1 } if fragments > 1 || ping || rsv1 => {
            let _ = (fragments, ping, rsv1);
            Step::Message { size, fragments: 1, text, ping: false, rsv1: false }
        }
        Step::Message { size: size @ 16.., fragments, text, ping, rsv1 } => {
            Step::Message { size: size / 2, fragments, text, ping, rsv1 }
        }
        Step::Flood { count: count @ 2.., most } => Step::Flood { count: count / 2, most },
        Step::Torrent { millis: millis @ 100.., size, burst } => Step::Torrent { millis: millis / 2, size, burst },
        Step::Slow { size: size @ 16.., millis, pieces } => Step::Slow { size: size / 2, millis, pieces },
        Step::Pause(time @ 50..) => Step::Pause(time / 2),
        _ => return None,
    })
}
