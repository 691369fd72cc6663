//! The head of an HTTP/1.1 message: the subset of HTTP that an upgrade or a fetch needs.

use std::io;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The maximum size of a head, in bytes.
const LIMIT: usize = 16 * 1024;

/// A start line and header fields.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    text: String,
}

impl Head {
    /// Reads up to the empty line. Returns the head and the bytes received after it.
    pub async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(Self, Vec<u8>), HeadError> {
        Self::read_on(stream, Vec::with_capacity(1024)).await
    }

    /// Reads the next head on a connection with several messages; `bytes` were received after the last one.
    pub async fn read_on<S: AsyncRead + Unpin>(
        stream: &mut S,
        mut bytes: Vec<u8>,
    ) -> Result<(Self, Vec<u8>), HeadError> {
        let mut searched = 0;
        loop {
            // The empty line may be split over two reads.
            let from = usize::saturating_sub(searched, 3);
            if let Some(at) = bytes[from..].windows(4).position(|window| window == b"\r\n\r\n") {
                let rest = bytes.split_off(from + at + 4);
                let text = String::from_utf8(bytes).map_err(|_| HeadError::Encoding)?;
                return Ok((Self { text }, rest));
            }
            if bytes.len() > LIMIT {
                return Err(HeadError::TooLong);
            }
            searched = bytes.len();
            if stream.read_buf(&mut bytes).await? == 0 {
                return Err(HeadError::Cut { bytes: searched });
            }
        }
    }

    /// Returns the whole head, including the empty line.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the request or status line.
    pub fn start_line(&self) -> &str {
        self.text.lines().next().unwrap_or_default()
    }

    /// Returns the status code of a response.
    pub fn status(&self) -> Option<u16> {
        self.start_line().strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
    }

    /// Returns the value of a field. The name is case-insensitive.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.text
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }
}

/// An error in reading a head.
#[derive(Debug, Error)]
pub enum HeadError {
    /// The connection failed.
    #[error("the connection failed in an HTTP head")]
    Io(#[from] io::Error),
    /// The connection ended early.
    #[error("the connection ended after {bytes} bytes of an HTTP head")]
    Cut {
        /// Bytes received before.
        bytes: usize,
    },
    /// The head is longer than any of this benchmark.
    #[error("an HTTP head is longer than {LIMIT} bytes")]
    TooLong,
    /// The head is not UTF-8.
    #[error("an HTTP head is not UTF-8")]
    Encoding,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_after_the_head_are_kept() {
        let (head, rest) = Head::read(&mut &b"HTTP/1.1 101 Switching\r\nUPGRADE:  websocket\r\n\r\n\x81\x00"[..])
            .await
            .expect("the head is whole");
        assert_eq!(head.status(), Some(101));
        assert_eq!(head.field("Upgrade"), Some("websocket"));
        assert_eq!(head.field("Connection"), None);
        assert_eq!(rest, b"\x81\x00");
    }

    #[tokio::test]
    async fn heads_may_arrive_together() {
        let mut stream = &b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r"[..];
        let (head, rest) = Head::read(&mut stream).await.expect("the first head is whole");
        assert_eq!(head.start_line(), "GET /1 HTTP/1.1");
        let (head, rest) = Head::read_on(&mut &b"\nmore"[..], rest).await.expect("the second is made whole");
        assert_eq!((head.start_line(), &rest[..]), ("GET /2 HTTP/1.1", &b"more"[..]));
        let (head, rest) =
            Head::read_on(&mut &b""[..], b"GET /3 HTTP/1.1\r\n\r\n".to_vec()).await.expect("nothing need be read");
        assert_eq!((head.start_line(), rest.len()), ("GET /3 HTTP/1.1", 0));
    }

    #[tokio::test]
    async fn a_head_may_arrive_byte_by_byte() {
        let (mut near, mut far) = tokio::io::duplex(1);
        let write = async {
            tokio::io::AsyncWriteExt::write_all(&mut far, b"GET / HTTP/1.1\r\n\r\n")
                .await
                .expect("the reader reads on");
        };
        let ((head, rest), ()) = tokio::join!(async { Head::read(&mut near).await.expect("the head is whole") }, write);
        assert_eq!(head.start_line(), "GET / HTTP/1.1");
        assert!(rest.is_empty());
    }

    #[tokio::test]
    async fn an_early_end_reports_the_bytes_received() {
        let error = Head::read(&mut &b"HTTP/1.1 101"[..]).await.expect_err("the head is cut");
        assert_eq!(error.to_string(), "the connection ended after 12 bytes of an HTTP head");
    }

    #[tokio::test]
    async fn an_endless_head_is_refused() {
        let error = Head::read(&mut tokio::io::repeat(b'a')).await.expect_err("there is no end");
        assert!(matches!(error, HeadError::TooLong), "{error}");
    }
}
