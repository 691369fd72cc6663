//! The HTTP client for an authority: one connection for each request, with bounds on its time and on the response.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER};
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use thiserror::Error;
use tokio::net::TcpStream;

use crate::suspension::{self, Deadline};
use crate::tls::client::{ConnectorError, TlsClient};

/// The time limit of one request, its connection included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a response; a chain of certificates has a few thousand.
const LARGEST_RESPONSE: usize = 1024 * 1024;
/// The media type of errors (RFC 9457).
const PROBLEM: &[u8] = b"application/problem+json";

/// A request that got no response of an ACME server.
#[derive(Debug, Error)]
pub(super) enum RequestError {
    /// The time limit passed.
    #[error("it did not answer within {} s", REQUEST_TIMEOUT.as_secs())]
    Timeout,
    /// No connection could be made.
    #[error("cannot connect to {host}:{port}")]
    Connect { host: String, port: u16, source: std::io::Error },
    /// The TLS handshake failed.
    #[error("{host}: {source}")]
    Tls { host: String, source: ConnectorError },
    /// The connection broke, or what came is not HTTP.
    #[error("the connection ended without a response")]
    Http(#[source] hyper::Error),
    /// An error without a problem document.
    #[error("it answers with {0}")]
    Status(StatusCode),
    /// The body broke off.
    #[error("its response broke off")]
    Body,
    /// The response has more than a MiB.
    #[error("its response is too large")]
    TooLarge,
    /// A URL that no request can go to.
    #[error("{0} is no https URL")]
    Address(Uri),
}

/// A client of one authority.
#[derive(Clone, Debug)]
pub(super) struct AuthorityClient {
    tls: TlsClient,
    retry_after: RetryAfter,
}

/// The wait that the last refusal asked for; the protocol library does not pass it on.
#[derive(Clone, Debug, Default)]
pub(super) struct RetryAfter(Arc<Mutex<Option<Duration>>>);

impl RetryAfter {
    /// Returns the wait.
    pub(super) fn last(&self) -> Option<Duration> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, wait: Option<Duration>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = wait;
    }
}

impl AuthorityClient {
    /// Creates a client that checks the authority's certificate with `tls` and keeps the wait that it asks for in
    /// `retry_after`.
    pub(super) fn new(tls: TlsClient, retry_after: RetryAfter) -> Self {
        Self { tls, retry_after }
    }

    async fn exchange(&self, request: Request<BodyWrapper<Bytes>>) -> Result<Response<Full<Bytes>>, RequestError> {
        let uri = request.uri().clone();
        let host = uri
            .host()
            .filter(|_| uri.scheme_str() == Some("https"))
            .ok_or_else(|| RequestError::Address(uri.clone()))?;
        let (host, port) = (host.trim_matches(['[', ']']).to_owned(), uri.port_u16().unwrap_or(443));
        let tcp = TcpStream::connect((&*host, port)).await.map_err(|source| RequestError::Connect {
            host: host.clone(),
            port,
            source,
        })?;
        let tls = self.tls.handshake(&host, tcp).await.map_err(|source| RequestError::Tls { host, source })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await.map_err(RequestError::Http)?;
        let answer = async move {
            let response = sender.send_request(origin_form(request, &uri)?).await.map_err(RequestError::Http)?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, LARGEST_RESPONSE).collect().await.map_err(|error| {
                if error.is::<http_body_util::LengthLimitError>() { RequestError::TooLarge } else { RequestError::Body }
            })?;
            Ok(Response::from_parts(head, Full::new(body.to_bytes())))
        };
        let driven = async {
            // Its error reaches the request too.
            let _ = connection.await;
            std::future::pending().await
        };
        let response = tokio::select! {
            biased;
            response = answer => response?,
            never = driven => never,
        };
        let is_success = response.status().is_success();
        self.retry_after.set(retry_after(response.headers(), SystemTime::now()).filter(|_| !is_success));
        let kind = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        if is_success || kind.to_ascii_lowercase().starts_with(PROBLEM) {
            Ok(response)
        } else {
            Err(RequestError::Status(response.status()))
        }
    }
}

impl HttpClient for AuthorityClient {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            let exchange = pin!(client.exchange(request));
            let exchanged = suspension::within(Deadline::after(REQUEST_TIMEOUT), exchange).await;
            let response = exchanged.unwrap_or(Err(RequestError::Timeout));
            response.map(BytesResponse::from).map_err(|error| instant_acme::Error::Other(Box::new(error)))
        })
    }
}

/// Returns the request as it goes to the server of `uri` (RFC 9112 §3.2.1).
fn origin_form<B>(request: Request<B>, uri: &Uri) -> Result<Request<B>, RequestError> {
    let misfit = || RequestError::Address(uri.clone());
    let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let host = HeaderValue::try_from(authority.rsplit('@').next().unwrap_or(authority)).map_err(|_| misfit())?;
    let (mut head, body) = request.into_parts();
    head.uri = Uri::from(uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
    head.headers.insert(HOST, host);
    head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(Request::from_parts(head, body))
}

/// Returns the wait that a response asks for, in seconds or as a date (RFC 9110 §10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(now).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let wait = |value: &str| {
            let headers = [(RETRY_AFTER, HeaderValue::from_str(value).expect("a value"))].into_iter().collect();
            retry_after(&headers, now)
        };
        assert_eq!(wait("120"), Some(Duration::from_secs(120)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:37 GMT"), Some(Duration::from_secs(60)));
        for nothing in ["", "soon", "-1", "1e9", "Sun, 06 Nov 1994 08:00:00 GMT"] {
            assert_eq!(wait(nothing), None, "{nothing:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn a_request_names_its_host_and_not_its_url() {
        let sent = |uri: &str| {
            let uri: Uri = uri.parse().expect("a URI");
            let request = Request::builder().uri(uri.clone()).body(()).expect("a request");
            let sent = origin_form(request, &uri).expect("a host");
            (sent.uri().to_string(), sent.headers()[HOST].to_str().expect("text").to_owned())
        };
        assert_eq!(sent("https://ca.example:14000/dir?x"), ("/dir?x".to_owned(), "ca.example:14000".to_owned()));
        assert_eq!(sent("https://ca.example"), ("/".to_owned(), "ca.example".to_owned()));
        assert_eq!(sent("https://user:secret@[::1]/a"), ("/a".to_owned(), "[::1]".to_owned()));
    }
}
