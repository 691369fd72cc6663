//! A network link in front of the proxy: bytes arrive later, or at a limited rate. FIN and RST are relayed.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::wire::socket::{self, NARROW};

/// A link that accepts connections at `address`.
pub(crate) struct Link {
    pub(crate) address: SocketAddr,
    accepting: JoinHandle<()>,
}

/// A unit that travels in one direction.
enum Parcel {
    Bytes(Vec<u8>),
    Fin,
    Reset,
}

impl Link {
    /// Starts a link to `target`: each direction takes `delay`, and at most `rate` bytes a second pass.
    pub(crate) fn to(target: SocketAddr, delay: Duration, rate: u32) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(NARROW).expect("set the receive buffer");
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("bind to a port of the system's choice");
        let listener = socket.listen(16).expect("listen");
        let address = listener.local_addr().expect("a bound socket has an address");
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = socket::connect(target, true).await;
                let (near_in, near_out) = near.into_split();
                let (far_in, far_out) = far.into_split();
                carry(near_in, far_out, delay, rate);
                carry(far_in, near_out, delay, rate);
            }
        });
        Self { address, accepting }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration, rate: u32) {
    let (sender, mut parcels) = mpsc::channel::<(Instant, Parcel)>(64);
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let parcel = match from.read(&mut buffer).await {
                Ok(0) => Parcel::Fin,
                Ok(count) => {
                    let pause = time_for(count, rate);
                    sleep(pause).await;
                    Parcel::Bytes(buffer[..count].to_vec())
                }
                Err(_) => Parcel::Reset,
            };
            let last = !matches!(parcel, Parcel::Bytes(_));
            if sender.send((Instant::now() + delay, parcel)).await.is_err() || last {
                return;
            }
        }
    });
    tokio::spawn(async move {
        while let Some((due, parcel)) = parcels.recv().await {
            sleep_until(due).await;
            let carried = match parcel {
                Parcel::Bytes(bytes) => to.write_all(&bytes).await,
                Parcel::Fin => to.shutdown().await,
                Parcel::Reset => {
                    let stream: &TcpStream = to.as_ref();
                    SockRef::from(stream).set_linger(Some(Duration::ZERO))
                }
            };
            if carried.is_err() {
                return;
            }
        }
    });
}

/// Returns the time that `count` bytes take at `rate` bytes a second.
pub(crate) fn time_for(count: usize, rate: u32) -> Duration {
    Duration::from_secs(count as u64) / rate
}
