//! The proxy's own reports, compared with the events.

use std::time::Duration;

use pulsegate::registry::FoundSession;
use pulsegate::session::Ending;

use super::{Case, SLACK};
use crate::proxy::Proxy;
use crate::wire::LegWire;

/// Checks the registry, the ring of closed sessions and the memory that is held.
pub fn registry(proxy: &Proxy, now: Duration) -> Vec<(&'static str, String)> {
    let mut failures = Vec::new();
    let (mut live, mut closed) = (0, 0);
    for record in proxy.sessions.values() {
        let (Some(_), Some(id)) = (record.opened.get(), record.id.get()) else { continue };
        let ending = record.endings().first().cloned();
        match (&ending, proxy.registry.find(id)) {
            (None, Some(FoundSession::Live(_))) => live += 1,
            (Some((_, ending)), Some(FoundSession::Closed(found)))
                if found.ending.cause.reason() == ending.cause.reason()
                    && found.ending.client_code == ending.client_code =>
            {
                closed += 1;
            }
            (ending, found) => {
                let found = match found {
                    Some(FoundSession::Live(_)) => "live",
                    Some(FoundSession::Closed(_)) => "closed otherwise",
                    None => "unknown",
                };
                let text = format!("session {} is {found} there; it ended {ending:?}", record.number);
                failures.push(("registry", text));
            }
        }
    }
    if proxy.registry.len() != live || proxy.registry.closed().len() != closed {
        let (len, ring) = (proxy.registry.len(), proxy.registry.closed().len());
        failures.push(("registry", format!("{len} live and {ring} closed, but {live} and {closed} are")));
    }
    let is_idle = !proxy.sessions.values().any(|record| record.is_running());
    if is_idle && proxy.memory.total() > 0 {
        failures.push(("memory", format!("{} bytes are held at {now:?}, with no session", proxy.memory.total())));
    }
    failures
}

impl Case<'_> {
    /// Returns a failure for an end that is reported never, twice, or long after both legs are gone.
    pub fn misreported(&self, endings: &[(Duration, Ending)]) -> Option<(&'static str, String)> {
        let reports = endings.len();
        let gone = self.record.client.borrow().gone.zip(self.record.app.borrow().gone);
        let is_gone =
            gone.is_some_and(|(client, app)| client.max(app) + self.stopped(client.max(app)) + SLACK < self.now);
        let is_wrong = reports > 1 || reports == 0 && (is_gone || self.record.returned.get().is_some());
        is_wrong.then(|| ("reports", format!("{reports} reports; legs gone {gone:?}")))
    }

    /// Returns a failure for each code in the report that is not the one on the wire.
    pub fn wrong_codes(&self) -> Vec<(&'static str, String)> {
        let endings = self.record.endings();
        let Some((_, ending)) = endings.first() else { return Vec::new() };
        let wrong = |name: &str, code: u16, wire: &LegWire, received: Option<u16>| {
            let known = [wire.close_out, wire.close_in].map(|close| close.map(|(_, code)| code));
            let is_true = match code {
                // A Close that left this host, and arrived, was written.
                1006 => received.is_none(),
                code => known.contains(&Some(code)),
            };
            (!is_true)
                .then(|| ("codes", format!("{name}: reported {code}, on the wire {known:?}, received {received:?}")))
        };
        let received = |end: &crate::peer::PeerRecord| end.close_received.map(|(_, code)| code);
        let client = wrong(
            "client",
            ending.client_code,
            &self.record.client.borrow(),
            received(&self.record.client_end.borrow()),
        );
        let app =
            wrong("app", ending.upstream_code, &self.record.app.borrow(), received(&self.record.app_end.borrow()));
        let behind = [&self.record.client, &self.record.app].map(|wire| wire.borrow().after_close);
        let behind =
            (behind != [0, 0]).then(|| ("frames behind a Close", format!("{behind:?} to the client and the app")));
        [client, app, behind].into_iter().flatten().collect()
    }
}
