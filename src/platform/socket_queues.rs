//! The queues of a socket: bytes acknowledged, sent, waiting to be read.

#[cfg(all(target_os = "linux", not(feature = "portable")))]
mod linux;
#[cfg(any(feature = "portable", not(target_os = "linux")))]
mod portable;
mod unread_limit;

pub use unread_limit::UNREAD_COUNTED;

use std::os::fd::AsFd;

#[cfg(all(target_os = "linux", not(feature = "portable")))]
use linux as system;
#[cfg(any(feature = "portable", not(target_os = "linux")))]
use portable as system;

/// Returns the bytes that the peer's kernel has acknowledged since the connection began (RFC 4898,
/// `tcpEStatsAppHCThruOctetsAcked`), or `None` where the kernel does not report it.
///
/// On an accepted socket the count begins at 0 or 1 (some kernels count the handshake's own octet) and an
/// acknowledged FIN adds one: compare with a tolerance of one, or compare two readings with each other.
///
/// Portable: always `None`. The heartbeat then judges by the writability of the socket alone: while writes block and
/// progress, the client counts as reading slowly; a probe that the kernel took counts as arrived, although it may still
/// wait behind a send buffer of data. A leg that is closed over unread bytes of the client is not recognised, and the
/// kernel resets it.
pub fn bytes_acked(socket: &impl AsFd) -> Option<u64> {
    system::bytes_acked(socket)
}

/// Returns the bytes that were written and that the kernel has not sent even once, for want of the peer's window; `None`
/// where the kernel does not report it. Linux reports it for a broken connection too.
///
/// Portable: always `None`. When a connection breaks, its bytes count as delivered only if the kernel had taken all of them
/// before.
pub fn untransmitted(socket: &impl AsFd) -> Option<u64> {
    system::untransmitted(socket)
}

/// Returns the bytes that were written to a TCP or unix socket and that the peer has not acknowledged (TCP) or read
/// (unix), a FIN counting as one; `None` where the kernel does not report it.
///
/// Portable: always `None`. What was handed to the kernel counts as delivered, and the grace period of a close begins
/// then.
pub fn unacked(socket: &impl AsFd) -> Option<u64> {
    system::unacked(socket)
}

/// Returns the bytes that have arrived and are not read, exact up to [`UNREAD_COUNTED`]; 0 at the end of the stream, and
/// `None` where it cannot be known.
///
/// Portable: peeks (`MSG_PEEK`), which copies those bytes instead of asking for their number (`FIONREAD`).
pub fn unread(socket: &impl AsFd) -> Option<u64> {
    system::unread(socket)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn unread_bytes_are_counted_and_stay_unread() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let mut client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        let (server, _) = listener.accept().expect("accept");
        server.set_nonblocking(true).expect("non-blocking");
        assert_eq!(unread(&server), Some(0));
        let reaches = |count: u64| {
            let deadline = Instant::now() + Duration::from_secs(10);
            while unread(&server) != Some(count) {
                assert!(Instant::now() < deadline, "{:?} bytes unread, {count} expected", unread(&server));
                std::thread::yield_now();
            }
        };
        client.write_all(&[7; 1000]).expect("write");
        reaches(1000);
        assert_eq!(unread(&server), Some(1000), "counting reads nothing");
        client.write_all(&[7; 100_000]).expect("write");
        let deadline = Instant::now() + Duration::from_secs(10);
        while unread(&server).is_none_or(|bytes| bytes < UNREAD_COUNTED as u64) {
            assert!(Instant::now() < deadline, "{:?} bytes unread", unread(&server));
            std::thread::yield_now();
        }
    }
}
