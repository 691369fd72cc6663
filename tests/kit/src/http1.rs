//! HTTP/1.1 as bytes: heads and responses.

use tokio::io::{AsyncRead, AsyncReadExt};

/// A response, read to its end.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Everything up to the empty line.
    pub head: String,
    /// The body, transfer coding removed.
    pub body: String,
}

impl Response {
    /// Reads one response; `None` when the stream ends first. The body ends where its framing says (RFC 9112 §6).
    pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Self> {
        let head = read_head(stream).await?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let mut answer = Self { status, head, body: String::new() };
        let body = if status == 101 || status == 204 || status == 304 {
            Vec::new()
        } else if answer.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            read_chunks(stream).await?
        } else if let Some(length) = answer.header("content-length") {
            let mut body = vec![0; length.parse().ok()?];
            stream.read_exact(&mut body).await.ok()?;
            body
        } else {
            let mut body = Vec::new();
            stream.read_to_end(&mut body).await.ok()?;
            body
        };
        answer.body = String::from_utf8_lossy(&body).into_owned();
        Some(answer)
    }

    /// Returns the first header of this name.
    pub fn header<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.headers(name).next()
    }

    /// Returns all headers of this name, in order.
    pub fn headers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        header_lines(&self.head).filter(move |(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Reads up to and including the empty line that ends a head, and no further byte.
pub async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// Returns the header fields of a head, without its first line.
pub fn header_lines(head: &str) -> impl Iterator<Item = (&str, &str)> {
    head.lines().skip(1).filter_map(|line| line.split_once(':')).map(|(name, value)| (name, value.trim()))
}

/// Reads one chunk of a chunked body; the last one is empty (RFC 9112 §7.1). Trailers are skipped.
pub async fn read_chunk(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let size = read_line(stream).await?;
    let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
    let mut chunk = vec![0; size];
    stream.read_exact(&mut chunk).await.ok()?;
    while !read_line(stream).await?.is_empty() {}
    Some(chunk)
}

async fn read_chunks(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let chunk = read_chunk(stream).await?;
        if chunk.is_empty() {
            return Some(body);
        }
        body.extend(chunk);
    }
}

async fn read_line(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(stream.read_u8().await.ok()?);
    }
    line.truncate(line.len() - 2);
    String::from_utf8(line).ok()
}
