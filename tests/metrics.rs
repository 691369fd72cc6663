//! The metrics of the built binary: counts of real runs, the values of labels, and a Prometheus that scrapes them.

mod counted;
mod exposition;
mod hostile;
mod prometheus;
mod reload;
mod scrape;
mod table;
