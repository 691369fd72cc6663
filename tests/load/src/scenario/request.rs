//! Plain requests in a closed loop: every client requests its next body once it has the last one.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use super::closed_loop::{self, Exchange, Extent, Latencies, Names, Order};
use super::{Figures, Target};
use crate::fetch::Client;
use crate::fleet::{Fleet, Member};
use crate::pattern::Pattern;
use crate::upstream::LARGEST_BODY;

const NAMES: Names = Names { count: "requests", rate: "requests_per_second", cpu: "cpu_us_per_request" };

/// Fetch bodies and check every byte
#[derive(Args, Clone, Debug)]
pub struct Fetch {
    #[command(flatten)]
    target: Target,
    /// Requests in progress at once: connections with --http h1, streams with --http h2
    #[arg(short = 'n', long, default_value_t = 64)]
    clients: usize,
    /// Bytes of a body
    #[arg(short, long, default_value_t = 1024, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(..=LARGEST_BODY as u64))]
    size: usize,
    /// Measurement time
    #[arg(short, long, default_value = "5s", value_parser = humantime::parse_duration, value_name = "TIME")]
    duration: Duration,
    /// Warm-up time, with requests that do not count
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration, value_name = "TIME")]
    warm_up: Duration,
    /// Fetch exactly this many bodies, all clients together, instead of measuring for a time
    #[arg(short = 'm', long, conflicts_with_all = ["duration", "warm_up"])]
    requests: Option<u64>,
}

/// Runs the scenario.
pub async fn run(options: &Fetch) -> Result<Figures> {
    let dialer = options.target.dialer(Pattern::new(LARGEST_BODY)).await?;
    let measured = options.target.measured()?;
    let Fetch { clients, size, warm_up, duration, .. } = *options;
    let work = move |member| fetch(member, clients, size);
    let mut fleet = Fleet::of_clients(&dialer, clients, options.target.at_once, Order::Wait, work);
    fleet.opened().await?;

    let extent = options.requests.map_or(Extent::Timed { warm_up, duration }, Extent::Counted);
    let mut figures = Figures::default();
    figures.put("clients", clients as f64);
    figures.put("size", size as f64);
    closed_loop::measure(fleet, extent, measured.as_ref(), options.target.patience, &NAMES, &mut figures).await?;
    Ok(figures)
}

/// Runs one client.
async fn fetch(mut member: Member<Order, Client>, clients: usize, size: usize) -> Result<Latencies> {
    let order = member.wait(Order::given).await;
    let Member { index, session: client, .. } = member;
    closed_loop::repeat(order, index, clients, &mut Fetcher { client, index, size }).await
}

struct Fetcher {
    client: Client,
    index: usize,
    size: usize,
}

impl Exchange for Fetcher {
    async fn exchange(&mut self, sequence: u64) -> Result<()> {
        let fetched = self.client.fetch(self.index, sequence, self.size).await;
        fetched.with_context(|| format!("request {sequence}"))
    }
}
