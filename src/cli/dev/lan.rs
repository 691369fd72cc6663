//! The address of this machine in the local network, and the QR code by which a phone finds it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use thiserror::Error;

/// An address of documentation (RFC 5737). No packet is sent to it; the system chooses the address from which it would send one.
const ELSEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);

/// Black on white, whatever the colours of the terminal are: cameras read nothing else reliably.
const COLOURS: (&str, &str) = ("\x1b[30;107m", "\x1b[0m");

/// An address that cannot be used.
#[derive(Debug, Error)]
pub(super) enum LanError {
    /// The system has no route out of this machine.
    #[error(
        "this machine has no address in a local network{}; connect it to one, or name the address: --lan=192.168.1.5",
        because(.0.as_ref())
    )]
    NoAddress(Option<io::Error>),
    /// The named address is none by which one machine is reached.
    #[error("{0} is not the address of one machine; `ip address` or `ifconfig` lists yours, and --lan alone finds one")]
    NotUnicast(Ipv4Addr),
    /// The named address is another machine's.
    #[error(
        "{0} is no address of this machine ({1}); `ip address` or `ifconfig` lists them, and --lan alone finds one"
    )]
    NotOurs(Ipv4Addr, io::Error),
}

fn because(error: Option<&io::Error>) -> String {
    error.map_or_else(String::new, |error| format!(" ({error})"))
}

/// Returns `wanted` if it belongs to this machine, or the address from which packets leave it.
///
/// # Errors
///
/// There is no such address.
pub(super) fn address(wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr, LanError> {
    match wanted {
        Some(address) => {
            if address.is_unspecified() || address.is_multicast() || address.is_broadcast() {
                return Err(LanError::NotUnicast(address));
            }
            let socket = UdpSocket::bind((address, 0)).map_err(|error| LanError::NotOurs(address, error))?;
            // The broadcast address of a network can be bound; a destination it is on request only. Nothing is sent.
            match socket.connect((address, ELSEWHERE.port())) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(LanError::NotUnicast(address));
                }
                _ => {}
            }
            Ok(address)
        }
        None => match outward() {
            Ok(IpAddr::V4(address)) if !address.is_loopback() && !address.is_unspecified() => Ok(address),
            Ok(_) => Err(LanError::NoAddress(None)),
            Err(error) => Err(LanError::NoAddress(Some(error))),
        },
    }
}

fn outward() -> io::Result<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(ELSEWHERE)?;
    Ok(socket.local_addr()?.ip())
}

/// Returns the QR code of `url`, for a terminal.
pub(super) fn qr_code(url: &str) -> Option<String> {
    let (on, off) = COLOURS;
    let code = QrCode::new(url).ok()?;
    let picture = code.render::<Dense1x2>().build();
    Some(picture.lines().map(|line| format!("  {on}{line}{off}")).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_of_this_machine_is_taken() {
        assert_eq!(address(Some(Ipv4Addr::LOCALHOST)).expect("ours"), Ipv4Addr::LOCALHOST);
        let error = address(Some(Ipv4Addr::new(192, 0, 2, 1))).expect_err("of documentation").to_string();
        assert!(error.starts_with("192.0.2.1 is no address of this machine ("), "{error}");
    }

    #[test]
    fn an_address_that_is_not_unicast_is_refused() {
        for text in ["0.0.0.0", "224.0.0.1", "239.255.255.250", "255.255.255.255", "127.255.255.255"] {
            let error = address(Some(text.parse().expect("an address"))).expect_err(text).to_string();
            assert!(error.starts_with(&format!("{text} is not the address of one machine; ")), "{error}");
        }
    }

    #[test]
    fn the_code_is_a_square_with_a_quiet_zone() {
        let code = qr_code("https://192.168.7.5:8443/").expect("short enough");
        let lines: Vec<_> = code
            .lines()
            .map(|line| line.trim_start().trim_start_matches(COLOURS.0).trim_end_matches(COLOURS.1))
            .collect();
        // Version 2 has 25 modules a side, and four of quiet zone on each.
        assert!(lines.iter().all(|line| line.chars().count() == 33), "{code}");
        assert_eq!(lines.len(), 17, "two modules a line");
        assert_eq!(lines[0].trim(), "", "the quiet zone is white");
        assert!(lines[2].starts_with("    █▀▀▀▀▀█"), "a finder pattern: {code}");
    }
}
