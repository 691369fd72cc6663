//! The dotted path of a key.

use std::fmt;

/// The place of a value in the tree of tables: `route[0].heartbeat.interval`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyPath(Vec<PathStep>);

/// One step down the tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PathStep {
    /// Into a table.
    Key(String),
    /// Into a list.
    Index(usize),
}

/// The kind of entry at the path of a known key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodeKind {
    /// One value.
    Key,
    /// A table of keys.
    Table,
    /// A list of tables.
    List,
}

impl KeyPath {
    /// Returns the path of `key` in the table at this path.
    pub(super) fn key(&self, key: &str) -> Self {
        self.step(PathStep::Key(key.to_owned()))
    }

    /// Returns the path of an element of the list at this path.
    pub(super) fn index(&self, index: usize) -> Self {
        self.step(PathStep::Index(index))
    }

    /// Returns the steps from the root on.
    pub(super) fn steps(&self) -> &[PathStep] {
        &self.0
    }

    /// Returns the path of the enclosing table or list.
    pub(super) fn parent(&self) -> Option<Self> {
        let (_, rest) = self.0.split_last()?;
        Some(Self(rest.to_vec()))
    }

    /// Returns the last step, where it is a key.
    pub(super) fn name(&self) -> Option<&str> {
        match self.0.last()? {
            PathStep::Key(key) => Some(key),
            PathStep::Index(_) => None,
        }
    }

    /// Returns the path without list positions: `route.heartbeat.interval`.
    pub(super) fn keys(&self) -> impl DoubleEndedIterator<Item = &str> + Clone {
        self.0.iter().filter_map(|step| match step {
            PathStep::Key(key) => Some(key.as_str()),
            PathStep::Index(_) => None,
        })
    }

    /// Returns whether it is `other` or leads through it.
    pub(super) fn is_within(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }

    /// Returns whether it leads through a list.
    pub(super) fn in_list(&self) -> bool {
        self.0.iter().any(|step| matches!(step, PathStep::Index(_)))
    }

    /// Returns the header of the table at this path, as TOML has it: `[tls]`, `[[route]]`, `[route.heartbeat]`.
    pub(super) fn header(&self) -> String {
        let keys = self.keys().collect::<Vec<_>>().join(".");
        if matches!(self.0.last(), Some(PathStep::Index(_))) { format!("[[{keys}]]") } else { format!("[{keys}]") }
    }

    fn step(&self, step: PathStep) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

impl<'a> FromIterator<&'a str> for KeyPath {
    fn from_iter<I: IntoIterator<Item = &'a str>>(keys: I) -> Self {
        Self(keys.into_iter().map(|key| PathStep::Key(key.to_owned())).collect())
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                PathStep::Index(index) => write!(f, "[{index}]")?,
                PathStep::Key(key) => {
                    f.write_str(if at > 0 { "." } else { "" })?;
                    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                    if !key.is_empty() && key.chars().all(bare) {
                        f.write_str(key)?;
                    } else {
                        write!(f, "{key:?}")?;
                    }
                }
            }
        }
        Ok(())
    }
}
