//! The proxy's host: the relay, the registry and the drain of the product, between the simulated clients and the app.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use pulsegate::config::{Route, UpstreamSettings, UpstreamTarget};
use pulsegate::drain::{self, Shutdown, WorkOutcome};
use pulsegate::heartbeat::{Policy, Selected, UpstreamLiveness};
use pulsegate::registry::{Registry, RegistryEntry, SessionEntry};
use pulsegate::relay::{self, Control, Legs, Memory, NegotiatedTerms, Observer, SessionOrder};
use pulsegate::session::{Abort, ClientAddress, ConnId, Ending, RequestFacts, SessionFacts};
use pulsegate::suspension;
use pulsegate::ws::Limits;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::legs::{SimLeg, Tls};
use crate::peer::PeerRecord;
use crate::plan::Plan;
use crate::process::Process;
use crate::transport::{Stack, Stream, Tuning, now};
use crate::wire::LegWire;

/// A deliberate fault of a world, to show that the judge finds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flaw {
    #[default]
    None,
    /// The sessions have another policy than the plan: a slower or a stricter one.
    Slower,
    Stricter,
    /// The relay is never polled: no order and no deadline has an effect.
    Lingers,
    /// An ended session stays in the registry.
    Remains,
    /// No end is reported, or each of them twice.
    Unreported,
    ReportedTwice,
    /// A byte of each client is changed.
    Corrupt,
    /// The reports have another code.
    WrongCode,
}

/// The record of one session: both wires, both ends, and the proxy's reports.
pub struct SessionRecord {
    pub number: usize,
    pub client: Rc<RefCell<LegWire>>,
    pub app: Rc<RefCell<LegWire>>,
    pub client_end: Rc<RefCell<PeerRecord>>,
    pub app_end: Rc<RefCell<PeerRecord>>,
    /// The times at which the relay began, and at which it returned.
    pub opened: Cell<Option<Duration>>,
    pub returned: Cell<Option<Duration>>,
    /// The number of reloads before that.
    pub reloads_before: Cell<usize>,
    pub id: Cell<Option<ConnId>>,
    pub control: RefCell<Option<Arc<Control>>>,
    pub endings: Arc<Mutex<Vec<(Duration, Ending)>>>,
    /// The time at which the proxy gave the client up.
    pub given_up: Arc<Mutex<Option<Duration>>>,
    /// The orders from outside, and their times.
    pub orders: RefCell<Vec<(Duration, SessionOrder)>>,
}

impl SessionRecord {
    pub fn new(number: usize, is_encrypted: bool) -> Self {
        Self {
            number,
            client: Rc::new(RefCell::new(LegWire::new(is_encrypted))),
            app: Rc::new(RefCell::new(LegWire::new(false))),
            client_end: Rc::default(),
            app_end: Rc::default(),
            opened: Cell::default(),
            returned: Cell::default(),
            reloads_before: Cell::default(),
            id: Cell::default(),
            control: RefCell::default(),
            endings: Arc::default(),
            given_up: Arc::default(),
            orders: RefCell::default(),
        }
    }

    pub fn endings(&self) -> Vec<(Duration, Ending)> {
        self.endings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn given_up(&self) -> Option<Duration> {
        *self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the relay is running.
    pub fn is_running(&self) -> bool {
        self.opened.get().is_some() && self.returned.get().is_none()
    }

    /// Gives `order` to the session, if it is running.
    pub fn order(&self, at: Duration, order: SessionOrder) {
        if let Some(control) = self.control.borrow().as_ref().filter(|_| self.is_running()) {
            self.orders.borrow_mut().push((at, order.clone()));
            control.give(order);
        }
    }
}

/// The proxy, as the world and the judge see it.
pub struct Proxy {
    pub plan: Rc<Plan>,
    pub flaw: Flaw,
    pub registry: Arc<Registry>,
    pub memory: Arc<Memory>,
    pub shutdown: Shutdown,
    pub sessions: BTreeMap<usize, Rc<SessionRecord>>,
    /// The times at which the drain began, and at which it ran out of time.
    pub drained: Cell<Option<Duration>>,
    pub cut: Cell<Option<Duration>>,
    /// The generation in force.
    pub generation: Cell<usize>,
    /// The number of reloads that the world has ordered.
    pub reloads: Cell<usize>,
    pub tls: Option<Tls>,
    pub process: Rc<Process>,
    /// Entries that are never released: for tests of the judge.
    kept: RefCell<Vec<Arc<Watched>>>,
}

impl Proxy {
    pub fn new(plan: &Rc<Plan>, flaw: Flaw) -> Self {
        let sessions = plan.sessions.iter().map(|session| {
            let number = session.number;
            (number, Rc::new(SessionRecord::new(number, plan.tls)))
        });
        Self {
            plan: Rc::clone(plan),
            flaw,
            registry: Arc::new(Registry::new(7)),
            memory: Arc::default(),
            shutdown: Shutdown::on_request(),
            sessions: sessions.collect(),
            drained: Cell::default(),
            cut: Cell::default(),
            generation: Cell::default(),
            reloads: Cell::default(),
            tls: plan.tls.then(Tls::new),
            process: Rc::default(),
            kept: RefCell::default(),
        }
    }

    /// Returns the time that a drain allows for an answer.
    pub fn grace(&self) -> Duration {
        self.plan.generations.iter().flatten().map(|policy| policy.close_grace).max().unwrap_or_default()
    }

    fn policy(&self, route: usize) -> Policy {
        let generations = &self.plan.generations;
        let policy = generations[self.generation.get().min(generations.len() - 1)][route].clone();
        let Policy { interval, timeout, window, .. } = policy;
        let times = |factor: f64| Policy {
            interval: interval.mul_f64(factor),
            timeout: timeout.mul_f64(factor),
            window: window.map(|window| window.mul_f64(factor)),
            ..policy.clone()
        };
        match self.flaw {
            Flaw::Slower => times(5.0),
            Flaw::Stricter => times(0.05),
            _ => policy,
        }
    }
}

/// Runs the proxy's host.
pub async fn run(proxy: Rc<Proxy>, tuning: Tuning) -> turmoil::Result {
    let stack = Stack::start(tuning, Rc::new(Cell::new(true))).await?;
    stack.hide_readiness_while(proxy.process.unaware());
    let process = Rc::clone(&proxy.process);
    process.task(suspension::with_pause_record(accept(proxy, stack))).await
}

/// Accepts clients and spawns their sessions.
async fn accept(proxy: Rc<Proxy>, stack: Rc<Stack>) -> turmoil::Result {
    let process = Rc::clone(&proxy.process);
    let liveness = Arc::new(UpstreamLiveness::new(Instant::now().into_std()));
    let tracker = TaskTracker::new();
    let draining = proxy.shutdown.draining().clone();
    tokio::task::spawn_local(process.task(supervise(Rc::clone(&proxy), tracker.clone())));
    loop {
        let (id, stream) = stack.accept().await;
        if !draining.is_cancelled() {
            let session = serve(Rc::clone(&proxy), Rc::clone(&stack), Arc::clone(&liveness), id, stream);
            tracker.spawn_local(process.task(session));
        }
    }
}

/// Carries out the drain, as the server does.
async fn supervise(proxy: Rc<Proxy>, tracker: TaskTracker) {
    let work = async {
        proxy.shutdown.draining().cancelled().await;
        tracker.close();
        tracker.wait().await;
    };
    let outcome = drain::supervise(&proxy.shutdown, &proxy.registry, work).await;
    if outcome == WorkOutcome::OutOfTime {
        proxy.cut.set(Some(now()));
        for session in proxy.registry.all() {
            session.give(SessionOrder::Abort(Abort::Drain));
        }
    }
}

async fn serve(proxy: Rc<Proxy>, stack: Rc<Stack>, liveness: Arc<UpstreamLiveness>, id: u32, mut stream: Stream) {
    let number = (id / 2) as usize;
    let record = Rc::clone(&proxy.sessions[&number]);
    let plan = proxy.plan.session(number);
    stream.set_grain(plan.grain);
    let mut client = match &proxy.tls {
        None => SimLeg::plain(stream, Rc::clone(&record.client)),
        Some(tls) => match tokio::time::timeout(Duration::from_secs(5), tls.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => SimLeg::tls(stream, Rc::clone(&record.client)),
            _ => return,
        },
    };
    client.corrupts = proxy.flaw == Flaw::Corrupt;
    let Ok(mut upstream) = stack.connect("app", id + 1).await else { return };
    upstream.set_grain(plan.grain);
    let upstream = SimLeg::plain(upstream, Rc::clone(&record.app));
    let policy = Arc::new(proxy.policy(plan.route));
    let control = Arc::new(Control::default());
    let conn = proxy.registry.next_id();
    let facts = Arc::new(facts(conn, &policy));
    let opening = SessionEntry { facts, control: Arc::clone(&control), liveness: Arc::clone(&liveness) };
    let observer = Arc::new(Watched {
        entry: proxy.registry.open(opening),
        flaw: proxy.flaw,
        endings: Arc::clone(&record.endings),
        given_up: Arc::clone(&record.given_up),
    });
    if proxy.flaw == Flaw::Remains {
        proxy.kept.borrow_mut().push(Arc::clone(&observer));
    }
    record.opened.set(Some(now()));
    record.reloads_before.set(proxy.reloads.get());
    record.id.set(Some(conn));
    *record.control.borrow_mut() = Some(Arc::clone(&control));
    let legs = Legs { client, client_early: Bytes::new(), upstream, upstream_early: Bytes::new() };
    let terms = NegotiatedTerms {
        policy,
        limits: Limits::default(),
        memory: Arc::clone(&proxy.memory),
        liveness,
        observer,
        id: conn,
        seed: proxy.plan.seed ^ u64::from(id) << 32,
        max_age: plan.max_age,
    };
    if proxy.flaw == Flaw::Lingers {
        // Neither the session's legs nor its orders and times are used.
        let _held = (legs, terms);
        return std::future::pending().await;
    }
    relay::run(legs, terms, control).await;
    record.returned.set(Some(now()));
}

fn facts(id: ConnId, policy: &Arc<Policy>) -> SessionFacts {
    let route = Route::to(Arc::new(UpstreamSettings::at(UpstreamTarget::Unix("/app.sock".into()))));
    SessionFacts {
        id,
        config_generation: 1,
        request: RequestFacts {
            client: ClientAddress::Peer(([192, 0, 2, 1], 40_000).into()),
            server_name: None,
            protocol: "h1",
            http_version: "1.1",
            host: None,
            request_id: None,
            route: Arc::new(route),
            path: "/".into(),
            user_agent: None,
            trace_id: None,
        },
        tls_version: None,
        tls_group: None,
        subprotocol: None,
        heartbeat: Selected { policy: Arc::clone(policy), why: None, degraded: None },
        extensions_refused: false,
    }
}

/// An observer that enters a session's end in the registry and in the judge's record.
#[derive(Debug)]
struct Watched {
    entry: RegistryEntry,
    flaw: Flaw,
    endings: Arc<Mutex<Vec<(Duration, Ending)>>>,
    given_up: Arc<Mutex<Option<Duration>>>,
}

impl Observer for Watched {
    fn timed_out(&self) {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(now());
    }

    fn ended(&self, ending: &Ending) {
        let mut ending = ending.clone();
        if self.flaw == Flaw::WrongCode {
            ending.client_code += 1;
        }
        if self.flaw != Flaw::Remains {
            self.entry.close(ending.clone());
        }
        let times = match self.flaw {
            Flaw::Unreported => 0,
            Flaw::ReportedTwice => 2,
            _ => 1,
        };
        let mut endings = self.endings.lock().unwrap_or_else(PoisonError::into_inner);
        endings.extend(std::iter::repeat_n((now(), ending), times));
    }
}
