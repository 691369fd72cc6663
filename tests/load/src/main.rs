//! Command line of the load generator; `tests/load/run` calls it.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use tokio::net::TcpListener;

use pulsegate_load::process::Tree;
use pulsegate_load::report::Runs;
use pulsegate_load::scenario::{beat, echo, handshake, idle, kept, request, silent, soak};
use pulsegate_load::{cert, stand_in, upstream};

/// Load generator of pulsegate's benchmark. A scenario prints `name value` lines.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Echo(echo::Echo),
    Request(request::Fetch),
    Idle(idle::Idle),
    Kept(kept::Kept),
    Silent(silent::Silent),
    Handshake(handshake::Handshake),
    Beat(beat::Beat),
    Soak(Box<soak::Soak>),
    /// Serve as the app behind the proxy, on plain TCP: a WebSocket echo, and bodies at /body/LENGTH
    EchoUpstream {
        /// The address to listen on; port 0 takes any. It is printed
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
    #[command(hide = true)]
    StandIn(stand_in::StandIn),
    /// Make a certificate authority and a certificate for localhost
    Cert {
        /// The directory for ca.pem, cert.pem, key.pem and both.pem (certificate and key)
        directory: PathBuf,
    },
    /// Print a TCP port that is free on 127.0.0.1
    FreePort,
    /// Print the CPU time that a process and its descendants have spent, in microseconds
    Cpu {
        /// The process
        pid: u32,
    },
    /// Make a Markdown table of `PEER CASE FIGURE VALUE` lines on the standard input
    Report,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pulsegate-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(command: Command) -> Result<()> {
    let figures = match command {
        Command::Echo(options) => echo::run(&options).await?,
        Command::Idle(options) => idle::run(&options).await?,
        Command::Kept(options) => kept::run(&options).await?,
        Command::Request(options) => request::run(&options).await?,
        Command::Silent(options) => silent::run(&options).await?,
        Command::Handshake(options) => handshake::run(&options).await?,
        Command::Beat(options) => beat::run(&options).await?,
        Command::Soak(options) => {
            let soak::Judgement { figures, failures } = soak::run(&options).await?;
            print!("{figures}");
            ensure!(failures.is_empty(), "the soak has failed: {}", failures.join("; "));
            return Ok(());
        }
        Command::EchoUpstream { listen } => return serve(listen).await,
        Command::StandIn(options) => return stand_in::serve(options).await,
        Command::Cert { directory } => return Ok(cert::write(&directory)?),
        Command::FreePort => {
            println!("{}", TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port());
            return Ok(());
        }
        Command::Cpu { pid } => {
            println!("{}", Tree::of(pid)?.cpu()?.as_micros());
            return Ok(());
        }
        Command::Report => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            print!("{}", Runs::parse(&text)?.table());
            return Ok(());
        }
    };
    print!("{figures}");
    Ok(())
}

async fn serve(listen: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    println!("{}", listener.local_addr()?);
    upstream::serve(listener).await?;
    Ok(())
}
