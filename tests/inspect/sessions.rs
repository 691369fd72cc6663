//! The page with the built binary behind it.

use std::fs;

use pulsegate_test_kit::proxy::{Config, Proxy};
use tempfile::TempDir;

use crate::PULSEGATE;
use crate::inspect::dev::Dev;
use crate::inspect::page::Page;

const ROWS: &str = ".body .row:not([hidden])";

#[tokio::test]
async fn a_session_appears_is_found_and_is_closed_by_keyboard() {
    let dev = Dev::start("300ms", "10s").await;
    let mut page = Page::open(&dev.inspect).await;
    page.sees("#dev", "dev").await;
    page.sees("#empty", &format!("No WebSocket yet: open wss://localhost:{}/", dev.port)).await;

    let (first, second) = (dev.guest("first/1.0").await, dev.guest("second/2.0").await);
    page.until("document.querySelectorAll('.body .row:not([hidden])').length === 2").await;
    page.misses("#empty").await;
    page.sees(".body .c-rtt", " ms").await;
    page.sees("#f-open", "2").await;

    // Sorting, with the arrow that marks it.
    page.click("[data-column=rtt] button").await;
    page.click("[data-column=rtt] button").await;
    assert_eq!(page.ask("document.querySelector('[data-column=rtt]').ariaSort").await, "descending");

    let arrow = "getComputedStyle(document.querySelector('[data-column=rtt] .sort'), '::after').content";
    assert_eq!(page.ask(arrow).await, "\"↓\"");
    for column in ["client", "rtt", "age"] {
        page.click(&format!("[data-column={column}] button")).await;
        let behind =
            page.ask("getComputedStyle(document.querySelector('[aria-sort$=ending] .sort'), '::after').left").await;
        let before =
            page.ask("getComputedStyle(document.querySelector('[aria-sort$=ending] .sort'), '::before').content").await;
        let width = page.ask("document.querySelector('[aria-sort$=ending] .sort').clientWidth").await;
        let behind: f64 = behind.as_str().and_then(|left| left.trim_end_matches("px").parse().ok()).expect("a length");
        assert!(
            (behind - width.as_f64().expect("a width")).abs() <= 1.0 && before == "none",
            "{column}: {behind} {before}"
        );
    }

    // Searching, and on to the rows; from here on only keys are used.
    page.press(&["/"]).await;
    page.write("second/2").await;
    page.sees("#shown", "1 of 2").await;
    page.press(&["Enter"]).await;
    assert_eq!(page.ask("document.activeElement.id").await, "grid");
    page.until("document.activeElement.getAttribute('aria-activedescendant') === 'row-0'").await;
    let ring = page.ask("getComputedStyle(document.activeElement).outlineStyle").await;
    assert_eq!(ring, "solid", "the focus is seen");
    page.press(&["Enter"]).await;
    page.sees("#details h2", "/echo").await;
    page.sees("#details .facts", "second/2.0").await;
    // The text of the diagnosis is the API's own.
    page.sees("#details .facts", "1 earlier session of 127.0.0.1. The last, ").await;
    page.sees("#details .story", "Nothing, for either side.").await;
    page.until("document.querySelectorAll('#details .plot .dot').length > 1").await;

    page.press(&["k"]).await;
    page.sees("#kill-what", "Both ends get a Close with 1008 “closed by the operator”").await;
    page.press(&["Escape"]).await;
    page.misses("#kill").await;
    page.sees("#details .state", "alive").await;
    // The key that opened the dialog, or Enter, pressed once more closes nothing.
    page.press(&["k"]).await;
    page.until("document.activeElement.id === 'kill-no' && document.activeElement.textContent === 'Cancel'").await;
    page.press(&["Enter"]).await;
    page.misses("#kill").await;
    page.sees("#details .state", "alive").await;
    page.press(&["k", "Tab", "Enter"]).await;
    let sentence = "operator closed the session with 1008 \"closed by the operator\"";
    page.sees("#details .sentence", sentence).await;
    page.sees("#details .facts", "The client received Close 1008 \"closed by the operator\".").await;
    page.sees("#details .facts", "the client has not come back so far").await;
    assert_eq!(second.close().await, (1008, "closed by the operator".to_owned()));
    page.sees("#toasts", sentence).await;
    page.until("document.getElementById('live').textContent.includes('operator closed the session')").await;

    page.press(&["Escape"]).await;
    page.misses("#details").await;
    page.press(&["Escape", "c"]).await;
    page.sees(".body .c-why", sentence).await;
    page.press(&["o"]).await;
    page.until("document.querySelectorAll('.body .row:not([hidden])').length === 1").await;
    page.press(&["End", "Enter"]).await;
    page.sees("#details .facts", "first/1.0").await;
    page.sees("#details .state", "alive").await;
    drop(first);
    page.finish();
}

#[tokio::test]
async fn the_keyboard_works_on_a_page_that_was_just_loaded() {
    let dev = Dev::start("300ms", "10s").await;
    let guests = (dev.guest("first/1.0").await, dev.guest("second/2.0").await);
    let mut page = Page::open(&dev.inspect).await;
    page.until("document.querySelectorAll('.body .row:not([hidden])').length === 2").await;
    assert_eq!(page.ask("document.activeElement === document.body").await, true);
    // `k` applies to no row before one is chosen.
    page.press(&["k"]).await;
    page.misses("#kill").await;
    page.press(&["ArrowDown"]).await;
    let chosen =
        "document.querySelector('.body .row[aria-selected=true]:not([hidden])')?.getAttribute('aria-rowindex')";
    page.until(&format!("{chosen} === '2'")).await;
    page.press(&["ArrowDown"]).await;
    page.until(&format!("{chosen} === '3'")).await;
    page.press(&["Enter"]).await;
    page.sees("#details h2", "/echo").await;
    page.reload().await;
    page.until("document.querySelectorAll('.body .row:not([hidden])').length === 2").await;
    page.press(&["Enter"]).await;
    page.sees("#details h2", "/echo").await;
    drop(guests);
    page.finish();
}

#[tokio::test]
async fn a_client_made_to_look_dead_is_found_dead() {
    let dev = Dev::start("300ms", "1s").await;
    let mut page = Page::open(&dev.inspect).await;
    let guest = dev.guest("doomed").await;
    page.sees(".body .c-rtt", " ms").await;
    page.click(ROWS).await;
    page.click("#details button:has-text('Simulate a dead client')").await;
    page.sees("#toasts", "It will be detected as dead within").await;
    page.sees("#details .sentence", "client stopped answering: last pong ").await;
    dev.process
        .line("the app's close event", |line| line.text.contains("app.close") && line.text.contains("4408"))
        .await;
    assert_eq!(guest.close().await, (1012, "heartbeat timeout".to_owned()));
    page.until("document.querySelectorAll('#details .plot circle.miss').length === 1").await;
    page.finish();
}

#[tokio::test]
async fn a_session_whose_close_comes_with_a_list_is_closed_wherever_it_is_shown() {
    const SCRIPT: &str = r"import('./sessions.js').then(({ Sessions }) => {
        const sessions = new Sessions();
        const open = { id: 'a', client: '127.0.0.1:1', opened_at: 1, state: 'open', heartbeat: { rtt_s: 0.5, misses: 0 } };
        const shown = sessions.tell(open, 2);
        sessions.fill([{ ...open, state: 'closed', closed_at: 3 }]);
        return [shown.health, sessions.find('a') === shown, sessions.live.size, shown.rtts.length];
    })";
    let dev = Dev::start("300ms", "10s").await;
    let mut page = Page::open(&dev.inspect).await;
    assert_eq!(page.ask(SCRIPT).await, serde_json::json!(["closed", true, 0, 1]));
    page.finish();
}

#[tokio::test]
async fn text_from_a_client_is_never_markup() {
    const HOSTILE: &str = "<img src=x onerror=\"document.title='taken'\">";
    let dev = Dev::start("300ms", "10s").await;
    let mut page = Page::open(&dev.inspect).await;
    let guest = dev.guest(HOSTILE).await;
    page.click(ROWS).await;
    page.sees("#details .facts", HOSTILE).await;
    guest.leave(4000, HOSTILE).await;
    guest.close().await;
    page.sees("#details .sentence", "<img src=x onerror=").await;
    page.click("#tab-closed").await;
    page.sees(".body .c-why", "<img src=x onerror=").await;
    page.until("document.getElementById('live').textContent.includes('<img src=x')").await;
    assert_eq!(page.ask("document.images.length").await, 1, "the page's own");
    assert_ne!(page.ask("document.title").await, "taken");
    page.finish();
}

#[tokio::test]
async fn a_token_is_asked_for_once_and_kept_by_the_tab() {
    let dir = TempDir::new().expect("make a temporary directory");
    let file = dir.path().join("token");
    fs::write(&file, "correct-horse-battery-staple\n").expect("written");
    let config = Config::to(PULSEGATE, "http://127.0.0.1:9").admin("health = \"off\"\nsocket = \"127.0.0.1:0\"");
    let proxy = Proxy::start(config.admin(&format!("token_file = \"{}\"", file.display()))).await;
    let listening = proxy.line("it listens", |line| line.json["message"] == "listening").await;
    let url = format!("http://{}/", listening.json["admin"].as_str().expect("an address"));

    let mut page = Page::open(&url).await;
    page.sees("#token-title", "requires a token").await;
    page.write("something-else-altogether").await;
    page.press(&["Enter"]).await;
    page.sees("#token-text", "The token was refused").await;
    page.write("correct-horse-battery-staple").await;
    page.press(&["Enter"]).await;
    page.sees("#link", "live").await;
    page.misses("#token").await;
    page.sees("#empty", "No WebSocket yet").await;
    page.misses("#dev").await;
    page.reload().await;
    page.sees("#link", "live").await;
    page.misses("#token").await;
}

#[tokio::test]
async fn the_end_is_announced_on_an_open_page() {
    let config = Config::to(PULSEGATE, "http://127.0.0.1:9").admin("health = \"off\"\nsocket = \"127.0.0.1:0\"");
    let proxy = Proxy::start(config.drain("delay = \"30s\"\nwindow = \"0s\"")).await;
    let listening = proxy.line("it listens", |line| line.json["message"] == "listening").await;
    let url = format!("http://{}/", listening.json["admin"].as_str().expect("an address"));
    let mut page = Page::open(&url).await;
    page.sees("#link", "live").await;
    page.misses("#drain").await;
    proxy.terminate();
    page.sees("#drain", "Draining begins").await;
    // A second signal ends the proxy at once, and the page gets no further data.
    proxy.terminate();
    page.sees("#lost", "No answer from the proxy").await;
    page.sees("#link", "not connected").await;
    page.finish();
}
