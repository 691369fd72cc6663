//! Waits with a deadline, which show the last value on a failure.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// The limit of a step that is quick on an idle machine: long enough for a busy one, and reached only by a failure.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// Returns the output of `future`; fails after [`TIMEOUT`].
pub async fn wait_for<T>(what: &str, future: impl Future<Output = T>) -> T {
    within(TIMEOUT, what, future).await
}

/// Returns the output of `future`; fails after `limit`.
pub async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    timeout(limit, future).await.unwrap_or_else(|_| panic!("waited {limit:?} in vain: {what}"))
}

/// Measures every 25 ms until `wanted` accepts the value, and returns it; fails after [`TIMEOUT`] with the last value.
pub async fn wait_until<T: std::fmt::Debug>(
    what: &str,
    mut measure: impl FnMut() -> T,
    wanted: impl Fn(&T) -> bool,
) -> T {
    wait_until_async(what, async || measure(), wanted).await
}

/// As [`wait_until`], with a measurement that is asynchronous.
pub async fn wait_until_async<T: std::fmt::Debug>(
    what: &str,
    mut measure: impl AsyncFnMut() -> T,
    wanted: impl Fn(&T) -> bool,
) -> T {
    const PAUSE: Duration = Duration::from_millis(25);
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let last = within(TIMEOUT, what, measure()).await;
        if wanted(&last) {
            return last;
        }
        assert!(Instant::now() < deadline, "waited {TIMEOUT:?} in vain: {what}; last seen: {last:?}");
        sleep(PAUSE).await;
    }
}
