//! The page with many sessions, which `crowd.js` makes up.

use pulsegate_test_kit::node::project;
use pulsegate_test_kit::process::Process;
use serde_json::Value;
use tokio::process::Command;

use crate::inspect::page::Page;

/// The time limit of a frame; far more than a person accepts, because this machine may be busy with other things.
const FRAME: f64 = 250.0;
/// Rows that exist at most, independent of the number of sessions: those in sight at this size, and some above and
/// below.
const ROWS: u64 = 60;

/// A made-up proxy.
pub(crate) struct Crowd {
    /// The address of its page.
    pub(crate) url: String,
    _process: Process,
}

impl Crowd {
    pub(crate) async fn of(arguments: &[&str]) -> Self {
        let script = project("browser").with_file_name("inspect").join("crowd.js");
        let process = Process::start("crowd.js", Command::new("node").arg(script).args(arguments));
        let listening = process.line("it listens", |line| line.text.starts_with("listening ")).await;
        Self { url: listening.text.trim_start_matches("listening ").to_owned(), _process: process }
    }
}

/// The machine may delay the browser at random; a delay by the page itself repeats in every attempt.
const ATTEMPTS: u32 = 3;

/// Records the time between frames from now on.
const WATCH: &str = "(() => {
    window.frames_ = [];
    window.watched_ = (window.watched_ ?? 0) + 1;
    let last = performance.now();
    requestAnimationFrame(function frame(at, turn = window.watched_) {
      window.frames_.push(at - last);
      last = at;
      requestAnimationFrame((next) => turn === window.watched_ && frame(next, turn));
    });
    return null;
  })()";

#[tokio::test]
async fn five_thousand_rows_scroll_sort_and_change_without_a_stutter() {
    let crowd = Crowd::of(&["--sessions", "5000", "--churn", "40"]).await;
    let mut page = Page::open(&crowd.url).await;
    page.until("Number(document.getElementById('n-open').textContent.replace(/\\D/g, '')) >= 4990").await;
    let mut longest = Vec::new();
    for _ in 0..ATTEMPTS {
        longest.push(longest_frame(&mut page).await);
        if longest.last().is_some_and(|longest| *longest <= FRAME) {
            return page.finish();
        }
    }
    panic!("each time a frame took too long: {longest:?} ms");
}

/// Uses the page as people do; returns the longest time between two frames meanwhile, in milliseconds.
async fn longest_frame(page: &mut Page) -> f64 {
    page.ask(WATCH).await;
    page.click("#grid").await;
    page.press(&["Escape"]).await;
    for _ in 0..20 {
        page.press(&["PageDown"]).await;
    }
    let rows = "document.querySelectorAll('.body .row').length";
    for _ in 0..20 {
        page.ask("document.getElementById('grid').scrollTop += 7321").await;
        let count = page.ask(rows).await;
        assert!(count.as_u64().is_some_and(|count| (1..=ROWS).contains(&count)), "{count} rows exist");
    }
    for column in ["rtt", "client", "idle"] {
        page.click(&format!("[data-column={column}] button")).await;
    }
    page.press(&["/"]).await;
    page.write("graphql 203.").await;
    page.until("/^\\d+ of /.test(document.getElementById('shown').textContent)").await;
    page.press(&["Escape"]).await;
    // Events stream in meanwhile.
    let before = page.text("#f-closed").await;
    page.until(&format!("document.getElementById('f-closed').textContent !== '{before}'")).await;
    page.until("window.frames_.length > 150").await;

    let frames = page.ask("window.frames_").await;
    let mut frames: Vec<f64> = frames.as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
    frames.sort_by(f64::total_cmp);
    let longest = *frames.last().expect("some frames");
    println!(
        "{} frames: half took {:.1} ms at most, the longest {longest:.1} ms",
        frames.len(),
        frames[frames.len() / 2]
    );
    longest
}

#[tokio::test]
async fn a_broken_stream_is_reported_and_resumes() {
    let crowd = Crowd::of(&["--sessions", "40", "--churn", "0"]).await;
    let mut page = Page::open(&crowd.url).await;
    page.sees("#n-open", "40").await;
    page.sees("#link", "live").await;
    page.until("document.getElementById('f-open').textContent === '40'").await;
    // The banner is recorded when it appears, so that a short one is not missed.
    page.ask(
        "window.banner_ = false;
         new MutationObserver(() => { window.banner_ ||= !document.getElementById('lost').hidden; })
           .observe(document.getElementById('lost'), { attributes: true });
         fetch('/crowd/lose', { method: 'POST' }).then(() => null)",
    )
    .await;
    page.until("window.banner_").await;
    page.sees("#link", "live").await;
    page.misses("#lost").await;

    // Another process: nothing of the former one remains.
    page.ask("fetch('/crowd/restart', { method: 'POST' }).then(() => null)").await;
    page.sees("#toasts", "another process").await;
    page.until("document.getElementById('n-open').textContent === '0'").await;
    page.sees("#empty", "No WebSocket yet: open wss://localhost:8443/").await;
    page.finish();
}

#[tokio::test]
async fn nothing_is_wider_than_a_small_telephone() {
    let crowd = Crowd::of(&["--sessions", "300", "--churn", "0"]).await;
    let mut page = Page::open(&crowd.url).await;
    page.resize(360, 740).await;
    page.sees("#n-open", "300").await;
    let fits = "document.documentElement.scrollWidth <= 360 && scrollY >= 0";
    assert_eq!(page.ask(fits).await, true);
    // The page scrolls, and the rows in sight exist.
    page.ask("scrollTo(0, 9000)").await;
    page.until(
        "[...document.querySelectorAll('.body .row')].some((row) => {
           const { top, bottom } = row.getBoundingClientRect();
           return !row.hidden && top < 400 && bottom > 300;
         })",
    )
    .await;
    let count = page.ask("document.querySelectorAll('.body .row').length").await;
    assert!(count.as_u64().is_some_and(|count| (1..=ROWS).contains(&count)), "{count} rows exist");
    // Another order begins at its top, below the rows that stay in sight.
    page.ask(
        "const sorter = document.getElementById('sorter');
         sorter.value = '-rtt';
         sorter.dispatchEvent(new Event('change')); null",
    )
    .await;
    page.until(
        "(() => {
           const first = document.querySelector('.body .row[aria-rowindex=\"2\"]:not([hidden])')?.getBoundingClientRect();
           const tools = document.querySelector('.tools').getBoundingClientRect();
           return first && scrollY > 0 && first.top >= tools.bottom - 2 && first.top < tools.bottom + 40;
         })()",
    )
    .await;
    page.ask("scrollTo(0, 0)").await;
    page.click("#tab-closed").await;
    page.sees(".body .c-why", "client").await;
    assert_eq!(page.ask(fits).await, true);
    page.click(".body .row:not([hidden])").await;
    page.sees("#details .sentence", "client").await;
    assert_eq!(page.ask(fits).await, true);
    page.press(&["Escape"]).await;
    page.misses("#details").await;
    page.finish();
}

#[tokio::test]
async fn clients_times_and_buttons_are_cut_at_no_width() {
    // Elements wider than their space, of those that must be whole: clients with their ports, times, and buttons.
    const CUT: &str = "(() => {
        const whole = '.body .c-client, .body .c-closed, .body .c-lived, .body .c-age, .body .c-idle, .c-actions, .act, .tabs button';
        const cut = (node) => node.scrollWidth > node.clientWidth + 1
          || [...node.children].some((child) => child.getBoundingClientRect().left < node.getBoundingClientRect().left - 1);
        return [...document.querySelectorAll(whole)].filter((node) => node.offsetParent && cut(node))
          .map((node) => `${node.className}: ${node.textContent}`);
      })()";
    let crowd = Crowd::of(&["--sessions", "60", "--churn", "0", "--dev"]).await;
    let mut page = Page::open(&crowd.url).await;
    page.sees("#n-open", "60").await;
    page.sees("#dev", "dev").await;
    for width in [1600, 1280, 1100, 1000, 900, 760, 390] {
        page.resize(width, 800).await;
        for tab in ["open", "closed"] {
            page.click(&format!("#tab-{tab}")).await;
            page.sees(".body .c-client, .body .c-why", if tab == "open" { ":" } else { "client" }).await;
            let cut = page.ask(CUT).await;
            assert_eq!(cut.as_array().map(Vec::len), Some(0), "{tab} at {width}: {cut}");
        }
    }
    let client =
        page.ask("import('/format.js').then(({ endpoint }) => endpoint('[2001:db8:1234:5678::7]:65535'))").await;
    assert_eq!(client, "[2001:db8:…::7]:65535");
    page.finish();
}

#[tokio::test]
async fn light_and_dark_follow_the_system_until_a_choice_is_made() {
    let crowd = Crowd::of(&["--sessions", "3", "--churn", "0"]).await;
    let mut page = Page::open(&crowd.url).await;
    page.sees("#n-open", "3").await;
    let ground = "getComputedStyle(document.body).backgroundColor";
    let light = page.ask(ground).await;
    page.prefer("dark").await;
    let dark = page.ask(ground).await;
    assert_ne!(light, dark);
    page.until("document.getElementById('theme').ariaPressed === 'true'").await;
    page.click("#theme").await;
    assert_eq!(page.ask(ground).await, light);
    page.reload().await;
    assert_eq!(page.ask(ground).await, light, "a choice is kept");
    page.press(&["t"]).await;
    assert_eq!(page.ask(ground).await, dark);
    page.finish();
}
