//! Many sessions at once, none of which gets another one's bytes.

use std::sync::Arc;
use std::time::Duration;

use pulsegate_test_kit::client::echo;
use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::open_files::raise_open_file_limit;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::turn::busy_turn;
use pulsegate_test_kit::wait::within;
use tokio::sync::{Barrier, Semaphore};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use crate::PULSEGATE;

const SESSIONS: usize = 1_000;
const ROUNDS: usize = 4;
/// Exceeded only when nothing moves: all sessions share two cores with the app and the proxy.
const LIMIT: Duration = Duration::from_mins(2);

#[tokio::test]
async fn a_thousand_sessions_echo_random_sizes() {
    let _turn = busy_turn().await;
    // Two for each session in the proxy.
    raise_open_file_limit(4096);
    let app = NodeApp::bare().await;
    let proxy = Arc::new(Proxy::start(Config::to(PULSEGATE, &app.url).with("[limits]\nhandshake = \"60s\"\n")).await);
    let all_open = Arc::new(Barrier::new(SESSIONS));
    let handshakes = Arc::new(Semaphore::new(64));

    let mut sessions = JoinSet::new();
    for session in 0..SESSIONS {
        let (proxy, all_open, handshakes) = (Arc::clone(&proxy), Arc::clone(&all_open), Arc::clone(&handshakes));
        sessions.spawn(async move {
            let turn = handshakes.acquire().await.expect("never closed");
            let mut websocket = proxy.websocket(&format!("/ws?name={session}")).await;
            drop(turn);
            all_open.wait().await;
            let mut random = fastrand::Rng::with_seed(session as u64);
            for _ in 0..ROUNDS {
                let mut payload = vec![0; size(&mut random)];
                random.fill(&mut payload);
                echo(&mut websocket, Message::binary(payload)).await.expect("the session lives");
            }
            websocket.close(None).await.expect("the session lives");
        });
    }
    within(LIMIT, "all sessions echo", async {
        while let Some(session) = sessions.join_next().await {
            session.expect("no session fails");
        }
    })
    .await;

    let closes = proxy.ws_closes(SESSIONS).await;
    assert!(closes.iter().all(|line| line["close.reason"] == "normal" && line["close.initiator"] == "client"));
    proxy.releases(0).await;
    assert!(app.events("close").iter().all(|event| event["code"] == 1005), "an empty Close stays empty");
    Arc::into_inner(proxy).expect("all sessions are over").finish().await;
}

/// Returns a size: mostly that of a chat message, sometimes large, with every header length among them.
fn size(random: &mut fastrand::Rng) -> usize {
    match random.u8(..4) {
        0 => random.usize(..126),
        1 | 2 => random.usize(..4_096),
        _ => random.usize(..100_000),
    }
}
