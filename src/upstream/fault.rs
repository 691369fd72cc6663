//! Classification of failed connects: by the app, by the route to it, or by the proxy itself.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use rustix::io::Errno;
use socket2::{Domain, Socket, Type};

/// The classes of failed connects, ordered from evidence against the app to none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// There is no route to this address, as on a machine without IPv6.
    NoWay,
    /// The app does not listen there.
    Refused,
    /// No outcome in time: the app may be frozen, with a full backlog.
    TimedOut,
    /// The proxy has no port, descriptor or memory left.
    Own,
}

/// Classifies `error` by its number alone.
pub(super) fn of(error: &io::Error) -> Fault {
    match Errno::from_io_error(error) {
        Some(Errno::ADDRNOTAVAIL | Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => Fault::Own,
        // A unix socket with a full backlog returns EAGAIN (connect(2)).
        Some(Errno::AGAIN | Errno::TIMEDOUT) => Fault::TimedOut,
        Some(Errno::NETUNREACH | Errno::AFNOSUPPORT) => Fault::NoWay,
        None if error.kind() == ErrorKind::AddrNotAvailable => Fault::Own,
        None if error.kind() == ErrorKind::TimedOut => Fault::TimedOut,
        _ => Fault::Refused,
    }
}

/// Classifies `error` of a connect to `address`. EADDRNOTAVAIL has two meanings (connect(2)): every port towards the
/// address is taken, or the machine has no address of its own from which to reach it.
pub(super) fn of_connect(error: &io::Error, address: SocketAddr) -> Fault {
    match of(error) {
        Fault::Own if error.kind() == ErrorKind::AddrNotAvailable && !has_source(address) => Fault::NoWay,
        fault => fault,
    }
}

/// Whether the machine has an address from which `address` can be reached. A UDP socket takes a port of another kind,
/// and sends nothing when it connects.
fn has_source(address: SocketAddr) -> bool {
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    UdpSocket::bind(any).and_then(|socket| socket.connect(address)).is_ok()
}

/// The error of a process that can open no socket; `None` where it can.
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
            assert_eq!(of(&errno(own)), Fault::Own, "{own}");
        }
        assert_eq!(of(&io::Error::from(ErrorKind::AddrNotAvailable)), Fault::Own, "every source was passed over");
        for refused in [Errno::CONNREFUSED, Errno::NOENT, Errno::ACCESS, Errno::HOSTUNREACH, Errno::CONNRESET] {
            assert_eq!(of(&errno(refused)), Fault::Refused, "{refused}");
        }
        for late in [errno(Errno::TIMEDOUT), errno(Errno::AGAIN), ErrorKind::TimedOut.into()] {
            assert_eq!(of(&late), Fault::TimedOut, "{late}");
        }
    }

    #[test]
    fn s58_ports_that_are_all_taken_are_distinguished_from_a_missing_route() {
        let exhausted = errno(Errno::ADDRNOTAVAIL);
        assert_eq!(of_connect(&exhausted, SocketAddr::from(([127, 0, 0, 1], 1))), Fault::Own);
        // Of all of IPv6 this machine can reach documentation (RFC 3849) the least.
        let nowhere: SocketAddr = "[2001:db8::1]:1".parse().expect("an address");
        if !has_source(nowhere) {
            assert_eq!(of_connect(&exhausted, nowhere), Fault::NoWay);
        }
        assert!(Fault::NoWay < Fault::Refused && Fault::Refused < Fault::TimedOut && Fault::TimedOut < Fault::Own);
    }
}
