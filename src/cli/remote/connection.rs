//! A connection to the API, and one request over it.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::address::Address;
use super::admin_address::Bearer;
use super::error::RemoteError;
use super::location::AdminAddress;
use crate::telemetry::Chain;
use crate::tls::client::{TlsClient, Trust};

/// A byte stream with or without TLS.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Wire for S {}

/// The longest response that is read, in bytes: 10,000 sessions, with a wide margin.
const ANSWER_MAX: usize = 64 << 20;

/// The parameters of a request: address, token and TLS client.
#[derive(Debug)]
pub(super) struct ApiClient {
    pub(super) place: Arc<AdminAddress>,
    pub(super) bearer: Option<Bearer>,
    pub(super) tls: Option<AdminTls>,
    /// Drives the connections.
    pub(super) tracker: TaskTracker,
}

/// The TLS client for the API, and the name that its certificate has to carry.
#[derive(Debug)]
pub(super) struct AdminTls {
    client: TlsClient,
    name: String,
}

impl AdminTls {
    /// Creates the TLS client for `place`; `None` if it uses no TLS. Reads files.
    pub(super) fn of(place: &AdminAddress, trust: &Trust, name: Option<&str>) -> Result<Option<Self>, RemoteError> {
        let Address::Tcp { host, tls: true, .. } = &place.address else { return Ok(None) };
        Ok(Some(Self { client: TlsClient::new(trust, None)?, name: name.unwrap_or(host).to_owned() }))
    }
}

impl ApiClient {
    /// Sends a request, and waits for the whole response, at most `time_limit`.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        time_limit: Duration,
    ) -> Result<Response<Bytes>, RemoteError> {
        let exchange = async {
            let (head, body) = self.send(method, path, body, "application/json").await?.into_parts();
            let body = Limited::new(body, ANSWER_MAX).collect().await;
            let body = body.map_err(|source| RemoteError::Broken { place: Arc::clone(&self.place), source })?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        self.within(time_limit, exchange).await
    }

    /// Sends a request, and waits for the head of an endless response, at most `time_limit`.
    pub(super) async fn listen(&self, path: &str, time_limit: Duration) -> Result<Response<Incoming>, RemoteError> {
        self.within(time_limit, self.send(Method::GET, path, None, "text/event-stream")).await
    }

    /// Returns the output of `work`, or an error after `time_limit`.
    pub(super) async fn within<T>(
        &self,
        time_limit: Duration,
        work: impl Future<Output = Result<T, RemoteError>>,
    ) -> Result<T, RemoteError> {
        let late = |_| RemoteError::Late { place: Arc::clone(&self.place), time_limit };
        timeout(time_limit, work).await.map_err(late)?
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        accept: &'static str,
    ) -> Result<Response<Incoming>, RemoteError> {
        let broken = |error| RemoteError::exchange(&self.place, error);
        let stream = TokioIo::new(self.connect().await?);
        let (mut sender, connection) = http1::handshake(stream).await.map_err(broken)?;
        self.tracker.spawn(async move {
            // The request returns this error, too.
            if let Err(error) = connection.await {
                tracing::debug!(error = %Chain(&error), "admin.connection");
            }
        });
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.headers_mut() = self.headers(accept);
        if let Some(body) = body {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.body_mut() = Full::from(body);
        }
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().expect("paths are literals and encoded values");
        sender.send_request(request).await.map_err(broken)
    }

    fn headers(&self, accept: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        // The API checks the host to refuse browsers that a foreign DNS name has led to it. This client is no browser;
        // by whichever name or tunnel it connects, it means that machine.
        headers.insert(HOST, HeaderValue::from_static("localhost"));
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        if let Some(Bearer { token, .. }) = &self.bearer {
            let mut value =
                HeaderValue::try_from(format!("Bearer {token}")).expect("a token is made of visible ASCII characters");
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        headers
    }

    async fn connect(&self) -> Result<Box<dyn Wire>, RemoteError> {
        let refused = |source| RemoteError::connect(&self.place, source);
        let (host, port) = match &self.place.address {
            Address::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await.map_err(refused)?)),
            Address::Tcp { host, port, .. } => (host, *port),
        };
        let resolved = lookup_host((host.as_str(), port)).await;
        let addresses = resolved.map_err(|source| RemoteError::Resolve { place: Arc::clone(&self.place), source })?;
        let mut failure = io::Error::other("the name has no address");
        for address in addresses {
            let tcp = match TcpStream::connect(address).await {
                Ok(tcp) => tcp,
                Err(error) => {
                    failure = error;
                    continue;
                }
            };
            let Some(AdminTls { client, name }) = &self.tls else { return Ok(Box::new(tcp)) };
            let shaken = client.handshake(name, tcp).await;
            return match shaken {
                Ok(stream) => Ok(Box::new(stream)),
                Err(source) => Err(RemoteError::Tls { place: Arc::clone(&self.place), source }),
            };
        }
        Err(refused(failure))
    }
}

/// Returns `path` with the query `pairs`, percent-encoded (RFC 3986 §2.1).
pub(super) fn query(path: &str, pairs: &[(&str, String)]) -> String {
    let mut url = path.to_owned();
    for (at, (key, value)) in pairs.iter().enumerate() {
        url.push(if at == 0 { '?' } else { '&' });
        url.push_str(key);
        url.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                url.push(char::from(byte));
            } else {
                write!(url, "%{byte:02X}").expect("a string takes everything");
            }
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_query_are_encoded() {
        assert_eq!(query("/v1/x", &[]), "/v1/x");
        let pairs = [("client", "2001:db8::/32".to_owned()), ("route", "app/é &".to_owned())];
        assert_eq!(query("/v1/x", &pairs), "/v1/x?client=2001%3Adb8%3A%3A%2F32&route=app%2F%C3%A9%20%26");
    }
}
