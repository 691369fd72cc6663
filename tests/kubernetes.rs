//! `deploy/kubernetes`, `deploy/helm` and the policies in `deploy/monitoring`: rendered by real helm and kubectl, compared
//! with golden files, and judged by schemas, the built program and the rules of `judge.py`.

mod charts;
mod component;
mod existing;
mod made;
mod refusals;
mod runs;
