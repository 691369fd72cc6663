//! Tests of the event expected at each deadline.

use super::messages::answer;
use super::*;
use crate::heartbeat::Awaited;

#[test]
fn every_value_stands_at_its_own_number() {
    for (at, awaited) in Awaited::ALL.into_iter().enumerate() {
        assert_eq!(awaited as usize, at);
    }
}

#[test]
fn a_probe_becomes_due_waits_for_its_gap_and_then_for_its_answer() {
    let mut rig = Rig::new(exact());
    assert_eq!(rig.engine.awaited(), Awaited::Probe);
    rig.boundary = false;
    rig.run(30 * SECOND);
    assert_eq!(rig.engine.awaited(), Awaited::Gap);
    rig.boundary = true;
    rig.poll();
    assert_eq!(rig.engine.awaited(), Awaited::Answer);
    rig.arrives(rig.elapsed() + SECOND, Inbound::Frame);
    rig.run(rig.elapsed() + 2 * SECOND);
    assert_eq!(rig.engine.awaited(), Awaited::Probe, "any sign of life is an answer");
    rig.pause();
    assert_eq!(rig.engine.awaited(), Awaited::App);
    rig.resume();
    rig.engine.closing();
    assert_eq!(rig.engine.awaited(), Awaited::Nothing);
}

#[test]
fn a_client_that_is_not_asked_owes_a_beat_or_waits_for_its_app() {
    for (policy, expected) in [
        (Policy { mode: Mode::Off, ..exact() }, Awaited::Nothing),
        (answer(), Awaited::Beat),
        (watched(ProofOfLife::Answers), Awaited::AppProbe),
        (watched(ProofOfLife::Pongs), Awaited::Probe),
        (watched(ProofOfLife::Sends(90 * SECOND)), Awaited::Beat),
        (watched(ProofOfLife::SendsAfterApp(90 * SECOND)), Awaited::AppProbe),
    ] {
        let mut rig = Rig::new(policy);
        rig.run(SECOND);
        assert_eq!(rig.engine.awaited(), expected, "{:?}", rig.engine.policy().mode);
    }
    let mut rig = Rig::new(watched(ProofOfLife::Answers));
    rig.app_asks();
    rig.run(SECOND);
    assert_eq!(rig.engine.awaited(), Awaited::Answer);
    let mut rig = Rig::new(watched(ProofOfLife::SendsAfterApp(90 * SECOND)));
    rig.app_speaks();
    rig.run(SECOND);
    assert_eq!(rig.engine.awaited(), Awaited::Beat);
}
