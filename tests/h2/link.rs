//! A slow link between a client and the proxy: so many bytes a second each way, and little held on the way.

use std::time::Duration;

use pulsegate_test_kit::proxy::Proxy;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Bytes that pass at a time.
const PIECE: usize = 2048;

/// A link to the proxy, for one connection.
pub(crate) struct Link {
    address: std::net::SocketAddr,
    cut: watch::Sender<bool>,
}

impl Link {
    /// A link that carries `up` bytes a second to the proxy and `down` to the client.
    pub(crate) async fn to(proxy: &Proxy, up: u32, down: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port of the system's choice");
        let address = listener.local_addr().expect("a bound socket has an address");
        let far = proxy.tcp().await;
        // What the link holds is little: the rest stays with the sender, as it does before a slow modem.
        let _ = SockRef::from(&far).set_recv_buffer_size(8 * 1024);
        let (cut, cuts) = watch::channel(false);
        tokio::spawn(async move {
            let (near, _) = listener.accept().await.expect("the client connects");
            let _ = SockRef::from(&near).set_recv_buffer_size(8 * 1024);
            let (near_read, near_write) = near.into_split();
            let (far_read, far_write) = far.into_split();
            tokio::join!(carry(near_read, far_write, up, cuts.clone()), carry(far_read, near_write, down, cuts));
        });
        Self { address, cut }
    }

    /// The client's end of it.
    pub(crate) async fn connect(&self) -> TcpStream {
        let tcp = TcpStream::connect(self.address).await.expect("the link listens");
        let _ = SockRef::from(&tcp).set_send_buffer_size(64 * 1024);
        tcp
    }

    /// Stops carrying bytes and leaves both connections open.
    pub(crate) fn cut(&self) {
        self.cut.send_replace(true);
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, rate: u32, mut cuts: watch::Receiver<bool>) {
    let mut buffer = vec![0; PIECE];
    let mut free_at = Instant::now();
    loop {
        sleep_until(free_at).await;
        if *cuts.borrow_and_update() {
            // Both ends stay open for as long as the test does.
            let _ = cuts.changed().await;
            return;
        }
        let read = from.read(&mut buffer).await.unwrap_or(0);
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            let _ = to.shutdown().await;
            return;
        }
        let time = Duration::from_secs_f64(f64::from(u32::try_from(read).expect("small")) / f64::from(rate));
        free_at = free_at.max(Instant::now()) + time;
    }
}
