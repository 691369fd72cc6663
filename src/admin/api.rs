//! The requests of the admin listener: which there are, by which method, and who may make them.

use std::process;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::auth::{self, Guard, Way};
use super::context::Context;
use super::events::Feed;
use super::fields::Fields;
use super::response::{Body, RequestRefusal, json, short};
use super::session_view::{ViewClock, unix};
use super::{connections, diagnosis, page};
use crate::drain::CancelError;
use crate::reload::{ReloadOutcome, ReloadResult, Reloader};
use crate::tls::{self, Terminator};

/// The target of the log lines, the same as in [`log_events`](crate::telemetry::log_events).
const TARGET: &str = "pulsegate";

/// Everything that the admin listener answers.
pub(super) struct Api {
    context: Arc<Context>,
    guard: Guard,
    events: Arc<Feed>,
}

/// The endpoints of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint<'a> {
    Info,
    Connections,
    Connection(&'a str),
    Diagnosis(&'a str),
    CloseOne(&'a str),
    CloseMany,
    SimulateDead(&'a str),
    Events,
    Drain,
    CancelDrain,
    Reload,
    Config,
    Certs,
}

impl<'a> Endpoint<'a> {
    fn at(path: &'a str) -> Option<Self> {
        let mut parts = path.strip_prefix("/v1/")?.split('/');
        let parts = [parts.next(), parts.next(), parts.next(), parts.next()];
        Some(match parts {
            [Some("info"), None, ..] => Self::Info,
            [Some("connections"), None, ..] => Self::Connections,
            [Some("connections"), Some("close"), None, _] => Self::CloseMany,
            [Some("connections"), Some(id), None, _] => Self::Connection(id),
            [Some("connections"), Some(id), Some("diagnosis"), None] => Self::Diagnosis(id),
            [Some("connections"), Some(id), Some("close"), None] => Self::CloseOne(id),
            [Some("connections"), Some(id), Some("simulate-dead"), None] => Self::SimulateDead(id),
            [Some("events"), None, ..] => Self::Events,
            [Some("drain"), None, ..] => Self::Drain,
            [Some("drain"), Some("cancel"), None, _] => Self::CancelDrain,
            [Some("reload"), None, ..] => Self::Reload,
            [Some("config"), None, ..] => Self::Config,
            [Some("certs"), None, ..] => Self::Certs,
            _ => return None,
        })
    }

    /// The methods that it has, as `Allow` says them. Whatever changes something is a POST, which no link makes.
    fn allow(self) -> &'static str {
        match self {
            Self::CloseOne(_) | Self::CloseMany | Self::SimulateDead(_) | Self::CancelDrain => "POST",
            Self::Drain | Self::Reload => "GET, HEAD, POST",
            _ => READ,
        }
    }
}

const READ: &str = "GET, HEAD";

impl Api {
    pub(super) fn new(context: Arc<Context>, guard: Guard, stop: CancellationToken) -> Self {
        let events = Feed::new(Arc::clone(&context), stop);
        Self { context, guard, events }
    }

    pub(super) fn terminator(&self) -> Option<Arc<Terminator>> {
        self.context.current.load().terminator.clone()
    }

    /// Answers one request that has come this way.
    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>, way: Way) -> Response<Body> {
        self.grant(request, &way).await.unwrap_or_else(|refusal| {
            tracing::debug!(status = refusal.status.as_u16(), code = refusal.code, "admin.refused");
            refusal.into()
        })
    }

    async fn grant(self: &Arc<Self>, request: Request<Incoming>, way: &Way) -> Result<Response<Body>, RequestRefusal> {
        self.guard.check(&request, way)?;
        let path = request.uri().path().to_owned();
        // A browser that opens the page can show no token yet; the page knows nothing that is worth one.
        if let Some(file) = page::at(&path) {
            allowed(request.method(), READ)?;
            return Ok(file.answer());
        }
        auth::knows(self.context.current.load().settings.admin.token.as_ref(), request.headers())?;
        let endpoint = Endpoint::at(&path).ok_or_else(|| {
            RequestRefusal::new(
                StatusCode::NOT_FOUND,
                "not_found",
                format!("path {:?} does not exist; start with /v1/info", short(&path)),
            )
        })?;
        allowed(request.method(), endpoint.allow())?;
        if request.method() == Method::POST {
            return self.change(endpoint, request).await;
        }
        match endpoint {
            Endpoint::Connections => connections::list(&self.context, self.generation(), request.uri().query()),
            Endpoint::Connection(id) => connections::one(&self.context, id),
            Endpoint::Diagnosis(id) => diagnosis::one(&self.context, self.generation(), id),
            Endpoint::Events => self.events.stream(request.headers()),
            Endpoint::Drain => Ok(json(StatusCode::OK, &self.draining())),
            Endpoint::Reload => self.reloaded(),
            Endpoint::Config => self.config(),
            Endpoint::Certs => Ok(json(StatusCode::OK, &self.certificates())),
            // All others are POST alone.
            _ => Ok(json(StatusCode::OK, &self.info())),
        }
    }

    async fn change(
        &self,
        endpoint: Endpoint<'_>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, RequestRefusal> {
        match endpoint {
            Endpoint::CloseOne(id) => connections::close_one(&self.context, id, request).await,
            Endpoint::CloseMany => connections::close_many(&self.context, request).await,
            Endpoint::SimulateDead(id) => connections::simulate_dead(&self.context, id, request).await,
            Endpoint::Drain => {
                Fields::read(request, &[]).await?;
                self.context.shutdown.drain();
                tracing::info!(target: TARGET, phase = self.context.shutdown.phase().as_str(), "admin.drain");
                Ok(json(StatusCode::ACCEPTED, &self.draining()))
            }
            Endpoint::CancelDrain => {
                Fields::read(request, &[]).await?;
                self.cancel_drain()
            }
            _ => {
                Fields::read(request, &[]).await?;
                self.reload().await
            }
        }
    }

    fn generation(&self) -> u64 {
        self.context.current.load().number
    }

    fn info(&self) -> Info {
        let context = &self.context;
        let in_force = context.current.load();
        Info {
            version: env!("CARGO_PKG_VERSION"),
            dev: context.dev,
            pid: process::id(),
            started_at: unix(context.started_at),
            now: ViewClock::now().seconds(),
            listen: context.listen.to_string(),
            upstreams: in_force.apps.iter().map(|app| app.settings().to_string()).collect(),
            admin_token: in_force.settings.admin.token.is_some(),
        }
    }

    fn draining(&self) -> Draining {
        let shutdown = &self.context.shutdown;
        Draining {
            phase: shutdown.phase().as_str(),
            sessions: self.context.registry.len(),
            since: unix(shutdown.since()),
            cancelled_at: shutdown.cancelled_at().map(unix),
        }
    }

    fn cancel_drain(&self) -> Result<Response<Body>, RequestRefusal> {
        let cancelled = self.context.shutdown.cancel();
        tracing::info!(target: TARGET, phase = self.context.shutdown.phase().as_str(), "admin.drain_cancel");
        match cancelled {
            Ok(()) => Ok(json(StatusCode::OK, &self.draining())),
            Err(error) => {
                let code = match error {
                    CancelError::PortsClosed => "ports_closed",
                    CancelError::Exiting => "exiting",
                };
                let message = format!("{error}; wait for the drain to end, then start the proxy again");
                Err(RequestRefusal::new(StatusCode::CONFLICT, code, message))
            }
        }
    }

    fn reloader(&self) -> Result<&Reloader, RequestRefusal> {
        self.context.reloader.as_ref().ok_or_else(|| {
            let message = "`pulsegate dev` has no configuration file to load; `pulsegate run -c FILE` has one";
            RequestRefusal::new(StatusCode::CONFLICT, "no_file", message)
        })
    }

    fn reloaded(&self) -> Result<Response<Body>, RequestRefusal> {
        let status = self.reloader()?.status();
        let last_success_at = status.last_success_at.map(unix);
        let body = Reloaded { generation: status.generation, last_success_at, last_error: status.last_error };
        Ok(json(StatusCode::OK, &body))
    }

    async fn reload(&self) -> Result<Response<Body>, RequestRefusal> {
        let ReloadOutcome { result, generation, requires_restart, error } = self.reloader()?.reload().await;
        let status = match result {
            ReloadResult::Unchanged | ReloadResult::Applied | ReloadResult::Partial => StatusCode::OK,
            ReloadResult::Failed => StatusCode::UNPROCESSABLE_ENTITY,
        };
        let result = result.as_str();
        tracing::info!(target: TARGET, result, generation, "admin.reload");
        Ok(json(status, &Reload { result, generation, requires_restart, error }))
    }

    fn config(&self) -> Result<Response<Body>, RequestRefusal> {
        let status = self.reloader()?.status();
        Ok(json(StatusCode::OK, &Config { generation: status.generation, config: status.shown.json() }))
    }

    fn certificates(&self) -> Certificates {
        let generation = self.context.current.load();
        Certificates { certificates: generation.certificates().iter().map(Certificate::from).collect() }
    }
}

fn allowed(method: &Method, allow: &'static str) -> Result<(), RequestRefusal> {
    if allow.split(", ").any(|allowed| allowed == method.as_str()) {
        return Ok(());
    }
    let message = format!("{method} is not for this path; use {}", allow.replace(", ", " or "));
    let refusal = RequestRefusal::new(StatusCode::METHOD_NOT_ALLOWED, "method", message);
    Err(refusal.with(ALLOW, HeaderValue::from_static(allow)))
}

#[derive(Serialize)]
struct Info {
    version: &'static str,
    dev: bool,
    pid: u32,
    started_at: f64,
    now: f64,
    listen: String,
    upstreams: Vec<String>,
    admin_token: bool,
}

#[derive(Serialize)]
struct Draining {
    phase: &'static str,
    sessions: usize,
    since: f64,
    /// The time of the last cancellation.
    cancelled_at: Option<f64>,
}

#[derive(Serialize)]
struct Reloaded {
    generation: u64,
    last_success_at: Option<f64>,
    last_error: Option<String>,
}

#[derive(Serialize)]
struct Reload {
    result: &'static str,
    generation: u64,
    requires_restart: Vec<Box<str>>,
    error: Option<String>,
}

#[derive(Serialize)]
struct Config {
    generation: u64,
    config: Value,
}

#[derive(Serialize)]
struct Certificates {
    certificates: Vec<Certificate>,
}

#[derive(Serialize)]
struct Certificate {
    file: Option<String>,
    names: Vec<String>,
    not_before: f64,
    not_after: f64,
    fingerprint_sha256: String,
    /// The names that it is presented for; none for the default certificate.
    for_names: Vec<Box<str>>,
}

impl From<&tls::Certificate> for Certificate {
    fn from(facts: &tls::Certificate) -> Self {
        Self {
            file: facts.file.as_ref().map(|file| file.display().to_string()),
            names: facts.names.clone(),
            not_before: unix(facts.not_before),
            not_after: unix(facts.not_after),
            fingerprint_sha256: facts
                .fingerprint
                .iter()
                .fold(String::new(), |text, byte| text + &format!("{byte:02x}")),
            for_names: facts.for_names.clone(),
        }
    }
}
