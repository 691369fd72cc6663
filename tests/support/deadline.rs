//! Every wait has an end.

use std::future::Future;
use std::time::Duration;

use tokio::time::{sleep, timeout};

/// What a step may take that is quick on an idle machine. Long enough for a busy one; reached only by a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The output of `future`, which must come within [`PATIENCE`].
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    within(PATIENCE, what, future).await
}

/// The output of `future`, which must come within `limit`.
pub(crate) async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    timeout(limit, future).await.unwrap_or_else(|_| panic!("waited {limit:?} in vain: {what}"))
}

/// Looks again and again until `measure` gives a value that `wanted` accepts; fails with the last one.
pub(crate) async fn settles<T: std::fmt::Debug>(
    what: &str,
    mut measure: impl FnMut() -> T,
    wanted: impl Fn(&T) -> bool,
) -> T {
    const PAUSE: Duration = Duration::from_millis(25);
    let mut last = measure();
    for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
        if wanted(&last) {
            return last;
        }
        sleep(PAUSE).await;
        last = measure();
    }
    panic!("waited {PATIENCE:?} in vain: {what}; last seen: {last:?}");
}
