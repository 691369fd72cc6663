//! The promises that apply to any proxy, and to a WebSocket server without one, as a table.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::app::{App, Terms};
use crate::client;
use crate::clock::Clock;
use crate::draw;
use crate::frame::CLOSE;
use crate::gate::Switch;
use crate::judge::{self, Promise, SLACK};
use crate::plan::{Fate, Opening, Plan, Session, Step};
use crate::run::{self, Batch, Outcome, Pair};
use crate::trace::Shared;

/// Concurrent sessions.
const TOGETHER: u64 = 30;

/// The proxy or server under judgement.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its address.
    pub address: SocketAddr,
    /// The address at which it expects the app; [`None`] for a server without one behind it.
    pub app: Option<SocketAddr>,
    /// The authority of its certificate; [`None`] for no TLS.
    pub authority: Option<PathBuf>,
    /// The time within which it must end the session of a dead client, in milliseconds.
    pub bound: u64,
}

/// The result for one promise.
#[derive(Debug, Default)]
struct Row {
    kept: usize,
    of: usize,
    first: Option<String>,
}

impl Row {
    fn add(&mut self, seed: u64, broken: Option<String>) {
        self.of += 1;
        match broken {
            None => self.kept += 1,
            Some(text) => {
                self.first.get_or_insert_with(|| format!("seed {seed}: {text}"));
            }
        }
    }
}

/// Runs `count` seeds from `from` on and returns a Markdown table.
///
/// # Errors
///
/// Returns failures of the judge itself.
pub async fn judge(target: &Target, from: u64, count: u64) -> Result<String> {
    let mut rows: [Row; 5] = Default::default();
    let mut first = from;
    while first < from + count {
        let last = (first + TOGETHER).min(from + count);
        let plans: Vec<Plan> = (first..last).map(|seed| plan(target, seed)).collect();
        let batch = batch(target, plans).await?;
        batch.outcomes.iter().for_each(|outcome| score(target, &batch, outcome, &mut rows));
        first = last;
    }
    let names = [
        "bytes equal to the direct run",
        "orderly Close on both ends",
        "live clients are kept",
        "dead clients are gone within the bound",
        "the cause is sent in a Close",
    ];
    let mut table = String::from("| promise | verdict | kept | first break |\n|---|---|---|---|\n");
    for (name, row) in names.iter().zip(rows).filter(|(_, row)| row.of > 0) {
        let verdict = if row.kept == row.of { "kept" } else { "broken" };
        let first = row.first.unwrap_or_default();
        let _ = writeln!(table, "| {name} | {verdict} | {} of {} | {first} |", row.kept, row.of);
    }
    Ok(table)
}

fn plan(target: &Target, seed: u64) -> Plan {
    let mut plan = draw::for_any_proxy(seed, target.bound);
    if target.app.is_none() {
        // The server may ignore messages instead of echoing: only the heartbeat is judged.
        let session = &mut plan.sessions[0];
        if session.fate != Fate::ClientDies {
            session.fate = Fate::ClientClose;
            session.client.pace = 0;
            session.client.steps = vec![Step::Pause(target.bound * 3), Step::Close(Some((1000, String::new())))];
        }
    }
    plan
}

async fn batch(target: &Target, plans: Vec<Plan>) -> Result<Batch> {
    let start = Instant::now();
    let tls = target.authority.as_ref().map(|file| client::tls(file, false)).transpose()?;
    let path = |plan: &Plan| format!("/t{}/0/", plan.seed);
    let ends: Vec<(Shared, Shared)> = plans.iter().map(|_| (Shared::new(start), Shared::new(start))).collect();
    let terms = plans.iter().zip(&ends).map(|(plan, (_, app))| Terms {
        path: Some(path(plan)),
        script: plan.sessions[0].app.clone(),
        trace: app.clone(),
        switch: Arc::<Switch>::default(),
        link: None,
        deflate: false,
        seed: plan.seed ^ 0xa99,
        answers_after: Duration::ZERO,
    });
    let _app = match target.app {
        Some(address) => {
            let listener = TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))?;
            Some(App::serve(listener, terms.collect())?)
        }
        None => None,
    };
    let clock = Clock::start(None);
    let mut running = JoinSet::new();
    for (index, (plan, (client_trace, app))) in plans.into_iter().zip(ends).enumerate() {
        let (tls, path, target) = (tls.clone(), path(&plan), target.clone());
        running.spawn(async move { (index, seed(target, plan, path, client_trace, app, tls).await) });
    }
    let mut outcomes = running.join_all().await;
    outcomes.sort_by_key(|(index, _)| *index);
    let outcomes = outcomes.into_iter().map(|(_, outcome)| outcome).collect();
    Ok(Batch { outcomes, log: Vec::new(), faults: Vec::new(), clock, stopped: None, ready: Vec::new() })
}

async fn seed(
    target: Target,
    plan: Plan,
    path: String,
    client_trace: Shared,
    app: Shared,
    tls: Option<Arc<rustls::ClientConfig>>,
) -> Outcome {
    let limit = run::deadline(&plan);
    let direct = tokio::spawn(run::direct(plan.clone()));
    let mut errors = Vec::new();
    let session = &plan.sessions[0];
    let relay = run::relay(target.address, &plan.link).unwrap_or_else(|error| {
        errors.push(format!("no link: {error:#}"));
        None
    });
    let address = relay.as_ref().map_or(target.address, |relay| relay.address);
    let setup = run::setup(session, plan.seed, &client_trace, &Arc::<Switch>::default(), relay.as_ref(), true);
    let over = async {
        loop {
            sleep(Duration::from_millis(20)).await;
            let (client, app) = (client_trace.lock(), app.lock());
            let app_over = target.app.is_none() || app.end.is_some() || app.reset.is_some();
            if app_over && client.gone().is_some() && client.end.is_some() == session.client.reads_to_the_end() {
                return;
            }
        }
    };
    let through = async {
        if let Err(error) = client::http1(address, tls, &path, false, Opening::default(), setup).await {
            return Some(format!("the session does not open: {error:#}"));
        }
        sleep(limit).await;
        None
    };
    let run = async {
        tokio::select! {
            error = through => error,
            () = over => None,
        }
    };
    errors.extend(timeout(limit, run).await.ok().flatten());
    let proxied = vec![Pair { client: client_trace.snapshot(), app: app.snapshot() }];
    let direct = if target.app.is_some() { direct.await.unwrap_or_default() } else { Vec::new() };
    Outcome { plan, proxied, direct, errors, paths: vec![path], apps: Vec::new() }
}

fn score(target: &Target, batch: &Batch, outcome: &Outcome, rows: &mut [Row; 5]) {
    let (session, pair, number) = (&outcome.plan.sessions[0], &outcome.proxied[0], outcome.plan.seed);
    let [bytes, close, live, dead, cause] = rows;
    if let Some(error) = outcome.errors.first() {
        return live.add(number, Some(error.clone()));
    }
    if session.fate == Fate::ClientDies {
        dead.add(number, outlives(target, session, pair));
        if target.app.is_some() {
            let sent = pair.app.received.iter().any(|(frame, _)| frame.opcode() == CLOSE);
            cause.add(number, (!sent).then(|| "the app of a dead client got no Close".to_owned()));
        }
        return;
    }
    let ended_early = ended_early(session, pair, target.app.is_some());
    live.add(number, ended_early.then(|| "the session of a live client was ended".to_owned()));
    if target.app.is_none() {
        return;
    }
    if matches!(session.fate, Fate::AppFin | Fate::AppReset) {
        let sent = !pair.client.closes().is_empty();
        cause.add(number, (!sent).then(|| "the client of a lost app got no Close".to_owned()));
        return;
    }
    let faults = judge::ends_only(batch, outcome);
    let first = |promise: Promise| faults.iter().find(|fault| fault.promise == promise).map(|fault| fault.text.clone());
    // A cut by the end of a live client is that fault and no other.
    if !ended_early {
        bytes.add(number, first(Promise::Bytes));
        close.add(number, first(Promise::Close));
    }
}

fn outlives(target: &Target, session: &Session, seen: &Pair) -> Option<String> {
    let died = seen.client.died?;
    let since = died.max(seen.client.last_write.unwrap_or(died));
    let allowed = Duration::from_millis(target.bound + session.beat.write_stall) + SLACK;
    let late = |end: Option<Instant>| end.is_none_or(|end| end > since + allowed);
    if target.app.is_some() && late(seen.app.first_end()) {
        return Some(format!("the app's leg of a dead client was open after {allowed:?}"));
    }
    late(seen.client.gone()).then(|| format!("a dead client's leg was open after {allowed:?}"))
}

/// Returns true if the session ended before the step that was to end it.
fn ended_early(session: &Session, seen: &Pair, has_app: bool) -> bool {
    let by_client = seen.client.sent.iter().any(|sent| sent.frame.opcode() == CLOSE && sent.done.is_some());
    match session.fate {
        Fate::ClientClose => {
            !by_client
                || seen.client.first_end()
                    < seen.client.sent.iter().find(|sent| sent.frame.opcode() == CLOSE).map(|sent| sent.started)
        }
        Fate::AppClose => !seen.app.sent.iter().any(|sent| sent.frame.opcode() == CLOSE),
        Fate::AppFin => has_app && seen.app.finished.is_none(),
        Fate::AppReset => has_app && seen.app.reset.is_none(),
        _ => false,
    }
}
