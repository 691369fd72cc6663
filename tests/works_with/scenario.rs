//! The scenario, the same for every app.

use std::time::{Duration, Instant};

use pulsegate_test_kit::node;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_until;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::PULSEGATE;
use crate::works_with::client::Running;
use crate::works_with::row::{Returns, Row, Setting, Vanishes, Without};

/// The heartbeat.
const HEARTBEAT: &str = "[heartbeat]\ninterval = \"1s\"\ntimeout = \"4s\"\n";

/// The line for a client that is stopped: woken within this time, it reads its Close.
const WOKEN: &str = "close_grace = \"30s\"\n";

/// `interval + timeout` of [`HEARTBEAT`].
const BOUND: Duration = Duration::from_secs(5);

/// The addition of a busy machine to a bound.
const SLACK: Duration = Duration::from_secs(3);

/// The time for which a client stays connected to an idle app: some six intervals.
const LIFE: Duration = Duration::from_millis(6_500);

/// The fewest heartbeats in [`LIFE`], on a busy machine.
const BEATS: usize = 3;

/// Runs `app` through its life and its ends, then once without each of its settings.
pub(crate) async fn works(app: &Row) {
    let mut session = Session::open(app).await;
    session.exchange("first").await;
    session.lives().await;
    session.exchange("second").await;
    session.client_vanishes().await;
    session.exchange("after the client was away").await;
    let mut session = session.proxy_restarts().await;
    session.exchange("after the proxy was away").await;
    session.finish().await;
    for setting in app.settings {
        is_needed(app, setting).await;
    }
}

/// An app, the proxy and a client.
struct Session<'a> {
    app: &'a Row,
    server: node::NodeApp,
    proxy: Proxy,
    client: Running,
    /// The number of connections of clients.
    opens: usize,
    /// The number of loads of a page.
    loads: usize,
    _sources: TempDir,
}

impl<'a> Session<'a> {
    /// Starts all three. `without` names a setting to leave out.
    async fn start(app: &'a Row, without: &str) -> Self {
        let sources = TempDir::with_prefix("pulsegate-sources-").expect("make a temporary directory");
        let folder = sources.path().to_str().expect("temporary paths are UTF-8");
        let environment = [("SOURCES", folder), ("WITHOUT", without)];
        let server = node::NodeApp::start("works_with", &format!("{}/app.js", app.folder), &environment).await;
        // A drain waits for streams of plain requests, and `close_grace` adds to its bound.
        let grace = if app.vanishes == Vanishes::Stopped { WOKEN } else { "" };
        let proxy = Proxy::start(Config::to(PULSEGATE, &server.url).with(&format!("{HEARTBEAT}{grace}"))).await;
        let client = Running::start(app, &proxy);
        Self { app, server, proxy, client, opens: 0, loads: 0, _sources: sources }
    }

    async fn open(app: &'a Row) -> Self {
        let mut session = Self::start(app, "").await;
        session.has_opened(true).await;
        for setting in app.settings {
            if let Without::Reports { with, .. } = setting.without {
                session.app_reports("seen", with).await;
            }
        }
        session
    }

    /// Waits until the client is connected once more. A page that was loaded for it reports that.
    async fn has_opened(&mut self, loaded: bool) {
        self.opens += 1;
        self.loads += usize::from(loaded);
        let seen = || (self.server.events("open").len(), self.client.events("open").len());
        let wanted = |(at_app, at_client): &(usize, usize)| *at_app >= self.opens && *at_client >= self.loads;
        settles_or_show(self, "the client is connected", seen, wanted).await;
    }

    async fn exchange(&mut self, text: &str) {
        self.client.exchange(&mut self.server, text).await;
    }

    /// Asserts that the first event of this kind at the app has these fields, among others.
    async fn app_reports(&self, event: &str, fields: &str) {
        let seen = self.server.event(event, |_| true).await;
        let fields: Value = serde_json::from_str(fields).expect("fields are written as JSON");
        for (name, value) in fields.as_object().expect("fields are an object") {
            assert_eq!(&seen[name], value, "{}: {name} in {seen}", self.app.title);
        }
    }

    /// Asserts that heartbeats pass, and nothing ends.
    async fn lives(&self) {
        sleep(LIFE).await;
        let (closes, opens) = (self.server.events("close").len(), self.server.events("open").len());
        assert_eq!((opens, closes), (1, 0), "{}", self.transcripts());
        if let Vanishes::Killed { .. } = self.app.vanishes {
            let beats = self.client.events("beat").len();
            assert!(beats >= BEATS, "{beats} heartbeats of the app; {}", self.transcripts());
        }
    }

    /// Makes the client vanish; the app's own handler must run in time, and a client connect again.
    async fn client_vanishes(&mut self) {
        let since = Instant::now();
        let bound = match self.app.vanishes {
            Vanishes::Stopped => {
                self.client.stop();
                BOUND
            }
            Vanishes::Killed { app_notices } => {
                self.client.kill().await;
                app_notices
            }
        };
        let took = self.server.event_line("close", |_| true).await.at - since;
        assert!(
            took < bound + SLACK,
            "the app detected it after {took:?} instead of {bound:?}; {}",
            self.transcripts()
        );
        self.app_reports("close", self.app.close).await;
        match self.app.vanishes {
            Vanishes::Stopped => {
                self.client.resume();
                self.heartbeat_timed_out().await;
                self.returns().await;
            }
            Vanishes::Killed { .. } => self.replace().await,
        }
    }

    /// Asserts that the line of the session gives the cause, after answered pings.
    async fn heartbeat_timed_out(&self) {
        let close = self.proxy.ws_close(|close| close["close.reason"] == "heartbeat_timeout").await.json;
        assert_eq!((&close["close.code"], &close["upstream.close_code"]), (&1012.into(), &4408.into()), "{close}");
        let pongs = close["pongs"].as_u64().and_then(|pongs| usize::try_from(pongs).ok()).unwrap_or_default();
        assert!(pongs >= BEATS, "{pongs} pongs: {close}");
    }

    /// Restarts the proxy, in order and on the same port.
    async fn proxy_restarts(mut self) -> Self {
        self.proxy = self.proxy.restart().await;
        self.returns().await;
        self
    }

    /// Asserts that after the proxy's Close the client returns in the way that the table gives.
    async fn returns(&mut self) {
        match self.app.returns {
            Returns::Reconnects => self.has_opened(false).await,
            Returns::ByCall(_) | Returns::Reloads => self.has_opened(true).await,
            Returns::LeavesItToYou => {
                self.client.event("close", |_| true).await;
                self.replace().await;
            }
            Returns::NoWebSocket => self.replace().await,
        }
    }

    /// Starts another client in the place of one that has ended.
    async fn replace(&mut self) {
        self.client = Running::start(self.app, &self.proxy);
        self.loads = 0;
        self.has_opened(true).await;
    }

    fn transcripts(&self) -> String {
        let Self { app, server, proxy, client, .. } = self;
        let (server, client, proxy) = (server.transcript(), client.transcript(), proxy.transcript());
        format!("{}; the app:\n{server}the client:\n{client}the proxy:\n{proxy}", app.title)
    }

    async fn finish(self) {
        drop(self.client);
        self.proxy.finish().await;
    }
}

/// Waits as [`settles`] does; a failure shows what all three wrote.
async fn settles_or_show<T: std::fmt::Debug>(
    session: &Session<'_>,
    what: &str,
    measure: impl Fn() -> T,
    wanted: impl Fn(&T) -> bool,
) {
    wait_until(what, || (measure(), session.transcripts()), |(seen, _)| wanted(seen)).await;
}

/// Asserts that without `setting` the app does not work, or not as well, in the way that the table gives.
async fn is_needed(app: &Row, setting: &Setting) {
    let session = Session::start(app, setting.name).await;
    match setting.without {
        Without::Status(status) => {
            let loaded = session.client.event("loaded", |_| true).await;
            assert_eq!(loaded["status"], status, "{}; {}", setting.name, session.transcripts());
        }
        Without::NoWebSocket => {
            session.client.event("open", |_| true).await;
            let failed = |event: &Value| {
                let text = event["text"].as_str().unwrap_or_default();
                text.starts_with("WebSocket connection to 'ws://") && text.contains("failed")
            };
            session.client.event("console", failed).await;
            assert_eq!(session.proxy.logged("ws.open").len(), 0, "{}; {}", setting.name, session.transcripts());
        }
        Without::Reports { without, .. } => session.app_reports("seen", without).await,
    }
    session.finish().await;
}
