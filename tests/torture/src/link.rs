//! A link: a TCP relay that limits the rate, delays, cuts into pieces, holds all bytes, and relays FIN and RST.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{SockRef, Socket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, sleep, sleep_until};

use crate::plan::Link;

/// The buffers of a link's sockets. Bytes that it holds back accumulate at its ends, so that the sender notices.
const BUFFER: u32 = 16 * 1024;
/// The approximate number of bytes that a link without a delay holds for a slow reader, including the kernel's part
/// (twice [`BUFFER`] for a socket) and the reader's own buffer of the same size.
pub(crate) const HELD: u64 = 10 * BUFFER as u64;

/// A link that accepts connections at `address`.
#[derive(Debug)]
pub struct Relay {
    /// The address to connect to.
    pub address: SocketAddr,
    /// Its controls.
    pub control: Arc<Control>,
    accepting: JoinHandle<()>,
}

/// The controls of a link.
#[derive(Debug)]
pub struct Control {
    plan: Link,
    vanished: watch::Sender<bool>,
    first: OnceLock<Instant>,
    far: Mutex<Vec<Weak<Socket>>>,
}

impl Control {
    /// Stops all traffic from now on, in both directions, FIN and RST included.
    pub fn vanish(&self) {
        self.vanished.send_replace(true);
    }

    /// Returns the sockets towards the target.
    pub fn far(&self) -> Vec<Weak<Socket>> {
        self.far.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits while the link holds.
    async fn passable(&self) {
        if self.plan.holds.is_empty() && !*self.vanished.borrow() {
            return;
        }
        let mut vanished = self.vanished.subscribe();
        loop {
            if *vanished.borrow_and_update() {
                let _ = vanished.changed().await;
                // A vanished link stays so; the sender lives as long as the link.
                std::future::pending::<()>().await;
            }
            let since = self.first.get().map_or(Duration::ZERO, Instant::elapsed);
            let held = self.plan.holds.iter().find_map(|&(at, length)| {
                let (from, to) = (Duration::from_millis(at), Duration::from_millis(at + length));
                (from..to).contains(&since).then(|| to.saturating_sub(since))
            });
            let Some(rest) = held else { return };
            tokio::select! {
                () = sleep(rest) => {}
                _ = vanished.changed() => {}
            }
        }
    }
}

enum Parcel {
    Bytes(Vec<u8>),
    Fin,
    Reset,
}

impl Relay {
    /// Returns a link to `target`.
    ///
    /// # Errors
    ///
    /// Returns the kernel's error for a new listener.
    pub fn to(target: SocketAddr, plan: &Link) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(BUFFER)?;
        socket.set_send_buffer_size(BUFFER)?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let listener = socket.listen(16)?;
        let address = listener.local_addr()?;
        let (vanished, _) = watch::channel(false);
        let control = Control { plan: plan.clone(), vanished, first: OnceLock::new(), far: Mutex::default() };
        let control = Arc::new(control);
        let shared = Arc::clone(&control);
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                shared.first.get_or_init(Instant::now);
                connections.spawn(connection(near, target, Arc::clone(&shared)));
            }
        });
        Ok(Self { address, control, accepting })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Connects with a receive buffer of a given size; 0 is the system's.
///
/// # Errors
///
/// Returns the kernel's error.
pub async fn connect(target: SocketAddr, buffer: u32) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if buffer > 0 {
        socket.set_recv_buffer_size(buffer)?;
    }
    connected(socket, target).await
}

async fn connected(socket: TcpSocket, target: SocketAddr) -> io::Result<TcpStream> {
    let stream = socket.connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Returns a second handle of a socket, for options and for its end.
///
/// # Errors
///
/// Returns the kernel's error.
pub fn handle(stream: &TcpStream) -> io::Result<Arc<Socket>> {
    Ok(Arc::new(SockRef::from(stream).try_clone()?))
}

/// Connects a link to its target.
async fn onward(target: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.set_send_buffer_size(BUFFER)?;
    connected(socket, target).await
}

async fn connection(near: TcpStream, target: SocketAddr, control: Arc<Control>) {
    let Ok(far) = onward(target).await else {
        let _ = SockRef::from(&near).set_linger(Some(Duration::ZERO));
        return;
    };
    let _ = near.set_nodelay(true);
    let (Ok(near_handle), Ok(far_handle)) = (handle(&near), handle(&far)) else { return };
    control.far.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&far_handle));
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    let plan = &control.plan;
    let carried =
        tokio::try_join!(carry(near_in, far_out, plan.up, &control), carry(far_in, near_out, plan.down, &control));
    if carried.is_err() {
        let _ = near_handle.set_linger(Some(Duration::ZERO));
        let _ = far_handle.set_linger(Some(Duration::ZERO));
    }
}

/// Relays one direction; an error is a reset of either side.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, rate: u64, control: &Control) -> Result<(), ()> {
    let Link { delay, piece, .. } = control.plan;
    // A link holds no more than its delay needs: the sender takes accepted bytes for delivered. One without a rate has
    // a parcel for each 5 ms, so that a slow reader behind it is visible as such.
    let pieces = if rate == 0 { delay / 5 } else { delay / 20 };
    let held = 1 + usize::try_from(pieces).unwrap_or(1);
    let (sender, mut parcels) = mpsc::channel::<(Instant, Parcel)>(held);
    let delay = Duration::from_millis(delay);
    let most = if rate == 0 { 16 * 1024 } else { usize::try_from(rate / 50).unwrap_or(usize::MAX).clamp(1, 16 * 1024) };
    let piece = if piece == 0 { most } else { piece };
    let read = async move {
        let mut buffer = vec![0; most];
        loop {
            control.passable().await;
            let started = Instant::now();
            let parcel = match from.read(&mut buffer).await {
                Ok(0) => Parcel::Fin,
                Ok(count) => {
                    if rate > 0 {
                        let due = Duration::from_secs_f64(count as f64 / rate as f64);
                        sleep(due.saturating_sub(started.elapsed().min(due / 4))).await;
                    }
                    Parcel::Bytes(buffer[..count].to_vec())
                }
                Err(_) => Parcel::Reset,
            };
            let last = !matches!(parcel, Parcel::Bytes(_));
            if sender.send((Instant::now() + delay, parcel)).await.is_err() || last {
                return Ok(());
            }
        }
    };
    let write = async move {
        while let Some((due, parcel)) = parcels.recv().await {
            if due > Instant::now() {
                sleep_until(due).await;
            }
            control.passable().await;
            match parcel {
                Parcel::Bytes(bytes) => {
                    for piece in bytes.chunks(piece) {
                        control.passable().await;
                        to.write_all(piece).await.map_err(|_| ())?;
                        yield_now().await;
                    }
                }
                Parcel::Fin => to.shutdown().await.map_err(|_| ())?,
                Parcel::Reset => return Err(()),
            }
        }
        Ok(())
    };
    tokio::try_join!(read, write).map(|_| ())
}

/// Waits until the peer of a socket has ended its direction or reset the connection, whether or not the bytes before
/// were read; [`None`] if this side has closed the socket first.
pub async fn ended(socket: Weak<Socket>) -> Option<std::time::Instant> {
    loop {
        {
            let socket = socket.upgrade()?;
            let mut polled = [PollFd::new(&*socket, PollFlags::RDHUP)];
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            let hung = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
            if poll(&mut polled, Some(&now)).is_ok() && polled[0].revents().intersects(hung) {
                return Some(std::time::Instant::now());
            }
        }
        sleep(Duration::from_millis(5)).await;
    }
}
