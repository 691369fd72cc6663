//! What the kernel knows about a connection. The only module with unsafe code.
#![cfg_attr(
    target_os = "linux",
    expect(
        unsafe_code,
        reason = "no safe crate offers TCP_INFO or SIOCOUTQ; one getsockopt and one ioctl, audited below"
    )
)]

use std::os::fd::AsFd;

/// Bytes that the peer's kernel has acknowledged since the connection began (RFC 4898,
/// `tcpEStatsAppHCThruOctetsAcked`), or `None` where the kernel does not tell.
///
/// On an accepted socket the count begins at 0 or 1 (some kernels count the handshake's own octet) and an
/// acknowledged FIN adds one: compare with a tolerance of one, or compare two readings with each other.
#[cfg(target_os = "linux")]
pub fn bytes_acked(socket: &impl AsFd) -> Option<u64> {
    info(socket, std::mem::offset_of!(libc::tcp_info, tcpi_bytes_acked) + 8).map(|info| info.tcpi_bytes_acked)
}

/// Bytes that were written and that the kernel has not sent even once, for want of the peer's window; `None` where the
/// kernel does not tell. It goes on telling when the connection is broken.
#[cfg(target_os = "linux")]
pub fn untransmitted(socket: &impl AsFd) -> Option<u64> {
    let needed = std::mem::offset_of!(libc::tcp_info, tcpi_notsent_bytes) + 4;
    info(socket, needed).map(|info| info.tcpi_notsent_bytes.into())
}

/// What the kernel says of a TCP connection, if that reaches as far as `needed` bytes.
#[cfg(target_os = "linux")]
fn info(socket: &impl AsFd, needed: usize) -> Option<libc::tcp_info> {
    use std::mem::{MaybeUninit, size_of};
    use std::os::fd::AsRawFd;

    let fd = socket.as_fd();
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
    // SAFETY: `fd` borrows an open descriptor for the whole call. `info` is writable memory of `length` bytes, and the
    // kernel writes at most that many and stores in `length` how many it wrote. Both outlive the call.
    let status = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut length)
    };
    // A kernel before 4.1 knows a shorter structure; one that is no TCP socket answers with an error.
    if status != 0 || usize::try_from(length).ok()? < needed {
        return None;
    }
    // SAFETY: every field is an integer, for which the zeros put there first are a valid value, whatever the kernel
    // has overwritten since.
    Some(unsafe { info.assume_init() })
}

/// Nobody tells here: the heartbeat then rests on the sockets' own progress alone.
#[cfg(not(target_os = "linux"))]
pub fn bytes_acked(_socket: &impl AsFd) -> Option<u64> {
    None
}

/// Not known on this platform.
#[cfg(not(target_os = "linux"))]
pub fn untransmitted(_socket: &impl AsFd) -> Option<u64> {
    None
}

/// Bytes that were written to a TCP or unix socket and that the peer has not acknowledged (TCP) or read (unix), a FIN
/// counting as one; or `None` where the kernel does not tell.
#[cfg(target_os = "linux")]
pub fn unacked(socket: &impl AsFd) -> Option<u64> {
    use std::os::fd::AsRawFd;

    let fd = socket.as_fd();
    let mut bytes: libc::c_int = 0;
    // SAFETY: `fd` borrows an open descriptor for the whole call. SIOCOUTQ, which is TIOCOUTQ, stores one int where its
    // argument points to, and `bytes` is a writable int that outlives the call.
    let status = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if status == 0 { u64::try_from(bytes).ok() } else { None }
}

/// Not known on this platform: what was handed to the kernel counts as delivered.
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
        // The acknowledgement may be delayed (40 ms on Linux); nothing else can be waited for.
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
        // Until the client's kernel has no more room for what nobody reads.
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
        // Closed with bytes unread, the client's side resets the connection.
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
