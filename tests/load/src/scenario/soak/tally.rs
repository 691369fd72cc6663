//! The generator's count of all sessions that ended, by their end.

use std::collections::BTreeMap;
use std::time::Duration;

use super::client::{Death, Fault, Outcome};
use super::plan::Plan;
use super::proxy::Ends;

/// Broken sessions that are printed.
const SHOWN: u64 = 50;

/// The outcomes of all sessions.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Sessions that went as planned, by the labels under which the proxy must count them.
    pub(super) ends: Ends,
    /// The same sessions by their planned end.
    pub(super) ways: BTreeMap<&'static str, u64>,
    /// All sessions that have ended.
    pub(super) sessions: u64,
    /// Of these, over HTTP/2.
    pub(super) http2: u64,
    /// Of these, slow readers.
    pub(super) slow: u64,
    /// Messages that were echoed unchanged.
    pub(super) messages: u64,
    /// Their bytes, one way.
    pub(super) bytes: u64,
    /// Times to the end of dead clients' sessions, seen by the client.
    pub(super) deaths_client: Vec<Duration>,
    /// Times to the end of dead clients' sessions, seen by the app.
    pub(super) deaths_app: Vec<Duration>,
    /// The later of the two, over HTTP/2.
    pub(super) deaths_http2: Vec<Duration>,
    /// The longest of these times, with its session.
    pub(super) worst_death: Option<(Duration, String)>,
    /// Sessions that were not judged.
    pub(super) not_judged: u64,
    not_opened: u64,
    live_ended: u64,
    dead_late: u64,
    wrong_bytes: u64,
    wrong_ends: u64,
}

impl Tally {
    /// Records a session that has ended.
    pub(super) fn enter(&mut self, plan: &Plan, http2: bool, outcome: Outcome) {
        self.sessions += 1;
        self.http2 += u64::from(http2);
        self.slow += u64::from(plan.slow);
        match outcome {
            Outcome::Planned(death) => {
                *self.ends.entry(plan.way.labels().map(str::to_owned)).or_default() += 1;
                *self.ways.entry(plan.way.name()).or_default() += 1;
                self.messages += plan.messages.len() as u64;
                self.bytes += plan.messages.iter().map(|message| message.length as u64).sum::<u64>();
                if let Some(Death { client, app }) = death {
                    self.deaths_client.extend(client);
                    self.deaths_app.push(app);
                    let latest = app.max(client.unwrap_or_default());
                    self.deaths_http2.extend(http2.then_some(latest));
                    if self.worst_death.as_ref().is_none_or(|(worst, _)| latest > *worst) {
                        let version = if http2 { "HTTP/2" } else { "HTTP/1.1" };
                        self.worst_death = Some((latest, format!("session {} ({version}, {:?})", plan.id, plan.way)));
                    }
                }
            }
            Outcome::Broken(fault, text) => {
                *self.count_mut(fault) += 1;
                if self.broken() <= SHOWN {
                    let version = if http2 { "HTTP/2" } else { "HTTP/1.1" };
                    let slow = if plan.slow { ", slow" } else { "" };
                    eprintln!("{fault:?}: session {} ({version}, {:?}{slow}): {text}", plan.id, plan.way);
                }
            }
            Outcome::NotJudged(text) => {
                self.not_judged += 1;
                eprintln!("not judged: session {} ({:?}): {text}", plan.id, plan.way);
            }
        }
    }

    /// Returns the number of sessions with this fault.
    pub(super) fn count(&self, fault: Fault) -> u64 {
        match fault {
            Fault::NotOpened => self.not_opened,
            Fault::LiveEnded => self.live_ended,
            Fault::DeadLate => self.dead_late,
            Fault::WrongBytes => self.wrong_bytes,
            Fault::WrongEnd => self.wrong_ends,
        }
    }

    fn count_mut(&mut self, fault: Fault) -> &mut u64 {
        match fault {
            Fault::NotOpened => &mut self.not_opened,
            Fault::LiveEnded => &mut self.live_ended,
            Fault::DeadLate => &mut self.dead_late,
            Fault::WrongBytes => &mut self.wrong_bytes,
            Fault::WrongEnd => &mut self.wrong_ends,
        }
    }

    /// Returns the number of sessions that broke a promise.
    pub(super) fn broken(&self) -> u64 {
        self.not_opened + self.live_ended + self.dead_late + self.wrong_bytes + self.wrong_ends
    }

    /// Returns the number of ends by which the proxy's metrics differ from this count, summed over the labels. `before`
    /// are the metrics at the start of the run.
    pub(super) fn differing(&self, before: &Ends, after: &Ends) -> u64 {
        let labels = after.keys().chain(self.ends.keys());
        let labels: std::collections::BTreeSet<_> = labels.collect();
        let count = |ends: &Ends, labels| ends.get(labels).copied().unwrap_or_default();
        let mut differing = 0;
        for labels in labels {
            let proxy = count(after, labels).saturating_sub(count(before, labels));
            let own = count(&self.ends, labels);
            if proxy != own {
                eprintln!("sessions ended as {}: {proxy} by the proxy's metrics, {own} here", labels.join(", "));
            }
            differing += proxy.abs_diff(own);
        }
        differing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_differ_label_by_label() {
        let labels = |code: &str| ["client", "normal", code].map(str::to_owned);
        let tally = Tally { ends: Ends::from([(labels("1000"), 5), (labels("1006"), 1)]), ..Tally::default() };
        let before = Ends::from([(labels("1000"), 10)]);
        assert_eq!(tally.differing(&before, &Ends::from([(labels("1000"), 15), (labels("1006"), 1)])), 0);
        // One session was counted under another label: one is missing here, one is surplus there.
        assert_eq!(tally.differing(&before, &Ends::from([(labels("1000"), 16)])), 2);
    }
}
