//! Closed-loop echo: every session sends its next message when the last one has come back.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use tokio::time::{Instant, sleep_until};

use super::{Figures, Target, micros};
use crate::fleet::{Fleet, Member};
use crate::pattern::Pattern;
use crate::process::Tree;
use crate::session::Manners;
use crate::stats::percentile;

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
    /// How long to measure
    #[arg(short, long, default_value = "5s", value_parser = humantime::parse_duration, value_name = "TIME")]
    duration: Duration,
    /// How long to echo before measuring
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration, value_name = "TIME")]
    warm_up: Duration,
    /// Echo exactly this many messages, all sessions together, instead of measuring for a time
    #[arg(short, long, conflicts_with_all = ["duration", "warm_up"])]
    messages: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum Order {
    Wait,
    /// Echo until `end`; what completes from `start` on counts.
    Timed {
        start: Instant,
        end: Instant,
    },
    /// Echo this many messages, all sessions together.
    Counted(u64),
}

/// What one session brings: how long each of its messages took.
type Latencies = Vec<Duration>;

/// Runs the scenario.
pub async fn run(options: &Echo) -> Result<Figures> {
    let pattern = if options.json { Pattern::json(options.size) } else { Pattern::new(options.size) };
    let dialer = options.target.dialer(pattern).await?;
    let measured = options.target.measured()?;
    let Echo { sessions, size, .. } = *options;
    let opening = options.target.opening(Manners::Answers);
    let mut fleet =
        Fleet::launch(&dialer, 0..sessions, opening, Order::Wait, move |member| echo(member, sessions, size));
    fleet.opened().await?;
    match options.messages {
        Some(messages) => counted(fleet, measured.as_ref(), options, messages).await,
        None => timed(fleet, measured.as_ref(), options).await,
    }
}

async fn timed(fleet: Fleet<Order, Latencies>, measured: Option<&Tree>, options: &Echo) -> Result<Figures> {
    let start = Instant::now() + options.warm_up;
    let end = start + options.duration;
    fleet.order(Order::Timed { start, end });
    sleep_until(start).await;
    let before = measured.map(Tree::cpu).transpose()?;
    sleep_until(end).await;
    let after = measured.map(Tree::cpu).transpose()?;
    let latencies = fleet.finish(options.target.patience).await.context("the last echoes")?.concat();
    figures(options, latencies, options.duration, before.zip(after))
}

async fn counted(
    fleet: Fleet<Order, Latencies>,
    measured: Option<&Tree>,
    options: &Echo,
    messages: u64,
) -> Result<Figures> {
    let before = measured.map(Tree::cpu).transpose()?;
    let start = Instant::now();
    fleet.order(Order::Counted(messages));
    // The count says nothing about the time: the patience is for each message.
    let patience = options.target.patience.saturating_mul(u32::try_from(messages).unwrap_or(u32::MAX));
    let latencies = fleet.finish(patience).await?.concat();
    let took = start.elapsed();
    let after = measured.map(Tree::cpu).transpose()?;
    figures(options, latencies, took, before.zip(after))
}

/// One session's part.
async fn echo(mut member: Member<Order>, sessions: usize, size: usize) -> Result<Latencies> {
    let order = member
        .hold(|order| match order {
            Order::Wait => None,
            order => Some(*order),
        })
        .await?;
    let mut latencies = Latencies::new();
    match order {
        Order::Wait => {}
        Order::Timed { start, end } => {
            let mut begun = Instant::now();
            for sequence in 0.. {
                member
                    .session
                    .echo(member.index, sequence, size)
                    .await
                    .with_context(|| format!("message {sequence}"))?;
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
            for sequence in (member.index as u64..all).step_by(sessions) {
                let begun = Instant::now();
                member
                    .session
                    .echo(member.index, sequence, size)
                    .await
                    .with_context(|| format!("message {sequence}"))?;
                latencies.push(begun.elapsed());
            }
            member.session.close().await.context("closing")?;
        }
    }
    Ok(latencies)
}

fn figures(
    options: &Echo,
    mut latencies: Latencies,
    took: Duration,
    cpu: Option<(Duration, Duration)>,
) -> Result<Figures> {
    latencies.sort_unstable();
    let of = |percent| percentile(&latencies, percent).context("no message came back while the clock ran");
    let messages = latencies.len() as f64;
    let mut figures = Figures::default();
    figures.put("sessions", options.sessions as f64);
    figures.put("size", options.size as f64);
    figures.put("messages", messages);
    figures.put("messages_per_second", messages / took.as_secs_f64());
    figures.put("latency_p50_us", micros(of(50.0)?));
    figures.put("latency_p99_us", micros(of(99.0)?));
    if let Some((before, after)) = cpu {
        let spent = after.saturating_sub(before);
        figures.put("cpu_us_per_message", micros(spent) / messages);
        figures.put("cpu_share_percent", spent.as_secs_f64() / took.as_secs_f64() * 100.0);
    }
    Ok(figures)
}
