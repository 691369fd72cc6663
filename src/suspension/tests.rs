//! Tests on paused time: a jump of the clock simulates a stop of the process.

use std::future::{pending, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use tokio::time::{advance, sleep};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Returns the duration of `wait`.
async fn lasts(wait: impl Future) -> Duration {
    let begun = Instant::now();
    wait.await;
    begun.elapsed()
}

/// Asserts that `actual` is `expected`, or longer by up to a tick and the reading time.
fn assert_lasts(actual: Duration, expected: Duration) {
    assert!((expected..=expected + PERIOD).contains(&actual), "{actual:?} instead of {expected:?}");
}

#[tokio::test(start_paused = true)]
async fn without_a_record_it_is_a_timer_like_any_other() {
    assert_eq!(lasts(Expiry::after(10 * SECOND)).await, 10 * SECOND);
    assert_eq!(lasts(timeout(10 * SECOND, pending::<()>())).await, 10 * SECOND);
    let begun = Instant::now();
    advance(30 * SECOND).await;
    assert_eq!((Deadline::since(begun, SECOND).at(), paused_since(begun)), (begun + SECOND, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_runs_has_no_pauses() {
    with_pause_record(async {
        let begun = Instant::now();
        for _ in 0..100 {
            sleep(700 * SECOND / 1000).await;
        }
        assert_eq!(paused_since(begun), Duration::ZERO);
        assert_lasts(lasts(Expiry::after(10 * SECOND)).await, 10 * SECOND);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn s77_a_pause_within_the_time_begins_it_anew_wherever_it_falls() {
    for (before, pause) in [(0, 1), (3, 6), (9, 30), (9, 1), (0, 60)].map(|(a, b)| (a * SECOND, b * SECOND)) {
        with_pause_record(async {
            let wait = async {
                let mut expiry = Expiry::after(10 * SECOND);
                tokio::join!(async { (&mut expiry).await }, async {
                    sleep(before).await;
                    advance(pause).await;
                });
            };
            // Up to one tick before the stop counts as part of it.
            assert_lasts(lasts(wait).await, before + pause + 10 * SECOND);
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn s77_the_time_is_given_anew_once_and_later_pauses_are_added() {
    with_pause_record(async {
        let begun = Instant::now();
        let deadline = Deadline::after(10 * SECOND);
        sleep(9 * SECOND).await;
        advance(3 * SECOND).await;
        assert_lasts(deadline.at() - begun, 22 * SECOND);
        sleep(9 * SECOND).await;
        advance(3 * SECOND).await;
        assert_lasts(deadline.at() - begun, 25 * SECOND);
        sleep(2 * SECOND).await;
        assert!(deadline.at() < Instant::now() + SECOND, "not anew");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn s77_a_process_that_is_always_paused_keeps_a_bound_all_the_same() {
    with_pause_record(async {
        let deadline = Deadline::after(10 * SECOND);
        let begun = Instant::now();
        let mut ran = Duration::ZERO;
        while Instant::now() < deadline.at() {
            assert!(ran <= 21 * SECOND, "{ran:?} of running time, {:?} in all", begun.elapsed());
            advance(SECOND).await;
            sleep(SECOND).await;
            ran += SECOND;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_pause_before_the_time_or_behind_it_moves_nothing() {
    with_pause_record(async {
        advance(5 * SECOND).await;
        sleep(SECOND).await;
        let deadline = Deadline::after(2 * SECOND);
        let at = deadline.at();
        sleep(3 * SECOND).await;
        advance(5 * SECOND).await;
        assert_eq!((at, deadline.at()), (deadline.since + 2 * SECOND, deadline.since + 2 * SECOND));
        assert_eq!(Deadline::fixed(at).at(), at);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_span_may_get_less_than_all_of_it_anew() {
    with_pause_record(async {
        let deadline = Deadline::after(60 * SECOND).with_min_after_pause(5 * SECOND);
        sleep(10 * SECOND).await;
        let before = Instant::now();
        advance(20 * SECOND).await;
        assert_lasts(deadline.at() - before, 70 * SECOND);
        let deadline = Deadline::after(60 * SECOND).with_min_after_pause(5 * SECOND);
        sleep(59 * SECOND).await;
        advance(20 * SECOND).await;
        assert_lasts(deadline.at() - Instant::now(), 5 * SECOND);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn s77_what_has_arrived_is_taken_before_the_time_is_over() {
    with_pause_record(async {
        let begun = Instant::now();
        // Like a socket whose readiness reaches the runtime shortly after the timer has fired.
        let arrived = pin!(async {
            sleep(10 * SECOND + Duration::from_millis(1)).await;
            7
        });
        assert_eq!(timeout(10 * SECOND, arrived).await.ok(), Some(7), "after {:?}", begun.elapsed());
        timeout(10 * SECOND, pending::<()>()).await.expect_err("nothing arrives");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn s52_an_expiry_is_polled_outside_the_budget() {
    let mut expiry = Expiry::after(SECOND);
    let begun = Instant::now();
    poll_fn(|cx| {
        // The no-op waker suppresses the wake-up of the task at the end of its budget.
        let mut unnoticed = Context::from_waker(Waker::noop());
        while let Poll::Ready(restore) = tokio::task::coop::poll_proceed(&mut unnoticed) {
            restore.made_progress();
        }
        Pin::new(&mut expiry).poll(cx)
    })
    .await;
    assert_eq!(begun.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn s78_a_pause_is_credited_once() {
    with_pause_record(async {
        let mut credit = Credit::since(Instant::now());
        let drawn = |credit: &mut Credit| (0..1000).take_while(|_| credit.take(SECOND / 10)).count();
        assert_eq!(drawn(&mut credit), 0);
        advance(3 * SECOND).await;
        let first = drawn(&mut credit);
        assert!((30..=35).contains(&first), "{first} tenths of three seconds");
        assert_eq!(drawn(&mut credit), 0);
        sleep(10 * SECOND).await;
        assert_eq!(drawn(&mut credit), 0);
        advance(2 * SECOND).await;
        assert!((20..=25).contains(&drawn(&mut credit)));
    })
    .await;
}
