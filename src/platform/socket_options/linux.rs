//! Options of tcp(7) and ip(7).

use std::io;
use std::time::Duration;

use socket2::{SockRef, Socket};
use tokio::net::TcpStream;

use crate::platform::linux_calls::set_bind_address_no_port;

pub(super) fn set_user_timeout(tcp: &TcpStream, after: Duration) {
    let _ = SockRef::from(tcp).set_tcp_user_timeout(Some(after));
}

pub(super) fn limit_unsent(tcp: &TcpStream, bytes: Option<u32>) {
    // 0 stands for the system's own limit.
    let _ = SockRef::from(tcp).set_tcp_notsent_lowat(bytes.unwrap_or(0));
}

pub(super) fn choose_port_at_connect(socket: &Socket) -> io::Result<()> {
    set_bind_address_no_port(socket)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_user_timeout_reaches_the_kernel() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let connecting = TcpStream::connect(listener.local_addr().expect("address"));
        let (client, server) = tokio::join!(connecting, listener.accept());
        let (_client, (server, _)) = (client.expect("connect"), server.expect("accept"));
        set_user_timeout(&server, Duration::from_secs(45));
        let read = SockRef::from(&server).tcp_user_timeout().expect("read back");
        assert_eq!(read, Some(Duration::from_secs(45)));
    }
}
