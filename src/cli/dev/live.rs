//! The heartbeat of one session as it happens, for the page of the echo app: server-sent events (WHATWG HTML §9.2).
//!
//! The page names its WebSocket by a word of its own in the URL. The session's figures are looked at ten times a second,
//! which costs the session nothing.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval};

use crate::heartbeat::HeartbeatStats;
use crate::registry::{FoundSession, Registry};
use crate::session::{ConnId, LiveStats, close_summary};

/// The interval at which figures are read.
const LOOK: Duration = Duration::from_millis(100);
/// The longest name that a page may give its WebSocket.
const NAME_MAX: usize = 64;

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\
                    Connection: close\r\n\r\n";

/// The sessions of the page's WebSockets.
#[derive(Debug)]
pub(super) struct PageSessions {
    registry: Arc<Registry>,
    by_name: Mutex<HashMap<Box<str>, ConnId>>,
}

/// A WebSocket of the page; it loses its name on drop.
#[derive(Debug)]
pub(super) struct NamedSession<'a> {
    sessions: &'a PageSessions,
    name: Box<str>,
    id: ConnId,
}

impl PageSessions {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        Self { registry, by_name: Mutex::default() }
    }

    /// Gives the session `id` its name until the returned value is dropped; `None` for a name that is too long.
    pub(super) fn name(&self, name: &str, id: ConnId) -> Option<NamedSession<'_>> {
        let name: Box<str> = (name.len() <= NAME_MAX).then(|| name.into())?;
        self.lock().insert(name.clone(), id);
        Some(NamedSession { sessions: self, name, id })
    }

    /// Returns the session of this name.
    pub(super) fn find(&self, name: &str) -> Option<ConnId> {
        self.lock().get(name).copied()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, ConnId>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the heartbeat of the session `id` to `stream` until either ends.
    pub(super) async fn stream(&self, mut stream: TcpStream, id: ConnId) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let (mut read, mut write) = stream.split();
        write.write_all(HEAD.as_bytes()).await?;
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut beats = Beats::default();
        let mut rest = [0; 64];
        loop {
            tokio::select! {
                read = read.read(&mut rest) => if read? == 0 { return Ok(()) },
                _ = look.tick() => {
                    let (events, ended) = beats.update(self.registry.find(id).as_ref());
                    write.write_all(events.as_bytes()).await?;
                    if ended {
                        return write.shutdown().await;
                    }
                }
            }
        }
    }
}

impl Drop for NamedSession<'_> {
    fn drop(&mut self) {
        let mut by_name = self.sessions.lock();
        // A later WebSocket may have the name now.
        if by_name.get(&self.name) == Some(&self.id) {
            by_name.remove(&self.name);
        }
    }
}

/// The beats that were sent to the page.
#[derive(Debug, Default)]
struct Beats {
    pings: u64,
    pongs: u64,
    missed: u64,
}

impl Beats {
    /// Returns the events since the last call, and whether the session has ended.
    fn update(&mut self, session: Option<&FoundSession>) -> (String, bool) {
        match session {
            Some(FoundSession::Live(live)) => {
                let LiveStats { pings, pongs, missed, rtt, rtt_min, .. } = live.live_stats();
                (self.beats(Beats { pings, pongs, missed }, rtt, rtt_min), false)
            }
            Some(FoundSession::Closed(closed)) => {
                let HeartbeatStats { pings, pongs, missed, rtt_last, .. } = closed.ending.heartbeat;
                let beats = self.beats(Beats { pings, pongs, missed }, rtt_last, None);
                let sentence = close_summary(&closed.ending, &closed.facts.heartbeat.policy);
                (beats + &event("end", &json!({ "sentence": sentence })), true)
            }
            // So many others have closed since that this one is forgotten.
            None => (event("end", &json!({ "sentence": null })), true),
        }
    }

    /// Returns the events that lead from the last figures to these, in the order in which they must have happened.
    fn beats(&mut self, now: Beats, rtt: Option<Duration>, rtt_min: Option<Duration>) -> String {
        let mut events = String::new();
        let milliseconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64() * 1000.0);
        while (self.pings, self.pongs, self.missed) != (now.pings, now.pongs, now.missed) {
            // Of several pings since the last look, each is answered before the next one leaves.
            if self.pongs + self.missed < now.pongs + now.missed && self.pongs + self.missed < self.pings {
                if self.pongs < now.pongs {
                    self.pongs += 1;
                    let (rtt_ms, rtt_min_ms) = (milliseconds(rtt), milliseconds(rtt_min));
                    events +=
                        &event("pong", &json!({ "pongs": self.pongs, "rtt_ms": rtt_ms, "rtt_min_ms": rtt_min_ms }));
                } else {
                    self.missed += 1;
                    events += &event("miss", &json!({ "missed": self.missed }));
                }
            } else if self.pings < now.pings {
                self.pings += 1;
                events += &event("ping", &json!({ "pings": self.pings }));
            } else {
                // Figures of one moment need not agree: a pong of a ping that was missed before, for example.
                break;
            }
        }
        *self = now;
        events
    }
}

fn event(name: &str, data: &Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(beats: &mut Beats, [sent, answered, missed]: [u64; 3]) -> String {
        let events =
            beats.beats(Beats { pings: sent, pongs: answered, missed }, Some(Duration::from_micros(250)), None);
        let names = events.lines().filter_map(|line| line.strip_prefix("event: "));
        names.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn beats_have_their_order() {
        let mut beats = Beats::default();
        assert_eq!(names(&mut beats, [0, 0, 0]), "");
        assert_eq!(names(&mut beats, [1, 0, 0]), "ping");
        assert_eq!(names(&mut beats, [1, 1, 0]), "pong");
        assert_eq!(names(&mut beats, [3, 3, 0]), "ping pong ping pong");
        assert_eq!(names(&mut beats, [4, 3, 1]), "ping miss");
        // A late pong of the ping that was missed.
        assert_eq!(names(&mut beats, [4, 4, 1]), "");
        assert_eq!(names(&mut beats, [5, 4, 1]), "ping");
        let events = beats.beats(Beats { pings: 5, pongs: 5, missed: 1 }, Some(Duration::from_micros(250)), None);
        assert!(events.is_empty() || events.contains("\"rtt_ms\":0.25"), "{events}");
    }

    #[test]
    fn a_name_belongs_to_the_last_session_that_took_it() {
        let registry = Arc::new(Registry::new(1));
        let sessions = PageSessions::new(Arc::clone(&registry));
        let (first, second) = (registry.next_id(), registry.next_id());
        let old = sessions.name("a", first).expect("short");
        let new = sessions.name("a", second).expect("short");
        drop(old);
        assert_eq!(sessions.find("a"), Some(second));
        drop(new);
        assert_eq!(sessions.find("a"), None);
        assert!(sessions.name(&"a".repeat(65), first).is_none());
    }

    #[test]
    fn a_session_that_is_forgotten_has_ended() {
        let (events, ended) = Beats::default().update(None);
        assert_eq!((events.as_str(), ended), ("event: end\ndata: {\"sentence\":null}\n\n", true));
    }
}
