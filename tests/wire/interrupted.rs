//! Random scripts that a kill interrupts: in every state the session ends in time, no frame is torn, and the last line
//! has the codes of the wire.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use pulsegate_test_kit::frame::{CLOSE, Role};
use pulsegate_test_kit::turn::busy_turn;
use serde_json::Value;
use tokio::time::sleep;

use crate::wire::peer::Connect;
use crate::wire::record::Record;
use crate::wire::rig::{GRACE, Rig, SLACK, Setup, Via, secs, together, variant};
use crate::wire::scripts::{Actor, Step, script, step};

/// The number of scripts.
const SCRIPTS: u64 = 40;

/// Asserts that the data an endpoint received is a prefix of what the other one sent, with at most one Close, and
/// nothing after it.
fn is_sound(record: &Record, sent: &[(u8, Vec<u8>)], what: &str) {
    let frames: Vec<_> = record.frames.iter().map(|(frame, _)| frame).collect();
    let data: Vec<_> = frames.iter().filter(|frame| frame.opcode() < CLOSE).collect();
    let same =
        data.iter().zip(sent).all(|(frame, (opcode, payload))| frame.opcode() == *opcode && frame.payload == *payload);
    assert!(same && data.len() <= sent.len(), "{what} received something else than was sent: {record:?}");
    let closes = frames.iter().filter(|frame| frame.opcode() == CLOSE).count();
    let last = frames.last().is_none_or(|frame| frame.opcode() == CLOSE);
    assert!(closes == 0 || (closes == 1 && last && record.partial.is_empty()), "{what} received {record:?}");
}

/// Asserts that the code of a leg is the one that its endpoint received, or else sent, or else 1006. A reset may
/// destroy a Close that has been written.
fn is_true(line: &Value, key: &str, received: &Record, sent: Option<u16>, what: &str) {
    if received.codes().is_empty() && !received.ended_with_fin() {
        return;
    }
    let logged = line[key].as_u64().and_then(|code| u16::try_from(code).ok());
    let wire = received.codes().first().copied().or(sent).unwrap_or(1006);
    assert_eq!(logged, Some(wire), "{what}: {key}; it sent {sent:?} and received {received:?}; {line}");
}

async fn interrupted(rig: Arc<Rig>, seed: u64) {
    let mut random = Rng::with_seed(seed ^ 0x5eed);
    let path = format!("/interrupted-{seed}");
    let (client, app) = rig.pair_via(Via::Proxy, &path, Connect { narrow: true, ..Connect::default() }).await;
    let (mut client, mut app) = (Actor::new(client, Role::Client), Actor::new(app, Role::App));
    let at = random.usize(0..6);
    let now = random.bool();
    let delay = Duration::from_millis(random.u64(0..300));
    let flags: &[&str] = if now { &["--now"] } else { &[] };
    let mut killed = None;
    for (index, Step { actions, pauses }) in script(seed).into_iter().enumerate() {
        if rig.has_ended(&path) {
            break;
        }
        let kill = async {
            if index == at {
                sleep(delay).await;
                killed = rig.try_kill(&path, flags).await;
            }
        };
        tokio::join!(step(&mut client, &mut app, actions, pauses), kill);
    }
    tokio::join!(client.finish(), app.finish());
    let received = [client.peer.ended(secs(12)).await, app.peer.ended(secs(12)).await];
    let line = rig.ended(&path, secs(5)).await;
    let what = format!("seed {seed}, kill {flags:?} at step {at} of {:?}", script(seed));
    is_sound(&received[0], &app.data, &format!("{what}: the client"));
    is_sound(&received[1], &client.data, &format!("{what}: the app"));
    is_true(&line.json, "close.code", &received[0], client.code, &format!("{what}: the client"));
    is_true(&line.json, "upstream.close_code", &received[1], app.code, &format!("{what}: the app"));
    let Some(killed) = killed else { return };
    // The wait for a frame under way is 2 s, and a pause lasts as long; a handshake under way lasts for its timeout.
    let took = line.at.saturating_duration_since(killed);
    let bound = if now { Duration::ZERO } else { secs(2) + secs(2) + secs(6) + GRACE };
    assert!(took < bound + SLACK, "{what}: ended {took:?} after the kill: {}", line.text);
}

#[tokio::test]
async fn s61_random_scripts_that_a_kill_interrupts_end_soundly() {
    let _turn = busy_turn().await;
    let heartbeat = "interval = \"60s\"\ntimeout = \"6s\"\njitter = 0\nclose_grace = \"500ms\"";
    let rig = Arc::new(Rig::set_up(Setup { heartbeat, narrow_app: true, ..Setup::default() }).await);
    let run = |seed| variant(format!("seed {seed}"), interrupted(Arc::clone(&rig), seed));
    together((0..SCRIPTS).map(run).collect()).await;
}
