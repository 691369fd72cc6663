//! Tests of supervised drains, on paused time.

use std::sync::Arc;

use tokio::time::timeout;

use super::*;
use crate::drain::{DRAIN_MARGIN, Plan};
use crate::heartbeat::UpstreamLiveness;
use crate::registry::RegistryEntry;
use crate::relay::{Control, SessionOrder};

const SECOND: Duration = Duration::from_secs(1);
const PLAN: Plan = Plan {
    delay: Duration::from_secs(5),
    window: Duration::from_secs(15),
    code: 1001,
    grace: Duration::from_secs(2),
    margin: DRAIN_MARGIN,
};
const TOLD: SessionOrder = SessionOrder::Drain { code: 1001 };

/// Returns a shutdown with `PLAN`, and an empty registry.
fn prepared() -> (Shutdown, Arc<Registry>) {
    let shutdown = Shutdown::on_request();
    shutdown.prepare(PLAN);
    (shutdown, Arc::new(Registry::new(1)))
}

/// A session that only receives orders.
struct Session {
    control: Arc<Control>,
    _entry: RegistryEntry,
}

impl Session {
    fn enter(registry: &Arc<Registry>) -> Self {
        let control = Arc::new(Control::default());
        let liveness = Arc::new(UpstreamLiveness::new(std::time::Instant::now()));
        Self { _entry: registry.enter(registry.next_id(), Arc::clone(&control), &liveness), control }
    }
}

/// Returns the time from now at which each of `sessions` receives its order; polls every 10 ms.
async fn told(sessions: &[Session]) -> Vec<Duration> {
    let began = Instant::now();
    let mut at = vec![None; sessions.len()];
    while at.iter().any(Option::is_none) {
        for (at, session) in at.iter_mut().zip(sessions) {
            if let Some(order) = session.control.take() {
                assert_eq!((order, *at), (TOLD, None), "the configured code, and once only");
                *at = Some(began.elapsed());
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    at.into_iter().flatten().collect()
}

#[tokio::test(start_paused = true)]
async fn the_doors_close_when_the_delay_is_over() {
    let (shutdown, registry) = prepared();
    let session = Session::enter(&registry);
    let work = async {
        assert_eq!(shutdown.phase(), DrainPhase::Serving);
        tokio::time::sleep(100 * SECOND).await;
        assert_eq!(session.control.take(), None, "nobody is told while serving");
        shutdown.drain();
        let announced = Instant::now();
        shutdown.draining().cancelled().await;
        assert_eq!(session.control.take(), None, "nobody is told while connections are accepted");
        assert_eq!((announced.elapsed(), shutdown.phase()), (PLAN.delay, DrainPhase::Draining));
    };
    let outcome = supervise(&shutdown, &registry, work).await;
    assert_eq!(outcome, WorkOutcome::Ended(()));
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_the_process_does_not_begin_the_delay_again() {
    let (shutdown, registry) = prepared();
    let work = async {
        shutdown.drain();
        tokio::time::sleep(3 * SECOND).await;
        let announced = Instant::now() - 3 * SECOND;
        tokio::time::advance(SECOND).await;
        shutdown.draining().cancelled().await;
        // The time is that of the load balancers, which were not paused.
        let took = announced.elapsed();
        assert!((PLAN.delay..PLAN.delay + SECOND / 10).contains(&took), "{took:?}");
    };
    let outcome = crate::suspension::with_pause_record(supervise(&shutdown, &registry, work)).await;
    assert_eq!(outcome, WorkOutcome::Ended(()));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_announcement_closes_nothing_and_the_next_one_has_its_whole_delay() {
    let (shutdown, registry) = prepared();
    let session = Session::enter(&registry);
    let work = async {
        shutdown.drain();
        tokio::time::sleep(PLAN.delay - SECOND).await;
        assert_eq!((shutdown.cancel(), shutdown.phase()), (Ok(()), DrainPhase::Serving));
        tokio::time::sleep(100 * SECOND).await;
        assert_eq!((shutdown.phase(), session.control.take()), (DrainPhase::Serving, None), "it serves as before");
        // Announced, cancelled and announced again before any other task runs.
        shutdown.drain();
        tokio::time::sleep(SECOND).await;
        assert_eq!(shutdown.cancel(), Ok(()));
        shutdown.drain();
        let announced = Instant::now();
        shutdown.draining().cancelled().await;
        assert_eq!(announced.elapsed(), PLAN.delay);
        told(&[session]).await
    };
    let outcome = supervise(&shutdown, &registry, work).await;
    assert!(matches!(outcome, WorkOutcome::Ended(_)), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn s40_everyone_is_told_in_a_moment_of_its_own() {
    const SESSIONS: usize = 5000;
    let (shutdown, registry) = prepared();
    let sessions: Vec<_> = (0..SESSIONS).map(|_| Session::enter(&registry)).collect();
    let work = async {
        shutdown.advance();
        shutdown.draining().cancelled().await;
        told(&sessions).await
    };
    let WorkOutcome::Ended(moments) = supervise(&shutdown, &registry, work).await else { panic!("in time") };
    let mut seconds = [0; 16];
    for moment in &moments {
        seconds[usize::try_from(moment.as_secs()).unwrap()] += 1;
    }
    let mean = SESSIONS / 15;
    assert!(seconds.iter().all(|count| *count <= 2 * mean), "{seconds:?}");
    assert!(seconds[..15].iter().all(|count| *count >= mean / 2), "the whole window is used: {seconds:?}");
    assert!(!moments.is_sorted(), "in no order that they share");
}

#[tokio::test(start_paused = true)]
async fn who_enters_late_is_told_within_the_window() {
    let (shutdown, registry) = prepared();
    let early = [Session::enter(&registry)];
    let work = async {
        shutdown.advance();
        shutdown.draining().cancelled().await;
        let began = Instant::now();
        tokio::time::sleep(7 * SECOND).await;
        let late: Vec<_> = (0..100).map(|_| Session::enter(&registry)).collect();
        let moments = told(&late).await;
        let slack = SWEEP_INTERVAL + Duration::from_millis(50);
        assert!(moments.iter().all(|moment| 7 * SECOND + *moment <= PLAN.window + slack), "{moments:?}");
        let first = moments.iter().min().unwrap();
        let last = moments.iter().max().unwrap();
        assert!(*last - *first > 4 * SECOND, "spread too: {moments:?}");
        assert_eq!(early[0].control.take(), Some(TOLD));
        tokio::time::sleep_until(began + PLAN.window + SECOND).await;
        let later = [Session::enter(&registry)];
        assert!(told(&later).await[0] <= slack, "the window is over");
        tokio::time::sleep(SECOND).await;
        let twice = early.iter().chain(&late).chain(&later).any(|session| session.control.take().is_some());
        assert!(!twice, "nobody is told twice");
    };
    assert_eq!(supervise(&shutdown, &registry, work).await, WorkOutcome::Ended(()));
}

#[tokio::test(start_paused = true)]
async fn the_wait_is_bounded() {
    let (shutdown, registry) = prepared();
    shutdown.advance();
    let began = Instant::now();
    let outcome = supervise(&shutdown, &registry, std::future::pending::<()>()).await;
    assert_eq!((outcome, began.elapsed()), (WorkOutcome::OutOfTime, PLAN.bound()));
}

#[tokio::test(start_paused = true)]
async fn s77_sessions_whose_moment_passed_in_a_stop_are_told_and_have_their_time() {
    for (before, stop) in [(SECOND, 100 * SECOND), (14 * SECOND, 10 * SECOND), (20 * SECOND, 30 * SECOND)] {
        let (shutdown, registry) = prepared();
        let sessions: Vec<_> = (0..100).map(|_| Session::enter(&registry)).collect();
        let resumed = std::cell::Cell::new(None);
        let work = async {
            shutdown.advance();
            shutdown.draining().cancelled().await;
            tokio::time::sleep(before).await;
            tokio::time::advance(stop).await;
            resumed.set(Some(Instant::now()));
            std::future::pending::<()>().await;
        };
        let outcome = crate::suspension::with_pause_record(supervise(&shutdown, &registry, work)).await;
        assert_eq!(outcome, WorkOutcome::OutOfTime);
        assert!(sessions.iter().all(|session| session.control.take() == Some(TOLD)), "each is told");
        let left = resumed.get().expect("the stop is over").elapsed();
        assert!(left >= PLAN.grace + DRAIN_MARGIN, "{left:?} after a stop of {stop:?}");
        assert!(left <= PLAN.bound() + SECOND, "{left:?} after a stop of {stop:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_request_aborts_at_once_in_the_delay_and_in_the_window() {
    for after in [Duration::ZERO, SECOND, 9 * SECOND] {
        let (shutdown, registry) = prepared();
        let began = Instant::now();
        let requests = async {
            shutdown.advance();
            tokio::time::sleep(after).await;
            shutdown.advance();
        };
        let (outcome, ()) = tokio::join!(supervise(&shutdown, &registry, std::future::pending::<()>()), requests);
        assert_eq!((outcome, began.elapsed()), (WorkOutcome::Aborted, after));
    }
}

#[tokio::test(start_paused = true)]
async fn work_that_ends_by_itself_is_reported() {
    let (shutdown, registry) = prepared();
    assert_eq!(supervise(&shutdown, &registry, async { 7 }).await, WorkOutcome::Ended(7));
    shutdown.drain();
    let lost = timeout(SECOND, supervise(&shutdown, &registry, async { 7 })).await;
    assert_eq!(lost, Ok(WorkOutcome::Ended(7)), "in the delay too");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_app_cuts_the_delay_short() {
    let (shutdown, registry) = prepared();
    let began = Instant::now();
    let supervised = supervise(&shutdown, &registry, pending::<()>());
    let ended = async {
        tokio::time::sleep(SECOND).await;
        shutdown.app_ended();
        shutdown.draining().cancelled().await;
        began.elapsed()
    };
    let took = tokio::select! {
        took = ended => took,
        outcome = supervised => panic!("{outcome:?}"),
    };
    assert_eq!(took, SECOND, "drain.delay is 5 s");
    assert!(shutdown.exit_requested_at().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_signal_with_nothing_left_to_abort_insists() {
    let insists = async |shutdown: &Shutdown| timeout(SECOND, shutdown.insisted()).await.is_ok();
    let aborted = Shutdown::on_request();
    assert_eq!([aborted.advance(), aborted.advance()], [DrainPhase::Announced, DrainPhase::Aborting]);
    assert!(!insists(&aborted).await, "the second one aborts");
    aborted.advance();
    assert!(insists(&aborted).await);
    let drained = Shutdown::on_request();
    drained.advance();
    drained.finish().await;
    assert!(!insists(&drained).await);
    drained.advance();
    assert!(insists(&drained).await);
}

#[tokio::test]
async fn a_plan_is_shortened_to_the_time_limit_of_the_end() {
    let budget = crate::drain::StopBudget::of(10 * SECOND);
    let shutdown = Shutdown::on_signals_from_now(crate::drain::OnHangup::Exit, Some(budget)).expect("handlers");
    shutdown.prepare(PLAN);
    shutdown.drain();
    assert_eq!(shutdown.course().plan, budget.fit(PLAN));
    assert!(shutdown.course().plan.bound() < 10 * SECOND);
}
