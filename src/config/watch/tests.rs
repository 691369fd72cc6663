//! Tests of the file watch, with invented changes.

use std::sync::Arc;

use tempfile::TempDir;
use tokio::sync::Notify;

use super::*;

const CADENCE: Cadence =
    Cadence { quiet: Duration::from_millis(500), most: Duration::from_secs(2), poll: Duration::from_secs(60) };

/// A file watch that the test triggers.
#[derive(Clone, Default)]
struct Invented(Arc<Notify>);

impl ChangeSource for Invented {
    fn arm<'a>(&mut self, _files: impl Iterator<Item = &'a Path>) {}

    async fn changed(&mut self) {
        self.0.notified().await;
    }
}

/// Returns the times of the looks, in milliseconds from now, and their causes, with changes at `stirs`.
async fn looks(stirs: &[u64], is_stirred: bool) -> (u64, WatchEvent) {
    let mut invented = Invented::default();
    let began = Instant::now();
    let bell = Arc::clone(&invented.0);
    let ringing = async {
        for at in stirs {
            sleep_until(began + Duration::from_millis(*at)).await;
            bell.notify_one();
        }
        std::future::pending::<()>().await;
    };
    let cause = tokio::select! {
        cause = due(&mut invented, CADENCE, began, is_stirred) => cause,
        () = ringing => unreachable!("it rings for ever"),
    };
    (u64::try_from(began.elapsed().as_millis()).expect("a short time"), cause)
}

#[tokio::test(start_paused = true)]
async fn a_look_is_due_when_it_has_been_quiet() {
    assert_eq!(looks(&[1000], false).await, (1500, WatchEvent::Stir));
    assert_eq!(looks(&[1000, 1499], false).await, (1999, WatchEvent::Stir), "every stir begins it anew");
    assert_eq!(looks(&[1000, 1499, 2500], false).await, (1999, WatchEvent::Stir), "too late to matter");
    assert_eq!(looks(&[], true).await, (500, WatchEvent::Stir), "what is known to have happened is a stir");
    assert_eq!(looks(&[400], true).await, (900, WatchEvent::Stir));
}

#[tokio::test(start_paused = true)]
async fn where_it_is_never_quiet_a_look_is_due_all_the_same() {
    let restless: Vec<u64> = (10..1000).map(|n| n * 100).collect();
    assert_eq!(looks(&restless, false).await, (3000, WatchEvent::Stir));
}

#[tokio::test(start_paused = true)]
async fn without_a_word_a_look_is_due_after_a_while() {
    assert_eq!(looks(&[], false).await, (60_000, WatchEvent::Poll));
    assert_eq!(looks(&[59_900], false).await, (60_400, WatchEvent::Stir), "not in the middle of a change");
}

fn snapshot(dir: &TempDir, names: &[&str]) -> Snapshot {
    Snapshot::take(names.iter().map(|name| dir.path().join(name)))
}

#[test]
fn contents_decide_whether_something_has_changed() {
    let dir = TempDir::new().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    fs::write(at("a"), "one").expect("write");
    let before = snapshot(&dir, &["a", "b"]);
    assert_eq!(before, before.again());
    fs::remove_file(at("a")).expect("remove");
    assert_ne!(before, before.again(), "gone");
    fs::write(at("a"), "one").expect("write");
    assert_eq!(before, before.again(), "as if nothing had happened");
    fs::write(at("b"), "").expect("write");
    let after = before.again();
    assert_ne!(before, after, "an empty file is one");
    assert!(after.has_changed(&at("b"), &before) && !after.has_changed(&at("a"), &before));
    assert!(after.has_changed(&at("a"), &snapshot(&dir, &["b"])), "it was not looked at");
    assert!(!snapshot(&dir, &["b"]).has_changed(&at("a"), &after), "it was not read");
    assert!(snapshot(&dir, &["a"]).agrees_with(&snapshot(&dir, &["b"])), "they have nothing in common");
    assert!(!before.agrees_with(&after));
}

#[test]
fn a_pipe_is_not_read() {
    let dir = TempDir::new().expect("a folder");
    let pipe = dir.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs");
    assert!(made.success(), "a pipe");
    // To open it would wait for ever.
    assert_eq!(snapshot(&dir, &["pipe"]).special(), Some(pipe.as_path()));
}
