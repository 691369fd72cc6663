//! Closed-loop echo: every session sends its next message once the last one is echoed.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use super::closed_loop::{self, Exchange, Extent, Latencies, Names, Order};
use super::{Figures, Target};
use crate::fleet::{Fleet, Member};
use crate::pattern::Pattern;
use crate::session::Manners;

const NAMES: Names = Names { count: "messages", rate: "messages_per_second", cpu: "cpu_us_per_message" };

/// Echo messages and check every byte
#[derive(Args, Clone, Debug)]
pub struct Echo {
    #[command(flatten)]
    target: Target,
    /// Sessions
    #[arg(short = 'n', long, default_value_t = 64)]
    sessions: usize,
    /// Payload bytes of a message
    #[arg(short, long, default_value_t = 64)]
    size: usize,
    /// Text messages that are JSON objects, instead of binary noise
    #[arg(long)]
    json: bool,
    /// Measurement time
    #[arg(short, long, default_value = "5s", value_parser = humantime::parse_duration, value_name = "TIME")]
    duration: Duration,
    /// Warm-up time, with echoes that do not count
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration, value_name = "TIME")]
    warm_up: Duration,
    /// Echo exactly this many messages, all sessions together, instead of measuring for a time
    #[arg(short, long, conflicts_with_all = ["duration", "warm_up"])]
    messages: Option<u64>,
}

/// Runs the scenario.
pub async fn run(options: &Echo) -> Result<Figures> {
    let pattern = if options.json { Pattern::json(options.size) } else { Pattern::new(options.size) };
    let dialer = options.target.dialer(pattern).await?;
    let measured = options.target.measured()?;
    let Echo { sessions, size, warm_up, duration, .. } = *options;
    let opening = options.target.opening(Manners::Answers);
    let mut fleet =
        Fleet::launch(&dialer, 0..sessions, opening, Order::Wait, move |member| echo(member, sessions, size));
    fleet.opened().await?;

    let extent = options.messages.map_or(Extent::Timed { warm_up, duration }, Extent::Counted);
    let mut figures = Figures::default();
    figures.put("sessions", sessions as f64);
    figures.put("size", size as f64);
    closed_loop::measure(fleet, extent, measured.as_ref(), options.target.patience, &NAMES, &mut figures).await?;
    Ok(figures)
}

/// Runs one session.
async fn echo(mut member: Member<Order>, sessions: usize, size: usize) -> Result<Latencies> {
    let order = member.hold(Order::given).await?;
    let index = member.index;
    let mut echoer = Echoer { member, size };
    let latencies = closed_loop::repeat(order, index, sessions, &mut echoer).await?;
    if let Order::Counted(_) = order {
        echoer.member.session.close().await.context("closing")?;
    }
    Ok(latencies)
}

struct Echoer {
    member: Member<Order>,
    size: usize,
}

impl Exchange for Echoer {
    async fn exchange(&mut self, sequence: u64) -> Result<()> {
        let Member { index, session, .. } = &mut self.member;
        session.echo(*index, sequence, self.size).await.with_context(|| format!("message {sequence}"))
    }
}
