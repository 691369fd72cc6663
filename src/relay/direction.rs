//! One direction of a session: what one peer sends, on its way to the other.

use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;

use super::allowance::Allowance;
use super::cause::Cause;
use super::inbound::{Inbound, Payload, control_len};
use super::outbound::{Drained, Outbound};
use super::rules::{Fate, Rules};
use super::tap::{Sight, Tap};
use super::{Leg, scratch};
use crate::heartbeat::{Gap, Seen};
use crate::ws::{Header, Limits, Opcode, Piece, Sender};

/// What one peer sends, on its way to the other.
#[derive(Debug)]
pub(super) struct Direction {
    pub(super) from: Sender,
    pub(super) inbound: Inbound,
    pub(super) outbound: Outbound,
    /// Where the heartbeat is made of messages.
    tap: Option<Box<Tap>>,
    /// How many messages may come, where that is limited.
    allowance: Option<Box<Allowance>>,
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Something was read; there may be more.
    More,
    /// Nothing to do until the task is woken.
    Idle,
}

/// What is to become of a piece of a data frame.
enum Passage {
    /// It passes.
    Go,
    /// These bytes pass, which were held back, and then it.
    GoAfter(Vec<u8>),
    /// It does not pass, or not yet.
    Stop,
}

impl Direction {
    pub(super) fn new(from: Sender, limits: Limits, early: Bytes, rules: &Rules, now: Instant) -> Self {
        let tap = rules.attends(from).then(|| Box::new(Tap::new(from)));
        let rate = limits.messages_per_second.filter(|_| from == Sender::Client);
        let allowance = rate.map(|rate| Box::new(Allowance::new(rate, now)));
        Self { from, inbound: Inbound::new(from, limits, early), outbound: Outbound::default(), tap, allowance }
    }

    /// The memory that is taken by what could not pass yet.
    #[inline]
    pub(super) fn kept(&self) -> usize {
        self.outbound.kept() + self.tap.as_ref().map_or(0, |tap| tap.kept())
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
        if self.drain(sink, rules, cx, now)? != Drained::Clear || self.inbound.is_silent() {
            if let Some(allowance) = &mut self.allowance {
                allowance.hold_up(now);
            }
            return Ok(Step::Idle);
        }
        scratch::with(|scratch| match self.inbound.poll_read(source, cx, scratch) {
            Poll::Pending => {
                if let Some(allowance) = &mut self.allowance {
                    allowance.catch_up();
                }
                Ok(Step::Idle)
            }
            Poll::Ready(Ok(0)) => Ok(Step::More),
            Poll::Ready(Ok(filled)) => {
                let bytes = &scratch[..filled];
                // Who has no tap does not pay for one.
                if self.tap.is_none() {
                    self.relay::<T, false>(bytes, sink, rules, cx, now)?;
                } else {
                    self.relay::<T, true>(bytes, sink, rules, cx, now)?;
                    if !self.holds() && !rules.attends(self.from) {
                        self.tap = None;
                    }
                }
                Ok(Step::More)
            }
            Poll::Ready(Err(error)) => self.source_failed(&error),
        })
    }

    /// Puts frames of our own into the stream, as far as they may stand where it stands.
    pub(super) fn inject<T: Leg>(
        &mut self,
        sink: &mut T,
        rules: &mut Rules,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<(), Cause> {
        if rules.wants_injection(self.from, now)
            && let Some(gap) = self.gap()
        {
            self.put_injections(gap, sink, rules, cx, now);
            self.drain(sink, rules, cx, now)?;
        }
        Ok(())
    }

    /// What may stand behind the bytes that have been sent so far; `None`: nothing of ours.
    pub(super) fn gap(&self) -> Option<Gap> {
        if self.inbound.close.is_some() || self.outbound.is_broken() {
            return None;
        }
        // Nothing of a message that is held back has been sent.
        if self.inbound.scanner.between_messages() || self.holds() {
            return Some(Gap::Message);
        }
        self.inbound.scanner.at_boundary().then_some(Gap::Frame)
    }

    /// Whether a part of a message is held back.
    fn holds(&self) -> bool {
        self.tap.as_ref().is_some_and(|tap| tap.holds())
    }

    fn put_injections<T: Leg>(
        &mut self,
        gap: Gap,
        sink: &mut T,
        rules: &mut Rules,
        cx: &mut Context<'_>,
        now: Instant,
    ) {
        while let Some(frame) = rules.injection(self.from, gap, now) {
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
    fn relay<T: Leg, const TAPPED: bool>(
        &mut self,
        bytes: &[u8],
        sink: &mut T,
        rules: &mut Rules,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<(), Cause> {
        let (mut run, mut at) = (0, 0);
        let mut seen = Seen::default();
        // Nothing may follow a Close (RFC 6455 §5.5.1); what does is thrown away.
        let outcome = loop {
            if self.inbound.close.is_some() {
                break Ok(at);
            }
            if let Some(allowance) = &mut self.allowance
                && self.inbound.scanner.begins_message(&bytes[at..])
                && !allowance.take(now)
            {
                break Err(Cause::MessageFlood);
            }
            let starts_frame = TAPPED && self.inbound.scanner.at_boundary();
            match self.inbound.scanner.next(&bytes[at..]) {
                Ok(Some(Piece::Data { len, payload, ends_frame, ends_message })) => {
                    let from = at;
                    at += len;
                    seen.data = true;
                    self.inbound.traffic.messages += u64::from(ends_message);
                    self.inbound.traffic.payload += payload as u64;
                    if TAPPED {
                        let piece = &bytes[from..at];
                        match self.tapped(piece, starts_frame, ends_message, rules, now) {
                            Ok(Passage::Go) => {}
                            Ok(Passage::GoAfter(held)) => {
                                self.outbound.send(sink, cx, &held);
                                // What was held were whole frames, unless this goes on with the last of them.
                                seen.ended_frame |= starts_frame;
                            }
                            Ok(Passage::Stop) => {
                                self.outbound.send(sink, cx, &bytes[run..from]);
                                run = at;
                            }
                            Err(cause) => {
                                // The message that was too much must not pass, and of one that was held back not a part.
                                at = from;
                                break Err(cause);
                            }
                        }
                    }
                    // A message that is held back is one long frame: what takes too long is its whole.
                    seen.ended_frame |= ends_frame && !(TAPPED && self.holds());
                }
                Ok(Some(Piece::Control(header))) => {
                    let end = at + control_len(&header);
                    seen.ended_frame |= !(TAPPED && self.holds());
                    match self.control(&header, &bytes[at..end], rules, now) {
                        Ok(Fate::Pass) => {
                            if TAPPED && self.inbound.close.is_some() {
                                self.release(sink, cx);
                            }
                        }
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
            if rules.wants_injection(self.from, now)
                && let Some(gap) = self.gap()
            {
                self.outbound.send(sink, cx, &bytes[run..at]);
                run = at;
                self.put_injections(gap, sink, rules, cx, now);
            }
        };
        self.outbound.send(sink, cx, &bytes[run..at]);
        seen.inside_frame = self.inbound.inside_frame() || TAPPED && self.holds();
        match self.from {
            Sender::Client => rules.engine.read(now, seen),
            Sender::Server => rules.heard_app(now, seen),
        }
        outcome.map(|_| ())
    }

    /// Shows a piece of a data frame to the tap, and asks the rules where that makes a message known.
    fn tapped(
        &mut self,
        piece: &[u8],
        starts_frame: bool,
        ends_message: bool,
        rules: &mut Rules,
        now: Instant,
    ) -> Result<Passage, Cause> {
        let Some((tap, listener)) = self.tap.as_mut().zip(rules.listener.as_mut()) else { return Ok(Passage::Go) };
        let held = match tap.piece(piece, starts_frame, ends_message, listener) {
            Sight::Pass => return Ok(Passage::Go),
            Sight::Hold => return Ok(Passage::Stop),
            Sight::Release => tap.take_held(),
            Sight::Heard(heard) => match rules.heard(self.from, heard, now)? {
                Fate::Pass => tap.take_held(),
                Fate::Drop | Fate::Replace(_) => {
                    tap.end();
                    return Ok(Passage::Stop);
                }
            },
        };
        tap.pass(ends_message);
        Ok(if held.is_empty() { Passage::Go } else { Passage::GoAfter(held) })
    }

    /// A Close has come in the middle of a message that is held back: that is all there will be of it.
    fn release<T: Leg>(&mut self, sink: &mut T, cx: &mut Context<'_>) {
        if let Some(tap) = &mut self.tap {
            let held = tap.take_held();
            self.outbound.send(sink, cx, &held);
        }
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
                self.inbound.reset = error.kind() == io::ErrorKind::ConnectionReset;
                Ok(Step::More)
            }
        }
    }
}
