//! The run of a batch: one proxy, and each seed's sessions through it and without it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::app::{App, Terms};
use crate::client::{self, Http2};
use crate::clock::Clock;
use crate::draw::Block;
use crate::endpoint::{Role, Setup};
use crate::gate::Switch;
use crate::link::{Control, Relay};
use crate::plan::{Fate, Heartbeat, Link, Mode, Opening, Plan, Script, Session, Transport};
use crate::proxy::{Line, Proxy, Route};
use crate::sabotage::{Sabotage, Saboteur};
use crate::trace::{Shared, Trace};

/// The records of both ends of a session.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The client.
    pub client: Trace,
    /// The app.
    pub app: Trace,
}

/// The results of one seed.
#[derive(Debug)]
pub struct Outcome {
    /// The plan.
    pub plan: Plan,
    /// The sessions through the proxy.
    pub proxied: Vec<Pair>,
    /// The sessions without it, where they are an oracle.
    pub direct: Vec<Option<Pair>>,
    /// Failures to open a session or to make a request.
    pub errors: Vec<String>,
    /// The path of each session.
    pub paths: Vec<String>,
    /// The address at which the proxy reaches the app of each session.
    pub apps: Vec<SocketAddr>,
}

/// The results of a batch.
#[derive(Debug)]
pub struct Batch {
    /// Its seeds.
    pub outcomes: Vec<Outcome>,
    /// The log.
    pub log: Vec<Line>,
    /// Faults that belong to no seed.
    pub faults: Vec<String>,
    /// The lateness of the machine.
    pub clock: Clock,
    /// The stop of the proxy: start and end.
    pub stopped: Option<(Instant, Instant)>,
    /// Answers of `/readyz`, with their times.
    pub ready: Vec<(Instant, Option<u16>)>,
}

/// The options of a batch.
#[derive(Clone, Debug)]
pub struct Options {
    /// The proxy.
    pub binary: PathBuf,
    /// A fault that is injected between proxy and app, to test that it is found.
    pub sabotage: Option<Sabotage>,
}

/// The two ends of a running session, with the handles that keep them alive.
struct Ends {
    client: Shared,
    app: Shared,
    app_server: App,
    app_switch: Arc<Switch>,
    app_relay: Option<Relay>,
    saboteur: Option<Saboteur>,
    /// The address of the app, or of the relay before it.
    address: SocketAddr,
}

/// Runs a batch.
///
/// # Errors
///
/// Returns failures of the judge itself: no proxy, no port, no certificate.
pub async fn batch(options: &Options, block: &Block, plans: Vec<Plan>) -> Result<Batch> {
    let start = Instant::now();
    let mut ends = Vec::new();
    for plan in &plans {
        ends.push(
            plan.sessions
                .iter()
                .map(|session| prepare(start, plan, session, options.sabotage))
                .collect::<Result<Vec<_>>>()?,
        );
    }
    let path = |plan: &Plan, index: usize| format!("/t{}/{index}/", plan.seed);
    let mut routes = Vec::new();
    for (plan, ends) in plans.iter().zip(&ends) {
        for (index, (session, ends)) in plan.sessions.iter().zip(ends).enumerate() {
            let route = Route {
                path: path(plan, index),
                beat: &session.beat,
                app: ends.address,
                watched: session.watched,
                answers_late: session.answers_after > 0,
            };
            routes.push(route);
        }
    }
    let fallback = ends.first().and_then(|ends| ends.first()).context("a batch has a session")?.address;
    let watch_fallback = block.freezes;
    let mut proxy = Proxy::start(&options.binary, block, fallback, watch_fallback, &routes).await?;
    let ready = Readiness::start(proxy.health);
    sleep(Duration::from_millis(100)).await;
    let baseline = proxy.descriptors();
    let clock = Clock::start(Some(proxy.pid()));
    let started = Instant::now();
    let settled = Arc::new(AtomicUsize::new(0));
    let total = plans.len();
    let mut running = JoinSet::new();
    for (index, (plan, ends)) in plans.into_iter().zip(ends).enumerate() {
        let paths: Vec<String> = (0..plan.sessions.len()).map(|session| path(&plan, session)).collect();
        let tls = client::tls(&proxy.authority, matches!(plan.transport, Transport::Http2 { .. }))?;
        let (address, settled) = (proxy.address, Arc::clone(&settled));
        running.spawn(async move { (index, seed(plan, ends, paths, address, tls, settled).await) });
    }
    let mut stopped = None;
    if let Some(stop) = block.stop {
        sleep(Duration::from_millis(stop.at)).await;
        let from = Instant::now();
        proxy.stop(true);
        sleep(Duration::from_millis(stop.length)).await;
        proxy.stop(false);
        stopped = Some((from, Instant::now()));
    }
    while settled.load(Ordering::Acquire) < total && started.elapsed() < Duration::from_mins(1) {
        sleep(Duration::from_millis(20)).await;
    }
    let mut faults = Vec::new();
    if !block.drains {
        let outcomes = running.join_all().await;
        faults.extend(settle(&proxy, baseline).await);
        finish(&mut proxy, &mut faults).await;
        return Ok(gather(outcomes, &proxy, faults, clock, stopped, ready.stop()));
    }
    let terminated = finish(&mut proxy, &mut faults);
    let (outcomes, ()) = tokio::join!(running.join_all(), terminated);
    Ok(gather(outcomes, &proxy, faults, clock, stopped, ready.stop()))
}

fn gather(
    mut outcomes: Vec<(usize, Outcome)>,
    proxy: &Proxy,
    mut faults: Vec<String>,
    clock: Clock,
    stopped: Option<(Instant, Instant)>,
    ready: Vec<(Instant, Option<u16>)>,
) -> Batch {
    outcomes.sort_by_key(|(index, _)| *index);
    let raw = proxy.raw_text();
    if raw.contains("panicked") {
        faults.push(format!("the proxy panicked: {raw}"));
    }
    let outcomes = outcomes.into_iter().map(|(_, outcome)| outcome).collect();
    Batch { outcomes, log: proxy.lines(), faults, clock, stopped, ready }
}

/// Checks that the proxy is in its initial state once all sessions have ended.
async fn settle(proxy: &Proxy, baseline: usize) -> Vec<String> {
    let limit = Instant::now() + Duration::from_secs(6);
    loop {
        let sessions = proxy.sessions();
        let live = sessions.as_ref().and_then(|list| list["connections"].as_array().map(Vec::len));
        let (buffered, descriptors) = (proxy.metric("pulsegate_buffered_bytes"), proxy.descriptors());
        let mut wrong = Vec::new();
        if live != Some(0) {
            wrong.push(format!("the admin API lists {live:?} sessions after all have ended: {sessions:?}"));
        }
        if buffered != Some(0.0) {
            wrong.push(format!("{buffered:?} bytes are buffered after all sessions have ended"));
        }
        if descriptors > baseline {
            wrong.push(format!("{descriptors} descriptors are open after all sessions have ended, {baseline} before"));
        }
        if wrong.is_empty() || Instant::now() > limit {
            return wrong;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

async fn finish(proxy: &mut Proxy, faults: &mut Vec<String>) {
    proxy.terminate();
    // The window of the drain, the longest `close_grace`, and some seconds of reserve.
    match proxy.exit(Duration::from_secs(10)).await {
        Some(0) => {}
        Some(code) => faults.push(format!("the proxy exits with {code} after a drain: {}", proxy.raw_text())),
        None => faults.push("the proxy has not ended 10 s after SIGTERM".to_owned()),
    }
}

/// An answer of `/readyz`, with its time.
pub type Answer = (Instant, Option<u16>);

/// A poller of `/readyz` on a thread of its own.
struct Readiness {
    seen: Arc<Mutex<Vec<Answer>>>,
    running: Arc<AtomicUsize>,
}

impl Readiness {
    fn start(health: SocketAddr) -> Self {
        let (seen, running) = (Arc::<Mutex<Vec<_>>>::default(), Arc::new(AtomicUsize::new(1)));
        let (shared, runs) = (Arc::clone(&seen), Arc::clone(&running));
        std::thread::spawn(move || {
            while runs.load(Ordering::Acquire) == 1 {
                let status = crate::proxy::ready(health);
                shared.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), status));
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Self { seen, running }
    }

    fn stop(self) -> Vec<(Instant, Option<u16>)> {
        self.running.store(0, Ordering::Release);
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn prepare(start: Instant, plan: &Plan, session: &Session, sabotage: Option<Sabotage>) -> Result<Ends> {
    let (client, app, switch) = (Shared::new(start), Shared::new(start), Arc::<Switch>::default());
    let app_server = App::start(Terms {
        path: None,
        script: session.app.clone(),
        trace: app.clone(),
        switch: Arc::clone(&switch),
        link: None,
        deflate: session.deflate,
        seed: plan.seed ^ 0xa99,
        answers_after: Duration::from_millis(session.answers_after),
    })?;
    let app_relay = relay(app_server.address, &session.app_link)?;
    let behind = app_relay.as_ref().map_or(app_server.address, |relay| relay.address);
    let saboteur = sabotage.map(|sabotage| Saboteur::start(behind, sabotage)).transpose()?;
    let address = saboteur.as_ref().map_or(behind, |saboteur| saboteur.address);
    Ok(Ends { client, app, app_server, app_switch: switch, app_relay, saboteur, address })
}

pub(crate) fn relay(target: SocketAddr, link: &Link) -> Result<Option<Relay>> {
    Ok(if link.present { Some(Relay::to(target, link)?) } else { None })
}

pub(crate) fn setup(
    session: &Session,
    seed: u64,
    trace: &Shared,
    switch: &Arc<Switch>,
    link: Option<&Relay>,
    direct: bool,
) -> Setup {
    let Heartbeat { mode, window, .. } = session.beat;
    Setup {
        role: Role::Client,
        script: Script { ..session.client.clone() },
        trace: trace.clone(),
        switch: Arc::clone(switch),
        link: link.map(|relay| Arc::clone(&relay.control) as Arc<Control>),
        socket: None,
        answers: mode == Mode::App,
        beats: (!direct && matches!(mode, Mode::Answer | Mode::Passive)).then(|| Duration::from_millis(window / 3)),
        deflate: false,
        seed: seed ^ 0xc11,
    }
}

/// Returns the time within which every session of a plan must be over.
pub(crate) fn deadline(plan: &Plan) -> Duration {
    let of =
        |session: &Session| {
            let beat = &session.beat;
            let give_up = session.watched.map_or(0, |(interval, timeout, give_up)| {
                if session.fate == Fate::AppFreezes { interval + timeout + give_up } else { 0 }
            });
            let trickle = if session.fate == Fate::ClientTrickles { beat.frame_max_time } else { 0 };
            2 * beat.bound() + 3 * beat.write_stall + give_up + trickle + beat.close_grace
        };
    let longest = plan.sessions.iter().map(of).max().unwrap_or(0);
    Duration::from_millis(plan.length() + longest + 6000)
}

async fn seed(
    plan: Plan,
    ends: Vec<Ends>,
    paths: Vec<String>,
    proxy: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    settled: Arc<AtomicUsize>,
) -> Outcome {
    let errors = Arc::new(Mutex::new(Vec::new()));
    let direct = tokio::spawn(direct(plan.clone()));
    let report = |what: String| errors.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    let front = relay(proxy, &plan.link).unwrap_or_else(|error| {
        report(format!("no link: {error:#}"));
        None
    });
    let proxied = async {
        through(&plan, &ends, &paths, proxy, front.as_ref(), tls, &report).await;
        std::future::pending::<()>().await;
    };
    let limit = deadline(&plan);
    let over = async {
        let started = Instant::now();
        let length = Duration::from_millis(plan.length() + 300);
        let mut reported = false;
        let mut last_look = false;
        loop {
            sleep(Duration::from_millis(20)).await;
            let is_over = |(session, ends): (&Session, &Ends)| is_over(&plan, session, ends);
            let drained = |session: &Session| session.fate == Fate::Drained && started.elapsed() > length;
            let all = plan.sessions.iter().zip(&ends).all(is_over);
            let settles = plan.sessions.iter().zip(&ends).all(|pair| is_over(pair) || drained(pair.0));
            if !reported && (settles || started.elapsed() > limit) {
                reported = true;
                settled.fetch_add(1, Ordering::AcqRel);
            }
            let waits_for_drain = plan.sessions.iter().any(|session| session.fate == Fate::Drained);
            if last_look
                || (!waits_for_drain || started.elapsed() > limit + Duration::from_secs(45))
                    && started.elapsed() > limit
            {
                return;
            }
            last_look = all;
        }
    };
    tokio::select! {
        () = proxied => {}
        () = over => {}
    }
    drop(front);
    let proxied = ends.iter().map(|ends| Pair { client: ends.client.snapshot(), app: ends.app.snapshot() }).collect();
    let apps = ends.iter().map(|ends| ends.address).collect();
    for ends in ends {
        // A stopped app is continued before it is dropped, so that its sockets close.
        ends.app_switch.set(false);
        drop((ends.app_server, ends.app_relay, ends.saboteur));
    }
    let direct = timeout(limit, direct).await.ok().and_then(Result::ok).unwrap_or_default();
    let direct = if direct.is_empty() { vec![None; plan.sessions.len()] } else { direct };
    let errors = std::mem::take(&mut *errors.lock().unwrap_or_else(PoisonError::into_inner));
    Outcome { plan, proxied, direct, errors, paths, apps }
}

fn is_over(plan: &Plan, session: &Session, ends: &Ends) -> bool {
    let (client, app) = (ends.client.lock(), ends.app.lock());
    if client.refused.is_some() {
        return true;
    }
    // Over HTTP/2 an end is visible to a reader only.
    let unseen = session.fate == Fate::ClientBlocks && plan.transport != Transport::Http1;
    let blind = !session.client.reads_to_the_end() && client.hung_up.is_some();
    let client_over = client.end.is_some() || client.reset.is_some() || unseen || blind;
    let app_over = app.end.is_some() || app.reset.is_some() || app.died.is_some() && app.hung_up.is_some();
    client_over && app_over
}

/// Runs the sessions through the proxy, until all clients are done.
async fn through(
    plan: &Plan,
    ends: &[Ends],
    paths: &[String],
    proxy: SocketAddr,
    relay: Option<&Relay>,
    tls: Arc<rustls::ClientConfig>,
    report: &(dyn Fn(String) + Sync),
) {
    let address = relay.map_or(proxy, |relay| relay.address);
    let switch = Arc::<Switch>::default();
    match plan.transport {
        Transport::Http1 => {
            let setup = setup(&plan.sessions[0], plan.seed, &ends[0].client, &switch, relay, false);
            if let Err(error) =
                client::http1(address, Some(tls), &paths[0], plan.sessions[0].deflate, plan.opening, setup).await
            {
                report(format!("the session does not open: {error:#}"));
            }
        }
        Transport::Http2 { window } => {
            let connection = match Http2::open(address, tls, window, plan.opening, Arc::clone(&switch)).await {
                Ok(connection) => connection,
                Err(error) => return report(format!("the HTTP/2 connection does not open: {error:#}")),
            };
            let sessions = plan.sessions.iter().enumerate().map(|(index, session)| {
                let setup = setup(session, plan.seed + index as u64, &ends[index].client, &switch, relay, false);
                let (connection, path) = (&connection, &paths[index]);
                async move {
                    if let Err(error) = connection.session(path, session.deflate, setup).await {
                        report(format!("session {index} does not open: {error:#}"));
                    }
                }
            });
            let transfers = plan.transfers.iter().map(|transfer| {
                let (connection, path) = (&connection, &paths[0]);
                async move {
                    if let Err(error) = connection.transfer(path, *transfer).await {
                        report(format!("the request {transfer:?} fails: {error:#}"));
                    }
                }
            });
            tokio::join!(join(sessions), join(transfers));
        }
    }
}

async fn join<F: Future<Output = ()>>(futures: impl Iterator<Item = F>) {
    let mut all: Vec<_> = futures.map(|future| Some(Box::pin(future))).collect();
    std::future::poll_fn(|context| {
        for slot in &mut all {
            if slot.as_mut().is_some_and(|future| future.as_mut().poll(context).is_ready()) {
                *slot = None;
            }
        }
        if all.iter().all(Option::is_none) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

/// Runs the same sessions without a proxy, over HTTP/1.1.
pub(crate) async fn direct(plan: Plan) -> Vec<Option<Pair>> {
    let mut running = JoinSet::new();
    let limit = deadline(&plan);
    for (index, session) in plan.sessions.iter().enumerate().filter(|(_, session)| session.fate.has_oracle()) {
        let (plan, session) = (plan.clone(), session.clone());
        running.spawn(async move {
            let start = Instant::now();
            let run = async {
                let ends = prepare(start, &plan, &session, None)?;
                let relay = relay(ends.address, &plan.link)?;
                let address = relay.as_ref().map_or(ends.address, |relay| relay.address);
                let switch = Arc::<Switch>::default();
                let setup = setup(&session, plan.seed + index as u64, &ends.client, &switch, relay.as_ref(), true);
                client::http1(address, None, "/", session.deflate, Opening::default(), setup).await?;
                while ends.app.lock().end.is_none() {
                    sleep(Duration::from_millis(10)).await;
                }
                anyhow::Ok(Pair { client: ends.client.snapshot(), app: ends.app.snapshot() })
            };
            (index, timeout(limit, run).await.ok().and_then(Result::ok))
        });
    }
    let mut pairs = vec![None; plan.sessions.len()];
    for (index, pair) in running.join_all().await {
        pairs[index] = pair;
    }
    pairs
}
