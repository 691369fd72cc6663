//! The end of a leg: Close → keep draining reads → FIN → RST.

use std::pin::Pin;
use std::task::{Context, Poll};

use super::Leg;
use super::cause::Farewell;
use super::direction::Direction;
use super::inbound::Inbound;
use super::outbound::{Drained, Outbound};
use super::scratch;
use crate::heartbeat::CloseSpec;
use crate::ws::ControlFrame;

/// How far one leg's end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// A Close is on its way out; what comes in is thrown away until the peer's Close.
    Closing,
    /// What waits goes out, then FIN.
    Finishing,
    /// FIN is out; what comes in is thrown away until the peer's end.
    Finished,
    /// Nothing is left to do.
    Done,
}

/// The end of one leg.
#[derive(Debug)]
pub(super) struct LegEnd {
    stage: Stage,
    /// The Close that we sent.
    pub(super) sent: Option<CloseSpec>,
}

impl LegEnd {
    /// Begins the end of the leg that `towards` writes to. `key` masks a Close to the app.
    pub(super) fn begin<L: Leg>(
        farewell: Farewell,
        towards: &mut Direction,
        leg: &mut L,
        cx: &mut Context<'_>,
        key: Option<[u8; 4]>,
    ) -> Self {
        let stage = match farewell {
            Farewell::Gone => Stage::Done,
            _ if towards.outbound.is_broken() => Stage::Done,
            Farewell::Close(spec) if towards.gap().is_some() => {
                let frame = ControlFrame::close(spec.code, &spec.reason, key);
                towards.outbound.send(leg, cx, frame.as_bytes());
                return Self { stage: Stage::Closing, sent: Some(spec) };
            }
            // Half a frame is out towards the client: neither a Close nor an orderly end can be put there.
            Farewell::Close(_) if key.is_none() && !towards.inbound.scanner.at_boundary() => {
                leg.abort_on_drop();
                Stage::Done
            }
            // The other peer's Close has gone out: its answer is waited for.
            _ if towards.inbound.close.is_some() => Stage::Closing,
            Farewell::Close(_) | Farewell::Fin => Stage::Finishing,
        };
        Self { stage, sent: None }
    }

    /// Drives the leg towards its end; `true` once it is reached.
    pub(super) fn drive<L: Leg>(
        &mut self,
        leg: &mut L,
        outbound: &mut Outbound,
        inbound: &mut Inbound,
        cx: &mut Context<'_>,
    ) -> bool {
        loop {
            let next = match self.stage {
                Stage::Done => return true,
                Stage::Closing | Stage::Finishing => {
                    discard(leg, inbound, cx);
                    match outbound.drain(leg, cx) {
                        Err(_) => Stage::Done,
                        Ok(Drained::Blocked { .. }) => return false,
                        Ok(Drained::Clear) if self.awaits_close(inbound) => return false,
                        Ok(Drained::Clear) => match Pin::new(&mut *leg).poll_shutdown(cx) {
                            Poll::Pending => return false,
                            Poll::Ready(Ok(())) => Stage::Finished,
                            Poll::Ready(Err(_)) => Stage::Done,
                        },
                    }
                }
                Stage::Finished => {
                    discard(leg, inbound, cx);
                    if !inbound.ended {
                        return false;
                    }
                    Stage::Done
                }
            };
            self.stage = next;
        }
    }

    /// The grace is over: FIN if it can still go, then RST.
    pub(super) fn cut<L: Leg>(&mut self, leg: &mut L, cx: &mut Context<'_>) {
        if self.stage != Stage::Done {
            // Whether FIN goes out or not, the drop that follows resets.
            let _ = Pin::new(&mut *leg).poll_shutdown(cx);
            leg.abort_on_drop();
            self.stage = Stage::Done;
        }
    }

    fn awaits_close(&self, inbound: &Inbound) -> bool {
        self.stage == Stage::Closing && inbound.close.is_none() && !inbound.ended
    }
}

/// Reads and throws away what the peer still sends, looking only for its Close: with bytes left unread in the
/// socket, closing it would reset the connection before the peer has read our Close.
fn discard<L: Leg>(leg: &mut L, inbound: &mut Inbound, cx: &mut Context<'_>) {
    while !inbound.ended {
        let read = scratch::with(|scratch| {
            let read = inbound.poll_read(leg, cx, scratch);
            if let Poll::Ready(Ok(filled)) = read {
                inbound.seek_close(&scratch[..filled]);
            }
            read
        });
        match read {
            Poll::Pending => return,
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(_)) => inbound.ended = true,
        }
    }
}
