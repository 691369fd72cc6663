//! The metrics of the built binary: what a real run counts, what may stand in a label, and what Prometheus makes of it.

mod counted;
mod exposition;
mod hostile;
mod prometheus;
mod reload;
mod scrape;
mod table;
