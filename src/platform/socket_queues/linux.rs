//! The queues of a socket by `TCP_INFO` (tcp(7)), `SIOCOUTQ` and `FIONREAD`.

use std::mem::offset_of;
use std::os::fd::AsFd;

use rustix::io::ioctl_fionread;

use crate::platform::linux_calls::{send_queue, tcp_info};

pub(super) fn bytes_acked(socket: &impl AsFd) -> Option<u64> {
    tcp_info(socket, offset_of!(libc::tcp_info, tcpi_bytes_acked) + 8).map(|info| info.tcpi_bytes_acked)
}

pub(super) fn untransmitted(socket: &impl AsFd) -> Option<u64> {
    let needed = offset_of!(libc::tcp_info, tcpi_notsent_bytes) + 4;
    tcp_info(socket, needed).map(|info| info.tcpi_notsent_bytes.into())
}

pub(super) fn unacked(socket: &impl AsFd) -> Option<u64> {
    send_queue(socket)
}

pub(super) fn unread(socket: &impl AsFd) -> Option<u64> {
    ioctl_fionread(socket).ok()
}

#[cfg(test)]
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
        // Until the client's kernel has no more room: the test reads nothing.
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
    fn a_socket_that_is_not_tcp_has_no_count() {
        assert_eq!(bytes_acked(&UdpSocket::bind("127.0.0.1:0").expect("bind")), None);
    }
}
