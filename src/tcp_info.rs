//! Kernel information about a connection. The only module with unsafe code.
#![cfg_attr(
    target_os = "linux",
    expect(
        unsafe_code,
        reason = "no safe crate offers TCP_INFO or SIOCOUTQ; one getsockopt and one ioctl, audited below"
    )
)]

use std::os::fd::AsFd;

/// Returns the bytes acknowledged by the peer's kernel since the connection began (RFC 4898,
/// `tcpEStatsAppHCThruOctetsAcked`), or `None` if the kernel does not report them.
///
/// On an accepted socket the count begins at 0 or 1 (some kernels count the handshake's own octet), and an acknowledged
/// FIN adds one: compare with a tolerance of one, or compare two readings with each other.
#[cfg(target_os = "linux")]
pub fn bytes_acked(socket: &impl AsFd) -> Option<u64> {
    info(socket, std::mem::offset_of!(libc::tcp_info, tcpi_bytes_acked) + 8).map(|info| info.tcpi_bytes_acked)
}

/// Returns the written bytes that the kernel has not sent even once because the peer's window is full; `None` if the
/// kernel does not report them. They are reported for a broken connection too.
#[cfg(target_os = "linux")]
pub fn untransmitted(socket: &impl AsFd) -> Option<u64> {
    let needed = std::mem::offset_of!(libc::tcp_info, tcpi_notsent_bytes) + 4;
    info(socket, needed).map(|info| info.tcpi_notsent_bytes.into())
}

/// Returns the kernel's information about a TCP connection, if it covers the first `needed` bytes of the structure.
#[cfg(target_os = "linux")]
fn info(socket: &impl AsFd, needed: usize) -> Option<libc::tcp_info> {
    use std::mem::{MaybeUninit, size_of};
    use std::os::fd::AsRawFd;

    let fd = socket.as_fd();
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
    // SAFETY: `fd` borrows an open descriptor for the whole call. `info` is writable memory of `length` bytes; the
    // kernel writes at most that many and stores in `length` the number written. Both outlive the call.
    let status = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut length)
    };
    // A kernel before 4.1 has a shorter structure; a socket other than TCP returns an error.
    if status != 0 || usize::try_from(length).ok()? < needed {
        return None;
    }
    // SAFETY: every field is an integer, for which the initial zeros are a valid value, whatever the kernel has
    // overwritten.
    Some(unsafe { info.assume_init() })
}

/// Returns `None`, as this platform does not report them: the heartbeat then uses the progress of the sockets alone.
#[cfg(not(target_os = "linux"))]
pub fn bytes_acked(_socket: &impl AsFd) -> Option<u64> {
    None
}

/// Returns `None`, as this platform does not report them.
#[cfg(not(target_os = "linux"))]
pub fn untransmitted(_socket: &impl AsFd) -> Option<u64> {
    None
}

/// Returns the bytes written to a TCP or unix socket that the peer has not acknowledged (TCP) or read (unix), a FIN
/// counting as one; `None` if the kernel does not report them.
#[cfg(target_os = "linux")]
pub fn unacked(socket: &impl AsFd) -> Option<u64> {
    use std::os::fd::AsRawFd;

    let fd = socket.as_fd();
    let mut bytes: libc::c_int = 0;
    // SAFETY: `fd` borrows an open descriptor for the whole call. SIOCOUTQ, which equals TIOCOUTQ, stores one int at
    // its argument, and `bytes` is a writable int that outlives the call.
    let status = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if status == 0 { u64::try_from(bytes).ok() } else { None }
}

/// Returns `None`, as this platform does not report them: bytes accepted by the kernel count as delivered.
#[cfg(not(target_os = "linux"))]
pub fn unacked(_socket: &impl AsFd) -> Option<u64> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn acknowledged_bytes_follow_what_was_written() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let mut client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        let (mut server, _) = listener.accept().expect("accept");
        let before = bytes_acked(&server).expect("this kernel knows tcpi_bytes_acked");
        assert!(before <= 1, "nothing written, yet {before} bytes acknowledged");

        server.write_all(&[7; 5000]).expect("write");
        client.read_exact(&mut [0; 5000]).expect("read");
        // The acknowledgement may be delayed (40 ms on Linux), and nothing signals it, so poll.
        let give_up = Instant::now() + Duration::from_secs(5);
        let mut acked = before;
        while acked - before < 5000 {
            assert!(Instant::now() < give_up, "only {acked} bytes acknowledged after 5 s");
            std::thread::yield_now();
            acked = bytes_acked(&server).expect("this kernel knows tcpi_bytes_acked");
        }
        assert_eq!(acked - before, 5000);
    }

    #[test]
    fn what_the_peer_has_not_taken_is_unacknowledged() {
        use std::io::ErrorKind;
        use std::os::unix::net::UnixStream;

        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        let (mut server, _) = listener.accept().expect("accept");
        assert_eq!(unacked(&server), Some(0));
        server.set_nonblocking(true).expect("non-blocking");
        // Until the client's receive buffer is full, as nothing reads from it.
        let mut written = 0;
        loop {
            match server.write(&[7; 65_536]) {
                Ok(more) => written += more,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => unreachable!("{error}"),
            }
        }
        let left = unacked(&server).expect("this kernel knows SIOCOUTQ");
        assert!(left > 0 && left <= written as u64, "{left} of {written}");
        let unsent = untransmitted(&server).expect("this kernel knows tcpi_notsent_bytes");
        assert!(unsent > 0 && unsent <= left, "{unsent} of {left} never left");
        // Closed with unread bytes, the client's side resets the connection.
        drop(client);
        let give_up = Instant::now() + Duration::from_secs(5);
        while server.write(&[7]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
            assert!(Instant::now() < give_up, "no reset after 5 s");
            std::thread::yield_now();
        }
        assert!(untransmitted(&server).is_some_and(|unsent| unsent > 0), "it is known behind the reset too");

        let (mut near, mut far) = UnixStream::pair().expect("a pair");
        near.write_all(&[7; 100]).expect("write");
        assert!(unacked(&near).is_some_and(|left| left > 0));
        far.read_exact(&mut [0; 100]).expect("read");
        assert_eq!(unacked(&near), Some(0));
    }

    #[test]
    fn a_socket_that_is_not_tcp_has_no_answer() {
        assert_eq!(bytes_acked(&UdpSocket::bind("127.0.0.1:0").expect("bind")), None);
    }
}
