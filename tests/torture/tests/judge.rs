//! The short form of a run, and a test of the judge: each fault of a proxy is injected between the proxy and its app,
//! and must be found.

use std::collections::HashSet;

use pulsegate_torture::built;
use pulsegate_torture::draw::{self, Block};
use pulsegate_torture::judge::Promise;
use pulsegate_torture::plan::{Fate, Plan};
use pulsegate_torture::run::Options;
use pulsegate_torture::sabotage::Sabotage;
use pulsegate_torture::session::{self, Seeds};

fn options(sabotage: Option<Sabotage>) -> Options {
    Options { binary: built::binary(None).expect("the proxy is built"), sabotage }
}

/// Returns the first plans with one session and one of these fates.
fn plans(fates: &[Fate], count: usize) -> Vec<Plan> {
    let plans = (0..2000).map(|seed| draw::plan(seed, false));
    let wanted = plans.filter(|plan| matches!(&plan.sessions[..], [session] if fates.contains(&session.fate)));
    let mut plans: Vec<Plan> = wanted.take(count).collect();
    for plan in &mut plans {
        plan.stop = None;
    }
    plans
}

async fn broken(sabotage: Sabotage, fates: &[Fate]) -> HashSet<Promise> {
    let block = Block { stop: None, drains: false, freezes: false, ..Block::of(0, false) };
    let summary =
        session::plans_together(&options(Some(sabotage)), &block, plans(fates, 8)).await.expect("the batch runs");
    assert!(!summary.broken.is_empty(), "{sabotage:?} was not found:\n{}", summary.text.join("\n"));
    summary.broken.into_iter().map(|(_, promise)| promise).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_byte_is_found() {
    let broken = broken(Sabotage::LosesAByte, &[Fate::ClientClose, Fate::AppClose]).await;
    assert!(broken.contains(&Promise::Bytes), "{broken:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_byte_is_found() {
    let broken = broken(Sabotage::ChangesAByte, &[Fate::ClientClose, Fate::AppClose]).await;
    assert!(broken.contains(&Promise::Bytes), "{broken:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_that_does_not_arrive_is_found() {
    let broken = broken(Sabotage::SwallowsClose, &[Fate::ClientClose]).await;
    assert!(broken.contains(&Promise::Close), "{broken:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_client_that_is_ended_is_found() {
    let broken = broken(Sabotage::EndsTheLiving, &[Fate::ClientClose]).await;
    assert!(broken.contains(&Promise::Live), "{broken:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_client_that_stays_is_found() {
    let broken = broken(Sabotage::KeepsTheDead, &[Fate::ClientDies]).await;
    assert!(broken.contains(&Promise::Dead), "{broken:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_120_seeds_break_no_promise() {
    let seeds = Seeds { from: 0, count: 120, jobs: 2, tight: false, print: false };
    let summary = session::seeds(&options(None), &seeds).await.expect("the batches run");
    assert!(summary.is_clean(), "{}", summary.text.join("\n"));
    assert_eq!(summary.passed, 120);
}
