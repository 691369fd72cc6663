//! The read buffer that belongs to the worker thread, not to a session: an idle session holds no buffer.

use std::cell::Cell;

/// The most that is read at once.
pub(super) const CHUNK: usize = 64 * 1024;

thread_local! {
    static SCRATCH: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// Lends this worker's scratch buffer of `headroom` + [`CHUNK`] bytes to `f`. What is in it is left over from others.
pub(super) fn with<R>(headroom: usize, f: impl FnOnce(&mut [u8]) -> R) -> R {
    let size = headroom + CHUNK;
    let mut buffer =
        SCRATCH.take().filter(|buffer| buffer.len() >= size).unwrap_or_else(|| vec![0; size].into_boxed_slice());
    let result = f(&mut buffer[..size]);
    SCRATCH.set(Some(buffer));
    result
}
