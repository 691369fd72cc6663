//! The memory of the proxy for an idle session, before and after one large message.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use super::{Figures, Target, handshake, kib};
use crate::fleet::{Fleet, Member};
use crate::pattern::Pattern;
use crate::session::Manners;

/// The time for which the memory must be stable before it is read.
const CALM: Duration = Duration::from_secs(2);

/// Hold idle sessions and measure memory
#[derive(Args, Clone, Debug)]
pub struct Idle {
    #[command(flatten)]
    target: Target,
    /// Sessions to hold
    #[arg(short = 'n', long, default_value_t = 4000, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(2..))]
    sessions: usize,
    /// Sessions to open and close first, so that one-time allocations are not counted as a session's
    #[arg(long, default_value_t = 300)]
    warm_up: usize,
    /// Payload bytes of the one message that each session echoes at the end
    #[arg(short, long, default_value_t = 100_000)]
    size: usize,
    /// Sessions that echo at once
    #[arg(long, default_value_t = 50, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    wave: usize,
}

#[derive(Clone, Copy, Debug)]
enum Order {
    /// All sessions below this number echo once; the sessions stay open.
    Echo(usize),
    Close,
}

/// Runs the scenario.
pub async fn run(options: &Idle) -> Result<Figures> {
    let Idle { sessions, warm_up, wave, .. } = *options;
    let patience = options.target.patience;
    let dialer = options.target.dialer(Pattern::new(options.size)).await?;
    let tree = options.target.must_measure()?;
    handshake::churn(&dialer, warm_up, options.target.at_once, patience).await.context("warming up")?;
    let baseline = tree.settled_pss(CALM, patience).await?;

    // Two halves: the second cannot reuse memory that the warm-up freed, so that it shows the marginal cost.
    let middle = sessions / 2;
    let size = options.size;
    let launch = |numbers| {
        let opening = options.target.opening(Manners::Answers);
        Fleet::launch(&dialer, numbers, opening, Order::Echo(0), move |member| hold(member, size))
    };
    let mut first = launch(0..middle);
    first.opened().await?;
    let half = tree.settled_pss(CALM, patience).await?;
    let mut second = launch(middle..sessions);
    second.opened().await?;
    let idle = tree.settled_pss(CALM, patience).await?;

    for end in (0..sessions).step_by(wave).map(|start| (start + wave).min(sessions)) {
        first.order(Order::Echo(end));
        second.order(Order::Echo(end));
        first.reported(middle + end.min(middle), patience).await.context("echoing")?;
        second.reported(sessions - middle + end.saturating_sub(middle), patience).await.context("echoing")?;
    }
    let echoed = tree.settled_pss(CALM, patience).await?;
    for fleet in [first, second] {
        fleet.order(Order::Close);
        fleet.finish(patience).await.context("closing")?;
    }

    let per_session = (idle as f64 - baseline as f64) / sessions as f64;
    let after = (echoed as f64 - baseline as f64) / sessions as f64;
    let mut figures = Figures::default();
    figures.put("sessions", sessions as f64);
    figures.put("pss_baseline_kib", kib(baseline as f64));
    figures.put("pss_kib_per_session", kib(per_session));
    figures.put("pss_kib_per_session_at_margin", kib((idle as f64 - half as f64) / (sessions - middle) as f64));
    figures.put("pss_kib_per_session_after_echo", kib(after));
    figures.put("pss_growth_percent", (after / per_session - 1.0) * 100.0);
    Ok(figures)
}

/// Runs one session.
async fn hold(mut member: Member<Order>, size: usize) -> Result<()> {
    let index = member.index;
    let turn = |order: &Order| match order {
        Order::Echo(end) if *end <= index => None,
        order => Some(*order),
    };
    if let Order::Echo(_) = member.hold(turn).await? {
        member.session.echo(index, 0, size).await?;
        member.session.shrink();
        member.report();
    }
    member.hold(|order| matches!(order, Order::Close).then_some(())).await?;
    member.session.close().await?;
    Ok(())
}
