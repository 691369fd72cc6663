//! On a terminal: Ctrl-C reaches pulsegate alone, and the app can read.

use super::file;
use crate::operate::terminal::Terminal;

const PORTS: [&str; 5] = ["dev", "--listen", "127.0.0.1:0", "--inspect", "127.0.0.1:0"];

fn start(command: &[&str]) -> Terminal {
    let words: Vec<&str> = PORTS.iter().chain(&["--"]).chain(command).copied().collect();
    Terminal::start(&words)
}

#[tokio::test]
async fn lines_reach_the_app_and_ctrl_c_does_not() {
    let app = file("app.js");
    let mut terminal = start(&["node", &app, "reads"]);
    terminal.shows("\"tty\":true").await;
    terminal.shows("Ctrl-C ends it").await;
    terminal.types(b"hello\n").await;
    terminal.shows("\"text\":\"hello\\n\"").await;
    terminal.types(b"\x04").await;
    terminal.shows("input ended").await;
    terminal.types(b"\x03").await;
    // The app gets SIGTERM after the drain; a SIGINT would have killed it with 130.
    let end = terminal.shows("exit 7").await;
    assert!(end.contains("\"event\":\"sigterm\""), "{end}");
    terminal.shows("restored").await;
}

#[tokio::test]
async fn nodemon_restarts_on_its_key() {
    let (nodemon, app) = (file("node_modules/nodemon/bin/nodemon.js"), file("app.js"));
    let mut terminal = start(&["node", &nodemon, &app]);
    terminal.shows("\"listening\"").await;
    terminal.shows("Ctrl-C ends it").await;
    terminal.types(b"rs\n").await;
    terminal.shows("\"listening\"").await;
    terminal.types(b"\x03").await;
    terminal.shows("exit ").await;
    terminal.shows("restored").await;
}
