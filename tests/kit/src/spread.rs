//! A check that moments are spread evenly, on a machine that may stall.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// A task that measures how late this process is woken.
#[derive(Debug)]
pub struct Stalls {
    stop: oneshot::Sender<()>,
    watch: JoinHandle<Duration>,
}

impl Stalls {
    /// Starts the task.
    pub fn watch() -> Self {
        const TICK: Duration = Duration::from_millis(50);
        let (stop, mut stopped) = oneshot::channel();
        let watch = tokio::spawn(async move {
            let mut all = Duration::ZERO;
            while stopped.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
                let before = Instant::now();
                sleep(TICK).await;
                all += before.elapsed().saturating_sub(TICK);
            }
            all
        });
        Self { stop, watch }
    }

    /// Ends the task and returns all delays together: one stall may follow another.
    async fn all(self) -> Duration {
        // The task runs until this.
        let _ = self.stop.send(());
        self.watch.await.expect("the watch does not panic")
    }
}

/// Asserts that `moments` fill `window` and that no second of it holds more than twice the mean. A second behind a stall
/// may hold what the stall delayed, and a stall at the beginning shortens the rest.
pub async fn assert_even(moments: &[Instant], window: Duration, stalls: Stalls) {
    let stalled = stalls.all().await;
    let first = *moments.iter().min().expect("there are moments");
    let mut seconds = vec![0_u32; 1];
    for moment in moments {
        let second = usize::try_from(moment.duration_since(first).as_secs()).expect("few");
        seconds.resize(seconds.len().max(second + 1), 0);
        seconds[second] += 1;
    }
    let mean = f64::from(u32::try_from(moments.len()).expect("few")) / window.as_secs_f64();
    let most = mean * (2.0 + stalled.as_secs_f64());
    eprintln!("{} moments, {mean:.0} a second, stalls of {stalled:?}: {seconds:?}", moments.len());
    assert!(seconds.iter().all(|count| f64::from(*count) <= most), "over {most:.0} in a second: {seconds:?}");
    let last = moments.iter().max().expect("there are moments");
    let took = last.duration_since(first);
    assert!(took + stalled >= window * 3 / 4, "{took:?} of {window:?}: {seconds:?}");
    assert!(took <= window + Duration::from_secs(1) + stalled, "{took:?} of {window:?}: {seconds:?}");
}
