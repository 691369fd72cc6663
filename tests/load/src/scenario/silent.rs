//! Dead clients: they read, but never answer. The scenario measures the time until the proxy closes them.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use tokio::time::{Instant, timeout_at};

use super::{Figures, Target};
use crate::fleet::{Fleet, Member};
use crate::pattern::Pattern;
use crate::session::{Manners, Turn};
use crate::stats::{median, percentile};

/// Hold sessions that never answer a ping
#[derive(Args, Clone, Debug)]
pub struct Silent {
    #[command(flatten)]
    target: Target,
    /// Sessions
    #[arg(short = 'n', long, default_value_t = 1000)]
    sessions: usize,
    /// The time for which each waits for its end
    #[arg(short, long, default_value = "60s", value_parser = humantime::parse_duration, value_name = "TIME")]
    wait: Duration,
}

/// The end of one session, counted from its upgrade.
#[derive(Clone, Copy, Debug)]
struct End {
    pings: u64,
    /// The time of the proxy's Close.
    close: Option<Duration>,
    /// The time of the connection's end; [`None`] if it was still open after the wait.
    gone: Option<Duration>,
}

/// Runs the scenario.
pub async fn run(options: &Silent) -> Result<Figures> {
    let dialer = options.target.dialer(Pattern::new(0)).await?;
    let wait = options.wait;
    let opening = options.target.opening(Manners::Silent);
    let mut fleet = Fleet::launch(&dialer, 0..options.sessions, opening, (), move |member| listen(member, wait));
    fleet.opened().await?;
    let ends = fleet.finish(wait + options.target.patience).await?;

    let gone: Vec<f64> = ends.iter().filter_map(|end| end.gone).map(|at| at.as_secs_f64()).collect();
    let close: Vec<f64> = ends.iter().filter_map(|end| end.close).map(|at| at.as_secs_f64()).collect();
    let mut figures = Figures::default();
    figures.put("sessions", ends.len() as f64);
    figures.put("torn_down", gone.len() as f64);
    figures.put("still_open", (ends.len() - gone.len()) as f64);
    figures.put("pings_ignored", ends.iter().map(|end| end.pings).sum::<u64>() as f64);
    spread(&mut figures, gone, ["gone_s_min", "gone_s_median", "gone_s_max"]);
    spread(&mut figures, close, ["close_s_min", "close_s_median", "close_s_max"]);
    Ok(figures)
}

fn spread(figures: &mut Figures, mut seconds: Vec<f64>, [least, middle, most]: [&'static str; 3]) {
    seconds.sort_by(f64::total_cmp);
    let found = [percentile(&seconds, 0.0), median(&seconds), percentile(&seconds, 100.0)];
    for (name, value) in [least, middle, most].into_iter().zip(found) {
        if let Some(value) = value {
            figures.put(name, value);
        }
    }
}

/// Runs one session.
async fn listen(mut member: Member<()>, wait: Duration) -> Result<End> {
    let start = Instant::now();
    let until_gone = async {
        while member.session.turn().await? == Turn::Progress {}
        anyhow::Ok(start.elapsed())
    };
    let gone = timeout_at(start + wait, until_gone).await.ok().transpose()?;
    let seen = member.session.seen();
    Ok(End { pings: seen.pings, close: seen.close.map(|close| close.at - start), gone })
}
