//! What may still go in one direction, and how it was closed.

use crate::heartbeat::CloseSpec;

/// What the sink still gets of what the source sends.
#[derive(Debug)]
pub(super) enum Flow {
    /// Everything.
    Open,
    /// Everything up to the next gap between two frames, and there a Close of the proxy's own.
    UntilGap(Box<CloseSpec>),
    /// Nothing: a Close or the end of the stream was put behind what was sent. What the source still sends is read and
    /// discarded.
    Closed,
}

/// The Close that ends a direction.
#[derive(Debug)]
pub(super) struct LastClose {
    /// Its code, 1005 for none.
    pub(super) code: u16,
    pub(super) reason: Box<str>,
    /// Whether it is the proxy's own.
    pub(super) own: bool,
}

/// A Close in place of the source's.
#[derive(Debug)]
pub(super) struct InPlace {
    /// The code that the source was sent, where one that says something else passes.
    pub(super) of: Option<u16>,
    pub(super) replacement: CloseSpec,
}

/// How a direction was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// Everything that was sent are whole frames; the Close, where there is one, is behind them.
    Whole,
    /// The sink has the beginning of a frame whose end it will not get, and no Close.
    InsideFrame,
}
