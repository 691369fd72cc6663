//! From a URL to an open WebSocket, with one error per kind of failure.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL, TRANSFER_ENCODING,
    UPGRADE, USER_AGENT,
};
use http::{Response, StatusCode, Uri};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::tls::client::{self, ConnectorError, TlsClient, Trust, TrustError};

/// The most bytes of a refusal's body that are read for its first line.
const REFUSAL_MAX: usize = 4096;
/// The time limit for a refusal's body.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// A `ws://` or `wss://` URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WebSocketUrl {
    uri: Uri,
    /// DNS name or IP address, an IPv6 one without brackets.
    pub(super) host: String,
    port: u16,
    encrypted: bool,
}

impl FromStr for WebSocketUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|error| format!("not a URL: {error}"))?;
        let encrypted = match uri.scheme_str() {
            Some("wss") => true,
            Some("ws") => false,
            Some(scheme @ ("https" | "http")) => {
                let meant = if scheme == "https" { "wss" } else { "ws" };
                return Err(format!("a WebSocket's URL begins with {meant}:// rather than {scheme}://"));
            }
            _ => return Err("a WebSocket's URL begins with wss:// or ws://".to_owned()),
        };
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("no user and password here; send them with -H 'Authorization: …'".to_owned());
        }
        let host = uri.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
        if host.is_empty() {
            return Err("the URL names no host".to_owned());
        }
        let port = uri.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
        Ok(Self { uri, host, port, encrypted })
    }
}

impl WebSocketUrl {
    /// Returns host and port as text.
    fn at(&self) -> String {
        format!("{} port {}", self.host, self.port)
    }
}

impl fmt::Display for WebSocketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

/// A header field of the upgrade request, `Name: value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UpgradeHeader(HeaderName, HeaderValue);

impl FromStr for UpgradeHeader {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once(':').ok_or("a header is written 'Name: value'")?;
        let name: HeaderName = name.trim().parse().map_err(|_| format!("{name:?} is not the name of a header"))?;
        if name == UPGRADE || name == CONNECTION || name.as_str().starts_with("sec-websocket-") {
            return Err(format!("{name} belongs to the upgrade itself and is set already"));
        }
        let value = value.trim().parse().map_err(|_| format!("{value:?} cannot be the value of a header"))?;
        Ok(Self(name, value))
    }
}

/// The reason for which no WebSocket could be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// The trusted authorities cannot be loaded.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The name does not resolve.
    #[error("cannot find the host {host}")]
    Resolve { host: String, source: io::Error },
    /// No address of the host accepts the connection.
    #[error("cannot connect to {at}")]
    Connect { at: String, source: io::Error },
    /// The TLS handshake failed.
    #[error("no TLS with {at}{}", hint(.source))]
    Tls { at: String, source: ConnectorError },
    /// The server responded to the upgrade with a status other than 101.
    #[error("the server refused the upgrade: {status}{}", quoted(.line.as_deref()))]
    Refused { status: StatusCode, line: Option<String> },
    /// The request or the response is not a valid upgrade.
    #[error("the upgrade failed")]
    Upgrade(#[from] Box<WsError>),
    /// The time limit passed.
    #[error("{stage} took longer than {}; --timeout gives it more", humantime::format_duration(*.time_limit))]
    Late { stage: &'static str, time_limit: Duration },
}

/// A byte stream with or without TLS.
pub(super) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

/// The time limit for connect, TLS handshake and upgrade together.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectTimeout {
    whole: Duration,
    until: Instant,
}

impl ConnectTimeout {
    /// Starts the time limit now.
    pub(super) fn new(whole: Duration) -> Self {
        Self { whole, until: Instant::now() + whole }
    }

    async fn limit<F: Future>(self, stage: &'static str, work: F) -> Result<F::Output, ConnectError> {
        let late = |_| ConnectError::Late { stage, time_limit: self.whole };
        timeout_at(self.until, work).await.map_err(late)
    }
}

/// A connection that is ready for the upgrade.
pub(super) struct Connected {
    /// The byte stream.
    pub(super) wire: Box<dyn ByteStream>,
    /// The address, and the parameters that TLS negotiated, as text.
    pub(super) description: String,
}

/// Resolves the host, connects and, for `wss`, performs the TLS handshake.
pub(super) async fn connect(
    target: &WebSocketUrl,
    trust: &Trust,
    time_limit: ConnectTimeout,
) -> Result<Connected, ConnectError> {
    // Files are read before the network is used.
    let tls = target.encrypted.then(|| TlsClient::new(trust, None)).transpose()?;
    let tcp = time_limit.limit("connecting", dial(target)).await??;
    let address = tcp.peer_addr().map_or_else(|_| target.host.clone(), |address| address.to_string());
    let Some(tls) = tls else {
        return Ok(Connected { wire: Box::new(tcp), description: format!("{address}, not encrypted") });
    };
    let stream = time_limit
        .limit("the TLS handshake", tls.handshake(&target.host, tcp))
        .await?
        .map_err(|source| ConnectError::Tls { at: target.at(), source })?;
    let description = format!("{address}, {}", client::negotiated(&stream));
    Ok(Connected { wire: Box::new(stream), description })
}

/// A WebSocket that borrows its byte stream, and the subprotocol that the server chose.
pub(super) type OpenWebSocket<'w> = (WebSocketStream<&'w mut Box<dyn ByteStream>>, Option<String>);

/// Requests the upgrade over `wire`. [`into_connect_error`] converts an error into one for the user.
pub(super) async fn upgrade(
    request: http::Request<()>,
    wire: &mut Box<dyn ByteStream>,
    time_limit: ConnectTimeout,
) -> Result<OpenWebSocket<'_>, UpgradeError> {
    let (socket, response) = time_limit.limit("the upgrade", client_async(request, wire)).await??;
    let chosen = response.headers().get(SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
    Ok((socket, chosen.map(ToOwned::to_owned)))
}

/// The error of an upgrade, before the rest of the server's response is read.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpgradeError {
    #[error(transparent)]
    Late(#[from] ConnectError),
    #[error(transparent)]
    Answer(#[from] WsError),
}

/// Converts an error for the user; of a refusal, it reads the first line of the body.
pub(super) async fn into_connect_error(error: UpgradeError, wire: &mut Box<dyn ByteStream>) -> ConnectError {
    match error {
        UpgradeError::Late(late) => late,
        UpgradeError::Answer(WsError::Http(answer)) => {
            let status = answer.status();
            ConnectError::Refused { status, line: first_line(*answer, wire).await }
        }
        UpgradeError::Answer(other) => ConnectError::Upgrade(Box::new(other)),
    }
}

/// Returns the upgrade request.
pub(super) fn request(
    target: &WebSocketUrl,
    headers: &[UpgradeHeader],
    subprotocols: &[String],
) -> Result<http::Request<()>, Box<WsError>> {
    let mut request = (&target.uri).into_client_request()?;
    let fields = request.headers_mut();
    fields.insert(USER_AGENT, HeaderValue::from_static(concat!("pulsegate-ping/", env!("CARGO_PKG_VERSION"))));
    for UpgradeHeader(name, value) in headers {
        // These fields are already present and unique; others may repeat.
        if name == HOST || name == USER_AGENT {
            fields.insert(name, value.clone());
        } else {
            fields.append(name, value.clone());
        }
    }
    if !subprotocols.is_empty() {
        let offer =
            HeaderValue::from_str(&subprotocols.join(", ")).map_err(|error| WsError::from(http::Error::from(error)))?;
        fields.insert(SEC_WEBSOCKET_PROTOCOL, offer);
    }
    Ok(request)
}

/// Connects to the first address of the host that accepts the connection.
async fn dial(target: &WebSocketUrl) -> Result<TcpStream, ConnectError> {
    let resolve = |source| ConnectError::Resolve { host: target.host.clone(), source };
    let addresses: Vec<_> = lookup_host((&*target.host, target.port)).await.map_err(resolve)?.collect();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Round trips are measured, so small frames must not wait for the acknowledgement of earlier ones
                // (TCP_NODELAY).
                stream.set_nodelay(true).map_err(|source| ConnectError::Connect { at: target.at(), source })?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    Err(ConnectError::Connect { at: target.at(), source: failure })
}

/// Returns the first line of a refusal's body, if it is text that can be printed.
async fn first_line(answer: Response<Option<Vec<u8>>>, wire: &mut Box<dyn ByteStream>) -> Option<String> {
    let is = |name, value: &str| {
        answer.headers().get(name).and_then(|found| found.to_str().ok()).is_some_and(|found| found.contains(value))
    };
    if is(CONTENT_TYPE, "html") {
        return None;
    }
    // A chunked body begins with the size of its first chunk on a line of its own.
    let line = usize::from(is(TRANSFER_ENCODING, "chunked"));
    let length = answer.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let wanted = length.unwrap_or(REFUSAL_MAX).min(REFUSAL_MAX);
    let mut body = answer.into_body().unwrap_or_default();
    let reading = async {
        while body.len() < wanted && body.split(|byte| *byte == b'\n').nth(line + 1).is_none() {
            // The end of the stream and an error are treated alike: no more bytes will arrive.
            if matches!(wire.read_buf(&mut body).await, Ok(0) | Err(_)) {
                break;
            }
        }
    };
    // After the time limit, the bytes received so far are used.
    let _ = timeout(REFUSAL_TIMEOUT, reading).await;
    let text = String::from_utf8_lossy(&body);
    let line = text.lines().nth(line)?.trim();
    let printable = line.chars().filter(|character| !character.is_control()).take(200).collect::<String>();
    (!printable.is_empty()).then_some(printable)
}

/// Returns the remedy of a handshake's error.
fn hint(error: &ConnectorError) -> &'static str {
    match error {
        ConnectorError::UnknownAuthority => "; name the CA's certificate with --ca, or skip the check with --insecure",
        ConnectorError::NotTls => "; a server without TLS is reached with ws://",
        _ => "",
    }
}

fn quoted(line: Option<&str>) -> String {
    line.map_or_else(String::new, |line| format!(": {line:?}"))
}
