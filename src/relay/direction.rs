//! One direction of a session: what one peer sends, on its way to the other.

use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;

use super::cause::Cause;
use super::inbound::{Inbound, Payload, control_len};
use super::outbound::{Drained, Outbound};
use super::rules::{Fate, Rules};
use super::{Leg, scratch};
use crate::ws::{Header, Limits, Opcode, Piece, Sender};

/// What one peer sends, on its way to the other.
#[derive(Debug)]
pub(super) struct Direction {
    pub(super) from: Sender,
    pub(super) inbound: Inbound,
    pub(super) outbound: Outbound,
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Something was read; there may be more.
    More,
    /// Nothing to do until the task is woken.
    Idle,
}

impl Direction {
    pub(super) fn new(from: Sender, limits: Limits, early: Bytes) -> Self {
        Self { from, inbound: Inbound::new(from, limits, early), outbound: Outbound::default() }
    }

    /// Gets out what waits, then reads once and relays what was read. While anything waits nothing is read: that is
    /// the backpressure.
    pub(super) fn step<S: Leg, T: Leg>(
        &mut self,
        (source, sink): (&mut S, &mut T),
        rules: &mut Rules,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<Step, Cause> {
        if self.drain(sink, rules, cx, now)? != Drained::Clear || self.inbound.ended {
            return Ok(Step::Idle);
        }
        scratch::with(|scratch| match self.inbound.poll_read(source, cx, scratch) {
            Poll::Pending => Ok(Step::Idle),
            Poll::Ready(Ok(0)) => Ok(Step::More),
            Poll::Ready(Ok(filled)) => self.relay(&scratch[..filled], sink, rules, cx, now).map(|()| Step::More),
            Poll::Ready(Err(error)) => self.source_failed(&error),
        })
    }

    /// Puts frames of our own into the stream, if it stands at a frame boundary.
    pub(super) fn inject<T: Leg>(
        &mut self,
        sink: &mut T,
        rules: &mut Rules,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<(), Cause> {
        if rules.wants_injection(self.from, now) && self.may_inject() {
            self.put_injections(sink, rules, cx, now);
            self.drain(sink, rules, cx, now)?;
        }
        Ok(())
    }

    /// Whether a control frame may stand behind what has been sent so far.
    pub(super) fn may_inject(&self) -> bool {
        self.inbound.scanner.at_boundary() && self.inbound.close.is_none() && !self.outbound.is_broken()
    }

    fn put_injections<T: Leg>(&mut self, sink: &mut T, rules: &mut Rules, cx: &mut Context<'_>, now: Instant) {
        while let Some(frame) = rules.injection(self.from, now) {
            self.outbound.send(sink, cx, frame.as_bytes());
        }
    }

    /// Gets out what waits, and lets the rules know how that went.
    fn drain<T: Leg>(
        &mut self,
        sink: &mut T,
        rules: &mut Rules,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<Drained, Cause> {
        let drained = match self.outbound.drain(sink, cx) {
            Ok(drained) => drained,
            Err(error) => {
                self.sink_failed(&error)?;
                Drained::Clear
            }
        };
        rules.drained(self.from, drained, now, sink);
        Ok(drained)
    }

    /// Walks the frames of `bytes`. What passes is sent in as few writes as possible, straight from the buffer.
    fn relay<T: Leg>(
        &mut self,
        bytes: &[u8],
        sink: &mut T,
        rules: &mut Rules,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<(), Cause> {
        let (mut run, mut at) = (0, 0);
        let mut ended_frame = false;
        // Nothing may follow a Close (RFC 6455 §5.5.1); what does is thrown away.
        let outcome = loop {
            if self.inbound.close.is_some() {
                break Ok(at);
            }
            match self.inbound.scanner.next(&bytes[at..]) {
                Ok(Some(Piece::Data { len, ends_frame, ends_message })) => {
                    at += len;
                    ended_frame |= ends_frame;
                    self.inbound.traffic.messages += u64::from(ends_message);
                }
                Ok(Some(Piece::Control(header))) => {
                    let end = at + control_len(&header);
                    ended_frame = true;
                    match self.control(&header, &bytes[at..end], rules, now) {
                        Ok(Fate::Pass) => {}
                        Ok(Fate::Drop) => {
                            self.outbound.send(sink, cx, &bytes[run..at]);
                            run = end;
                        }
                        Ok(Fate::Replace(frame)) => {
                            self.outbound.send(sink, cx, &bytes[run..at]);
                            self.outbound.send(sink, cx, frame.as_bytes());
                            run = end;
                        }
                        Err(cause) => break Err(cause),
                    }
                    at = end;
                }
                Ok(None) => {
                    self.inbound.keep(&bytes[at..]);
                    break Ok(at);
                }
                Err(violation) => break Err(Cause::Violation { by: self.from, violation }),
            }
            if rules.wants_injection(self.from, now) && self.may_inject() {
                self.outbound.send(sink, cx, &bytes[run..at]);
                run = at;
                self.put_injections(sink, rules, cx, now);
            }
        };
        self.outbound.send(sink, cx, &bytes[run..at]);
        match self.from {
            Sender::Client => rules.engine.read(now, ended_frame, self.inbound.inside_frame()),
            Sender::Server => rules.heard_app(now),
        }
        outcome.map(|_| ())
    }

    fn control(&mut self, header: &Header, frame: &[u8], rules: &mut Rules, now: Instant) -> Result<Fate, Cause> {
        let payload = Payload::of(header, frame);
        if header.opcode == Opcode::CLOSE {
            let close = payload.close().map_err(|violation| Cause::Violation { by: self.from, violation })?;
            self.inbound.close = Some(rules.closed(self.from, close));
            return Ok(Fate::Pass);
        }
        rules.control(self.from, header.opcode, payload.as_bytes(), now)
    }

    fn sink_failed(&mut self, error: &io::Error) -> Result<(), Cause> {
        self.outbound.break_off();
        match self.from {
            // The app may have said its last words; they are still read.
            Sender::Client => Ok(()),
            Sender::Server => Err(Cause::client_lost(error)),
        }
    }

    fn source_failed(&mut self, error: &io::Error) -> Result<Step, Cause> {
        match self.from {
            Sender::Client => Err(Cause::client_lost(error)),
            Sender::Server => {
                self.inbound.ended = true;
                Ok(Step::More)
            }
        }
    }
}
