//! Detection of the protocol by a connection's first bytes, and the lingering close of a refused connection.

use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::suspension;

/// The time limit of [`try_close`].
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest method that is recognised, in bytes; among the registered methods, `PROPPATCH` and `VERSION-CONTROL` are
/// long ones.
const LONGEST_METHOD: usize = 16;

/// The response to a plain HTTP request on the TLS port.
pub(super) const USE_HTTPS: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 72\r\n\
    Connection: close\r\n\
    \r\n\
    This port speaks TLS: use https:// (or wss://) instead of http:// here.\n";

/// The protocol of a connection, as its first bytes show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstBytes {
    /// A TLS handshake record; its bytes are still in the socket.
    Tls,
    /// A plain HTTP request.
    Http,
    /// Another protocol.
    Foreign,
}

/// Detects the protocol of `tcp`. The first byte is peeked, so TLS keeps all its bytes; further bytes are read only
/// when it is not TLS.
///
/// # Errors
///
/// The errors of the socket, and `UnexpectedEof` if the client closes before its first byte.
pub(super) async fn detect(tcp: &mut TcpStream) -> io::Result<FirstBytes> {
    let mut head = [0; LONGEST_METHOD + 1];
    if tcp.peek(&mut head[..1]).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut length = 0;
    loop {
        if let Some(opening) = classify(if length == 0 { &head[..1] } else { &head[..length] }) {
            return Ok(opening);
        }
        match tcp.read(&mut head[length..]).await? {
            0 => return Ok(FirstBytes::Foreign),
            read => length += read,
        }
    }
}

/// Returns the protocol that begins with `head`, which is not empty; `None` while more bytes are needed.
fn classify(head: &[u8]) -> Option<FirstBytes> {
    const HANDSHAKE_RECORD: u8 = 22; // ContentType of RFC 8446 §5.1
    if head.first() == Some(&HANDSHAKE_RECORD) {
        return Some(FirstBytes::Tls);
    }
    // A method is a token (RFC 9110 §9.1); the registered ones consist of capital letters and hyphens.
    let method = head.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-').count();
    match head.get(method) {
        Some(b' ') if method > 0 => Some(FirstBytes::Http),
        None if method <= LONGEST_METHOD => None,
        _ => Some(FirstBytes::Foreign),
    }
}

/// Sends `answer`, shuts the connection down for writing, and discards what the peer still sends until it closes, for
/// one second at most. A close with unread bytes would send a reset, which can overtake the answer.
pub(crate) async fn try_close(mut tcp: TcpStream, answer: &[u8]) {
    let closed = async {
        tcp.write_all(answer).await?;
        tcp.shutdown().await?;
        let mut rest = [0; 1024];
        while tcp.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    // The connection closes in any case, also after an error or the time limit.
    let _ = suspension::timeout(CLOSE_TIMEOUT, pin!(closed)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_detected_by_as_few_bytes_as_possible() {
        for (head, expected) in [
            (&b"\x16"[..], Some(FirstBytes::Tls)),
            (b"\x16\x03\x01\x02\x00", Some(FirstBytes::Tls)),
            (b"GET / HTTP/1.1\r\n", Some(FirstBytes::Http)),
            (b"PRI * HTTP/2.0\r\n", Some(FirstBytes::Http)),
            (b"VERSION-CONTROL /", Some(FirstBytes::Http)),
            (b"G", None),
            (b"DELETE", None),
            (b" GET", Some(FirstBytes::Foreign)),
            (b"GET\r\n", Some(FirstBytes::Foreign)),
            (b"get / HTTP/1.1", Some(FirstBytes::Foreign)),
            (b"\x80\x2e\x01\x03\x01", Some(FirstBytes::Foreign)),
            (b"SSH-2.0-OpenSSH_9", Some(FirstBytes::Foreign)),
            (b"AAAAAAAAAAAAAAAAA", Some(FirstBytes::Foreign)),
        ] {
            assert_eq!(classify(head), expected, "{:?}", String::from_utf8_lossy(head));
        }
    }

    #[test]
    fn the_answer_declares_its_own_length() {
        let text = std::str::from_utf8(USE_HTTPS).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("head and body");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{} bytes: {text}", body.len());
    }
}
