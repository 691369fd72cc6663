//! The scenarios, the same for every library.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use pulsegate_test_kit::node::{NodeApp, project};
use pulsegate_test_kit::process::Process;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::{wait_for, wait_until};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::sleep;

use crate::PULSEGATE;
use crate::libraries::library::{Auto, ComesBack, Hung, Library, RESTART};
use crate::libraries::returns::Operator;

/// The windows of every mode. A busy machine may stand still for a second without a client being dead. A client that
/// was stopped may be woken in the grace, and then reads the Close.
pub(crate) const WINDOWS: &str = "interval = \"400ms\"\ntimeout = \"1600ms\"\nclose_grace = \"30s\"\n";

/// `interval + timeout` of [`WINDOWS`].
pub(crate) const BOUND: Duration = Duration::from_secs(2);

/// The tolerance for a busy machine, added to a bound.
const SLACK: Duration = Duration::from_secs(2);

/// The least time that a live client must live: more than a dozen heartbeats of `interval`, or [`WINDOWS_LIVED`] if
/// that is longer.
const MANY_BEATS: Duration = Duration::from_secs(6);

/// The number of the library's bounds that a live client must live.
const WINDOWS_LIVED: u32 = 4;

/// The time for which a page that must not reconnect is watched. Every library that reconnects does so in less.
const NEVER: Duration = Duration::from_secs(6);

/// The heartbeats under which a library has to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heartbeat {
    Profile,
    Auto,
    Protocol,
}

impl Heartbeat {
    fn section(self, library: &Library) -> String {
        let Library { profile, heartbeat, .. } = library;
        match self {
            Self::Profile if profile.is_empty() => format!("[heartbeat]\n{WINDOWS}{heartbeat}"),
            Self::Profile => format!("[heartbeat]\nprofile = \"{profile}\"\n{WINDOWS}{heartbeat}"),
            Self::Auto => format!("[heartbeat]\nprofile = \"auto\"\n{WINDOWS}{heartbeat}"),
            Self::Protocol => format!("[heartbeat]\nmode = \"protocol\"\n{WINDOWS}"),
        }
    }

    /// Asserts the heartbeat in the session's `ws.open`.
    fn asserts_open(self, library: &Library, open: &Value) {
        let picked = match (self, library.auto) {
            (Self::Profile, _) | (Self::Auto, Auto::Picks(_)) if !library.profile.is_empty() => {
                Some((library.mode, library.profile))
            }
            _ => None,
        };
        let (mode, profile) = match picked {
            Some((mode, profile)) => (mode.into(), profile.into()),
            None => ("protocol".into(), Value::Null),
        };
        assert_eq!((&open["heartbeat.mode"], &open["heartbeat.profile"]), (&mode, &profile), "{self:?}: {open}");
        if self == Self::Auto {
            let why = open["heartbeat.why"].as_str().unwrap_or_else(|| panic!("it does not say why: {open}"));
            let expected = if let Auto::Picks(words) = library.auto { words } else { "nothing recognised" };
            assert!(why.contains(expected), "{expected:?} is not in {why:?}");
        }
    }
}

/// A library's app and page, with the proxy between them, in an open session.
pub(crate) struct Session {
    pub(crate) app: NodeApp,
    pub(crate) proxy: Proxy,
    pub(crate) page: Page,
    operator: Operator,
}

impl Session {
    pub(crate) async fn open(library: &Library, heartbeat: Heartbeat) -> Self {
        let app = NodeApp::start("libraries", &format!("{}/app.js", library.folder), &[]).await;
        let operator = Operator::new();
        let config = operator.of(Config::to(PULSEGATE, &app.url)).with(&heartbeat.section(library));
        let proxy = Proxy::start(config).await;
        let page = Page::start(library, &proxy);
        page.event("open", |_| true).await;
        app.event("open", |_| true).await;
        let open = proxy.line("a ws.open", |line| line.json["message"] == "ws.open").await;
        heartbeat.asserts_open(library, &open.json);
        Self { app, proxy, page, operator }
    }

    /// Sends a message from the page to the app and waits for its echo.
    pub(crate) async fn echoes(&mut self, text: &str) {
        self.page.write_line(&json!({ "send": text })).await;
        self.page.event("message", |event| event["data"] == text).await;
    }

    /// Asserts that neither end has seen a close or a second open.
    fn is_the_first(&self) {
        for end in [&*self.app, &*self.page] {
            let (opens, closes) = (end.events("open").len(), end.events("close").len());
            assert_eq!((opens, closes), (1, 0), "{}\n{}", end.transcript(), self.proxy.transcript());
        }
    }

    /// Closes the session with `code` through the admin API.
    pub(crate) async fn kill(&self, code: u16) {
        self.operator.kill(code).await;
    }

    pub(crate) async fn finish(self) {
        self.proxy.finish().await;
    }

    /// Ends the session as [`Self::finish`] does, and returns its `ws.close`.
    async fn ends(self) -> Value {
        drop(self.page);
        let close = self.proxy.ws_close(|_| true).await.json;
        self.proxy.finish().await;
        close
    }
}

/// A library's page.
#[derive(Debug)]
pub(crate) struct Page(Process);

impl Page {
    pub(crate) fn start(library: &Library, proxy: &Proxy) -> Self {
        let script = format!("{}/page.js", library.folder);
        let mut command = Command::new("node");
        command.arg(&script).arg(proxy.wss(library.path)).args(library.flags);
        command.env("NODE_EXTRA_CA_CERTS", &proxy.pki.ca).current_dir(project("libraries"));
        Self(Process::start(&script, &mut command))
    }

    /// Hangs the page in the way that the library's profile must detect; returns the time.
    async fn hang(&mut self, hung: Hung) -> Instant {
        match hung {
            Hung::Page { .. } => {
                self.write_line(&json!({ "hang": true })).await;
                self.event_line("hung", |_| true).await.at
            }
            Hung::Process { .. } => {
                self.stop();
                Instant::now()
            }
        }
    }

    async fn wake(&mut self, hung: Hung) {
        match hung {
            Hung::Page { .. } => self.write_line(&json!({})).await,
            Hung::Process { .. } => self.resume(),
        }
    }

    /// Waits for the page's close event with the fields `hears`, and then asserts its reaction.
    async fn goes_on(&self, hears: &str, comes_back: ComesBack, what: &str) {
        let close = self.event("close", |_| true).await;
        holds(&close, hears, what);
        self.comes_back(1, comes_back, what).await;
    }

    /// Asserts that the page opens another connection after `opens` of them, or does not.
    pub(crate) async fn comes_back(&self, opens: usize, comes_back: ComesBack, what: &str) {
        match comes_back {
            ComesBack::Yes | ComesBack::UnlessRefused => {
                let transcript = || (self.opens(), self.transcript());
                wait_until(&format!("{what}, the page is back"), transcript, |(now, _)| *now == opens + 1).await;
            }
            ComesBack::No | ComesBack::NotItsJob => self.stays_away(opens, what).await,
        }
    }

    async fn stays_away(&self, opens: usize, what: &str) {
        sleep(NEVER).await;
        assert_eq!(self.opens(), opens, "{what}, it did come back:\n{}", self.transcript());
    }

    pub(crate) fn opens(&self) -> usize {
        self.events("open").len()
    }
}

impl Deref for Page {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.0
    }
}

impl DerefMut for Page {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.0
    }
}

/// Asserts all cases in which the proxy uses the library's heartbeat. They run concurrently, because they wait most of
/// the time.
pub(crate) async fn under_its_profile(library: &Library) {
    tokio::join!(
        lives(library, Heartbeat::Profile),
        lives(library, Heartbeat::Auto),
        Box::pin(is_found_when_it_hangs(library)),
        async {
            if let Hung::Process { .. } = library.hung {
                hangs_unnoticed(library, Heartbeat::Profile).await;
            }
        },
    );
}

/// Asserts all cases in which the page sends the heartbeat and the proxy answers.
pub(crate) async fn is_answered(library: &Library) {
    tokio::join!(lives(library, Heartbeat::Profile), is_found_when_it_hangs(library));
}

/// Asserts the same as [`under_its_profile`], for a client whose network hangs with it, with a bound well beyond that
/// of pings. Pings would find it too, and earlier: either there were none, or the time shows that they did not.
pub(crate) async fn under_its_profile_in_one_thread(library: &Library) {
    let (.., (took, close)) = tokio::join!(
        lives(library, Heartbeat::Profile),
        lives(library, Heartbeat::Auto),
        Box::pin(is_found_when_it_hangs(library)),
    );
    let between = (BOUND + library.bound()) / 2;
    assert!(close["pings"] == 0 || took > between, "pings have found it, after {took:?}: {close}");
}

/// Asserts the same as [`under_its_profile`], at a path where the app agrees to compression.
pub(crate) async fn under_its_profile_compressed(library: &Library) {
    tokio::join!(is_compressed(library), Box::pin(under_its_profile(library)));
}

async fn is_compressed(library: &Library) {
    let session = Session::open(library, Heartbeat::Profile).await;
    let connection = session.app.event("connection", |_| true).await;
    assert_eq!(connection["extensions"], "permessage-deflate", "{connection}");
    session.finish().await;
}

/// Asserts all cases in which the proxy uses pings and no profile.
pub(crate) async fn under_protocol_pings(library: &Library) {
    tokio::join!(
        lives(library, Heartbeat::Protocol),
        hangs_unnoticed(library, Heartbeat::Protocol),
        sees_a_restart(library),
        is_refused_meanwhile(library),
    );
}

/// Asserts the same as [`under_protocol_pings`], for a client whose network hangs with it: pings find it too.
pub(crate) async fn under_protocol_pings_in_one_thread(library: &Library) {
    tokio::join!(lives(library, Heartbeat::Protocol), sees_a_restart(library));
}

/// Asserts that a live page lives for many windows, beside the library's own heartbeat, and that the app receives only
/// the page's messages.
async fn lives(library: &Library, heartbeat: Heartbeat) {
    let mut session = Session::open(library, heartbeat).await;
    session.echoes("first").await;
    sleep(MANY_BEATS.max(library.bound() * WINDOWS_LIVED)).await;
    session.echoes("last").await;
    session.is_the_first();
    let Session { app, page, .. } = &session;
    let (at_app, at_page) = (app.events("beat").len(), page.events("beat").len());
    let transcripts = || format!("{heartbeat:?}; the app:\n{}the page:\n{}", app.transcript(), page.transcript());
    assert!(at_app + at_page >= 2, "{at_app} and {at_page} beats of its own; {}", transcripts());
    let heard: Vec<Value> = app.events("message").into_iter().map(|event| event["data"].clone()).collect();
    assert_eq!(heard, ["first", "last"], "the app sees its own messages alone; {}", transcripts());
    if heartbeat == Heartbeat::Profile {
        let close = session.ends().await;
        let answered = close["pongs"].as_u64().unwrap_or_default();
        match library.mode {
            "app" => assert!(answered >= 5, "the proxy asks, the page answers: {close}"),
            "answer" => assert!(at_page >= 5, "the proxy answers: {at_page} beats at the page"),
            _ => {}
        }
    } else {
        session.finish().await;
    }
}

/// Asserts that a hung page is closed within the bound, that the app gets the reason, and that the page reconnects once
/// it runs again. Returns the time that it took, and the `ws.close`.
async fn is_found_when_it_hangs(library: &Library) -> (Duration, Value) {
    let mut session = Session::open(library, Heartbeat::Profile).await;
    session.echoes("first").await;
    let tried = library.bound();
    let hung = session.page.hang(library.hung).await;
    let close = session.app.event_line("close", |_| true).await;
    let took = close.at - hung;
    assert!(took < tried + SLACK, "the app heard of it after {took:?} instead of {tried:?}");
    holds(&close.json, library.app_hears, "the app");

    session.page.wake(library.hung).await;
    let comes_back = library.comes_back_after(RESTART);
    session.page.goes_on(library.hears_miss, comes_back, "after a missed heartbeat").await;
    let close = session.proxy.ws_close(|_| true).await.json;
    assert_eq!(
        (&close["close.initiator"], &close["close.reason"], &close["close.code"], &close["upstream.close_code"]),
        (&"proxy".into(), &"heartbeat_timeout".into(), &1012.into(), &4408.into()),
        "{close}"
    );
    if comes_back.comes() {
        session.echoes("again").await;
    }
    session.finish().await;
    (took, close)
}

/// Asserts that a frozen app does no harm: it freezes for several bounds of its library's profile and continues. A page
/// that only answers was silent all that time, and is not closed for it.
pub(crate) async fn outlives_a_frozen_app(library: &Library) {
    let mut session = Session::open(library, Heartbeat::Profile).await;
    session.echoes("first").await;
    session.app.stop();
    sleep(library.bound() * 3).await;
    session.app.resume();
    session.echoes("last").await;
    session.is_the_first();
    session.finish().await;
}

/// Asserts that protocol pings do not find a hung page, because its network answers. So if a hung page is found, the
/// profile has found it; and if it is not, no live one is closed.
async fn hangs_unnoticed(library: &Library, heartbeat: Heartbeat) {
    let mut session = Session::open(library, heartbeat).await;
    let hang = Hung::Page { bound: "", tried: BOUND };
    session.page.hang(hang).await;
    sleep(BOUND + SLACK).await;
    session.page.wake(hang).await;
    session.echoes("awake").await;
    session.is_the_first();
    session.finish().await;
}

/// Asserts the reaction to a restart of the proxy: a Close of 1012, a short absence, and a new process.
pub(crate) async fn sees_a_restart(library: &Library) {
    let mut session = Session::open(library, Heartbeat::Protocol).await;
    session.echoes("first").await;
    session.proxy = session.proxy.restart().await;
    let comes_back = library.comes_back_after(RESTART);
    session.page.goes_on(library.hears_restart, comes_back, "after a restart").await;
    if comes_back.comes() {
        session.echoes("again").await;
    }
    session.finish().await;
}

/// Asserts the reaction to a longer absence of the proxy: the page's first attempt to reconnect fails.
async fn is_refused_meanwhile(library: &Library) {
    let comes_back = library.comes_back_after(RESTART);
    if !comes_back.comes() {
        return;
    }
    let mut session = Session::open(library, Heartbeat::Protocol).await;
    session.proxy = session.proxy.restart_after(refuse_one).await;
    match comes_back {
        ComesBack::Yes => session.page.goes_on(library.hears_restart, comes_back, "after a refusal").await,
        _ => session.page.stays_away(1, "after a refusal").await,
    }
    session.finish().await;
}

/// Accepts one connection and closes it before its first byte.
async fn refuse_one(address: SocketAddr) {
    let listener = TcpListener::bind(address).await.expect("the port is free");
    wait_for("the page's first try", listener.accept()).await.expect("the try is taken");
}

/// Asserts that `event` has these fields, among others.
fn holds(event: &Value, fields: &str, what: &str) {
    let fields: Value = serde_json::from_str(fields).expect("fields are written as JSON");
    for (name, value) in fields.as_object().expect("fields are an object") {
        assert_eq!(&event[name], value, "{what}: {name} in {event}");
    }
}

/// The tests of one library.
macro_rules! tests {
    ($library:expr) => {
        #[tokio::test]
        async fn under_its_profile() {
            crate::libraries::matrix::under_its_profile(&$library).await;
        }

        #[tokio::test]
        async fn under_protocol_pings() {
            crate::libraries::matrix::under_protocol_pings(&$library).await;
        }

        #[tokio::test]
        async fn s71_comes_back_by_itself_or_not() {
            crate::libraries::returns::after_each_end(&$library).await;
        }
    };
}
pub(crate) use tests;
