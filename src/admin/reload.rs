//! What the administration asks of whoever loads the configuration anew.

use std::time::SystemTime;

use futures_util::future::BoxFuture;
use serde_json::Value;

/// Loads the configuration anew, and knows how that went the last time.
pub trait Reloads: Send + Sync {
    /// Loads it now.
    fn reload(&self) -> BoxFuture<'_, Outcome>;

    /// What is in force.
    fn status(&self) -> Status;
}

/// How a reload came out.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// In a word.
    pub result: ReloadResult,
    /// The generation that is in force now.
    pub generation: u64,
    /// The keys that have changed in the file and will hold from the next start on.
    pub requires_restart: Vec<Box<str>>,
    /// Why nothing has changed.
    pub error: Option<String>,
}

/// How a reload came out, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadResult {
    /// The file says what it said.
    Unchanged,
    /// All that has changed is in force.
    Applied,
    /// Some of it is.
    Partial,
    /// None of it is.
    Failed,
}

/// What is in force.
#[derive(Clone, Debug)]
pub struct Status {
    /// Counts from 1, and grows with every change that was applied.
    pub generation: u64,
    /// When a change was applied last.
    pub last_success_at: Option<SystemTime>,
    /// Why the last attempt failed, if it did.
    pub last_error: Option<String>,
    /// Every key with its value and its origin.
    pub shown: Value,
}
