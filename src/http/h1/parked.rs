//! A connection that is kept without anything to do: its stream, and no buffer of any kind.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, ready};

use bytes::Bytes;
use tokio::io::ReadBuf;

use crate::http::edge::Edge;
use crate::http::lingering_close;
use crate::http::peer::Peer;
use crate::relay::Leg;
use crate::suspension::{Deadline, within};

/// Bytes of the next request that are read before its connection goes back to hyper, which reads the others.
const FIRST_READ: usize = 2048;

/// Waits for the next request until `deadline`, or until the proxy drains; then closes the connection. `resume` serves it
/// with the first bytes of that request, in a task of its own.
pub(super) async fn wait<C, F>(
    mut stream: C,
    peer: Peer,
    edge: Arc<Edge>,
    deadline: Deadline,
    resume: impl FnOnce(C, Bytes, Peer, Arc<Edge>) -> F,
) where
    C: Leg + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let first = {
        let next = pin!(first_bytes(&mut stream));
        tokio::select! {
            biased;
            first = within(deadline, next) => first.ok().flatten(),
            () = edge.closing() => None,
        }
    };
    match first {
        Some(first) => drop(edge.tracker.spawn(resume(stream, first, peer, Arc::clone(&edge)))),
        None => lingering_close::close(&mut stream).await,
    }
}

/// Reads what arrives first; `None` at the end of the connection.
async fn first_bytes<C: Leg>(stream: &mut C) -> Option<Bytes> {
    poll_fn(|cx| {
        // On the stack: nothing is held while nothing comes.
        let mut space = [0; FIRST_READ];
        let mut read = ReadBuf::new(&mut space);
        let result = ready!(Pin::new(&mut *stream).poll_read(cx, &mut read));
        let first = read.filled();
        Poll::Ready((result.is_ok() && !first.is_empty()).then(|| Bytes::copy_from_slice(first)))
    })
    .await
}
