//! The memory of the proxy for a connection that stays open after one plain request.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::{Figures, Target, Version, kib};
use crate::fetch::Client;
use crate::fleet::{Fleet, Member};
use crate::pattern::Pattern;
use crate::upstream::LARGEST_BODY;

/// The time for which the memory must be stable before it is read.
const CALM: Duration = Duration::from_secs(2);

/// Hold connections that have had one request, and measure memory
#[derive(Args, Clone, Debug)]
pub struct Kept {
    #[command(flatten)]
    target: Target,
    /// Connections to hold
    #[arg(short = 'n', long, default_value_t = 3000, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(2..))]
    connections: usize,
    /// Connections to open and close first, so that one-time allocations are not counted as a connection's
    #[arg(long, default_value_t = 300)]
    warm_up: usize,
    /// Bytes of the body that each has fetched
    #[arg(short, long, default_value_t = 1024, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(..=LARGEST_BODY as u64))]
    size: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Hold,
    /// Fetch once more, and close.
    End,
}

/// Runs the scenario.
pub async fn run(options: &Kept) -> Result<Figures> {
    let Kept { connections, warm_up, size, .. } = *options;
    let Target { at_once, patience, http, .. } = options.target;
    ensure!(http == Version::H1, "connections of HTTP/2 are not kept one by one: --http must be h1");
    let dialer = options.target.dialer(Pattern::new(LARGEST_BODY)).await?;
    let tree = options.target.must_measure()?;
    let launch = |count, order| Fleet::of_clients(&dialer, count, at_once, order, move |member| keep(member, size));
    launch(warm_up, Order::End).finish(patience).await.context("warming up")?;
    let baseline = tree.settled_pss(CALM, patience).await?;

    // Two halves: the second cannot reuse memory that was freed before, so that it shows the marginal cost.
    let middle = connections / 2;
    let each = Duration::from_millis(100) * u32::try_from(connections)?;
    let mut fleets = Vec::new();
    let mut weights = Vec::new();
    for count in [middle, connections - middle] {
        let mut fleet = launch(count, Order::Hold);
        fleet.reported(2 * count, patience + each).await.context("fetching")?;
        fleets.push(fleet);
        weights.push(tree.settled_pss(CALM, patience).await?);
    }
    // All connections must still be open.
    for fleet in fleets {
        fleet.order(Order::End);
        fleet.finish(patience + each).await.context("fetching once more")?;
    }

    let (half, kept) = (weights[0] as f64, weights[1] as f64);
    let mut figures = Figures::default();
    figures.put("connections", connections as f64);
    figures.put("pss_baseline_kib", kib(baseline as f64));
    figures.put("pss_kib_per_connection", kib((kept - baseline as f64) / connections as f64));
    figures.put("pss_kib_per_connection_at_margin", kib((kept - half) / (connections - middle) as f64));
    Ok(figures)
}

/// Runs one client.
async fn keep(mut member: Member<Order, Client>, size: usize) -> Result<()> {
    let index = member.index;
    member.session.fetch(index, 0, size).await.context("the first request")?;
    member.report();
    member.wait(|order| (*order == Order::End).then_some(())).await;
    member.session.fetch(index, 1, size).await.context("the request on a connection that was kept")?;
    Ok(())
}
