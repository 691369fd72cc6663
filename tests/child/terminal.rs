//! On a terminal: Ctrl-C reaches pulsegate alone, and the app can read.

use super::file;
use crate::PULSEGATE;
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

#[tokio::test]
async fn a_password_is_not_shown_and_other_words_are() {
    let app = file("app.js");
    let script = "printf \"Name: \"; read -r name; stty -echo; printf \"Password: \"; read -r password; stty echo; \
        echo \"LENGTH=${#password}\"; read -r answer; echo \"ANSWER=$answer\"; exec node \"$0\"";
    let mut terminal = start(&["sh", "-c", script, &app]);
    terminal.shows("Name: ").await;
    terminal.types(b"alice\n").await;
    terminal.shows("alice").await;
    terminal.shows("Password: ").await;
    terminal.types(b"s3cret\n").await;
    let shown = terminal.shows("LENGTH=6").await;
    assert!(!shown.contains("s3c"), "{shown}");
    terminal.types(b"yes").await;
    terminal.shows("yes").await;
    terminal.types(b"\n").await;
    let shown = terminal.shows("ANSWER=yes").await;
    assert!(shown.starts_with("\r\n"), "{shown:?}");
    terminal.shows("Ctrl-C ends it").await;
    terminal.types(b"\x03").await;
    terminal.shows("exit 7").await;
    terminal.shows("restored").await;
}

#[tokio::test]
async fn an_app_that_reads_keys_gets_them_at_once() {
    let mut terminal = start(&["node", &file("app.js"), "keys"]);
    terminal.shows("Ctrl-C ends it").await;
    terminal.types(b"x").await;
    terminal.shows("\"text\":\"x\"").await;
    terminal.types(b"\r").await;
    terminal.shows("\"text\":\"\\r\"").await;
    // Ctrl-S and Ctrl-Q do not pause the output of an app that has turned that off.
    for (key, text) in [(b"\x13", "\"text\":\"\\u0013\""), (b"\x11", "\"text\":\"\\u0011\"")] {
        terminal.types(key).await;
        terminal.shows(text).await;
    }
    terminal.types(b"\x03").await;
    terminal.shows("exit 7").await;
    terminal.shows("restored").await;
}

#[tokio::test]
async fn a_new_size_of_the_terminal_reaches_the_app() {
    let mut terminal = start(&["node", &file("app.js"), "resizes"]);
    terminal.shows("Ctrl-C ends it").await;
    terminal.types(b"resize\n").await;
    terminal.shows("\"size\":\"33 90\"").await;
    terminal.types(b"\x03").await;
    terminal.shows("exit 7").await;
    terminal.shows("restored").await;
}

#[tokio::test]
async fn a_suspended_program_leaves_the_terminal_as_it_was() {
    // A shell that does not restore the terminal itself, whose user does not want output from the background.
    let mut terminal = Terminal::run("PS1='$ ' dash -i");
    terminal.types(b"stty tostop; before=$(stty -g)\n").await;
    let words = [&PORTS[..], &["--", "node", &file("app.js"), "reads"]].concat().join(" ");
    terminal.types(format!("{PULSEGATE} {words}\n").as_bytes()).await;
    terminal.shows("Ctrl-C ends it").await;
    terminal.types(b"first\n").await;
    terminal.shows("\"text\":\"first\\n\"").await;
    terminal.types(b"\x1a").await;
    terminal.shows("Stopped").await;
    terminal.types(b"[ \"$before\" = \"$(stty -g)\" ] && echo rest'ored'\n").await;
    terminal.shows("restored").await;
    terminal.types(b"fg\n").await;
    terminal.types(b"second\n").await;
    terminal.shows("\"text\":\"second\\n\"").await;
    terminal.types(b"\x03").await;
    terminal.shows("app.exited").await;
    terminal.shows("$ ").await;
    terminal.types(b"[ \"$before\" = \"$(stty -g)\" ] && echo rest'ored'\n").await;
    terminal.shows("restored").await;
    terminal.types(b"exit\n").await;
}
