//! A scripted app: it accepts every upgrade and hands the session to the test.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use pulsegate_test_kit::wait::wait_for;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::wire::peer::{Pace, Peer};
use crate::wire::socket::NARROW;

/// A listening app.
pub(crate) struct App {
    pub(crate) address: SocketAddr,
    sessions: Arc<Sessions>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct Sessions {
    waiting: Mutex<HashMap<String, Peer>>,
    changed: Notify,
}

impl App {
    /// Starts the app; a `narrow` app has a small receive buffer and reads nothing until the test sets its pace.
    pub(crate) fn start(narrow: bool) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        if narrow {
            socket.set_recv_buffer_size(NARROW).expect("set the receive buffer");
        }
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("bind to a port of the system's choice");
        let listener = socket.listen(128).expect("listen");
        let address = listener.local_addr().expect("a bound socket has an address");
        let sessions = Arc::<Sessions>::default();
        let shared = Arc::clone(&sessions);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(upgrade(stream, Arc::clone(&shared), narrow));
            }
        });
        Self { address, sessions, accepting }
    }

    /// Returns the app's endpoint of the session with this path.
    pub(crate) async fn session(&self, path: &str) -> Peer {
        let search = async {
            loop {
                let changed = self.sessions.changed.notified();
                let found = self.sessions.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
                if let Some(peer) = found {
                    return peer;
                }
                changed.await;
            }
        };
        wait_for(&format!("the app gets the session {path}"), search).await
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn upgrade(mut stream: TcpStream, sessions: Arc<Sessions>, narrow: bool) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let key = head.lines().filter_map(|line| line.split_once(':'));
    let mut key = key.filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key")).map(|(_, key)| key.trim());
    let accept = derive_accept_key(key.next_back().unwrap_or_default().as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.set_nodelay(true).expect("set TCP_NODELAY");
    if stream.write_all(answer.as_bytes()).await.is_err() {
        return;
    }
    let peer = Peer::app(&path, stream, &[]);
    if narrow {
        peer.pace(Pace::Stopped);
    }
    sessions.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(path, peer);
    sessions.changed.notify_waiters();
}
