//! The classification of failed connects by cause: the app, the route to it, or the proxy itself.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use rustix::io::Errno;
use socket2::{Domain, Socket, Type};

/// The classes of failed connects, ordered from evidence against the app to none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ConnectFault {
    /// There is no route to the address, as on a machine without IPv6.
    NoWay,
    /// The app does not listen on the address.
    Refused,
    /// There was no outcome in time: the app may be frozen, with a full backlog.
    TimedOut,
    /// The proxy has no port, descriptor or memory left.
    Own,
}

/// Classifies `error` by its error number alone.
pub(super) fn of(error: &io::Error) -> ConnectFault {
    match Errno::from_io_error(error) {
        Some(Errno::ADDRNOTAVAIL | Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => ConnectFault::Own,
        // A unix socket with a full backlog returns EAGAIN (connect(2)).
        Some(Errno::AGAIN | Errno::TIMEDOUT) => ConnectFault::TimedOut,
        Some(Errno::NETUNREACH | Errno::AFNOSUPPORT) => ConnectFault::NoWay,
        None if error.kind() == ErrorKind::AddrNotAvailable => ConnectFault::Own,
        None if error.kind() == ErrorKind::TimedOut => ConnectFault::TimedOut,
        _ => ConnectFault::Refused,
    }
}

/// Classifies the `error` of a connect to `address`. EADDRNOTAVAIL has two meanings (connect(2)): every port towards
/// the address is in use, or the machine has no source address for it.
pub(super) fn classify_connect(error: &io::Error, address: SocketAddr) -> ConnectFault {
    match of(error) {
        ConnectFault::Own if error.kind() == ErrorKind::AddrNotAvailable && !has_source(address) => ConnectFault::NoWay,
        fault => fault,
    }
}

/// Returns whether the machine has a source address for `address`. The UDP socket of this check uses no TCP port, and
/// sends nothing on connect.
fn has_source(address: SocketAddr) -> bool {
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    UdpSocket::bind(any).and_then(|socket| socket.connect(address)).is_ok()
}

/// Returns the error of opening a socket; `None` if one can be opened.
pub(super) fn no_descriptor() -> Option<io::Error> {
    Socket::new(Domain::UNIX, Type::DGRAM, None).err()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errno(errno: Errno) -> io::Error {
        errno.into()
    }

    #[test]
    fn s58_shortages_of_the_proxys_own_are_distinguished_from_a_refusal() {
        for own in [Errno::ADDRNOTAVAIL, Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert_eq!(of(&errno(own)), ConnectFault::Own, "{own}");
        }
        assert_eq!(
            of(&io::Error::from(ErrorKind::AddrNotAvailable)),
            ConnectFault::Own,
            "every source was passed over"
        );
        for refused in [Errno::CONNREFUSED, Errno::NOENT, Errno::ACCESS, Errno::HOSTUNREACH, Errno::CONNRESET] {
            assert_eq!(of(&errno(refused)), ConnectFault::Refused, "{refused}");
        }
        for late in [errno(Errno::TIMEDOUT), errno(Errno::AGAIN), ErrorKind::TimedOut.into()] {
            assert_eq!(of(&late), ConnectFault::TimedOut, "{late}");
        }
    }

    #[test]
    fn s58_ports_that_are_all_taken_are_distinguished_from_a_missing_route() {
        let exhausted = errno(Errno::ADDRNOTAVAIL);
        assert_eq!(classify_connect(&exhausted, SocketAddr::from(([127, 0, 0, 1], 1))), ConnectFault::Own);
        // Of all IPv6 addresses, a documentation address (RFC 3849) is the least likely to be reachable.
        let nowhere: SocketAddr = "[2001:db8::1]:1".parse().expect("an address");
        if !has_source(nowhere) {
            assert_eq!(classify_connect(&exhausted, nowhere), ConnectFault::NoWay);
        }
        assert!(
            ConnectFault::NoWay < ConnectFault::Refused
                && ConnectFault::Refused < ConnectFault::TimedOut
                && ConnectFault::TimedOut < ConnectFault::Own
        );
    }
}
