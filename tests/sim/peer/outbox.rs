//! The queue of an end, and the task that writes it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, WriteHalf};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::{Io, Side};
use crate::transport::now;

/// The bytes that are written between two checks for a stop of the process, at most: a whole TLS record.
const PIECE: usize = 16 * 1024;

/// The queue of bytes that an end has to send.
pub struct Outbox {
    side: Side,
    /// The start and the end of the stop of this end's process.
    stop: Option<(Duration, Duration)>,
    parts: RefCell<VecDeque<Vec<u8>>>,
    waiting: Cell<usize>,
    /// The bytes of a piece and the time between two, where it writes slowly.
    pace: Cell<Option<(usize, Duration)>>,
    is_finished: Cell<bool>,
    changed: Notify,
    masks: Cell<u32>,
}

impl Outbox {
    pub fn new(side: Side, stop: Option<(Duration, Duration)>) -> Self {
        Self {
            side,
            stop,
            parts: RefCell::default(),
            waiting: Cell::new(0),
            pace: Cell::default(),
            is_finished: Cell::default(),
            changed: Notify::new(),
            masks: Cell::new(0x9E37_79B9),
        }
    }

    /// Waits while the process is stopped.
    pub async fn stopped(&self) {
        if let Some((from, until)) = self.stop
            && (from..until).contains(&now())
        {
            sleep(until - now()).await;
        }
    }

    /// Returns the mask of the next frame; a server's has none (RFC 6455 §5.1).
    pub fn mask(&self) -> Option<[u8; 4]> {
        if self.side == Side::App {
            return None;
        }
        let mask = self.masks.get().wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.masks.set(mask);
        Some(mask.to_be_bytes())
    }

    pub fn push(&self, bytes: Vec<u8>) {
        if !self.is_finished.get() {
            self.waiting.set(self.waiting.get() + bytes.len());
            self.parts.borrow_mut().push_back(bytes);
            self.changed.notify_one();
        }
    }

    /// Returns the number of bytes that wait to be written.
    pub fn waiting(&self) -> usize {
        self.waiting.get()
    }

    /// Writes what follows in pieces of `piece` bytes, one in each `every`.
    pub fn trickle(&self, piece: usize, every: Duration) {
        self.pace.set(Some((piece, every)));
    }

    /// Ends the stream behind the waiting bytes.
    pub fn finish(&self) {
        self.is_finished.set(true);
        self.changed.notify_one();
    }

    pub fn is_finished(&self) -> bool {
        self.is_finished.get()
    }

    /// Writes until the stream is to end, or the other end takes no more.
    pub async fn write_to(self: Rc<Self>, mut io: WriteHalf<Box<dyn Io>>) {
        loop {
            let part = self.parts.borrow_mut().pop_front();
            let Some(part) = part else {
                if self.is_finished.get() {
                    let _ = io.shutdown().await;
                    return;
                }
                self.changed.notified().await;
                continue;
            };
            // Small frames share a write, as they do behind Nagle's algorithm.
            let mut part = part;
            while part.len() < PIECE
                && let Some(next) = self.parts.borrow_mut().pop_front()
            {
                part.extend(next);
            }
            let mut rest = &part[..];
            while !rest.is_empty() {
                self.stopped().await;
                let piece = self.pace.get().map_or(PIECE, |(piece, _)| piece).min(rest.len());
                if io.write_all(&rest[..piece]).await.is_err() {
                    return;
                }
                self.waiting.set(self.waiting.get() - piece);
                rest = &rest[piece..];
                if let Some((_, every)) = self.pace.get()
                    && !rest.is_empty()
                {
                    sleep(every).await;
                }
            }
            let _ = io.flush().await;
        }
    }
}
