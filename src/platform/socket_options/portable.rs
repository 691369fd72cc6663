//! The absence of the options.

use std::io;
use std::time::Duration;

use socket2::Socket;
use tokio::net::TcpStream;

pub(super) fn set_user_timeout(_tcp: &TcpStream, _after: Duration) {}

pub(super) fn limit_unsent(_tcp: &TcpStream, _bytes: Option<u32>) {}

#[expect(clippy::unnecessary_wraps, reason = "the interface is that of a system which can refuse")]
pub(super) fn choose_port_at_connect(_socket: &Socket) -> io::Result<()> {
    Ok(())
}
