//! Sessions without peers, for tests.

use std::sync::Arc;

use super::{Registry, RegistryEntry, SessionEntry};
use crate::config::{Route, UpstreamSettings, UpstreamTarget};
use crate::heartbeat::{Selected, UpstreamLiveness};
use crate::relay::Control;
use crate::session::{ClientAddress, ConnId, RequestFacts, SessionFacts};

impl Registry {
    /// Enters a session with the app whose liveness is `liveness`.
    pub(crate) fn enter(
        self: &Arc<Self>,
        id: ConnId,
        control: Arc<Control>,
        liveness: &Arc<UpstreamLiveness>,
    ) -> RegistryEntry {
        self.open(SessionEntry { facts: Arc::new(facts(id)), control, liveness: Arc::clone(liveness) })
    }
}

fn facts(id: ConnId) -> SessionFacts {
    let route = Route::to(Arc::new(UpstreamSettings::at(UpstreamTarget::Unix("/app.sock".into()))));
    let heartbeat = Selected { policy: Arc::clone(route.heartbeat.policy()), why: None, degraded: None };
    SessionFacts {
        id,
        config_generation: 1,
        request: RequestFacts {
            client: ClientAddress::Peer(([192, 0, 2, 1], 40_000).into()),
            server_name: None,
            protocol: "h1",
            http_version: "1.1",
            host: None,
            request_id: None,
            route: Arc::new(route),
            path: "/".into(),
            user_agent: None,
            trace_id: None,
        },
        tls_version: None,
        tls_group: None,
        subprotocol: None,
        heartbeat,
        extensions_refused: false,
    }
}
