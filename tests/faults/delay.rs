//! A link that delays each packet by another time, so that packets arrive out of order; and loses one in a hundred.

use std::path::Path;
use std::time::Duration;

use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::process::Process;
use pulsegate_test_kit::proxy::Config;
use tempfile::TempDir;

use crate::PULSEGATE;
use crate::loss::{all_talk, sessions};
use crate::net::Net;

/// The chance of a loss, the least delay and the most that is added to it, in milliseconds; and the seed.
const LINK: [&str; 4] = ["0.01", "40", "120", "7"];

/// Starts the ends of a link, each a process that reads packets from a TUN device and passes them to the other.
async fn link(net: &Net, dir: &Path) -> [Process; 2] {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/link.py");
    let ends = [(true, "10.77.0.1", "10.77.0.2"), (false, "10.77.0.2", "10.77.0.1")].map(|(proxy, own, peer)| {
        let mut command = net.command(proxy);
        command.args(["python3", script, own, peer]).arg(dir).args(LINK);
        Process::start("link.py", &mut command)
    });
    for end in &ends {
        end.line("the link is up", |line| line.text == "up").await;
    }
    ends
}

#[tokio::test]
async fn live_clients_stay_on_a_link_that_delays_and_reorders() {
    let dir = TempDir::new().expect("a folder");
    let app = NodeApp::bare_on(&dir.path().join("app.sock")).await;
    let net = Net::unlinked();
    let ends = link(&net, dir.path()).await;
    let heartbeat = "[heartbeat]\ninterval = \"400ms\"\ntimeout = \"4s\"\nwrite_stall = \"60s\"\n";
    let proxy = net.proxy(Config::to(PULSEGATE, &app.url).with(heartbeat)).await;
    let (client, mut sessions) = sessions(&net, &proxy).await;
    all_talk(&proxy, &mut sessions, Duration::from_secs(9), 3).await;
    drop((sessions, client));
    proxy.finish().await;
    for end in &ends {
        end.terminate();
        let line = end.line("what it did", |line| line.json["packets"].is_u64()).await;
        assert!(line.json["reordered"].as_u64() > Some(20), "the link reordered too little: {}", line.text);
    }
}
