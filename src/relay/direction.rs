//! One direction of a session: what one peer sends, on its way to the other.

use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;

use super::control_frames::{ControlFrames, Fate};
use super::flow::{Flow, FlowEnd, InPlace, LastClose};
use super::inbound::{Inbound, Payload, control_len};
use super::leg::Leg;
use super::message_filter::{Sight, Tap};
use super::message_rate::Allowance;
use super::outbound::{Drained, Outbound};
use super::scratch;
use crate::heartbeat::{CloseSpec, Gap, ReadSummary};
use crate::session::{CloseCause, LegClose};
use crate::ws::{Close, ControlFrame, FrameHeader, Limits, Opcode, Piece, Sender};

/// One direction: the bytes of one peer on their way to the other.
#[derive(Debug)]
pub(super) struct Direction {
    pub(super) from: Sender,
    pub(super) inbound: Inbound,
    pub(super) outbound: Outbound,
    pub(super) flow: Flow,
    /// The Close behind everything else that was put into `outbound`.
    pub(super) last: Option<Box<LastClose>>,
    /// The Close that replaces the source's, where that answers one of the proxy's.
    pub(super) in_place: Option<Box<InPlace>>,
    /// The error of the source.
    pub(super) source_error: Option<io::Error>,
    /// The error of the sink.
    pub(super) sink_error: Option<io::Error>,
    /// Set on routes with an application-level heartbeat.
    tap: Option<Box<Tap>>,
    /// The limit on messages, if there is one.
    allowance: Option<Box<Allowance>>,
}

/// The result of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DirectionStep {
    /// Something was read; there may be more.
    More,
    /// Nothing to do until the task is woken.
    Idle,
}

/// The treatment of a piece of a data frame.
enum Passage {
    /// It passes.
    Go,
    /// These bytes pass, which were held back, and then it.
    GoAfter(Vec<u8>),
    /// It does not pass, or not yet.
    Stop,
}

impl Direction {
    pub(super) fn new(from: Sender, limits: Limits, early: Bytes, rules: &ControlFrames, now: Instant) -> Self {
        let tap = rules.needs_messages(from).then(|| Box::new(Tap::new(from)));
        let rate = limits.messages_per_second.filter(|_| from == Sender::Client);
        let allowance = rate.map(|rate| Box::new(Allowance::new(rate, now)));
        Self {
            from,
            inbound: Inbound::new(from, limits, early),
            outbound: Outbound::default(),
            flow: Flow::Open,
            last: None,
            in_place: None,
            source_error: None,
            sink_error: None,
            tap,
            allowance,
        }
    }

    /// Returns whether the sink gets nothing more of the source.
    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.flow, Flow::Closed)
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
        rules: &mut ControlFrames,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<DirectionStep, CloseCause> {
        let drained = self.drain(sink, rules, cx, now);
        if self.is_closed() {
            return Ok(self.discard(source, cx));
        }
        if drained != Drained::Clear || self.inbound.is_silent() {
            if let Some(allowance) = &mut self.allowance {
                allowance.hold_up(now);
            }
            return Ok(DirectionStep::Idle);
        }
        scratch::with(|scratch| match self.inbound.poll_read(source, cx, scratch) {
            Poll::Pending => {
                if let Some(allowance) = &mut self.allowance {
                    allowance.catch_up();
                }
                if self.from == Sender::Client {
                    rules.partial(source.partial());
                }
                Ok(DirectionStep::Idle)
            }
            Poll::Ready(Ok(0)) => Ok(DirectionStep::More),
            Poll::Ready(Ok(filled)) => {
                let bytes = &scratch[..filled];
                // Sessions without a tap pay nothing for it.
                if self.tap.is_none() {
                    self.relay::<T, false>(bytes, sink, rules, cx, now)?;
                } else {
                    self.relay::<T, true>(bytes, sink, rules, cx, now)?;
                    if !self.holds() && !rules.needs_messages(self.from) {
                        self.tap = None;
                    }
                }
                Ok(DirectionStep::More)
            }
            Poll::Ready(Err(error)) => {
                self.source_failed(error);
                Ok(DirectionStep::More)
            }
        })
    }

    /// Returns whether a Close of the proxy's own waits for the end of the frame that is under way.
    #[inline]
    pub(super) fn awaits_gap(&self) -> bool {
        matches!(self.flow, Flow::UntilGap(_))
    }

    /// Returns whether the source's connection was reset.
    pub(super) fn was_reset(&self) -> bool {
        self.source_error.as_ref().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
    }

    /// Closes the direction with `spec` at the next gap, unless it is closed already.
    pub(super) fn await_gap(&mut self, spec: CloseSpec) {
        if !self.is_closed() {
            self.flow = Flow::UntilGap(Box::new(spec));
        }
    }

    /// Closes the direction: what was accepted is still delivered, then `close`, and nothing more. `key` masks a Close
    /// to the app. A direction that is closed already stays as it is.
    pub(super) fn close<T: Leg>(
        &mut self,
        close: LegClose,
        sink: &mut T,
        cx: &mut Context<'_>,
        key: Option<[u8; 4]>,
    ) -> FlowEnd {
        if self.is_closed() {
            return FlowEnd::Whole;
        }
        let gap = self.gap();
        self.flow = Flow::Closed;
        match close {
            LegClose::Gone => self.outbound.break_off(),
            LegClose::Fin => {}
            LegClose::Close(_) if self.outbound.is_broken() => {}
            LegClose::Close(_) if gap.is_none() => return FlowEnd::InsideFrame,
            LegClose::Close(spec) => {
                self.outbound.send(sink, cx, ControlFrame::close(spec.code, &spec.reason, key).as_bytes());
                self.last = Some(Box::new(LastClose { code: spec.code, reason: spec.reason, own: true }));
            }
        }
        FlowEnd::Whole
    }

    /// The code of the Close that was written to the sink.
    pub(super) fn written_close(&self) -> Option<&LastClose> {
        self.last.as_deref().filter(|_| self.outbound.is_clear() && !self.outbound.is_broken())
    }

    /// Puts frames of our own into the stream, as far as they may stand where it stands.
    pub(super) fn inject<T: Leg>(
        &mut self,
        sink: &mut T,
        rules: &mut ControlFrames,
        cx: &mut Context<'_>,
        now: Instant,
    ) {
        if rules.wants_injection(self.from, now)
            && let Some(gap) = self.gap()
        {
            self.put_injections(gap, sink, rules, cx, now);
            self.drain(sink, rules, cx, now);
        }
    }

    /// Returns what may be sent behind the bytes so far; `None`: nothing of the proxy's.
    pub(super) fn gap(&self) -> Option<Gap> {
        if self.is_closed() || self.outbound.is_broken() {
            return None;
        }
        // Nothing of a message that is held back has been sent.
        if self.inbound.scanner.between_messages() || self.holds() {
            return Some(Gap::Message);
        }
        self.inbound.scanner.at_boundary().then_some(Gap::Frame)
    }

    /// Returns whether a part of a message is held back.
    fn holds(&self) -> bool {
        self.tap.as_ref().is_some_and(|tap| tap.holds())
    }

    fn put_injections<T: Leg>(
        &mut self,
        gap: Gap,
        sink: &mut T,
        rules: &mut ControlFrames,
        cx: &mut Context<'_>,
        now: Instant,
    ) {
        while let Some(frame) = rules.injection(self.from, gap, now) {
            self.outbound.send(sink, cx, frame.as_bytes());
        }
    }

    /// Gets out what waits, and lets the rules know how that went.
    pub(super) fn drain<T: Leg>(
        &mut self,
        sink: &mut T,
        rules: &mut ControlFrames,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Drained {
        let drained = self.outbound.drain(sink, cx).unwrap_or_else(|error| {
            self.outbound.break_off();
            self.sink_error.get_or_insert(error);
            Drained::Clear
        });
        rules.drained(self.from, drained, now, sink);
        drained
    }

    /// Reads once and throws away what was read, looking only for the source's Close: with bytes left unread in its
    /// socket, closing that would reset the connection before the peer has read our Close.
    fn discard<S: Leg>(&mut self, source: &mut S, cx: &mut Context<'_>) -> DirectionStep {
        if self.inbound.ended {
            return DirectionStep::Idle;
        }
        let inbound = &mut self.inbound;
        let read = scratch::with(|scratch| {
            // Discarded bytes do not count as traffic.
            let traffic = inbound.traffic;
            let read = inbound.poll_read(source, cx, scratch);
            inbound.traffic = traffic;
            if let Poll::Ready(Ok(filled)) = read {
                inbound.seek_close(&scratch[..filled]);
            }
            read
        });
        match read {
            Poll::Pending => return DirectionStep::Idle,
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(error)) => self.source_failed(error),
        }
        DirectionStep::More
    }

    /// Walks the frames of `bytes`. What passes is sent in as few writes as possible, straight from the buffer.
    fn relay<T: Leg, const TAPPED: bool>(
        &mut self,
        bytes: &[u8],
        sink: &mut T,
        rules: &mut ControlFrames,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<(), CloseCause> {
        let (mut run, mut at) = (0, 0);
        let mut seen = ReadSummary::default();
        let outcome = loop {
            // Nothing may follow a Close (RFC 6455 §5.5.1).
            if self.is_closed() {
                self.inbound.seek_close(&bytes[at..]);
                break Ok(());
            }
            if let Some(allowance) = &mut self.allowance
                && self.inbound.scanner.begins_message(&bytes[at..])
                && !allowance.take(now)
            {
                break Err(CloseCause::MessageFlood);
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
                                // Whole frames were held, unless this continues the last of them.
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
                    // The answers due to the client go before the app's Close.
                    if header.opcode == Opcode::CLOSE && self.from == Sender::Server && rules.has_pending_replies() {
                        self.outbound.send(sink, cx, &bytes[run..at]);
                        run = at;
                        self.put_answers(sink, rules, cx);
                    }
                    match self.control(&header, &bytes[at..end], rules, now) {
                        Ok(Fate::Pass) => {
                            if TAPPED && self.is_closed() {
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
                    break Ok(());
                }
                Err(violation) => {
                    self.inbound.violated = true;
                    break Err(CloseCause::Violation { by: self.from, violation });
                }
            }
            if self.awaits_gap() && self.gap().is_some() {
                self.outbound.send(sink, cx, &bytes[run..at]);
                run = at;
                self.close_at_gap(sink, rules, cx);
                continue;
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
            Sender::Server => rules.app_message(now, seen),
        }
        outcome
    }

    /// Shows a piece of a data frame to the tap, and asks the rules where that makes a message known.
    fn tapped(
        &mut self,
        piece: &[u8],
        starts_frame: bool,
        ends_message: bool,
        rules: &mut ControlFrames,
        now: Instant,
    ) -> Result<Passage, CloseCause> {
        let Some((tap, listener)) = self.tap.as_mut().zip(rules.listener.as_mut()) else { return Ok(Passage::Go) };
        let held = match tap.piece(piece, starts_frame, ends_message, listener) {
            Sight::Pass => return Ok(Passage::Go),
            Sight::Hold => return Ok(Passage::Stop),
            Sight::Release => tap.take_held(),
            Sight::Message(kind) => match rules.message(self.from, kind, now)? {
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

    fn control(
        &mut self,
        header: &FrameHeader,
        frame: &[u8],
        rules: &mut ControlFrames,
        now: Instant,
    ) -> Result<Fate, CloseCause> {
        let payload = Payload::of(header, frame);
        if header.opcode == Opcode::CLOSE {
            let close = payload.close().map_err(|violation| {
                self.inbound.violated = true;
                CloseCause::Violation { by: self.from, violation }
            })?;
            return Ok(self.closed(&close, rules));
        }
        rules.control(self.from, header.opcode, payload.as_bytes(), now)
    }

    /// The source has sent its Close.
    fn closed(&mut self, close: &Close<'_>, rules: &mut ControlFrames) -> Fate {
        let code = close.code.unwrap_or(1005);
        self.inbound.close = Some(code);
        self.flow = Flow::Closed;
        rules.closed(self.from, close);
        match self.in_place.take().filter(|in_place| in_place.of.is_none_or(|of| of == code)) {
            Some(in_place) => {
                let CloseSpec { code, reason } = in_place.replacement;
                let frame = ControlFrame::close(code, &reason, rules.key_for_sink_of(self.from));
                self.last = Some(Box::new(LastClose { code, reason, own: true }));
                Fate::Replace(frame)
            }
            None => {
                self.last = Some(Box::new(LastClose { code, reason: close.reason.into(), own: false }));
                Fate::Pass
            }
        }
    }

    /// Puts the Close that waits for a gap where the stream stands now, if that is one.
    pub(super) fn close_at_gap<T: Leg>(&mut self, sink: &mut T, rules: &mut ControlFrames, cx: &mut Context<'_>) {
        if self.gap().is_some()
            && let Flow::UntilGap(spec) = std::mem::replace(&mut self.flow, Flow::Open)
        {
            self.close(LegClose::Close(*spec), sink, cx, rules.key_for_sink_of(self.from));
        }
    }

    /// Puts the answers that the client is still owed, where a message may stand.
    fn put_answers<T: Leg>(&mut self, sink: &mut T, rules: &mut ControlFrames, cx: &mut Context<'_>) {
        while self.gap() == Some(Gap::Message)
            && let Some(answer) = rules.answer()
        {
            self.outbound.send(sink, cx, answer.as_bytes());
        }
    }

    fn source_failed(&mut self, error: io::Error) {
        self.inbound.ended = true;
        self.source_error.get_or_insert(error);
    }
}
