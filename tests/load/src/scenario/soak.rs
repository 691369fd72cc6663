//! A long run with churn: sessions connect, exchange messages and end in every way, while the proxy's memory,
//! descriptors and metrics are watched. The app behind the proxy is part of this process, so that one clock times both
//! ends.

mod app;
mod client;
mod lag;
mod plan;
mod proxy;
mod samples;
mod tally;
mod verdict;

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::{Target, Version};
use crate::dial::Dialer;
use crate::pattern::Pattern;
use crate::process::Tree;
use crate::wire::Pace;
use app::Expected;
use client::{Bounds, Client, Fault, Outcome};
use plan::{Extent, LARGEST, Plan};
use proxy::Proxy;
use samples::{COLUMNS, Sample};
use tally::Tally;
pub use verdict::Judgement;

/// A slow reader takes 1 MiB in about seven seconds.
const SLOW: Pace = Pace { chunk: 16 * 1024, pause: Duration::from_millis(100), buffer: 64 * 1024 };
/// The number of broken sessions that ends a run early.
const ENOUGH: u64 = 200;
/// The time within which the proxy must release all resources after the last session.
const SETTLING: Duration = Duration::from_secs(20);

/// Churn sessions for a long time and judge the proxy
#[derive(Args, Clone, Debug)]
pub struct Soak {
    #[command(flatten)]
    target: Target,
    /// Sessions at once
    #[arg(short = 'n', long, default_value_t = 800)]
    sessions: usize,
    /// Duration of the churn
    #[arg(long = "for", default_value = "1h", value_parser = humantime::parse_duration, value_name = "TIME")]
    duration: Duration,
    /// The proxy's upstream: the address on which this program serves as the app
    #[arg(long, value_name = "ADDRESS")]
    app: SocketAddr,
    /// The proxy's admin API
    #[arg(long, value_name = "ADDRESS")]
    admin: SocketAddr,
    /// The proxy's health port
    #[arg(long, value_name = "ADDRESS")]
    health: SocketAddr,
    /// The interval of the proxy's heartbeat
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration, value_name = "TIME")]
    interval: Duration,
    /// The timeout of the proxy's heartbeat
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration, value_name = "TIME")]
    timeout: Duration,
    /// The proxy's grace after a Close: the time for which a leg may stay open
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration, value_name = "TIME")]
    close_grace: Duration,
    /// Tolerance for scheduling, added to every bound
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration, value_name = "TIME")]
    slack: Duration,
    /// Time between two samples
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration, value_name = "TIME")]
    sample: Duration,
    /// File for all samples, as CSV
    #[arg(long, value_name = "FILE")]
    samples: Option<PathBuf>,
    /// Sessions over HTTP/2, in percent
    #[arg(long, default_value_t = 40, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    h2_percent: u8,
    /// Sessions that read slowly, in percent
    #[arg(long, default_value_t = 8, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    slow_percent: u8,
    /// The longest pause between two messages
    #[arg(long, default_value = "4s", value_parser = humantime::parse_duration, value_name = "TIME")]
    pause: Duration,
    /// The longest time for which a session is idle
    #[arg(long, default_value = "3m", value_parser = humantime::parse_duration, value_name = "TIME")]
    idle: Duration,
    /// Tolerated growth of memory over the last two thirds, in percent
    #[arg(long, default_value_t = 5.0, value_name = "PERCENT")]
    memory_tolerance: f64,
    /// Tolerated descriptors after the last session, beyond those before the first
    #[arg(long, default_value_t = 4, value_name = "COUNT")]
    descriptor_tolerance: u64,
    /// The seed of all sessions' plans
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// The state that the tasks of a run share.
struct Run {
    options: Soak,
    client: Client,
    /// HTTP/1.1 and HTTP/2, each for sessions that read at once and for slow ones.
    dialers: [[Arc<Dialer>; 2]; 2],
    permits: Semaphore,
    next: AtomicU64,
    /// Sessions in progress, from their request to the end of both legs.
    under_way: AtomicUsize,
    tally: Mutex<Tally>,
}

impl Run {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        // The counters are valid even after a panic in another task.
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        *self.client.stop.borrow()
    }
}

/// Runs the scenario.
pub async fn run(options: &Soak) -> Result<Judgement> {
    let tree = options.target.must_measure()?;
    let proxy = Proxy { admin: options.admin, health: options.health };
    let listener = TcpListener::bind(options.app).await.with_context(|| format!("cannot listen on {}", options.app))?;
    let (stop, stopped) = watch::channel(false);
    let run = Arc::new(prepare(options, stopped).await?);
    let (expected, lag) = (Arc::clone(&run.client.expected), Arc::clone(&run.client.lag));

    let mut background = JoinSet::new();
    background.spawn(app::serve(listener, expected));
    background.spawn(async move { lag.watch().await });

    let before = verdict::Before {
        descriptors: tree.descriptors()?,
        cpu: tree.cpu()?,
        ends: proxy.metrics().await.context("before the first session")?.ends(),
        began: Instant::now(),
    };
    let mut seats = JoinSet::new();
    for seat in 0..options.sessions {
        seats.spawn(occupy(Arc::clone(&run), seat));
    }
    let samples = watch_proxy(&run, &tree, &proxy, before.began).await?;
    stop.send_replace(true);
    let longest = options.target.patience * 4 + options.pause * 12 + (options.interval + options.timeout) * 2;
    let rest = async { while seats.join_next().await.is_some() {} };
    if timeout(longest, rest).await.is_err() {
        bail!("{longest:?} after the end, {} sessions still stand", seats.len());
    }
    let left = settle(&tree, &proxy, &before, options.descriptor_tolerance).await?;
    let tally = run.tally();
    Ok(verdict::judge(options, &tally, &samples, &before, &left))
}

async fn prepare(options: &Soak, stop: watch::Receiver<bool>) -> Result<Run> {
    let mut dialers = Vec::new();
    for http in [Version::H1, Version::H2] {
        let target = Target { http, ..options.target.clone() };
        let swift = target.dialer(Pattern::new(LARGEST)).await?;
        let slow = Arc::new(swift.paced(SLOW));
        dialers.push([swift, slow]);
    }
    let [one, two] = <[_; 2]>::try_from(dialers).map_err(|_| anyhow::anyhow!("there are two versions"))?;
    let bounds = Bounds {
        interval: options.interval,
        timeout: options.timeout,
        close_grace: options.close_grace,
        slack: options.slack,
        patience: options.target.patience,
    };
    Ok(Run {
        options: options.clone(),
        client: Client { expected: Arc::new(Expected::default()), lag: Arc::default(), bounds, stop },
        dialers: [one, two],
        permits: Semaphore::new(options.target.at_once),
        next: AtomicU64::new(0),
        under_way: AtomicUsize::new(0),
        tally: Mutex::default(),
    })
}

/// Runs one session after the other, until the run ends.
async fn occupy(run: Arc<Run>, seat: usize) {
    let http2 = seat % 100 < usize::from(run.options.h2_percent);
    // The loops start one by one, over the longest time between two messages.
    sleep(run.options.pause.mul_f64(seat as f64 / run.options.sessions as f64)).await;
    let extent = Extent { slow_percent: run.options.slow_percent, pause: run.options.pause, idle: run.options.idle };
    while !run.stopped() {
        let id = run.next.fetch_add(1, Ordering::Relaxed);
        let plan = Plan::draw(run.options.seed, id, extent);
        let dialer = &run.dialers[usize::from(http2)][usize::from(plan.slow)];
        run.under_way.fetch_add(1, Ordering::Relaxed);
        let outcome = run.client.run(dialer, &run.permits, seat, &plan).await;
        run.under_way.fetch_sub(1, Ordering::Relaxed);
        let failed = !matches!(outcome, Outcome::Planned(_));
        run.tally().enter(&plan, http2, outcome);
        if failed {
            sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Samples the proxy until the run is over, or until too many sessions are broken.
async fn watch_proxy(run: &Run, tree: &Tree, proxy: &Proxy, began: Instant) -> Result<Vec<Sample>> {
    let mut file = None;
    if let Some(path) = &run.options.samples {
        let mut created = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        writeln!(created, "{COLUMNS}")?;
        file = Some(created);
    }
    let mut samples = Vec::new();
    let mut clock = interval(run.options.sample);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while began.elapsed() < run.options.duration && run.tally().broken() < ENOUGH {
        clock.tick().await;
        let counted = [run.client.expected.open(), run.under_way.load(Ordering::Relaxed)];
        let sample = Sample::take(tree, proxy, began.elapsed(), counted).await.context("sampling the proxy")?;
        if let Some(file) = &mut file {
            writeln!(file, "{sample}")?;
        }
        samples.push(sample);
    }
    Ok(samples)
}

/// Waits until the proxy has released all resources of the run.
async fn settle(tree: &Tree, proxy: &Proxy, before: &verdict::Before, tolerance: u64) -> Result<verdict::Left> {
    let deadline = Instant::now() + SETTLING;
    loop {
        let metrics = proxy.metrics().await.context("after the last session")?;
        let left = verdict::Left {
            sessions: proxy.sessions().await?,
            descriptors: tree.descriptors()?.saturating_sub(before.descriptors),
            buffered: metrics.sum("pulsegate_buffered_bytes"),
            ends: metrics.ends(),
            cpu: tree.cpu()?,
        };
        if left.sessions == 0 && left.descriptors <= tolerance && left.buffered == 0.0 || Instant::now() >= deadline {
            return Ok(left);
        }
        sleep(Duration::from_millis(200)).await;
    }
}
