//! One simulated world: its hosts, its network, and the events of its plan.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::rc::Rc;
use std::time::Duration;

use pulsegate::drain;
use pulsegate::heartbeat::Mode;
use pulsegate::relay::SessionOrder;
use pulsegate::session::Abort;
use turmoil::{Builder, Sim};

use crate::judge::{Failure, Judge};
use crate::peer::{self, Beats, Io, Side};
use crate::plan::{Event, Link, Plan, SessionPlan, Trouble};
use crate::proxy::{self, Flaw, Proxy};
use crate::transport::{Stack, Tuning, now};

/// One step of the simulation.
const TICK: Duration = Duration::from_millis(50);
/// The time that the ends have for the bytes that the proxy left in the network.
const SETTLE: Duration = Duration::from_secs(12);

/// The window of the drain that ends a world. Without one, sessions are closed in the order of their addresses in
/// memory, which differ from run to run.
const LAST_WINDOW: Duration = Duration::from_secs(1);

/// The outcome of a world.
pub struct Outcome {
    pub failures: Vec<Failure>,
    /// The records of every session, to compare two runs.
    pub records: BTreeMap<usize, String>,
    pub opened: usize,
    pub proxy: Rc<Proxy>,
    pub simulated: Duration,
}

/// An event that begins, or a trouble that ends.
#[derive(Clone, Copy)]
enum Moment {
    Begin(Event),
    End(Link, Trouble),
}

/// One simulated world.
struct World {
    plan: Rc<Plan>,
    proxy: Rc<Proxy>,
    sim: Sim<'static>,
    power: BTreeMap<String, Rc<Cell<bool>>>,
    moments: Vec<(Duration, Moment)>,
}

/// Runs `plan` to its end.
pub fn run(plan: &Plan, flaw: Flaw) -> Outcome {
    // The drain draws from the thread's generator.
    fastrand::seed(plan.seed);
    let mut world = World::new(plan, flaw);
    let mut judge = Judge::new(Rc::clone(&world.proxy));
    let limit = plan.length + plan.longest_end() + plan.stopped() + SETTLE;
    let mut settled = None;
    let mut failures = Vec::new();
    while world.sim.elapsed() < limit && settled.is_none_or(|at| world.sim.elapsed() < at + SETTLE) {
        world.act();
        if let Err(error) = world.sim.step() {
            let text = error.to_string();
            failures.push(Failure { at: world.sim.elapsed(), session: None, rule: "simulation", text });
            break;
        }
        judge.step(world.sim.elapsed());
        if settled.is_none() && world.is_over() {
            settled = Some(world.sim.elapsed());
        }
    }
    failures.extend(judge.finish(world.sim.elapsed()));
    let sessions = &world.proxy.sessions;
    let opened = sessions.values().filter(|record| record.opened.get().is_some()).count();
    let (records, simulated) = (world.records(), world.sim.elapsed());
    Outcome { failures, records, opened, proxy: Rc::clone(&world.proxy), simulated }
}

impl World {
    fn new(plan: &Plan, flaw: Flaw) -> Self {
        let plan = Rc::new(plan.clone());
        let mut sim = Builder::new()
            .rng_seed(plan.seed)
            .simulation_duration(Duration::from_secs(100_000))
            .tick_duration(TICK)
            .min_message_latency(plan.latency.0)
            .max_message_latency(plan.latency.1)
            .udp_capacity(1 << 20)
            .build();
        let proxy = Rc::new(Proxy::new(&plan, flaw));
        let rto = 3 * plan.latency.1 + Duration::from_millis(400);
        let tuning = Tuning { receive: plan.receive, send: plan.send, rto };
        let host = Rc::clone(&proxy);
        sim.host("proxy", move || proxy::run(Rc::clone(&host), tuning));
        let mut power = BTreeMap::new();
        let (host, switch) = (Rc::clone(&proxy), Rc::new(Cell::new(true)));
        power.insert("app".to_owned(), Rc::clone(&switch));
        sim.host("app", move || app(Rc::clone(&host), tuning, Rc::clone(&switch)));
        for number in 0..plan.hosts {
            let (host, switch) = (Rc::clone(&proxy), Rc::new(Cell::new(true)));
            power.insert(client_host(number), Rc::clone(&switch));
            sim.host(client_host(number), move || clients(Rc::clone(&host), tuning, Rc::clone(&switch), number));
        }
        let mut moments = Vec::new();
        for (at, event) in &plan.events {
            moments.push((*at, Moment::Begin(*event)));
            if let Event::Trouble { link, trouble, lasts } = event {
                moments.push((*at + *lasts, Moment::End(*link, *trouble)));
            }
        }
        moments.push((plan.length, Moment::Begin(Event::Drain { window: LAST_WINDOW })));
        moments.sort_by_key(|(at, _)| *at);
        Self { plan, proxy, sim, power, moments }
    }

    /// Carries out everything that is due.
    fn act(&mut self) {
        let now = self.sim.elapsed();
        while self.moments.first().is_some_and(|(at, _)| *at <= now) {
            match self.moments.remove(0).1 {
                Moment::Begin(event) => self.begin(event, now),
                Moment::End(link, trouble) => self.end(link, trouble),
            }
        }
    }

    fn begin(&mut self, event: Event, now: Duration) {
        let order = |session: usize, order| {
            if let Some(record) = self.proxy.sessions.get(&session) {
                record.order(now, order);
            }
        };
        match event {
            Event::Trouble { link, trouble, .. } => self.trouble(link, trouble),
            Event::Reload => {
                self.proxy.generation.set(self.proxy.generation.get() + 1);
                self.proxy.reloads.set(self.proxy.reloads.get() + 1);
            }
            Event::Drain { window } => {
                if self.proxy.drained.get().is_none() {
                    let grace = self.proxy.grace();
                    self.proxy.shutdown.prepare(drain::Plan { window, grace, ..drain::Plan::default() });
                    self.proxy.drained.set(Some(now));
                    self.proxy.shutdown.drain();
                }
            }
            Event::Kill { session, code } => order(session, SessionOrder::Close { code, reason: "killed".into() }),
            Event::Abort { session } => order(session, SessionOrder::Abort(Abort::Operator)),
            Event::PlayDead { session } => order(session, SessionOrder::PlayDead),
            Event::Stop { lasts } => self.proxy.process.stop(now, lasts),
            Event::GiveUp => {
                for record in self.proxy.sessions.values() {
                    record.order(now, SessionOrder::UpstreamUnresponsive);
                }
            }
        }
    }

    fn trouble(&mut self, link: Link, trouble: Trouble) {
        let host = host_of(link);
        match trouble {
            Trouble::Partition => self.sim.partition(&*host, "proxy"),
            Trouble::Downlink => self.sim.partition_oneway("proxy", &*host),
            Trouble::Uplink => self.sim.partition_oneway(&*host, "proxy"),
            Trouble::Hold => self.sim.hold(&*host, "proxy"),
            Trouble::Latency(latency) => self.sim.set_link_latency(&*host, "proxy", latency),
            Trouble::PowerOff => {
                self.power[&host].set(false);
                self.sim.crash(&*host);
            }
            Trouble::Crash => self.sim.crash(&*host),
        }
    }

    fn end(&mut self, link: Link, trouble: Trouble) {
        let host = host_of(link);
        match trouble {
            Trouble::Partition => self.sim.repair(&*host, "proxy"),
            Trouble::Downlink => self.sim.repair_oneway("proxy", &*host),
            Trouble::Uplink => self.sim.repair_oneway(&*host, "proxy"),
            Trouble::Hold => self.sim.release(&*host, "proxy"),
            Trouble::Latency(_) => {
                self.sim.set_link_latency(&*host, "proxy", self.plan.latency.0);
                self.sim.set_link_max_message_latency(&*host, "proxy", self.plan.latency.1);
            }
            Trouble::PowerOff | Trouble::Crash => self.sim.bounce(&*host),
        }
    }

    /// Returns whether the drain is over and no session is left.
    fn is_over(&self) -> bool {
        self.moments.is_empty()
            && self.proxy.registry.is_empty()
            && !self.proxy.sessions.values().any(|record| record.is_running())
    }

    fn records(&self) -> BTreeMap<usize, String> {
        let described = self.proxy.sessions.values().map(|record| {
            let mut out = String::new();
            let (opened, returned) = (record.opened.get(), record.returned.get());
            let _ = writeln!(out, "session {}: opened {opened:?}, returned {returned:?}", record.number);
            let _ = writeln!(out, "  orders {:?}", record.orders.borrow());
            let _ = writeln!(out, "  endings {:?}", record.endings());
            let _ = writeln!(out, "  client {:?}", record.client_end.borrow());
            let _ = writeln!(out, "  app    {:?}", record.app_end.borrow());
            let _ = writeln!(out, "  client leg {:?}", record.client.borrow());
            let _ = writeln!(out, "  app leg    {:?}", record.app.borrow());
            (record.number, out)
        });
        described.collect()
    }
}

fn client_host(number: usize) -> String {
    format!("client-{number}")
}

fn host_of(link: Link) -> String {
    match link {
        Link::Client(number) => client_host(number),
        Link::App => "app".to_owned(),
    }
}

/// Runs the clients of one host that are still to start when the host does.
async fn clients(proxy: Rc<Proxy>, tuning: Tuning, power: Rc<Cell<bool>>, host: usize) -> turmoil::Result {
    let stack = Stack::start(tuning, power).await?;
    let plan = Rc::clone(&proxy.plan);
    for session in plan.sessions.iter().filter(|session| session.host == host && session.start >= now()) {
        tokio::task::spawn_local(client(Rc::clone(&proxy), Rc::clone(&stack), session.clone()));
    }
    std::future::pending().await
}

async fn client(proxy: Rc<Proxy>, stack: Rc<Stack>, session: SessionPlan) {
    tokio::time::sleep(session.start - now()).await;
    let id = u32::try_from(2 * session.number).expect("few sessions");
    let Ok(stream) = stack.connect("proxy", id).await else { return };
    let breaker = stream.breaker();
    let rate = session.client.uplink;
    let policy = proxy.plan.policy(session.route, now());
    let beats = Beats {
        answers_text: matches!(policy.mode, Mode::App(_)),
        every: policy.window.filter(|_| matches!(policy.mode, Mode::Answer(_))).map(|window| window / 3),
    };
    let io: Box<dyn Io> = match &proxy.tls {
        None => {
            if let Some(rate) = rate {
                stream.set_rate(rate);
            }
            Box::new(stream)
        }
        Some(tls) => match tls.client.handshake("proxy", stream).await {
            Ok(stream) => {
                // The rate applies after the handshake.
                if let Some(rate) = rate {
                    stream.get_ref().0.set_rate(rate);
                }
                Box::new(stream)
            }
            Err(_) => return,
        },
    };
    let record = Rc::clone(&proxy.sessions[&session.number].client_end);
    peer::run((io, breaker), Side::Client, (session.client, beats), record).await;
}

async fn app(proxy: Rc<Proxy>, tuning: Tuning, power: Rc<Cell<bool>>) -> turmoil::Result {
    let stack = Stack::start(tuning, power).await?;
    loop {
        let (id, stream) = stack.accept().await;
        let session = &proxy.sessions[&((id / 2) as usize)];
        let behaviour = proxy.plan.session(session.number).app;
        let (record, breaker): (Rc<RefCell<_>>, _) = (Rc::clone(&session.app_end), stream.breaker());
        let io: Box<dyn Io> = Box::new(stream);
        tokio::task::spawn_local(peer::run((io, breaker), Side::App, (behaviour, Beats::default()), record));
    }
}
