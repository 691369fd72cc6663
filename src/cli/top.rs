//! `pulsegate top`: shows the sessions of a running proxy, updated periodically.

mod keys;
mod screen;
mod view;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use clap::builder::PossibleValuesParser;
use serde::Deserialize;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};

use self::screen::Screen;
use self::view::{KeyAction, Listed, Sort, View};
use super::conns::SORTS;
use super::remote::{
    Connections, EventStream, Info, Remote, RemoteArgs, RemoteError, SessionReport, StatsReport, block_on,
};
use super::{text, units};
use crate::drain;

/// The pause before a broken stream of figures is reopened.
const PAUSE: Duration = Duration::from_secs(1);

/// The interval between two checks of the terminal's size.
const LOOK: Duration = Duration::from_millis(250);

/// The longest time that the first frame waits for the figures of the stream, which may not arrive at all.
const FIRST: Duration = Duration::from_secs(1);

/// The most sessions that the API returns at once.
const MOST: usize = 10_000;

/// The arguments of `pulsegate top`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Keys: q quits; r, i, m, b, h and c sort by round trip, idle time, misses, bytes, held bytes and client, and reverse the \
order when pressed again; arrows, PageUp, PageDown, Home and End scroll. If standard output is no terminal, one frame with \
all sessions is printed, or --iterations of them.

Exit codes: 0 ended as asked, 1 no proxy answered, 2 wrong usage")]
pub struct TopArgs {
    /// Time between two updates
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = super::duration::parse)]
    interval: Duration,
    /// End after this many frames
    #[arg(long, value_name = "N", value_parser = units::number)]
    iterations: Option<u32>,
    /// The order to begin with, as in `conns`
    #[arg(long, value_name = "KEY", default_value = "-misses", allow_hyphen_values = true, hide_possible_values = true,
          value_parser = PossibleValuesParser::new(SORTS))]
    sort: String,
    #[command(flatten)]
    proxy: RemoteArgs,
}

/// Shows the sessions until a key, a signal or the number of frames ends it.
///
/// # Errors
///
/// The proxy cannot be reached, or the terminal cannot be used.
pub fn run(args: &TopArgs) -> anyhow::Result<ExitCode> {
    let remote = Remote::find(&args.proxy)?;
    block_on(async {
        if io::stdout().is_terminal() { watch(args, &remote).await } else { print(args, &remote).await }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Prints frames one below the other.
async fn print(args: &TopArgs, remote: &Remote) -> anyhow::Result<()> {
    let mut view = View::new(Sort::parse(&args.sort));
    view.set_info(remote.get("/v1/info").await?);
    let mut events = remote.events().await?;
    view.set_stats(next(&mut events).await?);
    for frame in 0..args.iterations.unwrap_or(1) {
        if frame > 0 {
            text::print("\n").context("cannot print")?;
            let mut pause = std::pin::pin!(sleep(args.interval));
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    stats = next(&mut events) => view.set_stats(stats?),
                }
            }
        }
        // The uptime is part of each frame.
        view.set_info(remote.get("/v1/info").await?);
        view.set_sessions(Listed::of(&remote.connections(&[("sort", args.sort.clone())], None).await?)?);
        let lines: String = view.whole().into_iter().map(|line| line.text + "\n").collect();
        text::print(&lines).context("cannot print")?;
    }
    Ok(())
}

async fn next(events: &mut EventStream<'_>) -> anyhow::Result<StatsReport> {
    events.stats().await?.ok_or_else(|| anyhow!("the proxy has ended the stream of events: it is shutting down"))
}

/// An update from the proxy.
enum Update {
    Proxy(Info),
    Stats(StatsReport),
    Sessions(Connections),
    Failed(RemoteError),
}

/// The sessions that the screen shows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Query {
    sort: String,
    limit: usize,
}

/// Keeps the screen up to date.
async fn watch(args: &TopArgs, remote: &Remote) -> anyhow::Result<()> {
    let mut view = View::new(Sort::parse(&args.sort));
    // Fails before the screen is taken, so that the error stays visible.
    view.set_info(remote.get("/v1/info").await?);
    let mut size = Screen::size();
    let query = |view: &View, rows| Query { sort: view.sort().query(), limit: view.sessions_needed(rows).min(MOST) };
    let (ask, asked) = watch::channel(query(&view, size.1));
    let (sender, mut updates) = mpsc::channel(4);
    let sources = async { tokio::join!(count(remote, &sender), list(remote, asked, args.interval, &sender)) };
    let mut sources = std::pin::pin!(sources);
    let mut interrupted = std::pin::pin!(drain::interrupted());
    let mut resized = interval(LOOK);
    resized.set_missed_tick_behavior(MissedTickBehavior::Delay);

    let mut screen = Screen::take().context("cannot use the terminal")?;
    let (begun, mut drawn) = (Instant::now(), false);
    let mut frames = 0;
    loop {
        tokio::select! {
            () = &mut interrupted => return Ok(()),
            _ = &mut sources => return Ok(()),
            keys = screen.pressed() => {
                if keys.into_iter().any(|key| view.press(key, size.1) == KeyAction::Quit) {
                    return Ok(());
                }
            }
            Some(news) = updates.recv() => match news {
                Update::Proxy(info) => view.set_info(info),
                Update::Stats(stats) => view.set_stats(stats),
                Update::Failed(error) => view.set_error(&format!("{:#}", anyhow::Error::new(error))),
                Update::Sessions(found) => {
                    view.set_sessions(Listed::of(&found)?);
                    frames += 1;
                }
            },
            _ = resized.tick() => {
                let now = Screen::size();
                if now == size && drawn {
                    continue;
                }
                size = now;
            }
        }
        // A first frame of zeros would be mistaken for figures.
        if !drawn && !view.is_complete() && begun.elapsed() < FIRST {
            continue;
        }
        drawn = true;
        Screen::draw(&view.frame(size.0, size.1)).context("cannot draw")?;
        if args.iterations.is_some_and(|iterations| frames >= iterations) {
            return Ok(());
        }
        let wanted = query(&view, size.1);
        ask.send_if_modified(|current| {
            let new = *current != wanted;
            *current = wanted;
            new
        });
    }
}

/// Forwards the figures of every second, endlessly.
async fn count(remote: &Remote, sender: &mpsc::Sender<Update>) {
    loop {
        // A failure to open the stream is not reported here; the list of sessions fails for the same reason.
        if let Ok(mut events) = remote.events().await {
            while let Ok(Some(stats)) = events.stats().await {
                if sender.send(Update::Stats(stats)).await.is_err() {
                    return;
                }
            }
        }
        sleep(PAUSE).await;
    }
}

/// Lists the sessions at every interval and whenever the query changes, endlessly.
async fn list(remote: &Remote, mut asked: watch::Receiver<Query>, interval: Duration, sender: &mpsc::Sender<Update>) {
    let mut lost = false;
    loop {
        let Query { sort, limit } = asked.borrow_and_update().clone();
        let found = remote.connections(&[("sort", sort)], Some(limit)).await;
        if lost && found.is_ok() {
            // The proxy may be another process now.
            if let Ok(info) = remote.get("/v1/info").await
                && sender.send(Update::Proxy(info)).await.is_err()
            {
                return;
            }
        }
        lost = found.is_err();
        if sender.send(found.map_or_else(Update::Failed, Update::Sessions)).await.is_err() {
            return;
        }
        tokio::select! {
            () = sleep(interval) => {}
            Ok(()) = asked.changed() => {}
        }
    }
}

impl Listed {
    fn of(found: &Connections) -> anyhow::Result<Self> {
        let conns: Result<Vec<SessionReport>, _> = found.list.iter().map(SessionReport::deserialize).collect();
        let conns = conns
            .context("these sessions have the format of another pulsegate version; `conns --format json` shows them")?;
        Ok(Self { conns, total: found.total, generation: found.generation, now: found.now })
    }
}
