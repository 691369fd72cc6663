//! The read buffer that belongs to the worker thread, not to a session: an idle session holds no buffer.

use std::cell::Cell;

use crate::ws::Scanner;

/// The most that is read at once.
pub(super) const CHUNK: usize = 64 * 1024;
/// Bytes left over from the last read go in front of the next one.
const SIZE: usize = Scanner::MAX_REST + CHUNK;

thread_local! {
    static SCRATCH: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// Lends this worker's scratch buffer of [`Scanner::MAX_REST`] + [`CHUNK`] bytes to `f`. What is in it is left over
/// from others.
pub(super) fn with<R>(f: impl FnOnce(&mut [u8]) -> R) -> R {
    let mut buffer = SCRATCH.take().unwrap_or_else(|| vec![0; SIZE].into_boxed_slice());
    let result = f(&mut buffer);
    SCRATCH.set(Some(buffer));
    result
}
