//! Plain requests on a persistent connection: `GET /body/LENGTH?from=PLACE`. Every byte of the response is checked.

use std::ops::Range;
use std::sync::Arc;

use http::{Request, StatusCode, Uri};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::head::{Head, HeadError};
use crate::line::{Line, Shared};
use crate::pattern::Pattern;

/// Bytes read at once.
const SCRATCH: usize = 64 * 1024;

/// A client with one request under way at a time.
#[derive(Debug)]
pub struct Client {
    /// `https://HOST:PORT`, and the path before `/body`.
    authority: String,
    prefix: String,
    pattern: Arc<Pattern>,
    connection: Connection,
}

/// The connection of a client's requests.
#[derive(Debug)]
pub enum Connection {
    /// A connection of its own.
    Http1 {
        /// The connection.
        stream: Box<TlsStream<TcpStream>>,
        /// The buffer for its responses.
        scratch: Vec<u8>,
    },
    /// A connection shared with other clients.
    Http2 {
        /// The connection.
        line: Line,
        /// Keeps the connection in the dialer's map for later clients.
        shared: Shared,
    },
}

impl Connection {
    /// Returns an HTTP/1.1 connection on this stream.
    pub fn http1(stream: TlsStream<TcpStream>) -> Self {
        Self::Http1 { stream: Box::new(stream), scratch: vec![0; SCRATCH] }
    }
}

impl Client {
    /// Returns a client of `authority` (`HOST:PORT`), whose bodies are below the path `prefix`.
    pub fn new(authority: String, prefix: &str, pattern: Arc<Pattern>, connection: Connection) -> Self {
        Self { authority, prefix: prefix.trim_end_matches('/').into(), pattern, connection }
    }

    /// Fetches the body at the place of the message number `sequence` of session `index`.
    pub async fn fetch(&mut self, index: usize, sequence: u64, length: usize) -> Result<(), FetchError> {
        let place = self.pattern.place(index, sequence, length);
        let path = format!("{}/body/{length}?from={}", self.prefix, place.start);
        let body = Body { pattern: &self.pattern, place };
        match &mut self.connection {
            Connection::Http1 { stream, scratch } => {
                let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: */*\r\n\r\n", self.authority);
                http1(stream, scratch, &request, body).await
            }
            Connection::Http2 { line, .. } => http2(line, format!("https://{}{path}", self.authority), body).await,
        }
    }
}

async fn http1(
    stream: &mut TlsStream<TcpStream>,
    scratch: &mut [u8],
    request: &str,
    mut body: Body<'_>,
) -> Result<(), FetchError> {
    stream.write_all(request.as_bytes()).await.map_err(HeadError::Io)?;
    stream.flush().await.map_err(HeadError::Io)?;
    let (head, early) = Head::read(stream).await?;
    if head.status() != Some(200) {
        return Err(FetchError::Status { status: head.start_line().into() });
    }
    let length = head.field("Content-Length").and_then(|length| length.parse::<usize>().ok());
    if length != Some(body.place.len()) {
        return Err(FetchError::Length { announced: length, expected: body.place.len() });
    }
    body.take(&early)?;
    while !body.place.is_empty() {
        let read = stream.read(scratch).await.map_err(HeadError::Io)?;
        if read == 0 {
            break;
        }
        body.take(&scratch[..read])?;
    }
    body.end()
}

async fn http2(line: &Line, uri: String, mut body: Body<'_>) -> Result<(), FetchError> {
    let request = Request::get(Uri::try_from(uri)?).header(http::header::ACCEPT, "*/*").body(())?;
    let (_, answer) = line.request(request, true).await?;
    if answer.status() != StatusCode::OK {
        return Err(FetchError::Status { status: format!("HTTP/2 {}", answer.status()) });
    }
    let mut data = answer.into_body();
    while let Some(bytes) = data.data().await {
        let bytes = bytes?;
        data.flow_control().release_capacity(bytes.len())?;
        body.take(&bytes)?;
    }
    body.end()
}

/// The part of a body that is still expected.
struct Body<'a> {
    pattern: &'a Pattern,
    place: Range<usize>,
}

impl Body<'_> {
    fn take(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        let surplus = bytes.len().saturating_sub(self.place.len());
        if surplus > 0 {
            return Err(FetchError::Long { surplus });
        }
        if self.pattern.bytes(self.place.start..self.place.start + bytes.len()) != bytes {
            return Err(FetchError::Differs);
        }
        self.place.start += bytes.len();
        Ok(())
    }

    fn end(&self) -> Result<(), FetchError> {
        match self.place.len() {
            0 => Ok(()),
            missing => Err(FetchError::Short { missing }),
        }
    }
}

/// An error in a request.
#[derive(Debug, Error)]
pub enum FetchError {
    /// HTTP/1.1: the connection or the response head failed.
    #[error("the request got no answer")]
    Head(#[from] HeadError),
    /// HTTP/2: the connection or the stream failed.
    #[error("the request's HTTP/2 stream failed")]
    Stream(#[from] h2::Error),
    /// The URL is not valid in a request.
    #[error("the URL makes no request")]
    Request(#[from] http::Error),
    /// The URL is invalid.
    #[error("the URL makes no request")]
    Uri(#[from] http::uri::InvalidUri),
    /// The status is not 200.
    #[error("the request was refused: {status}")]
    Status {
        /// The status line.
        status: String,
    },
    /// The length is missing or wrong. The upstream always announces one, and a proxy has no reason to remove it.
    #[error("expected a Content-Length of {expected}, not {announced:?}")]
    Length {
        /// The length in the response.
        announced: Option<usize>,
        /// The length that was requested.
        expected: usize,
    },
    /// The body differs from the requested bytes.
    #[error("a body differs from what was asked for")]
    Differs,
    /// The body is too short.
    #[error("a body ended {missing} bytes too early")]
    Short {
        /// Missing bytes.
        missing: usize,
    },
    /// The body is too long.
    #[error("a body is {surplus} bytes too long")]
    Long {
        /// Surplus bytes.
        surplus: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(pattern: &Pattern) -> Body<'_> {
        Body { pattern, place: 5..15 }
    }

    #[test]
    fn a_body_may_arrive_in_pieces() {
        let pattern = Pattern::new(10);
        let (mut body, bytes) = (body(&pattern), pattern.bytes(5..15));
        body.take(&bytes[..3]).expect("the beginning is right");
        body.take(&[]).expect("nothing is nothing wrong");
        assert!(matches!(body.end(), Err(FetchError::Short { missing: 7 })));
        body.take(&bytes[3..]).expect("the rest is right");
        body.end().expect("it is whole");
    }

    #[test]
    fn a_body_must_be_the_one_asked_for() {
        let pattern = Pattern::new(10);
        let error = body(&pattern).take(pattern.bytes(6..9)).expect_err("it is shifted");
        assert!(matches!(error, FetchError::Differs), "{error}");
        let error = body(&pattern).take(pattern.bytes(5..16)).expect_err("it is longer");
        assert!(matches!(error, FetchError::Long { surplus: 1 }), "{error}");
    }
}
