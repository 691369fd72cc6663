//! Injected faults between proxy and app: the behaviour of a proxy that breaks its promises.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::frame::Frame;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// One byte on its way to the app is lost.
    LosesAByte,
    /// One byte on its way to the client is changed.
    ChangesAByte,
    /// A Close on its way to the app is dropped.
    SwallowsClose,
    /// The session is ended as if its client had not answered.
    EndsTheLiving,
    /// The app gets no end.
    KeepsTheDead,
}

/// A relay with a fault.
#[derive(Debug)]
pub struct Saboteur {
    /// Its address.
    pub address: SocketAddr,
    accepting: JoinHandle<()>,
}

/// The time after which [`Sabotage::EndsTheLiving`] ends a session.
const END_AFTER: Duration = Duration::from_millis(500);

impl Saboteur {
    /// Starts a relay to `target`.
    ///
    /// # Errors
    ///
    /// Returns the kernel's error for a new listener.
    pub fn start(target: SocketAddr, sabotage: Sabotage) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let (address, listener) = (listener.local_addr()?, TcpListener::from_std(listener)?);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                connections.spawn(async move {
                    let Ok(far) = TcpStream::connect(target).await else { return };
                    let (near_in, near_out) = near.into_split();
                    let (far_in, far_out) = far.into_split();
                    tokio::join!(up(near_in, far_out, sabotage), down(far_in, near_out, sabotage));
                });
            }
        });
        Ok(Self { address, accepting })
    }
}

impl Drop for Saboteur {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn up(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, sabotage: Sabotage) {
    let mut buffer = vec![0; 64 * 1024];
    let mut passed = 0;
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let mut bytes = buffer[..count].to_vec();
        // The head of the request is not changed.
        let after_head = passed > 0;
        passed += count;
        if sabotage == Sabotage::LosesAByte && after_head && bytes.len() > 20 {
            bytes.remove(15);
        }
        let close = bytes.iter().rposition(|byte| *byte == 0x88);
        if let (Sabotage::SwallowsClose | Sabotage::KeepsTheDead, true, Some(at)) = (sabotage, after_head, close) {
            bytes.truncate(at);
        }
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
    if sabotage == Sabotage::KeepsTheDead {
        std::future::pending::<()>().await;
    }
    let _ = to.shutdown().await;
}

async fn down(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, sabotage: Sabotage) {
    let mut buffer = vec![0; 64 * 1024];
    let mut passed = 0;
    let until = Instant::now() + END_AFTER;
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            () = sleep_until(until), if sabotage == Sabotage::EndsTheLiving => {
                let payload = [&1012_u16.to_be_bytes()[..], b"heartbeat timeout"].concat();
                let _ = to.write_all(&Frame::encode(0x88, None, &payload).1).await;
                break;
            }
        };
        let Ok(count @ 1..) = read else { break };
        let bytes = &mut buffer[..count];
        if sabotage == Sabotage::ChangesAByte && passed > 0 && bytes.len() > 20 {
            bytes[15] ^= 1;
        }
        passed += count;
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
