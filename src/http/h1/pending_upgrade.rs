//! The upgrade that a request on a connection has offered, until hyper parts with the stream.
//!
//! A hyper service returns a response, and the stream is free only when the 101 is written. What is to follow waits here.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;

use super::io::Io;
use crate::http::edge::Edge;
use crate::http::lingering_close;
use crate::relay::Leg;
use crate::upgrade::{self, PreparedSession};

/// The upgrade offered by the latest request of a connection that offered one.
#[derive(Debug, Default)]
pub(super) struct PendingUpgrade(Mutex<Option<Offered>>);

#[derive(Debug)]
struct Offered {
    /// The stream, once hyper parts with it. hyper does so rather than close the connection, whatever the answer was.
    stream: OnUpgrade,
    /// The session behind a 101; `None` while the upgrade is not accepted.
    session: Option<Box<PreparedSession>>,
}

impl PendingUpgrade {
    /// Keeps the stream of a request that offers an upgrade.
    pub(super) fn offer(&self, stream: OnUpgrade) {
        *self.lock() = Some(Offered { stream, session: None });
    }

    /// Keeps the session that begins once the 101 is written.
    pub(super) fn accept(&self, session: Box<PreparedSession>) {
        if let Some(offered) = &mut *self.lock() {
            offered.session = Some(session);
        }
    }

    /// Starts the session of an accepted upgrade, or closes the connection; called when hyper has parted with the stream.
    pub(super) async fn finish<C: Leg + Send + 'static>(&self, edge: &Edge) {
        let Some(Offered { stream, session }) = self.lock().take() else { return };
        let Some((mut stream, early)) = regain::<C>(stream).await else { return };
        match session {
            Some(session) => edge.sessions.start(stream, early, *session),
            None => lingering_close::close(&mut stream).await,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Offered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the stream out of hyper, with the bytes that were read too early.
async fn regain<C: Leg + Send + 'static>(stream: OnUpgrade) -> Option<(C, Bytes)> {
    let (io, early) = upgrade::take_upgraded_stream::<Io<C>>(stream).await?;
    let (stream, rest) = io.into_parts();
    Some((stream, rest.into_bytes(&early)))
}
