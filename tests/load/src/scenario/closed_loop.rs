//! Closed loops: each session or client begins its next exchange when the last one is done.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep_until};

use super::{Figures, micros};
use crate::fleet::Fleet;
use crate::process::Tree;
use crate::stats::percentile;

/// The extent of a measurement.
#[derive(Clone, Copy, Debug)]
pub(super) enum Extent {
    /// For `duration`, after `warm_up`.
    Timed {
        /// The time before exchanges count.
        warm_up: Duration,
        /// The measured time.
        duration: Duration,
    },
    /// This many exchanges, all loops together.
    Counted(u64),
}

/// The order to a fleet of loops.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    Wait,
    /// Repeat until `end`; exchanges that complete from `start` on count.
    Timed {
        start: Instant,
        end: Instant,
    },
    /// This many exchanges, all loops together.
    Counted(u64),
}

impl Order {
    /// Returns the order; [`None`] while there is none.
    pub(super) fn given(&self) -> Option<Self> {
        match self {
            Self::Wait => None,
            order => Some(*order),
        }
    }
}

/// The result of one loop: the time of each of its exchanges.
pub(super) type Latencies = Vec<Duration>;

/// The work that a loop repeats.
pub(super) trait Exchange: Send {
    /// Runs one exchange from beginning to end.
    fn exchange(&mut self, sequence: u64) -> impl Future<Output = Result<()>> + Send;
}

/// Repeats an exchange according to `order`, as loop `index` of `loops`.
pub(super) async fn repeat(order: Order, index: usize, loops: usize, work: &mut impl Exchange) -> Result<Latencies> {
    let mut latencies = Latencies::new();
    match order {
        Order::Wait => {}
        Order::Timed { start, end } => {
            let mut begun = Instant::now();
            for sequence in 0.. {
                work.exchange(sequence).await?;
                let done = Instant::now();
                if done > end {
                    break;
                }
                if done >= start {
                    latencies.push(done - begun);
                }
                begun = done;
            }
        }
        Order::Counted(all) => {
            for sequence in (index as u64..all).step_by(loops) {
                let begun = Instant::now();
                work.exchange(sequence).await?;
                latencies.push(begun.elapsed());
            }
        }
    }
    Ok(latencies)
}

/// The names of a scenario's figures.
pub(super) struct Names {
    pub(super) count: &'static str,
    pub(super) rate: &'static str,
    pub(super) cpu: &'static str,
}

/// Gives an open fleet its order, waits for the result, and adds its cost to `figures`.
pub(super) async fn measure(
    fleet: Fleet<Order, Latencies>,
    extent: Extent,
    measured: Option<&Tree>,
    patience: Duration,
    names: &Names,
    figures: &mut Figures,
) -> Result<()> {
    let cpu = || measured.map(Tree::cpu).transpose();
    let (before, took, after, latencies) = match extent {
        Extent::Timed { warm_up, duration } => {
            let start = Instant::now() + warm_up;
            let end = start + duration;
            fleet.order(Order::Timed { start, end });
            sleep_until(start).await;
            let before = cpu()?;
            sleep_until(end).await;
            let after = cpu()?;
            (before, duration, after, fleet.finish(patience).await.context("the last exchanges")?)
        }
        Extent::Counted(all) => {
            let before = cpu()?;
            let start = Instant::now();
            fleet.order(Order::Counted(all));
            // A count implies no time: the timeout applies to each exchange.
            let patience = patience.saturating_mul(u32::try_from(all).unwrap_or(u32::MAX));
            let latencies = fleet.finish(patience).await?;
            (before, start.elapsed(), cpu()?, latencies)
        }
    };
    let mut latencies = latencies.concat();
    latencies.sort_unstable();
    let of = |percent| percentile(&latencies, percent).context("nothing came back while the clock ran");
    let count = latencies.len() as f64;
    figures.put(names.count, count);
    figures.put(names.rate, count / took.as_secs_f64());
    figures.put("latency_p50_us", micros(of(50.0)?));
    figures.put("latency_p99_us", micros(of(99.0)?));
    if let Some((before, after)) = before.zip(after) {
        let spent = after.saturating_sub(before);
        figures.put(names.cpu, micros(spent) / count);
        figures.put("cpu_share_percent", spent.as_secs_f64() / took.as_secs_f64() * 100.0);
    }
    Ok(())
}
