//! The PROXY protocol, versions 1 and 2: the header that a load balancer writes before the client's own bytes, to
//! preserve the client's address (haproxy.org, "The PROXY protocol").
//!
//! [`HeaderReader`] consumes exactly the bytes of the header: the client's TLS follows. There is no fallback: the header is
//! complete and valid, or the connection is refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

/// The first bytes of a v2 header (§2.2); no v1 header and no TLS record begins with them.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The length of the fixed part: signature, version and command, family, and the length of the rest.
const FIXED: usize = 16;
/// The beginning of a version 1 line whose rest is ignored; the line may also end after the second word (§2.1).
const UNKNOWN: &[u8] = b"PROXY UNKNOWN ";
/// The maximum length of a version 1 line in bytes, its end included (§2.1).
const LINE_MAX: usize = 107;
/// The length of the addresses of version 2 for IPv6, the longest that are read.
const ADDRESSES_MAX: usize = 36;
/// The maximum length of a v2 header after its fixed part; senders keep it below 600 (§2).
const REST_MAX: usize = 4096;

/// Version and command of version 2: a connection of the sender itself, or on behalf of a client (§2.2).
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
/// Address family and transport of version 2.
const UNSPECIFIED: u8 = 0x00;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;
const UNIX_STREAM: u8 = 0x31;

/// The source of a connection according to its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxiedSource {
    /// The client at this address.
    Client(SocketAddr),
    /// The peer itself, for a health check (`LOCAL`), or because the client is unknown (`UNKNOWN`, `AF_UNSPEC`, a unix
    /// socket).
    Peer,
}

/// A malformed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// The beginning matches neither version.
    #[error("no PROXY header")]
    Absent,
    /// The header exceeds the maximum length.
    #[error("the PROXY header is too long")]
    TooLong,
    /// A malformed line of version 1.
    #[error("a malformed PROXY line")]
    Line,
    /// An unknown version, command, family or transport, or a transport other than TCP.
    #[error("a PROXY header of an unknown kind: {0:#04x} {1:#04x}")]
    Kind(u8, u8),
    /// A header of version 2 that is shorter than its addresses.
    #[error("a PROXY header that is too short for its addresses")]
    TooShort,
}

/// An incremental parser of one header.
#[derive(Clone, Debug)]
pub struct HeaderReader {
    /// The beginning of the header; the TLVs behind the addresses are counted and not kept.
    kept: [u8; LINE_MAX],
    taken: usize,
}

impl Default for HeaderReader {
    fn default() -> Self {
        Self { kept: [0; LINE_MAX], taken: 0 }
    }
}

impl HeaderReader {
    /// Consumes the part of `bytes` that belongs to the header. Returns its length, and the source once the header is
    /// complete; the parser must not be fed after that.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the bytes are not a valid header.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(usize, Option<ProxiedSource>), Malformed> {
        let mut used = 0;
        loop {
            let missing = match self.missing()? {
                Missing::Bytes(0) => return Ok((used, Some(self.source()?))),
                Missing::Bytes(count) => count,
                Missing::LineEnd => {
                    let rest = &bytes[used..];
                    rest.iter().position(|byte| *byte == b'\n').map_or(rest.len().max(1), |end| end + 1)
                }
            };
            if used == bytes.len() {
                return Ok((used, None));
            }
            let count = missing.min(bytes.len() - used);
            self.take(&bytes[used..used + count]);
            used += count;
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        let room = LINE_MAX.saturating_sub(self.taken).min(bytes.len());
        if room > 0 {
            self.kept[self.taken..self.taken + room].copy_from_slice(&bytes[..room]);
        }
        self.taken += bytes.len();
    }

    /// Returns what must be read before parsing can continue.
    fn missing(&self) -> Result<Missing, Malformed> {
        const V1: &[u8] = b"PROXY ";
        let kept = &self.kept[..self.taken.min(LINE_MAX)];
        if kept.is_empty() {
            return Ok(Missing::Bytes(1));
        }
        if begins_alike(kept, V1) {
            return match kept.len() {
                short if short < V1.len() => Ok(Missing::Bytes(V1.len() - short)),
                // A bare LF ends no line: it is ignored in the rest of an UNKNOWN line, and an error in any other.
                _ if kept.ends_with(b"\r\n") => Ok(Missing::Bytes(0)),
                _ if kept.ends_with(b"\n") && !kept.starts_with(UNKNOWN) => Err(Malformed::Line),
                _ if self.taken >= LINE_MAX => Err(Malformed::TooLong),
                _ => Ok(Missing::LineEnd),
            };
        }
        if !begins_alike(kept, &SIGNATURE) {
            return Err(Malformed::Absent);
        }
        if kept.len() < FIXED {
            return Ok(Missing::Bytes(FIXED - kept.len()));
        }
        let rest = usize::from(u16::from_be_bytes([kept[14], kept[15]]));
        if rest > REST_MAX { Err(Malformed::TooLong) } else { Ok(Missing::Bytes(FIXED + rest - self.taken)) }
    }

    /// Returns the source of a complete header.
    fn source(&self) -> Result<ProxiedSource, Malformed> {
        if self.kept[0] == b'P' {
            return line(&self.kept[..self.taken]);
        }
        let addresses = &self.kept[FIXED..self.taken.min(FIXED + ADDRESSES_MAX)];
        binary(self.kept[12], self.kept[13], addresses)
    }
}

/// The missing part of a header.
enum Missing {
    Bytes(usize),
    /// Everything up to the end of the line.
    LineEnd,
}

/// Returns whether one slice is a prefix of the other.
fn begins_alike(bytes: &[u8], with: &[u8]) -> bool {
    bytes.iter().zip(with).all(|(one, other)| one == other)
}

/// Parses a complete line of version 1, the end of line included (§2.1).
fn line(line: &[u8]) -> Result<ProxiedSource, Malformed> {
    let line = line.strip_suffix(b"\r\n").ok_or(Malformed::Line)?;
    if line == UNKNOWN.trim_ascii_end() || line.starts_with(UNKNOWN) {
        return Ok(ProxiedSource::Peer);
    }
    let line = str::from_utf8(line).map_err(|_| Malformed::Line)?;
    let mut words = line.split(' ').skip(1);
    let family = words.next();
    let words: Vec<&str> = words.collect();
    let [from, to, from_port, to_port] = words[..] else { return Err(Malformed::Line) };
    let (from, to): (IpAddr, IpAddr) = match family {
        Some("TCP4") => (address::<Ipv4Addr>(from)?, address::<Ipv4Addr>(to)?),
        Some("TCP6") => (address::<Ipv6Addr>(from)?, address::<Ipv6Addr>(to)?),
        _ => return Err(Malformed::Line),
    };
    let (from_port, _) = (port(from_port)?, port(to_port)?);
    let _ = to;
    Ok(ProxiedSource::Client(SocketAddr::new(from.to_canonical(), from_port)))
}

fn address<A: std::str::FromStr + Into<IpAddr>>(word: &str) -> Result<IpAddr, Malformed> {
    word.parse::<A>().map(Into::into).map_err(|_| Malformed::Line)
}

/// Parses a port: decimal digits without leading zeros.
fn port(word: &str) -> Result<u16, Malformed> {
    let is_decimal = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| is_decimal).ok_or(Malformed::Line)
}

/// Parses a header of version 2: the byte of version and command, the byte of family and transport, and as many address
/// bytes as are present (§2.2).
fn binary(version: u8, family: u8, addresses: &[u8]) -> Result<ProxiedSource, Malformed> {
    match (version, family) {
        (LOCAL, _) | (PROXY, UNSPECIFIED | UNIX_STREAM) => Ok(ProxiedSource::Peer),
        (PROXY, TCP_OVER_IPV4) => match *addresses {
            [a, b, c, d, _, _, _, _, high, low, _, _, ..] => Ok(client(Ipv4Addr::new(a, b, c, d), [high, low])),
            _ => Err(Malformed::TooShort),
        },
        (PROXY, TCP_OVER_IPV6) => match (addresses.first_chunk::<16>(), addresses.get(32..36)) {
            (Some(from), Some(&[high, low, _, _])) => Ok(client(Ipv6Addr::from(*from), [high, low])),
            _ => Err(Malformed::TooShort),
        },
        _ => Err(Malformed::Kind(version, family)),
    }
}

fn client(address: impl Into<IpAddr>, port: [u8; 2]) -> ProxiedSource {
    ProxiedSource::Client(SocketAddr::new(address.into().to_canonical(), u16::from_be_bytes(port)))
}

/// Encodes a header of version 2 for a connection that `client` has opened to `local`, or, with `None`, for a
/// connection of the proxy itself (§2.2). If one address is IPv4 and the other IPv6, both are written as IPv6.
pub fn v2(addresses: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    let Some((client, local)) = addresses else {
        header.extend_from_slice(&[LOCAL, UNSPECIFIED, 0, 0]);
        return header;
    };
    match (client.ip().to_canonical(), local.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.extend_from_slice(&[PROXY, TCP_OVER_IPV4, 0, 12]);
            header.extend_from_slice(&from.octets());
            header.extend_from_slice(&to.octets());
        }
        (from, to) => {
            let v6 = |address| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped(),
                IpAddr::V6(address) => address,
            };
            header.extend_from_slice(&[PROXY, TCP_OVER_IPV6, 0, 36]);
            header.extend_from_slice(&v6(from).octets());
            header.extend_from_slice(&v6(to).octets());
        }
    }
    header.extend_from_slice(&client.port().to_be_bytes());
    header.extend_from_slice(&local.port().to_be_bytes());
    header
}

#[cfg(test)]
mod tests;
