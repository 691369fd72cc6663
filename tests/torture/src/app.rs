//! The app behind the proxy: one listener for each session, with a process switch of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use pulsegate_load::head::Head;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;
use tungstenite::handshake::derive_accept_key;

use crate::endpoint::{self, Role, Setup};
use crate::gate::{Gate, Switch};
use crate::link::{self, Control};
use crate::plan::Script;
use crate::trace::Shared;

/// A listening app.
#[derive(Debug)]
pub struct App {
    /// Its address.
    pub address: SocketAddr,
    serving: JoinHandle<()>,
}

/// The settings of one session at an app.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The path of its session; [`None`] for any.
    pub path: Option<String>,
    /// Its actions on the WebSocket.
    pub script: Script,
    /// The record of its observations.
    pub trace: Shared,
    /// The switch of its process.
    pub switch: Arc<Switch>,
    /// The link in front of it, set once it exists.
    pub link: Option<Arc<Control>>,
    /// True if it agrees to permessage-deflate.
    pub deflate: bool,
    /// The seed of its payloads.
    pub seed: u64,
    /// The delay of its response to the upgrade.
    pub answers_after: Duration,
}

impl App {
    /// Starts the app.
    ///
    /// # Errors
    ///
    /// Returns the kernel's error for a new listener.
    pub fn start(terms: Terms) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        if terms.script.buffer > 0 {
            socket.set_recv_buffer_size(u32::try_from(terms.script.buffer).unwrap_or(u32::MAX))?;
        }
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        Self::serve(socket.listen(128)?, vec![terms])
    }

    /// Serves several sessions, distinguished by their paths.
    ///
    /// # Errors
    ///
    /// Fails if the listener has no address.
    pub fn serve(listener: TcpListener, terms: Vec<Terms>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        Ok(Self { address, serving: tokio::spawn(accept(listener, terms)) })
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn accept(listener: TcpListener, terms: Vec<Terms>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let terms = terms.clone();
        connections.spawn(async move {
            // A connection that the client broke off is in its own record.
            let _ = connection(stream, terms).await;
        });
    }
}

async fn connection(stream: TcpStream, all: Vec<Terms>) -> anyhow::Result<()> {
    let terms = all.first().cloned().context("an app has a session")?;
    stream.set_nodelay(true)?;
    let socket = link::handle(&stream)?;
    let mut gate = Gate::new(stream, Arc::clone(&terms.switch));
    let mut early = Vec::new();
    loop {
        let (head, rest) = Head::read_on(&mut gate, early).await?;
        if let Some(key) = head.field("Sec-WebSocket-Key") {
            let target = head.start_line().split(' ').nth(1);
            let own = all.iter().find(|terms| terms.path.as_deref().is_none_or(|path| Some(path) == target));
            let terms = own.cloned().with_context(|| format!("no session has the path {target:?}"))?;
            let deflate = terms.deflate
                && head.field("Sec-WebSocket-Extensions").is_some_and(|offer| offer.contains("permessage-deflate"));
            let agreed = if deflate { "Sec-WebSocket-Extensions: permessage-deflate\r\n" } else { "" };
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {}\r\n{agreed}\r\n",
                derive_accept_key(key.as_bytes())
            );
            sleep(terms.answers_after).await;
            gate.write_all(answer.as_bytes()).await?;
            let watched = tokio::spawn(watch(Arc::downgrade(&socket), terms.trace.clone()));
            let setup = Setup {
                role: Role::App,
                script: terms.script,
                trace: terms.trace,
                switch: terms.switch,
                link: terms.link,
                socket: Some(socket),
                answers: false,
                beats: None,
                deflate,
                seed: terms.seed,
            };
            endpoint::run(gate, rest, setup).await;
            watched.abort();
            return Ok(());
        }
        early = request(&mut gate, &head, rest).await?;
    }
}

/// Records the time at which the peer's end reaches the kernel.
pub async fn watch(socket: std::sync::Weak<socket2::Socket>, trace: Shared) {
    if let Some(at) = link::ended(socket).await {
        trace.lock().hung_up.get_or_insert(at);
    }
}

/// Responds to an ordinary request and returns the bytes after it.
async fn request(gate: &mut Gate, head: &Head, rest: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    let target = head.start_line().split(' ').nth(1).unwrap_or_default();
    let length: usize = head.field("Content-Length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = rest;
    if head.field("Expect").is_none() {
        let mut buffer = vec![0; 64 * 1024];
        while body.len() < length {
            match gate.read(&mut buffer).await? {
                0 => anyhow::bail!("the connection ended within a body"),
                count => body.extend_from_slice(&buffer[..count]),
            }
        }
    }
    let size: usize = target.rsplit_once("/down/").and_then(|(_, size)| size.parse().ok()).unwrap_or(0);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {size}\r\n\r\n");
    gate.write_all(head.as_bytes()).await?;
    gate.write_all(&vec![b'd'; size]).await?;
    Ok(body.split_off(length.min(body.len())))
}
