//! The experiments. Each opens its sessions through the proxy, measures, and returns its figures.

pub mod beat;
mod closed_loop;
pub mod echo;
pub mod handshake;
pub mod idle;
pub mod kept;
pub mod request;
pub mod silent;
pub mod soak;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::dial::{Dialer, Http, Url};
use crate::fleet::Opening;
use crate::pattern::Pattern;
use crate::process::Tree;
use crate::session::Manners;

/// The proxy under load, and the limits of the load.
#[derive(Args, Clone, Debug)]
pub struct Target {
    /// The proxy, as in <wss://localhost:8443/>
    pub url: Url,
    /// File with the certificates to trust
    #[arg(long, value_name = "FILE")]
    pub ca: PathBuf,
    /// The proxy's process; its descendants are measured with it
    #[arg(long)]
    pub pid: Option<u32>,
    /// The only version of HTTP that ALPN offers
    #[arg(long, value_enum, default_value_t = Version::H1, value_name = "VERSION")]
    pub http: Version,
    /// Sessions on one HTTP/2 connection
    #[arg(long, default_value_t = 100, value_name = "COUNT", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    pub streams: usize,
    /// Loopback addresses to connect from, 127.0.0.1 and up: each has 28,000 ports
    #[arg(long, default_value_t = 1, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..255))]
    pub sources: u8,
    /// Sessions that may be opening at once
    #[arg(long, default_value_t = 64, value_name = "COUNT")]
    pub at_once: usize,
    /// Timeout of any step of a session
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub patience: Duration,
}

/// A version of HTTP on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Version {
    /// HTTP/1.1, one connection for each session
    H1,
    /// HTTP/2, many sessions on one connection
    H2,
}

impl Target {
    /// Returns a dialer for messages of `pattern`.
    pub async fn dialer(&self, pattern: Pattern) -> Result<Arc<Dialer>> {
        let http = match self.http {
            Version::H1 => Http::One,
            Version::H2 => Http::Two { streams: self.streams },
        };
        let dialer = Dialer::new(self.url.clone(), http, &self.ca, self.sources, self.patience, pattern).await;
        dialer.map(Arc::new).with_context(|| format!("dialling {}", self.url))
    }

    /// Returns the process to measure, if one was given.
    pub fn measured(&self) -> Result<Option<Tree>> {
        Ok(self.pid.map(Tree::of).transpose()?)
    }

    /// Returns the process to measure, for scenarios that require one.
    pub fn must_measure(&self) -> Result<Tree> {
        self.measured()?.context("this scenario measures a process: --pid is missing")
    }

    fn opening(&self, manners: Manners) -> Opening {
        Opening { at_once: self.at_once, manners }
    }
}

/// The figures of a scenario: named numbers, printed one to a line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures(Vec<(&'static str, f64)>);

impl Figures {
    /// Adds a figure.
    pub fn put(&mut self, name: &'static str, value: f64) {
        self.0.push((name, value));
    }

    /// Returns the figure with this name.
    pub fn of(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, value)| {
            let decimals = if value.fract() == 0.0 { 0 } else { 3 };
            writeln!(out, "{name} {value:.decimals$}")
        })
    }
}

/// Converts bytes to KiB.
fn kib(bytes: f64) -> f64 {
    bytes / 1024.0
}

/// Converts a duration to microseconds.
fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
