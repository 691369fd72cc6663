//! Thousands of live clients under a fast heartbeat: each must get its pings, and none may be closed.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use tokio::time::{Instant, sleep};

use super::{Figures, Target, micros};
use crate::fleet::{Fleet, Member};
use crate::pattern::Pattern;
use crate::process::Tree;
use crate::session::{Manners, SessionError};

/// Hold sessions that answer every ping
#[derive(Args, Clone, Debug)]
pub struct Beat {
    #[command(flatten)]
    target: Target,
    /// Sessions
    #[arg(short = 'n', long, default_value_t = 9000)]
    sessions: usize,
    /// Measurement time
    #[arg(short, long, default_value = "30s", value_parser = humantime::parse_duration, value_name = "TIME")]
    duration: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Hold,
    Count,
    Stop,
}

/// The end of one session.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Open to the end of the run, with this many pings answered during the measurement.
    Alive(u64),
    /// Closed by the proxy although it answered.
    TornDown,
}

/// Runs the scenario.
pub async fn run(options: &Beat) -> Result<Figures> {
    let dialer = options.target.dialer(Pattern::new(0)).await?;
    let tree = options.target.measured()?;
    let opening = options.target.opening(Manners::Answers);
    let mut fleet = Fleet::launch(&dialer, 0..options.sessions, opening, Order::Hold, hold);
    fleet.opened().await?;

    fleet.order(Order::Count);
    let before = tree.as_ref().map(Tree::cpu).transpose()?;
    let start = Instant::now();
    sleep(options.duration).await;
    let after = tree.as_ref().map(Tree::cpu).transpose()?;
    let took = start.elapsed();
    fleet.order(Order::Stop);
    let fates = fleet.finish(options.target.patience).await.context("the end of the sessions")?;

    let pings: Vec<u64> =
        fates.iter().filter_map(|fate| if let Fate::Alive(pings) = fate { Some(*pings) } else { None }).collect();
    let answered = pings.iter().sum::<u64>() as f64;
    let mut figures = Figures::default();
    figures.put("sessions", fates.len() as f64);
    figures.put("pings_answered", answered);
    figures.put("pings_per_second", answered / took.as_secs_f64());
    figures.put("pings_of_the_least_beaten", pings.iter().copied().min().unwrap_or(0) as f64);
    figures.put("false_teardowns", (fates.len() - pings.len()) as f64);
    if let Some((before, after)) = before.zip(after) {
        let spent = after.saturating_sub(before);
        figures.put("cpu_share_percent", spent.as_secs_f64() / took.as_secs_f64() * 100.0);
        if answered > 0.0 {
            figures.put("cpu_us_per_ping", micros(spent) / answered);
        }
    }
    Ok(figures)
}

/// Runs one session.
async fn hold(mut member: Member<Order>) -> Result<Fate> {
    match beaten(&mut member).await {
        Ok(pings) => Ok(Fate::Alive(pings)),
        Err(SessionError::Ended { .. }) => Ok(Fate::TornDown),
        Err(error) => Err(error.into()),
    }
}

async fn beaten(member: &mut Member<Order>) -> Result<u64, SessionError> {
    member.hold(|order| (*order != Order::Hold).then_some(())).await?;
    let before = member.session.seen().pings;
    member.hold(|order| (*order == Order::Stop).then_some(())).await?;
    Ok(member.session.seen().pings - before)
}
