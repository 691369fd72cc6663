//! The state of one direction, and the way in which it was closed.

use crate::heartbeat::CloseSpec;

/// The part of the source's bytes that the sink still gets.
#[derive(Debug)]
pub(super) enum Flow {
    /// Everything.
    Open,
    /// Everything up to the next gap between two frames, and there a Close of the proxy's own.
    UntilGap(Box<CloseSpec>),
    /// Nothing: a Close or the end of the stream was sent. Further bytes of the source are read and discarded.
    Closed,
}

/// The Close that ends a direction.
#[derive(Debug)]
pub(super) struct LastClose {
    /// Its code, 1005 for none.
    pub(super) code: u16,
    pub(super) reason: Box<str>,
    /// True if it is the proxy's own.
    pub(super) own: bool,
}

/// A Close in place of the source's.
#[derive(Debug)]
pub(super) struct InPlace {
    /// The code that the source was sent, if another code of the source is to pass.
    pub(super) of: Option<u16>,
    pub(super) replacement: CloseSpec,
}

/// The way in which a direction was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlowEnd {
    /// Whole frames were sent, and behind them the Close, if there is one.
    Whole,
    /// The sink has the beginning of a frame whose end it will not get, and no Close.
    InsideFrame,
}
