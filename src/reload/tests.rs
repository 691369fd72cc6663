//! Tests of reloads, with invented configurations and watches.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::*;
use crate::config::{FileCache, Input, Overrides, Report, load_alone, load_shown};
use crate::drain::Shutdown;
use crate::generation::Generation;
use crate::tls::{Certificate, ServerConfigs, Terminator};
use crate::upstream::App;

/// A file watch that the test triggers.
#[derive(Clone, Debug, Default)]
struct Invented(Arc<Notify>);

impl ChangeSource for Invented {
    fn arm<'a>(&mut self, _files: impl Iterator<Item = &'a Path>) {}

    async fn changed(&mut self) {
        self.0.notified().await;
    }
}

/// A configuration in a folder and the driver that reloads it.
struct Followed {
    dir: TempDir,
    current: Arc<CurrentGeneration>,
    metrics: Arc<Metrics>,
    reloader: Reloader,
    stirs: Invented,
    loads: Arc<AtomicUsize>,
    tracker: TaskTracker,
}

const MINUTE: Duration = Duration::from_secs(60);

impl Followed {
    fn start(config: &str) -> Self {
        let stirs = Invented::default();
        Self { stirs: stirs.clone(), ..Self::with(config, stirs) }
    }

    fn with<S: ChangeSource + Default + Send + Sync + 'static>(config: &str, stirs: S) -> Self {
        let dir = TempDir::new().expect("a folder");
        certify(&dir);
        let file = dir.path().join("proxy.toml");
        fs::write(&file, text(&dir, config)).expect("write");
        let loads = Arc::<AtomicUsize>::default();
        let (path, counted) = (file.clone(), Arc::clone(&loads));
        let source = ConfigSource::new(file, move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            load_alone(&path)
        });
        let LoadedConfig { settings, shown, terms, apps, snapshot } = source.open().expect("sound files");
        let terminator = Arc::new(Terminator::new(terms.expect("TLS")).expect("a terminator"));
        let current = CurrentGeneration::new(Generation::first(Arc::new(settings), terminator, apps));
        let metrics = Arc::new(Metrics::new());
        let (driver, reloader) = Driver::new(source, (snapshot, shown), stirs, &current, None, &metrics);
        let tracker = TaskTracker::new();
        let hangups = Shutdown::on_request().hangups().expect("none are listened to");
        tracker.spawn(async move { match driver.drive(hangups).await {} });
        loads.store(0, Ordering::Relaxed);
        Self { dir, current, metrics, reloader, stirs: Invented::default(), loads, tracker }
    }

    fn write(&self, config: &str) {
        fs::write(self.dir.path().join("proxy.toml"), text(&self.dir, config)).expect("write");
    }

    /// Returns the number of loads since the last call.
    fn loads(&self) -> usize {
        self.loads.swap(0, Ordering::Relaxed)
    }

    fn interval(&self) -> Duration {
        self.current.load().settings.routes[0].heartbeat.policy().interval
    }

    /// Triggers the watch and advances time until the check of the files is due.
    async fn stir(&self) {
        self.stirs.0.notify_one();
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.settled().await;
    }

    /// Yields, so that the driver handles what is due.
    async fn settled(&self) {
        tokio::task::yield_now().await;
    }

    async fn reload(&self) -> ReloadOutcome {
        timeout(10 * MINUTE, self.reloader.reload()).await.expect("an answer")
    }

    fn counts(&self, line: &str) -> bool {
        self.metrics.encode().lines().any(|written| written == line)
    }
}

/// Writes a new certificate and its key.
fn certify(dir: &TempDir) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a valid name");
    let certificate = params.self_signed(&key).expect("a certificate");
    fs::write(dir.path().join("tls.crt"), certificate.pem()).expect("write");
    fs::write(dir.path().join("tls.key"), key.serialize_pem()).expect("write");
}

fn text(dir: &TempDir, config: &str) -> String {
    let at = dir.path().display();
    format!(
        "[tls]\ncertificate = \"{at}/tls.crt\"\nprivate_key = \"{at}/tls.key\"\n\
         [upstream]\nurl = \"http://127.0.0.1:1\"\n{config}"
    )
}

fn every(interval: &str) -> String {
    format!("[heartbeat]\ninterval = \"{interval}\"\n")
}

#[tokio::test(start_paused = true)]
async fn a_change_is_applied_once_it_is_quiet() {
    let followed = Followed::start(&every("10s"));
    followed.stir().await;
    assert_eq!(followed.loads(), 0, "nothing has changed");
    followed.write(&every("20s"));
    followed.stir().await;
    assert_eq!((followed.loads(), followed.interval()), (1, Duration::from_secs(20)));
    assert_eq!((followed.current.load().number, followed.reloader.status().generation), (2, 2));
    followed.stir().await;
    assert_eq!(followed.loads(), 0, "the same contents are no change");
    assert!(followed.counts("pulsegate_config_reloads_total{result=\"ok\"} 1"), "{}", followed.metrics.encode());
    assert!(followed.counts("pulsegate_config_last_reload_successful 1"));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_nobody_tells_of_is_found_within_a_minute() {
    let followed = Followed::start(&every("10s"));
    // The watch is armed, and its first check is done.
    tokio::time::sleep(Duration::from_secs(1)).await;
    followed.write(&every("20s"));
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(followed.interval(), Duration::from_secs(10), "not yet");
    tokio::time::sleep(Duration::from_secs(10)).await;
    followed.settled().await;
    assert_eq!(followed.interval(), Duration::from_secs(20));
}

#[tokio::test(start_paused = true)]
async fn a_change_before_the_watch_was_armed_is_found_at_once() {
    let followed = Followed::start(&every("10s"));
    // The task has not run yet.
    followed.write(&every("20s"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    followed.settled().await;
    assert_eq!(followed.interval(), Duration::from_secs(20));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_used_leaves_everything_as_it_was_and_is_tried_again() {
    let followed = Followed::start(&every("10s"));
    followed.write("[heartbeat]\nintervall = \"1s\"");
    followed.stir().await;
    let status = followed.reloader.status();
    assert_eq!((status.generation, followed.interval()), (1, Duration::from_secs(10)));
    let error = status.last_error.expect("it failed");
    assert!(error.contains("proxy.toml:7:1") && error.contains("intervall") && !error.contains('\n'), "{error}");
    assert!(followed.counts("pulsegate_config_reloads_total{result=\"failed\"} 1"));
    assert!(followed.counts("pulsegate_config_last_reload_successful 0"));
    assert_eq!(followed.loads(), 1);
    followed.stir().await;
    assert_eq!(followed.loads(), 0, "it is the same still");
    tokio::time::sleep(2 * MINUTE).await;
    followed.settled().await;
    assert_eq!(followed.loads(), 2, "once a minute, for the mistake may lie elsewhere");
    followed.write(&every("30s"));
    followed.stir().await;
    let status = followed.reloader.status();
    assert_eq!((status.generation, status.last_error, followed.interval()), (2, None, Duration::from_secs(30)));
}

#[tokio::test(start_paused = true)]
async fn who_asks_is_told_what_has_come_of_it() {
    let followed = Followed::start(&every("10s"));
    let told = |result, generation| ReloadOutcome { result, generation, requires_restart: Vec::new(), error: None };
    assert_eq!(followed.reload().await, told(ReloadResult::Unchanged, 1));
    followed.write(&format!("# a remark\n{}", every("10s")));
    assert_eq!(followed.reload().await, told(ReloadResult::Unchanged, 1), "a remark is no setting");
    followed.write(&every("20s"));
    assert_eq!(followed.reload().await, told(ReloadResult::Applied, 2));
    followed.write(&format!("{}[listen]\nworkers = 7\n", every("20s")));
    let waits = ReloadOutcome { requires_restart: vec!["listen.workers".into()], ..told(ReloadResult::Partial, 2) };
    assert_eq!(followed.reload().await, waits);
    assert_eq!(followed.reload().await, waits, "it still waits");
    followed.write(&format!("{}[listen]\nworkers = 7\n", every("30s")));
    assert_eq!(followed.reload().await, ReloadOutcome { generation: 3, ..waits }, "the rest is applied");
    assert_eq!(followed.interval(), Duration::from_secs(30));
    fs::remove_file(followed.dir.path().join("tls.key")).expect("remove");
    let failed = followed.reload().await;
    assert_eq!((failed.result, failed.generation), (ReloadResult::Failed, 3));
    let error = failed.error.expect("a reason");
    assert!(error.contains("tls.key: cannot be read"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_taken_with_its_own_key_only() {
    let followed = Followed::start("");
    let shown = || followed.current.load().certificates()[0].fingerprint;
    let (first, key) = (shown(), followed.dir.path().join("tls.key"));
    let old_key = fs::read(&key).expect("read");
    certify(&followed.dir);
    let new_key = fs::read(&key).expect("read");
    fs::write(&key, old_key).expect("write");
    followed.stir().await;
    let error = followed.reloader.status().last_error.expect("they are no pair");
    assert!(error.contains("does not belong to the certificate"), "{error}");
    assert_eq!(shown(), first);
    fs::write(&key, new_key).expect("write");
    followed.stir().await;
    assert_eq!(followed.reloader.status().last_error, None);
    assert_ne!(shown(), first);
    assert_eq!(followed.current.load().number, 2, "a new certificate is a new generation");
}

#[tokio::test(start_paused = true)]
async fn an_app_with_equal_settings_stays_the_same_app() {
    let route = |port: u16| format!("[[route]]\npath = \"/x\"\nupstream = \"http://127.0.0.1:{port}\"\n");
    let followed = Followed::start(&route(2));
    let apps = || -> Vec<_> { followed.current.load().apps.iter().map(Arc::clone).collect() };
    let before = apps();
    followed.write(&format!("{}{}", every("20s"), route(2)));
    assert_eq!(followed.reload().await.result, ReloadResult::Applied);
    assert!(before.iter().zip(&apps()).all(|(before, after)| Arc::ptr_eq(before, after)));
    followed.write(&route(3));
    assert_eq!(followed.reload().await.result, ReloadResult::Applied);
    assert!(Arc::ptr_eq(&before[0], &apps()[0]));
    assert!(!Arc::ptr_eq(before[1].liveness(), apps()[1].liveness()));
    // Every route finds its app by the settings shared by both.
    let generation = followed.current.load_full();
    for route in &generation.settings.routes {
        assert!(generation.apps.iter().any(|app| Arc::ptr_eq(app.settings(), &route.upstream)), "{route:?}");
    }
}

/// Blocks until the test releases it, like a file system that does not respond.
#[derive(Debug, Default)]
struct Stuck(Option<(mpsc::UnboundedSender<()>, Mutex<std::sync::mpsc::Receiver<()>>)>);

impl ChangeSource for Stuck {
    fn arm<'a>(&mut self, _files: impl Iterator<Item = &'a Path>) {
        if let Some((begun, answer)) = self.0.take() {
            begun.send(()).expect("the test goes on");
            // Fails if it is the thread of the test that waits here.
            let _ = answer.into_inner().expect("nobody panicked").recv_timeout(Duration::from_secs(5));
        }
    }

    async fn changed(&mut self) {
        std::future::pending::<()>().await;
    }
}

#[tokio::test]
async fn a_file_system_that_does_not_answer_holds_up_nothing_else() {
    let (begun, mut begins) = mpsc::unbounded_channel();
    let (answer, answers) = std::sync::mpsc::channel();
    let followed = Followed::with("", Stuck(Some((begun, Mutex::new(answers)))));
    timeout(MINUTE, begins.recv()).await.expect("it looks").expect("it looks");
    answer.send(()).expect("it still waits, and this thread does not");
    assert_eq!(followed.reload().await.result, ReloadResult::Unchanged);
}

#[tokio::test(start_paused = true)]
async fn who_asks_when_it_is_over_is_told_so() {
    let Followed { reloader, tracker, .. } = Followed::start("");
    drop(tracker);
    let orphan = Reloader { requests: mpsc::unbounded_channel().0, status: Arc::clone(&reloader.status) };
    let outcome = orphan.reload().await;
    assert_eq!(outcome.result, ReloadResult::Failed);
    assert!(outcome.error.is_some_and(|error| error.contains("shutting down")));
}

/// Loads the file at `path` as `pulsegate run` does: the faults of the TLS files are among the findings.
fn load(path: &Path, cache: &FileCache) -> Result<(Settings, EffectiveConfig), Report> {
    let faults = |tls: &crate::config::TlsSettings| ServerConfigs::faults(tls, cache);
    load_shown(&Input::from(path), &Overrides::default(), faults, |app| App::faults(app, cache))
}

/// The fingerprint of the certificate that clients would see.
fn fingerprint(opened: LoadedConfig) -> [u8; 32] {
    let terminator = Terminator::new(opened.terms.expect("TLS")).expect("a terminator");
    terminator.certificates()[0].fingerprint
}

fn fingerprint_of(file: &Path) -> [u8; 32] {
    Certificate::from_pem_file(file, &FileCache::default()).expect("a certificate").fingerprint
}

#[test]
fn tls_files_are_read_once_in_a_load() {
    let dir = TempDir::new().expect("a folder");
    certify(&dir);
    let expected = fingerprint_of(&dir.path().join("tls.crt"));
    // Pipes that are written once: a second read would wait for ever.
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    for name in ["tls.crt", "tls.key"] {
        let file = dir.path().join(name);
        let pem = fs::read(&file).expect("read");
        fs::remove_file(&file).expect("remove");
        rustix::fs::mkfifoat(rustix::fs::CWD, &file, mode).expect("a pipe");
        // The only open for writing waits for the only one for reading.
        std::thread::spawn(move || fs::write(&file, pem));
    }
    let file = dir.path().join("proxy.toml");
    fs::write(&file, text(&dir, "")).expect("write");
    let (done, opened) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let source = ConfigSource::new(file.clone(), move |cache| load(&file, cache));
        let _ = done.send(source.open().map(fingerprint));
    });
    let opened = opened.recv_timeout(Duration::from_secs(60)).expect("no file is read twice");
    assert_eq!(opened.expect("a sound pair"), expected);
}

#[test]
fn a_pair_that_is_replaced_during_a_load_is_read_as_a_pair() {
    // Between its two files, and behind both.
    for is_between in [true, false] {
        let dir = Arc::new(TempDir::new().expect("a folder"));
        certify(&dir);
        let file = dir.path().join("proxy.toml");
        fs::write(&file, text(&dir, "")).expect("write");
        let loads = Arc::<AtomicUsize>::default();
        let (folder, counted, path) = (Arc::clone(&dir), Arc::clone(&loads), file.clone());
        let source = ConfigSource::new(file, move |cache| {
            let is_first = counted.fetch_add(1, Ordering::Relaxed) == 0;
            if is_first && is_between {
                cache.read(&folder.path().join("tls.crt")).expect("a certificate");
                certify(&folder);
            }
            let loaded = load(&path, cache);
            if is_first {
                assert_eq!(loaded.is_ok(), !is_between, "a certificate without its key");
                certify(&folder);
            }
            loaded
        });
        let opened = source.open().expect("a sound pair");
        let snapshot = opened.snapshot.clone();
        assert_eq!(fingerprint(opened), fingerprint_of(&dir.path().join("tls.crt")), "the one that is there now");
        assert_eq!(snapshot, snapshot.again(), "what was read is what is there");
        assert_eq!(loads.load(Ordering::Relaxed), 2);
    }
}
