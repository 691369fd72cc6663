//! The alerts and the dashboard of `deploy/monitoring`: their texts, `promtool`, Grafana's own types, and a Prometheus that
//! answers every query from a run with events of every kind.

mod dashboard;
mod live;
mod loading;
mod pods;
mod rules;
