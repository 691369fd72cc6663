//! The cost of a session's setup: full TLS handshake, upgrade, close. No TLS session is ever resumed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::{Figures, Target, micros};
use crate::dial::Dialer;
use crate::pattern::Pattern;
use crate::session::Manners;

/// Open and close sessions, one after the other
#[derive(Args, Clone, Debug)]
pub struct Handshake {
    #[command(flatten)]
    target: Target,
    /// Sessions to open and close
    #[arg(short = 'm', long, default_value_t = 2000)]
    upgrades: usize,
    /// Sessions in progress at once
    #[arg(short, long, default_value_t = 8)]
    concurrency: usize,
    /// Sessions to open and close before measuring
    #[arg(long, default_value_t = 200)]
    warm_up: usize,
}

/// Runs the scenario.
pub async fn run(options: &Handshake) -> Result<Figures> {
    let Handshake { upgrades, concurrency, warm_up, .. } = *options;
    let patience = options.target.patience;
    let dialer = options.target.dialer(Pattern::new(0)).await?;
    let measured = options.target.measured()?;
    churn(&dialer, warm_up, concurrency, patience).await.context("warming up")?;
    let before = match &measured {
        Some(tree) => Some(tree.settled_cpu(patience).await?),
        None => None,
    };
    let start = Instant::now();
    churn(&dialer, upgrades, concurrency, patience).await?;
    let took = start.elapsed();

    let mut figures = Figures::default();
    figures.put("upgrades", upgrades as f64);
    figures.put("upgrades_per_second", upgrades as f64 / took.as_secs_f64());
    if let Some((tree, before)) = measured.zip(before) {
        let spent = tree.settled_cpu(patience).await?.saturating_sub(before);
        figures.put("cpu_us_per_upgrade", micros(spent) / upgrades as f64);
    }
    Ok(figures)
}

/// Opens and closes `count` sessions, `concurrency` of them at once.
pub async fn churn(dialer: &Arc<Dialer>, count: usize, concurrency: usize, patience: Duration) -> Result<()> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..concurrency {
        let dialer = Arc::clone(dialer);
        let next = Arc::clone(&next);
        tasks.spawn(async move {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return anyhow::Ok(());
                }
                let work = async {
                    let mut session = dialer.dial(index, Manners::Answers).await?;
                    timeout(patience, session.close()).await.context("the close took too long")?.context("closing")
                };
                work.await.with_context(|| format!("upgrade {index}"))?;
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.context("a task failed")??;
    }
    Ok(())
}
