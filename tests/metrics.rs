//! The metrics of the built binary: counts of real runs, the values of labels, and a Prometheus that scrapes them.

mod counted;
mod exposition;
mod hostile;
pub(crate) mod prometheus;
mod reload;
pub(crate) mod scrape;
pub(crate) mod table;
