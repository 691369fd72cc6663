//! The client's end of one session, and the judgement of both ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::app::{AppEnd, Expected};
use super::lag::Lag;
use super::plan::{Plan, Way};
use crate::dial::{Dialer, ProxiedSession};
use crate::session::{Manners, SessionError, Turn};

/// The bounds by which a session is judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// The heartbeat's interval.
    pub(super) interval: Duration,
    /// The heartbeat's timeout.
    pub(super) timeout: Duration,
    /// The time for which a leg that has its Close may stay open.
    pub(super) close_grace: Duration,
    /// The tolerance for scheduling.
    pub(super) slack: Duration,
    /// The timeout of any other step.
    pub(super) patience: Duration,
}

impl Bounds {
    /// Returns the promised bound: from a client's last byte to its end.
    pub(super) fn death(&self) -> Duration {
        self.interval + self.timeout
    }
}

/// The end of a dead client's session, counted from the client's last byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct Death {
    /// Until the client's connection ended, or its Close was read; [`None`] for a client that does not read.
    pub(super) client: Option<Duration>,
    /// Until the app read the end.
    pub(super) app: Duration,
}

/// The outcome of one session.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The session went as planned.
    Planned(Option<Death>),
    /// A promise is broken, or a byte is wrong.
    Broken(Fault, String),
    /// The generator itself was too late to count as alive or to measure.
    NotJudged(String),
}

/// The fault of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A request for a WebSocket failed.
    NotOpened,
    /// A live session was ended.
    LiveEnded,
    /// A dead session was ended too late, or not at all.
    DeadLate,
    /// Bytes or frames differ from those sent.
    WrongBytes,
    /// An end reached the other side altered, or not at all.
    WrongEnd,
}

/// The state that all sessions share.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) expected: Arc<Expected>,
    pub(super) lag: Arc<Lag>,
    pub(super) bounds: Bounds,
    /// Turns true when idle sessions are to end.
    pub(super) stop: watch::Receiver<bool>,
}

/// A session that did not go as planned.
type Stray = (Fault, String);

impl Client {
    /// Runs one session from its request to the end of both legs.
    pub(super) async fn run(&self, dialer: &Dialer, permits: &Semaphore, seat: usize, plan: &Plan) -> Outcome {
        let end = self.expected.announce(plan);
        // The semaphore is never closed.
        let permit = permits.acquire().await.ok();
        let began = Instant::now();
        let mut session = match dialer.dial_path(seat, &plan.path(), Manners::Answers).await {
            Ok(session) => session,
            Err(error) => {
                self.expected.forget(plan.id);
                let text = format!("{:#}", anyhow::Error::from(error));
                return self.judge(began, Duration::ZERO, (Fault::NotOpened, text));
            }
        };
        drop(permit);
        if let Err(stray) = self.talk(&mut session, plan).await {
            return self.judge(began, session.slowest_answer(), stray);
        }
        let slowest = session.slowest_answer();
        let ended = Instant::now();
        match self.end(session, plan, end).await {
            Ok(death) => Outcome::Planned(death),
            Err(stray) => self.judge(ended, slowest, stray),
        }
    }

    /// Returns the verdict on a failed session. A failure while the generator was late proves nothing about the proxy.
    /// Wrong bytes are wrong in any case.
    fn judge(&self, since: Instant, slowest_answer: Duration, (fault, text): Stray) -> Outcome {
        let half = self.bounds.timeout / 2;
        // The proxy has judged the session over its last window only.
        let from = since.max(Instant::now().checked_sub(self.bounds.death() * 2).unwrap_or(since));
        let late = self.lag.worst_since(from).max(slowest_answer);
        let allowed = if fault == Fault::DeadLate { self.bounds.slack / 2 } else { half };
        if fault == Fault::WrongBytes || late <= allowed {
            Outcome::Broken(fault, text)
        } else {
            Outcome::NotJudged(format!("{text}; the generator was {late:?} late"))
        }
    }

    /// Exchanges the planned messages.
    async fn talk(&self, session: &mut ProxiedSession, plan: &Plan) -> Result<(), Stray> {
        for (sequence, message) in plan.messages.iter().enumerate() {
            hold(session, message.pause).await?;
            session.queue_message(number(plan), sequence as u64, message.length, message.fragments, message.ping);
            // The app may end the session with its last echo.
            self.within(session.echoed()).await?;
        }
        if let Way::Idle(time) = plan.way {
            let mut stop = self.stop.clone();
            tokio::select! {
                held = hold(session, time) => held?,
                _ = stop.wait_for(|stop| *stop) => {}
            }
            session.queue_message(number(plan), plan.messages.len() as u64, 1000, 1, true);
            self.within(session.echoed()).await?;
        }
        match session.seen().stray_pongs {
            0 => Ok(()),
            strays => Err((Fault::WrongBytes, format!("{strays} Pongs that answer no Ping of the client"))),
        }
    }

    /// Ends the session as planned, and waits for the end of both legs.
    async fn end(
        &self,
        mut session: ProxiedSession,
        plan: &Plan,
        end: oneshot::Receiver<AppEnd>,
    ) -> Result<Option<Death>, Stray> {
        let silent = Instant::now();
        let mut client_end = None;
        let mut expected_at_app = None;
        match plan.way {
            Way::ClientClose(code) => {
                self.within(session.close_with(code)).await?;
                expected_at_app = Some(code);
                same("the Close that the client gets", Some(code), close_code(&session))?;
            }
            Way::Idle(_) => {
                self.within(session.close()).await?;
                expected_at_app = Some(1000);
            }
            Way::AppClose(code) => {
                self.within(session.drain()).await?;
                expected_at_app = Some(code);
                same("the Close that the client gets", Some(code), close_code(&session))?;
            }
            Way::ClientReset => session.into_stream().reset().map_err(SessionError::from).map_err(classify)?,
            Way::AppReset => {
                session.queue_last_word();
                self.within(session.drain()).await?;
                same("the Close that the client gets", Some(1012), close_code(&session))?;
            }
            Way::HalfClose => {
                let last = plan.messages.len() as u64 + 1;
                session.queue_message(number(plan), last, 300, 1, false);
                self.within(session.half_close()).await?;
                self.within(session.echoed()).await?;
                self.within(session.drain()).await?;
                same("the Close that the client gets", Some(1000), close_code(&session))?;
            }
            Way::Mute => {
                session.set_manners(Manners::Silent);
                client_end = Some(self.outlived(&mut session, silent).await?);
            }
            Way::Frozen => {
                session.set_manners(Manners::Silent);
                sleep(self.bounds.death() + self.bounds.slack + self.bounds.close_grace).await;
                self.outlived(&mut session, silent).await?;
            }
        }
        let limit = if plan.way.is_death() { silent + self.bounds.death() } else { Instant::now() };
        let limit = limit + self.bounds.slack + self.bounds.close_grace;
        let limit = if plan.way.is_death() { limit } else { limit + self.bounds.timeout };
        let fault = if plan.way.is_death() { Fault::DeadLate } else { Fault::WrongEnd };
        // A report that was sent in time does not count as late because this task is.
        let end = timeout_at(limit.max(Instant::now() + Duration::from_millis(50)), end).await;
        let end =
            end.map_err(|_| (fault, format!("the app's leg still stands {:?} after the end", silent.elapsed())))?;
        let end = end.map_err(|_| (Fault::WrongEnd, "the app saw no session".into()))?;
        if let Some(text) = end.fault {
            return Err((Fault::WrongBytes, format!("at the app: {text}")));
        }
        if !plan.way.is_death() {
            if plan.way != Way::AppReset && !matches!(plan.way, Way::ClientReset | Way::HalfClose) {
                same("the Close that the app gets", expected_at_app, end.code)?;
            }
            return Ok(None);
        }
        same("the Close that the app gets", Some(4408), end.code)?;
        let death = Death { client: client_end, app: end.told.saturating_duration_since(silent) };
        let latest = death.app.max(death.client.unwrap_or_default());
        if latest > self.bounds.death() + self.bounds.slack {
            return Err((Fault::DeadLate, format!("ended after {latest:?}: {death:?}")));
        }
        if end.gone > limit {
            return Err((Fault::DeadLate, format!("the app's leg stood for {:?}", end.gone - silent)));
        }
        Ok(Some(death))
    }

    /// Reads a silent client's session to its end. Returns the time from the client's last byte to the proxy's Close,
    /// or to the end without one.
    async fn outlived(&self, session: &mut ProxiedSession, silent: Instant) -> Result<Duration, Stray> {
        let bound = silent + self.bounds.death() + self.bounds.slack;
        // A client that has not read for long must find its end at once.
        let bound = bound.max(Instant::now());
        let mut first_sign = None;
        let read = timeout_at(bound + self.bounds.close_grace, async {
            loop {
                let turn = session.turn().await?;
                if let Some(close) = session.seen().close {
                    first_sign.get_or_insert(close.at);
                }
                if turn == Turn::Ended {
                    return Ok(Instant::now());
                }
            }
        });
        let Ok(gone) = read.await else {
            let seen = first_sign.map_or("nothing".into(), |at| format!("a Close after {:?}", at - silent));
            return Err((Fault::DeadLate, format!("not gone after {:?}; read: {seen}", silent.elapsed())));
        };
        let gone = gone.map_err(classify)?;
        same("the Close that the dead client gets", Some(1012), close_code(session))?;
        Ok(first_sign.unwrap_or(gone) - silent)
    }

    async fn within<T>(&self, work: impl Future<Output = Result<T, SessionError>>) -> Result<T, Stray> {
        match timeout(self.bounds.patience, work).await {
            Ok(done) => done.map_err(classify),
            Err(_) => Err((Fault::WrongEnd, format!("a step took longer than {:?}", self.bounds.patience))),
        }
    }
}

/// Keeps the session open for a time, in which nothing may end it.
async fn hold(session: &mut ProxiedSession, time: Duration) -> Result<(), Stray> {
    let until = Instant::now() + time;
    while let Ok(turn) = timeout_at(until, session.turn()).await {
        if turn.map_err(classify)? == Turn::Ended {
            return Err(classify(session.ended()));
        }
    }
    Ok(())
}

fn classify(error: SessionError) -> Stray {
    let fault = match &error {
        SessionError::Ended { .. } | SessionError::Io(_) => Fault::LiveEnded,
        _ => Fault::WrongBytes,
    };
    (fault, format!("{:#}", anyhow::Error::from(error)))
}

fn close_code(session: &ProxiedSession) -> Option<u16> {
    session.seen().close.and_then(|close| close.code)
}

fn same(what: &str, expected: Option<u16>, found: Option<u16>) -> Result<(), Stray> {
    if expected == found {
        return Ok(());
    }
    Err((Fault::WrongEnd, format!("{what} has code {found:?} instead of {expected:?}")))
}

/// Returns the session number that selects its messages from the pattern.
fn number(plan: &Plan) -> usize {
    usize::try_from(plan.id).unwrap_or(usize::MAX)
}
