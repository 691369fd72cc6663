//! Tests of the PROXY header parser, with the ppp crate as the oracle.

use ppp::{HeaderResult, PartialResult};
use proptest::prelude::*;

use super::*;

/// Feeds `bytes` in pieces of these sizes, repeated; returns the number of bytes consumed and the source.
fn fed(bytes: &[u8], pieces: &[usize]) -> Result<(usize, Option<ProxiedSource>), Malformed> {
    let mut header = HeaderReader::default();
    let mut taken = 0;
    for size in pieces.iter().cycle() {
        let end = bytes.len().min(taken + size);
        let (used, source) = header.feed(&bytes[taken..end])?;
        assert!(source.is_some() || used == end - taken, "what is not the end is taken in whole");
        taken += used;
        if source.is_some() || taken == bytes.len() {
            return Ok((taken, source));
        }
    }
    unreachable!("the pieces go on for ever")
}

fn whole(bytes: &[u8]) -> Result<(usize, Option<ProxiedSource>), Malformed> {
    fed(bytes, &[bytes.len().max(1)])
}

fn from(text: &str) -> ProxiedSource {
    ProxiedSource::Client(text.parse().expect("an address"))
}

fn v2(version: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = u16::try_from(addresses.len()).expect("short").to_be_bytes();
    [&SIGNATURE[..], &[version, family], &length, addresses].concat()
}

const IPV4: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0x9c, 0x40, 0x20, 0xfb];

fn ipv6() -> Vec<u8> {
    let from: Ipv6Addr = "2001:db8::7".parse().expect("an address");
    [&from.octets()[..], &Ipv6Addr::LOCALHOST.octets(), &[0x9c, 0x40, 0x20, 0xfb]].concat()
}

#[test]
fn sound_headers_tell_the_client() {
    let tlvs = [&IPV4[..], &[4; 500]].concat();
    for (header, source) in [
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 8443\r\n".to_vec(), from("192.0.2.7:40000")),
        (b"PROXY TCP6 2001:db8::7 ::1 40000 8443\r\n".to_vec(), from("[2001:db8::7]:40000")),
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 1\r\n".to_vec(), from("192.0.2.7:1")),
        (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 65535\r\n".to_vec(), from("0.0.0.0:0")),
        (b"PROXY UNKNOWN\r\n".to_vec(), ProxiedSource::Peer),
        (b"PROXY UNKNOWN what ever 1 2 3\r\n".to_vec(), ProxiedSource::Peer),
        (b"PROXY UNKNOWN \r\n".to_vec(), ProxiedSource::Peer),
        (v2(0x21, 0x11, &IPV4), from("192.0.2.7:40000")),
        (v2(0x21, 0x11, &tlvs), from("192.0.2.7:40000")),
        (v2(0x21, 0x21, &ipv6()), from("[2001:db8::7]:40000")),
        (v2(0x20, 0x00, &[]), ProxiedSource::Peer),
        (v2(0x20, 0x11, &IPV4), ProxiedSource::Peer),
        (v2(0x21, 0x00, &[9; 40]), ProxiedSource::Peer),
        (v2(0x21, 0x31, &[9; 216]), ProxiedSource::Peer),
    ] {
        // Bytes after the header are left alone, even another header.
        let followed = [&header[..], b"PROXY UNKNOWN\r\n\x16\x03\x01"].concat();
        for pieces in [&[followed.len()][..], &[1], &[5, 11], &[16, 1]] {
            assert_eq!(fed(&followed, pieces), Ok((header.len(), Some(source))), "{}", header.escape_ascii());
        }
        for cut in 0..header.len() {
            assert_eq!(whole(&header[..cut]), Ok((cut, None)), "{} cut at {cut}", header.escape_ascii());
        }
    }
}

#[test]
fn nothing_is_guessed() {
    for (bytes, error) in [
        (&b"GET / HTTP/1.1\r\n"[..], Malformed::Absent),
        (b"\x16\x03\x01\x02\x00\x01", Malformed::Absent),
        (b"PROXX", Malformed::Absent),
        (b"proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n", Malformed::Absent),
        (b"\r\n\r\n\x00\r\nQUIX", Malformed::Absent),
        (b"PROXY \r\n", Malformed::Line),
        (b"PROXY TCP4\r\n", Malformed::Line),
        (b"PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n", Malformed::Line),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n", Malformed::Line),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n", Malformed::Line),
        (b"PROXY  TCP4 1.1.1.1 2.2.2.2 1 2\r\n", Malformed::Line),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n", Malformed::Line),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n", Malformed::Line),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n", Malformed::Line),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n", Malformed::Line),
        (b"PROXY TCP4 1.1.1 2.2.2.2 1 2\r\n", Malformed::Line),
        (b"PROXY TCP4 01.1.1.1 2.2.2.2 1 2\r\n", Malformed::Line),
        (b"PROXY TCP4 ::1 ::1 1 2\r\n", Malformed::Line),
        (b"PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n", Malformed::Line),
        (b"PROXY TCP4 1.1.1.1 evil 1 2\r\n", Malformed::Line),
        (b"PROXY UNKNOWNS\r\n", Malformed::Line),
        (b"PROXY UNKNOWN\n", Malformed::Line),
        (b"PROXY UNKNOWN\n\r\n", Malformed::Line),
        (b"PROXY TCP4 1.1.1.1 \xff\xff 1 2\r\n", Malformed::Line),
    ] {
        for pieces in [&[bytes.len()][..], &[1]] {
            assert_eq!(fed(bytes, pieces), Err(error), "{}", bytes.escape_ascii());
        }
    }
    for (version, family, addresses, error) in [
        (0x11, 0x11, &IPV4[..], Malformed::Kind(0x11, 0x11)),
        (0x22, 0x11, &IPV4, Malformed::Kind(0x22, 0x11)),
        (0x21, 0x12, &IPV4, Malformed::Kind(0x21, 0x12)),
        (0x21, 0x41, &IPV4, Malformed::Kind(0x21, 0x41)),
        (0x21, 0x11, &IPV4[..11], Malformed::TooShort),
        (0x21, 0x21, &ipv6()[..35], Malformed::TooShort),
        (0x21, 0x11, &[0; REST_MAX + 1], Malformed::TooLong),
        (0x20, 0x00, &[0; REST_MAX + 1], Malformed::TooLong),
    ] {
        assert_eq!(whole(&v2(version, family, addresses)), Err(error), "{version:x} {family:x}");
    }
    assert_eq!(whole(&v2(0x20, 0, &[0; REST_MAX])).expect("just not too long").1, Some(ProxiedSource::Peer));
}

#[test]
fn all_before_the_end_of_an_unknown_line_is_ignored() {
    for rest in [&b"a\nb"[..], b"\n", b"\rGET /\n", b"\xff\xfe\0", b"TCP4 1.1.1.1 2.2.2.2 1 2\n"] {
        let header = [b"PROXY UNKNOWN ", rest, b"\r\n"].concat();
        let followed = [&header[..], b"\x16\x03\x01\r\n"].concat();
        for pieces in [&[followed.len()][..], &[1], &[16, 1]] {
            let expected = Ok((header.len(), Some(ProxiedSource::Peer)));
            assert_eq!(fed(&followed, pieces), expected, "{}", header.escape_ascii());
        }
        for cut in 0..header.len() {
            assert_eq!(whole(&header[..cut]), Ok((cut, None)), "{} cut at {cut}", header.escape_ascii());
        }
    }
}

#[test]
fn a_line_ends_in_time_or_is_refused() {
    let of = |length: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(length - 16)).into_bytes();
    assert_eq!(whole(&of(LINE_MAX)), Ok((LINE_MAX, Some(ProxiedSource::Peer))));
    for pieces in [&[1][..], &[1000], &[106, 1]] {
        assert_eq!(fed(&of(LINE_MAX + 1), pieces), Err(Malformed::TooLong));
        assert_eq!(fed(&[b"PROXY UNKNOWN".as_slice(), &[b'x'; 5000]].concat(), pieces), Err(Malformed::TooLong));
    }
}

/// Returns the source that the ppp crate reads from a complete header.
fn oracle(bytes: &[u8]) -> Option<ProxiedSource> {
    let client = |address: IpAddr, port| Some(ProxiedSource::Client(SocketAddr::new(address.to_canonical(), port)));
    let parsed = HeaderResult::parse(bytes);
    if parsed.is_incomplete() {
        return None;
    }
    match parsed {
        HeaderResult::V1(Ok(header)) => match header.addresses {
            ppp::v1::Addresses::Tcp4(tcp) => client(tcp.source_address.into(), tcp.source_port),
            ppp::v1::Addresses::Tcp6(tcp) => client(tcp.source_address.into(), tcp.source_port),
            ppp::v1::Addresses::Unknown => Some(ProxiedSource::Peer),
        },
        HeaderResult::V2(Ok(header)) => match (header.command, header.addresses) {
            (ppp::v2::Command::Local, _) => Some(ProxiedSource::Peer),
            (_, ppp::v2::Addresses::IPv4(tcp)) => client(tcp.source_address.into(), tcp.source_port),
            (_, ppp::v2::Addresses::IPv6(tcp)) => client(tcp.source_address.into(), tcp.source_port),
            _ => Some(ProxiedSource::Peer),
        },
        _ => None,
    }
}

/// Generates a valid header of either version, with TLVs after its addresses.
fn sound() -> impl Strategy<Value = Vec<u8>> {
    let v1 = any::<(SocketAddr, u16)>().prop_map(|(from, port)| match from.ip() {
        IpAddr::V4(ip) => format!("PROXY TCP4 {ip} {ip} {} {port}\r\n", from.port()).into_bytes(),
        IpAddr::V6(ip) => format!("PROXY TCP6 {ip} {ip} {} {port}\r\n", from.port()).into_bytes(),
    });
    let tlv = (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(kind, value)| {
        let length = u16::try_from(value.len()).expect("short").to_be_bytes();
        [&[kind][..], &length, &value].concat()
    });
    let tlvs = proptest::collection::vec(tlv, 0..4).prop_map(|tlvs| tlvs.concat());
    let v2 = (any::<SocketAddr>(), 0x20..=0x21_u8, tlvs).prop_map(|(from, version, tlvs)| {
        let port = from.port().to_be_bytes();
        let (family, ip) = match from.ip() {
            IpAddr::V4(ip) => (0x11, ip.octets().to_vec()),
            IpAddr::V6(ip) => (0x21, ip.octets().to_vec()),
        };
        v2(version, family, &[&ip[..], &ip, &port, &port, &tlvs].concat())
    });
    prop_oneof![v1, v2]
}

proptest! {
    #[test]
    fn a_sound_header_means_what_another_parser_says_in_any_pieces(
        header in sound(),
        behind in proptest::collection::vec(any::<u8>(), 0..50),
        pieces in proptest::collection::vec(1..40_usize, 1..8),
    ) {
        let source = oracle(&header);
        prop_assert!(source.is_some());
        let bytes = [&header[..], &behind].concat();
        prop_assert_eq!(fed(&bytes, &pieces), Ok((header.len(), source)));
    }

    #[test]
    fn any_bytes_in_any_pieces_come_to_the_same(
        mut header in sound(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        behind in proptest::collection::vec(any::<u8>(), 0..200),
        pieces in proptest::collection::vec(1..40_usize, 1..8),
    ) {
        for (index, byte) in flips {
            let index = index.index(header.len());
            header[index] = byte;
        }
        let bytes = [&header[..], &behind].concat();
        let outcome = whole(&bytes);
        prop_assert_eq!(fed(&bytes, &pieces), outcome);
        if let Ok((taken, Some(_))) = outcome {
            prop_assert!(taken <= FIXED + REST_MAX);
        }
    }
}

#[test]
fn written_headers_are_read_by_another_implementation_and_by_this_one() {
    use ppp::v2::{Addresses, Command, Header as Other, Protocol};
    let address = |text: &str| text.parse::<SocketAddr>().expect(text);
    for (client, local, expected) in [
        ("192.0.2.7:40000", "198.51.100.1:8443", "192.0.2.7:40000 198.51.100.1:8443"),
        ("[2001:db8::7]:40000", "[2001:db8::1]:8443", "[2001:db8::7]:40000 [2001:db8::1]:8443"),
        ("[::ffff:192.0.2.7]:1", "198.51.100.1:2", "192.0.2.7:1 198.51.100.1:2"),
        ("192.0.2.7:1", "[2001:db8::1]:2", "[::ffff:192.0.2.7]:1 [2001:db8::1]:2"),
    ] {
        let bytes = super::v2(Some((address(client), address(local))));
        let read = Other::try_from(bytes.as_slice()).expect("a sound header");
        assert_eq!((read.command, read.protocol, read.len()), (Command::Proxy, Protocol::Stream, bytes.len()));
        let (from, to) = match read.addresses {
            Addresses::IPv4(of) => {
                ((of.source_address, of.source_port).into(), (of.destination_address, of.destination_port).into())
            }
            Addresses::IPv6(of) => (
                SocketAddr::from((of.source_address, of.source_port)),
                SocketAddr::from((of.destination_address, of.destination_port)),
            ),
            other => panic!("{other:?}"),
        };
        let (from, to): (SocketAddr, SocketAddr) = (from, to);
        assert_eq!(format!("{from} {to}"), expected);
        let ours = SocketAddr::new(address(client).ip().to_canonical(), address(client).port());
        assert_eq!(HeaderReader::default().feed(&bytes), Ok((bytes.len(), Some(ProxiedSource::Client(ours)))));
    }
    let bytes = super::v2(None);
    let read = Other::try_from(bytes.as_slice()).expect("a sound header");
    assert_eq!((read.command, read.addresses), (Command::Local, Addresses::Unspecified));
    assert_eq!(HeaderReader::default().feed(&bytes), Ok((bytes.len(), Some(ProxiedSource::Peer))));
}
