//! The HTTP client for an authority: one connection for each request, with bounds on its time and on the response.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue, LINK, LOCATION, RETRY_AFTER};
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use thiserror::Error;
use tokio::net::TcpStream;

use super::schedule::LONGEST_WISH;
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
    /// An error without a problem document, or a redirect, which is not followed.
    #[error("{url} answers with {status}")]
    Status { status: StatusCode, url: Uri, location: Option<String> },
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
    last: LastRefusal,
}

/// The parts of the last response that the protocol library does not pass on; empty after a success.
#[derive(Clone, Debug, Default)]
pub(super) struct LastRefusal(Arc<Mutex<RefusalDetails>>);

/// The parts of a refusal beside its problem document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RefusalDetails {
    /// The wait that the authority asks for.
    pub(super) retry_after: Option<Duration>,
    /// The page that the operator should visit (RFC 8555 §7.3.3).
    pub(super) page: Option<String>,
}

impl LastRefusal {
    /// Returns the parts.
    pub(super) fn details(&self) -> RefusalDetails {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, details: RefusalDetails) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = details;
    }
}

impl AuthorityClient {
    /// Creates a client that checks the authority's certificate with `tls` and keeps parts of refusals in `last`.
    pub(super) fn new(tls: TlsClient, last: LastRefusal) -> Self {
        Self { tls, last }
    }

    /// Sends one request.
    ///
    /// # Errors
    ///
    /// There is no response of an ACME server within the time limit.
    pub(super) async fn send(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Result<Response<Full<Bytes>>, RequestError> {
        let exchange = pin!(self.exchange(request));
        let exchanged = suspension::within(Deadline::after(REQUEST_TIMEOUT), exchange).await;
        exchanged.unwrap_or(Err(RequestError::Timeout))
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
        let url = uri.clone();
        let answer = async move {
            let response = sender.send_request(origin_form(request, &uri)?).await.map_err(RequestError::Http)?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, LARGEST_RESPONSE).collect().await.map_err(|error| {
                if error.is::<http_body_util::LengthLimitError>() { RequestError::TooLarge } else { RequestError::Body }
            })?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        let driven = async {
            // Its error reaches the request too.
            let _ = connection.await;
            std::future::pending().await
        };
        let mut response = tokio::select! {
            biased;
            response = answer => response?,
            never = driven => never,
        };
        let status = response.status();
        let wait = take_retry_after(response.headers_mut(), SystemTime::now());
        let kind = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        let is_problem = kind.to_ascii_lowercase().starts_with(PROBLEM);
        self.last.set(if status.is_success() {
            RefusalDetails::default()
        } else {
            RefusalDetails { retry_after: wait, page: page(response.headers(), response.body()).filter(|_| is_problem) }
        });
        if status.is_success() || is_problem && !status.is_redirection() {
            return Ok(response.map(Full::new));
        }
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Err(RequestError::Status { status, url, location })
    }
}

impl HttpClient for AuthorityClient {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            let response = client.send(request).await;
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

/// Returns the wait that a response asks for, in seconds or as a date (RFC 9110 §10.2.3), up to [`LONGEST_WISH`], and leaves
/// it in the header in seconds: the protocol library adds what it finds there to a point in time.
fn take_retry_after(headers: &mut HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.remove(RETRY_AFTER)?;
    let value = value.to_str().ok()?.trim();
    let wait = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number has are a long wait too.
        value.parse().map_or(LONGEST_WISH, Duration::from_secs)
    } else {
        httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default()
    };
    let wait = wait.min(LONGEST_WISH);
    headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
    (!wait.is_zero()).then_some(wait)
}

/// Returns the page that the operator should visit: `instance` of the problem document, or the link to the terms
/// (RFC 8555 §7.3.3).
fn page(headers: &HeaderMap, body: &[u8]) -> Option<String> {
    let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let links = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let terms = links.filter(|link| link.contains("terms-of-service")).find_map(|link| {
        let (_, rest) = link.split_once('<')?;
        Some(rest.split_once('>')?.0.to_owned())
    });
    let is_url = |text: &String| text.starts_with("https://") || text.starts_with("http://");
    problem["instance"].as_str().map(str::to_owned).filter(is_url).or(terms.filter(is_url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let wait = |value: &str| {
            let mut headers = [(RETRY_AFTER, HeaderValue::from_str(value).expect("a value"))].into_iter().collect();
            let wait = take_retry_after(&mut headers, now);
            let left = headers.get(RETRY_AFTER).map(|value| value.to_str().expect("digits").parse().expect("seconds"));
            assert_eq!(wait.unwrap_or_default(), Duration::from_secs(left.unwrap_or(0)), "{value:?}");
            wait
        };
        assert_eq!(wait("120"), Some(Duration::from_secs(120)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:37 GMT"), Some(Duration::from_secs(60)));
        for nothing in ["", "soon", "-1", "1e9", "Sun, 06 Nov 1994 08:00:00 GMT"] {
            assert_eq!(wait(nothing), None, "{nothing:?}");
        }
        for long in ["99999999999999999999", "18446744073709551615", "86401", "Fri, 31 Dec 9999 23:59:59 GMT"] {
            assert_eq!(wait(long), Some(LONGEST_WISH), "{long:?}");
        }
        assert_eq!(take_retry_after(&mut HeaderMap::new(), now), None);
    }

    #[test]
    fn a_refusal_names_the_page_to_visit() {
        let headers = |link: &'static str| [(LINK, HeaderValue::from_static(link))].into_iter().collect::<HeaderMap>();
        let terms =
            headers("<https://ca.example/dir>;rel=\"index\", <https://ca.example/terms>;rel=\"terms-of-service\"");
        assert_eq!(page(&terms, b"{}").as_deref(), Some("https://ca.example/terms"));
        let instance = br#"{"instance":"https://ca.example/agree"}"#;
        assert_eq!(page(&terms, instance).as_deref(), Some("https://ca.example/agree"));
        assert_eq!(page(&headers("</terms>;rel=\"terms-of-service\""), br#"{"instance":"urn:x"}"#), None);
        assert_eq!(page(&HeaderMap::new(), b"<html>"), None);
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
