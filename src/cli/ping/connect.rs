//! From a URL to an open WebSocket, with an error for every way in which that can fail.

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

use crate::tls::client::{self, Client, HandshakeError, Trust, TrustError};

/// Bytes of a refusal's body that are read to find its first line.
const REFUSAL_MAX: usize = 4096;
/// How long the body of a refusal may take.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(1);

/// A `ws://` or `wss://` URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    uri: Uri,
    /// DNS name or address, without the brackets of an IPv6 one.
    pub(super) host: String,
    port: u16,
    encrypted: bool,
}

impl FromStr for Target {
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

impl Target {
    /// Host and port, for a person to read.
    fn at(&self) -> String {
        format!("{} port {}", self.host, self.port)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

/// A header of the upgrade request, `Name: value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header(HeaderName, HeaderValue);

impl FromStr for Header {
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

/// No WebSocket could be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// The trusted authorities could not be loaded.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The name has no address.
    #[error("cannot find the host {host}")]
    Resolve { host: String, source: io::Error },
    /// No address of the host took the connection.
    #[error("cannot connect to {at}")]
    Connect { at: String, source: io::Error },
    /// The TLS handshake failed.
    #[error("no TLS with {at}{}", hint(.source))]
    Tls { at: String, source: HandshakeError },
    /// The server answered the upgrade with something else than 101.
    #[error("the server refused the upgrade: {status}{}", quoted(.line.as_deref()))]
    Refused { status: StatusCode, line: Option<String> },
    /// What was asked, or what came back, is no valid upgrade.
    #[error("the upgrade failed")]
    Upgrade(#[from] Box<WsError>),
    /// It took too long.
    #[error("{stage} took longer than {}; --timeout gives it more", humantime::format_duration(*.patience))]
    Late { stage: &'static str, patience: Duration },
}

/// A byte stream, encrypted or not.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Wire for S {}

/// How long connecting, encrypting and upgrading may take together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    whole: Duration,
    until: Instant,
}

impl Patience {
    /// Begins to run now.
    pub(super) fn new(whole: Duration) -> Self {
        Self { whole, until: Instant::now() + whole }
    }

    async fn limit<F: Future>(self, stage: &'static str, work: F) -> Result<F::Output, ConnectError> {
        let late = |_| ConnectError::Late { stage, patience: self.whole };
        timeout_at(self.until, work).await.map_err(late)
    }
}

/// A connection that is ready for the upgrade.
pub(super) struct Connected {
    /// The byte stream.
    pub(super) wire: Box<dyn Wire>,
    /// What a person wants to know of it: the address, and what TLS agreed on.
    pub(super) description: String,
}

/// Resolves, connects and, for `wss`, encrypts.
pub(super) async fn connect(target: &Target, trust: &Trust, patience: Patience) -> Result<Connected, ConnectError> {
    // Files are read before the network is asked.
    let tls = target.encrypted.then(|| Client::new(trust, None)).transpose()?;
    let tcp = patience.limit("connecting", dial(target)).await??;
    let address = tcp.peer_addr().map_or_else(|_| target.host.clone(), |address| address.to_string());
    let Some(tls) = tls else {
        return Ok(Connected { wire: Box::new(tcp), description: format!("{address}, not encrypted") });
    };
    let stream = patience
        .limit("the TLS handshake", tls.handshake(&target.host, tcp))
        .await?
        .map_err(|source| ConnectError::Tls { at: target.at(), source })?;
    let description = format!("{address}, {}", client::negotiated(&stream));
    Ok(Connected { wire: Box::new(stream), description })
}

/// A WebSocket that borrows its byte stream, and the subprotocol that the server chose.
pub(super) type Opened<'w> = (WebSocketStream<&'w mut Box<dyn Wire>>, Option<String>);

/// Asks for the upgrade over `wire`. Of an error, [`explain`] makes one that a person can use.
pub(super) async fn upgrade(
    request: http::Request<()>,
    wire: &mut Box<dyn Wire>,
    patience: Patience,
) -> Result<Opened<'_>, UpgradeError> {
    let (socket, response) = patience.limit("the upgrade", client_async(request, wire)).await??;
    let chosen = response.headers().get(SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
    Ok((socket, chosen.map(ToOwned::to_owned)))
}

/// Why an upgrade failed, before the rest of the server's answer was read.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpgradeError {
    #[error(transparent)]
    Late(#[from] ConnectError),
    #[error(transparent)]
    Answer(#[from] WsError),
}

/// Reads on where the server refused, so that its own words reach the person.
pub(super) async fn explain(error: UpgradeError, wire: &mut Box<dyn Wire>) -> ConnectError {
    match error {
        UpgradeError::Late(late) => late,
        UpgradeError::Answer(WsError::Http(answer)) => {
            let status = answer.status();
            ConnectError::Refused { status, line: first_line(*answer, wire).await }
        }
        UpgradeError::Answer(other) => ConnectError::Upgrade(Box::new(other)),
    }
}

/// The upgrade request.
pub(super) fn request(
    target: &Target,
    headers: &[Header],
    subprotocols: &[String],
) -> Result<http::Request<()>, Box<WsError>> {
    let mut request = (&target.uri).into_client_request()?;
    let fields = request.headers_mut();
    fields.insert(USER_AGENT, HeaderValue::from_static(concat!("pulsegate-ping/", env!("CARGO_PKG_VERSION"))));
    for Header(name, value) in headers {
        // These stand there already, and stand once; others may repeat.
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

/// Connects to the first address of the host that takes the connection.
async fn dial(target: &Target) -> Result<TcpStream, ConnectError> {
    let resolve = |source| ConnectError::Resolve { host: target.host.clone(), source };
    let addresses: Vec<_> = lookup_host((&*target.host, target.port)).await.map_err(resolve)?.collect();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Round trips are measured: a small frame must not wait for the ACK of the last one.
                stream.set_nodelay(true).map_err(|source| ConnectError::Connect { at: target.at(), source })?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    Err(ConnectError::Connect { at: target.at(), source: failure })
}

/// The first line of a refusal's body, where there is one that a person can read.
async fn first_line(answer: Response<Option<Vec<u8>>>, wire: &mut Box<dyn Wire>) -> Option<String> {
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
            // The end of the stream and its breaking are the same here: no more will come.
            if matches!(wire.read_buf(&mut body).await, Ok(0) | Err(_)) {
                break;
            }
        }
    };
    // Late or complete: what came is what can be shown.
    let _ = timeout(REFUSAL_PATIENCE, reading).await;
    let text = String::from_utf8_lossy(&body);
    let line = text.lines().nth(line)?.trim();
    let printable = line.chars().filter(|character| !character.is_control()).take(200).collect::<String>();
    (!printable.is_empty()).then_some(printable)
}

/// What the person can do about it.
fn hint(error: &HandshakeError) -> &'static str {
    match error {
        HandshakeError::UnknownAuthority => "; name the CA's certificate with --ca, or skip the check with --insecure",
        HandshakeError::NotTls => "; a server without TLS is reached with ws://",
        _ => "",
    }
}

fn quoted(line: Option<&str>) -> String {
    line.map_or_else(String::new, |line| format!(": {line:?}"))
}
