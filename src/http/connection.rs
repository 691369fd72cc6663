//! One client connection, as its requests see it.

use std::sync::{Arc, Mutex, PoisonError};

use super::edge::Edge;
use super::peer::Peer;
use super::worker_config::WorkerConfig;

/// One client connection, as a request sees it; in HTTP/2 each stream has its own.
#[derive(Debug)]
pub(super) struct ClientConnection {
    pub(super) peer: Peer,
    pub(super) edge: Arc<Edge>,
    pub(super) rules: Arc<WorkerConfig>,
}

impl ClientConnection {
    /// The connection as its first request sees it.
    pub(super) fn new(peer: Peer, edge: Arc<Edge>) -> Arc<Self> {
        let rules = edge.rules();
        Arc::new(Self { peer, edge, rules })
    }

    /// The connection as the request sees it that follows those which saw `latest`: under the rules in force now.
    pub(super) fn at_next_request(latest: &Mutex<Arc<Self>>) -> Arc<Self> {
        let mut latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
        let rules = latest.edge.rules();
        if !Arc::ptr_eq(&rules, &latest.rules) {
            let Self { peer, edge, .. } = &**latest;
            *latest = Arc::new(Self { peer: peer.clone(), edge: Arc::clone(edge), rules });
        }
        Arc::clone(&latest)
    }
}
