//! The reason for which a manifest is refused.

use std::fmt;

/// A reason for which nothing is injected or removed: the fault, its line, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct InjectError {
    /// The line of the manifest, counted from 1; `None` if the fault concerns the whole input.
    pub line: Option<usize>,
    /// The fault and the remedy.
    pub message: String,
}

impl InjectError {
    pub(super) fn at(line: usize, message: impl Into<String>) -> Self {
        Self { line: Some(line), message: message.into() }
    }

    pub(super) fn whole(message: impl Into<String>) -> Self {
        Self { line: None, message: message.into() }
    }
}

impl fmt::Display for InjectError {
    /// `line: message`, to follow the name of the input and a colon.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{line}: {}", self.message),
            None => write!(f, " {}", self.message),
        }
    }
}
