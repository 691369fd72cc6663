//! Command line of the judge.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;

use pulsegate_torture::run::Options;
use pulsegate_torture::session::{self, Seeds};
use pulsegate_torture::{against, built, shrink};

/// Judges a WebSocket proxy by seeded sessions over real sockets
#[derive(Debug, Parser)]
struct Arguments {
    /// Number of seeds
    #[arg(long, default_value_t = 300)]
    seeds: u64,
    /// First seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Batches of 30 seeds at the same time
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// The pulsegate binary; by default the one of this workspace, which is built first
    #[arg(long, value_name = "PATH")]
    proxy: Option<PathBuf>,
    /// Windows of 50 ms and more instead of 200 ms
    #[arg(long)]
    tight: bool,
    /// Replay one seed
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Find the smallest plan with which a seed fails
    #[arg(long, value_name = "N")]
    shrink: Option<u64>,
    /// Judge any other proxy at this address, or with no --app-listen a WebSocket server
    #[arg(long, value_name = "HOST:PORT")]
    against: Option<SocketAddr>,
    /// The address on which the app listens for that proxy
    #[arg(long, value_name = "HOST:PORT", requires = "against")]
    app_listen: Option<SocketAddr>,
    /// The authority of that proxy's certificate; without it the connection has no TLS
    #[arg(long, value_name = "FILE", requires = "against")]
    ca: Option<PathBuf>,
    /// The time within which that proxy must end the session of a dead client
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 2000, requires = "against")]
    bound: u64,
    /// Print the plan of a seed and exit
    #[arg(long, value_name = "N")]
    show: Option<u64>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("pulsegate-torture: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    if let Some(seed) = arguments.show {
        println!(
            "{:?}\n{}",
            pulsegate_torture::draw::Block::of(seed, arguments.tight),
            pulsegate_torture::draw::plan(seed, arguments.tight)
        );
        return Ok(true);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if let Some(address) = arguments.against {
        let (app, authority, bound) = (arguments.app_listen, arguments.ca.clone(), arguments.bound);
        let target = against::Target { address, app, authority, bound };
        let count = if arguments.seeds == 300 { 90 } else { arguments.seeds };
        let table = runtime.block_on(against::judge(&target, arguments.from, count))?;
        println!("{table}");
        return Ok(true);
    }
    let options = Options { binary: built::binary(arguments.proxy.clone())?, sabotage: None };
    if let Some(seed) = arguments.shrink {
        let smallest = runtime.block_on(shrink::smallest(&options, seed, arguments.tight))?;
        println!("{smallest}");
        return Ok(false);
    }
    let started = Instant::now();
    let (from, count) = arguments.seed.map_or((arguments.from, arguments.seeds), |seed| (seed, 1));
    let seeds = Seeds { from, count, jobs: arguments.jobs, tight: arguments.tight, print: true };
    let summary = runtime.block_on(session::seeds(&options, &seeds))?;
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{count} seeds in {seconds:.1} s; {} findings discarded, for which the machine was late",
        summary.discarded
    );
    println!("failed seeds: {:?}", summary.failed);
    println!("{} passed, {} failed", summary.passed, summary.failed.len() + summary.batch_faults);
    Ok(summary.is_clean())
}
