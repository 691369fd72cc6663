//! The plain HTTP port, which redirects every request to https.

use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, LOCATION};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accept::{AcceptedConnection, ListenerLimits, request_deadline};
use crate::generation::CurrentGeneration;
use crate::http::{self, PauseTimer};
use crate::suspension::Deadline;
use crate::telemetry::log_events;
use crate::telemetry::metrics::Metrics;
use crate::tls;

/// The default port of https URLs.
const HTTPS: u16 = 443;
/// The default port of http URLs.
const HTTP: u16 = 80;
/// The path of challenges (RFC 8555 §8.3).
const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// The redirect stage of the plain port in one worker.
#[derive(Clone)]
pub struct Redirect {
    /// The checks before the first byte.
    pub limits: ListenerLimits,
    /// The configuration in force; it limits requests, and the PROXY header to the time of a TLS handshake.
    pub current: Arc<CurrentGeneration>,
    /// The ports for the redirect target.
    pub ports: Ports,
    /// The metrics that count requests.
    pub metrics: Arc<Metrics>,
    /// The tracker of every connection's task.
    pub tracker: TaskTracker,
}

/// The ports that this process listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The port of plain HTTP.
    pub plain: u16,
    /// The port of TLS.
    pub tls: u16,
}

impl Ports {
    /// Returns the https port from the view of a client that named the port `asked`, or none.
    ///
    /// A client that names no port connected to port 80. If this process listens elsewhere, ports are mapped (by a
    /// Kubernetes Service or `docker -p 80:8080`), and a setup that maps 80 to the plain port maps 443 to the TLS port.
    /// In all other cases the port of this process is returned.
    fn of_https(self, asked: Option<u16>) -> u16 {
        if asked.is_none() && self.plain != HTTP { HTTPS } else { self.tls }
    }
}

impl Redirect {
    /// Accepts until `stop`, and closes the listener. Each connection is a task with one request, which may finish
    /// after `stop`.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) {
        let this = &self;
        let serve = |arrival| drop(this.tracker.spawn(this.clone().serve(arrival, stop.clone())));
        this.limits.open(listener, &stop, serve).await;
    }

    async fn serve(self, arrival: AcceptedConnection, stop: CancellationToken) {
        let timeout = self.current.load().settings.limits.handshake;
        let identified = tokio::select! {
            biased;
            identified = arrival.identified(Deadline::after(timeout)) => identified,
            () = request_deadline(&stop, &self.current) => None,
        };
        // The connection counts towards the limits until it is closed.
        let Some((tcp, client, _place)) = identified else { return };
        let (tcp, error_response) = self.exchange(tcp, client, stop).await;
        // The client may be sending a body that is never read.
        tls::try_close(tcp, error_response).await;
    }

    /// Serves one request. Returns the connection and the bytes still to be written to it.
    async fn exchange(
        &self,
        tcp: TcpStream,
        client: SocketAddr,
        stop: CancellationToken,
    ) -> (TcpStream, &'static [u8]) {
        let service = service_fn(|request: Request<_>| {
            let response = match self.challenge_response(request.uri().path()) {
                Some(response) => response,
                None => answer(&request, self.ports),
            };
            self.metrics.answered(request.method().as_str(), response.status().as_u16());
            if response.status().is_client_error() {
                log_events::http_reject(client, "host", response.status().as_u16());
            }
            ready(Ok::<_, Infallible>(response))
        });
        let limits = self.current.load().settings.limits;
        let mut server = http::http1_builder(&limits);
        // Without a timer hyper ignores the timeout.
        server.keep_alive(false).timer(PauseTimer).header_read_timeout(limits.header_read);
        let mut connection = server.serve_connection(TokioIo::new(tcp), service);
        let outcome = tokio::select! {
            outcome = poll_fn(|cx| connection.poll_without_shutdown(cx)) => outcome,
            () = request_deadline(&stop, &self.current) => {
                std::pin::Pin::new(&mut connection).graceful_shutdown();
                poll_fn(|cx| connection.poll_without_shutdown(cx)).await
            }
        };
        let parts = connection.into_parts();
        let error_response = match outcome {
            // As on the TLS port.
            Err(error) if error.is_timeout() && !parts.read_buf.is_empty() => {
                http::reject_late_head(client, &self.metrics)
            }
            Err(error) => http::reject_head(&error, &parts.read_buf, client, &self.metrics).unwrap_or_default(),
            Ok(()) => &[],
        };
        (parts.io.into_inner(), error_response)
    }

    /// Returns the response to a challenge of an authority (RFC 8555 §8.3); `None` for any other path, and for a challenge
    /// that no replica of this host has: it may be the app's, which is behind https.
    fn challenge_response(&self, path: &str) -> Option<Response<Full<Bytes>>> {
        let token = path.strip_prefix(CHALLENGES)?;
        let generation = self.current.load();
        let acme = generation.settings.tls.terminate()?.acme.as_ref()?;
        let contents = std::fs::read(acme.http_challenge(token)?).ok()?;
        let mut response = Response::new(Full::from(contents));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        Some(response)
    }
}

/// Returns 308, which keeps method and body (RFC 9110 §15.4.9), or 400 for a request without a usable host.
fn answer<B>(request: &Request<B>, ports: Ports) -> Response<Full<Bytes>> {
    let (status, location, text) = match location(request, ports) {
        Some(location) => (StatusCode::PERMANENT_REDIRECT, Some(location), "Use https.\n"),
        None => (StatusCode::BAD_REQUEST, None, "400 Bad Request: host\n"),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if let Some(location) = location {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// Returns the requested URL with https; `None` if the request names no host or no path.
fn location<B>(request: &Request<B>, ports: Ports) -> Option<HeaderValue> {
    let uri = request.uri();
    let authority = match uri.authority() {
        Some(authority) => authority.as_str(),
        None => {
            let mut hosts = request.headers().get_all(HOST).iter();
            match (hosts.next(), hosts.next()) {
                (Some(host), None) => host.to_str().ok()?,
                _ => return None,
            }
        }
    };
    let (host, port) = host_and_port(authority)?;
    let target = match uri.path_and_query() {
        Some(target) if target.as_str().starts_with('/') => target.as_str(),
        // An absolute target may end with its authority.
        None if uri.scheme().is_some() => "/",
        _ => return None,
    };
    let location = match ports.of_https(port) {
        HTTPS => format!("https://{host}{target}"),
        port => format!("https://{host}:{port}{target}"),
    };
    HeaderValue::try_from(location).ok()
}

/// Parses an authority into a host that is valid in a URL and its port, if present (RFC 3986 §3.2). Host names consist
/// of letters, digits, hyphens, dots and underscores. Returns `None` for anything else.
fn host_and_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let is_host = match host.strip_prefix('[').map(|host| host.strip_suffix(']')) {
        Some(literal) => literal.is_some_and(|literal| literal.parse::<std::net::Ipv6Addr>().is_ok()),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
    };
    let port = match port {
        None | Some("") => None,
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => Some(port.parse().ok()?),
        Some(_) => return None,
    };
    is_host.then_some((host, port))
}

#[cfg(test)]
mod tests {
    use hyper::Version;

    use super::*;

    const MAPPED: Ports = Ports { plain: 8080, tls: 8443 };
    const OWN: Ports = Ports { plain: 80, tls: 443 };

    fn asked(version: Version, target: &str, hosts: &[&str]) -> Request<()> {
        let mut request = Request::builder().version(version).uri(target);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(()).expect("a request")
    }

    fn sent_to(target: &str, host: &str, ports: Ports) -> Option<String> {
        let response = answer(&asked(Version::HTTP_11, target, &[host]), ports);
        let location = response.headers().get(LOCATION).map(|value| value.to_str().expect("ASCII").to_owned());
        assert_eq!(response.status().as_u16(), if location.is_some() { 308 } else { 400 });
        location
    }

    #[test]
    fn it_is_the_same_place_by_https() {
        for (target, host, ports, location) in [
            ("/", "app.example", OWN, "https://app.example/"),
            ("/a/b?c=d&e=%2F", "app.example", OWN, "https://app.example/a/b?c=d&e=%2F"),
            ("//evil.example/x", "app.example", OWN, "https://app.example//evil.example/x"),
            ("/", "app.example:80", OWN, "https://app.example/"),
            ("/", "App.Example", OWN, "https://App.Example/"),
            ("/", "192.0.2.7", OWN, "https://192.0.2.7/"),
            ("/", "[2001:db8::7]", OWN, "https://[2001:db8::7]/"),
            ("/", "[2001:db8::7]:80", OWN, "https://[2001:db8::7]/"),
            ("http://other.example/x?y", "app.example", OWN, "https://other.example/x?y"),
            ("http://other.example", "app.example", OWN, "https://other.example/"),
            // Port 80 is mapped to the plain port, and so is 443 to the TLS port.
            ("/", "app.example", MAPPED, "https://app.example/"),
            ("/", "app.example:8080", MAPPED, "https://app.example:8443/"),
            ("/", "[::1]:8080", MAPPED, "https://[::1]:8443/"),
            ("/", "app.example:", MAPPED, "https://app.example/"),
            ("/", "app.example", Ports { plain: 80, tls: 8443 }, "https://app.example:8443/"),
        ] {
            assert_eq!(sent_to(target, host, ports).as_deref(), Some(location), "{target} of {host} at {ports:?}");
        }
    }

    #[test]
    fn who_does_not_say_for_which_host_is_refused() {
        for host in [
            "",
            ":80",
            "a b",
            "user@app.example",
            "app.example/x",
            "app.example:80:80",
            "app.example:x",
            "app.example:65536",
            "[::1",
            "::1",
            "[::1]x",
            "[app.example]",
            "app.example#",
            "\"",
        ] {
            assert_eq!(sent_to("/", host, OWN), None, "{host:?}");
        }
        for (version, hosts) in
            [(Version::HTTP_11, &[][..]), (Version::HTTP_10, &[]), (Version::HTTP_11, &["a.example", "a.example"])]
        {
            assert_eq!(answer(&asked(version, "/", hosts), OWN).status(), 400, "{version:?} {hosts:?}");
        }
        assert_eq!(sent_to("*", "app.example", OWN), None);
        assert_eq!(sent_to("app.example:443", "app.example", OWN), None, "the target of CONNECT");
    }
}
