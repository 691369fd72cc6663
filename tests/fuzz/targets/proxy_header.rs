//! The PROXY header, versions 1 and 2, in any chunks, against the crate `ppp`.

use std::net::{IpAddr, SocketAddr};

use ppp::{HeaderResult, PartialResult as _, v1, v2};
use pulsegate::proxy_protocol::{HeaderReader, Malformed, ProxiedSource};

/// The longest line of version 1 (§2.1).
const LINE_MAX: usize = 107;
/// The maximum length of a header of version 2 after its fixed part.
const REST_MAX: usize = 4096;

/// Reads `data`: the size of the chunks, and the beginning of a connection.
pub fn run(data: &[u8]) {
    let Some((size, bytes)) = data.split_first() else { return };
    let whole = feed(bytes, bytes.len().max(1));
    assert_eq!(feed(bytes, 1), whole, "byte by byte");
    assert_eq!(feed(bytes, usize::from(*size) + 1), whole, "in chunks of {}", size + u8::from(*size < u8::MAX));
    if bytes.starts_with(b"PROXY UNKNOWN ") {
        return assert_eq!(whole, unknown(bytes), "{}", bytes.escape_ascii());
    }
    let theirs = HeaderResult::parse(bytes);
    match whole {
        Ok((taken, Some(source))) => match theirs {
            HeaderResult::V1(Ok(header)) => {
                assert_eq!(header.header.len(), taken, "{}", bytes.escape_ascii());
                assert_eq!(source, of_line(&header), "{}", bytes.escape_ascii());
            }
            HeaderResult::V2(Ok(header)) => {
                assert_eq!(header.len(), taken, "{}", bytes.escape_ascii());
                assert_eq!(source, of_binary(&header).expect("a kind that is taken"), "{}", bytes.escape_ascii());
            }
            // The addresses of LOCAL are ignored (§2.2).
            _ => assert_eq!(source, ProxiedSource::Peer, "{}", bytes.escape_ascii()),
        },
        Ok((taken, None)) => {
            assert_eq!(taken, bytes.len(), "what is not the end is taken in whole");
            assert!(!matches!(theirs, HeaderResult::V1(Ok(_)) | HeaderResult::V2(Ok(_))), "{}", bytes.escape_ascii());
        }
        Err(error) => match theirs {
            // ppp accepts a sign before a port; the specification has digits alone (§2.1).
            HeaderResult::V1(Ok(header)) => assert!(header.header.contains('+'), "{error}: {header}"),
            HeaderResult::V2(Ok(header)) => {
                let too_long = error == Malformed::TooLong && header.length() > REST_MAX;
                assert!(too_long || of_binary(&header).is_none(), "{error}: {header}");
            }
            theirs => {
                assert!(!theirs.is_incomplete() || early(error), "{error}, but ppp waits: {}", bytes.escape_ascii());
            }
        },
    }
}

/// Parses a line of UNKNOWN: all before its CRLF is ignored (§2.1), whereas `ppp` ends it at a bare CR.
fn unknown(bytes: &[u8]) -> Result<(usize, Option<ProxiedSource>), Malformed> {
    match bytes[..bytes.len().min(LINE_MAX)].windows(2).position(|two| two == b"\r\n") {
        Some(end) => Ok((end + 2, Some(ProxiedSource::Peer))),
        None if bytes.len() < LINE_MAX => Ok((bytes.len(), None)),
        None => Err(Malformed::TooLong),
    }
}

/// Returns true for errors that are found before `ppp` sees the whole of the header.
fn early(error: Malformed) -> bool {
    matches!(error, Malformed::TooLong | Malformed::Absent | Malformed::Line | Malformed::Kind(..))
}

/// Returns the result of `bytes` in chunks of `size`.
fn feed(bytes: &[u8], size: usize) -> Result<(usize, Option<ProxiedSource>), Malformed> {
    let mut header = HeaderReader::default();
    let mut taken = 0;
    for chunk in bytes.chunks(size) {
        let (used, source) = header.feed(chunk)?;
        assert!(used <= chunk.len() && (source.is_some() || used == chunk.len()), "{used} of {}", chunk.len());
        taken += used;
        if source.is_some() {
            return Ok((taken, source));
        }
    }
    Ok((taken, None))
}

fn client(address: impl Into<IpAddr>, port: u16) -> ProxiedSource {
    ProxiedSource::Client(SocketAddr::new(address.into().to_canonical(), port))
}

fn of_line(header: &v1::Header<'_>) -> ProxiedSource {
    match header.addresses {
        v1::Addresses::Tcp4(ip) => client(ip.source_address, ip.source_port),
        v1::Addresses::Tcp6(ip) => client(ip.source_address, ip.source_port),
        v1::Addresses::Unknown => ProxiedSource::Peer,
    }
}

/// Returns the source; `None` for a protocol other than TCP.
fn of_binary(header: &v2::Header<'_>) -> Option<ProxiedSource> {
    if header.command == v2::Command::Local {
        return Some(ProxiedSource::Peer);
    }
    match (header.protocol, header.addresses) {
        (v2::Protocol::Stream, v2::Addresses::IPv4(ip)) => Some(client(ip.source_address, ip.source_port)),
        (v2::Protocol::Stream, v2::Addresses::IPv6(ip)) => Some(client(ip.source_address, ip.source_port)),
        (v2::Protocol::Stream, v2::Addresses::Unix(_)) => Some(ProxiedSource::Peer),
        (v2::Protocol::Unspecified, v2::Addresses::Unspecified) => Some(ProxiedSource::Peer),
        _ => None,
    }
}
