//! A TCP connection, with TLS or without, whose ciphertext is accessible.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};

use crate::wire::record::End;

/// The TLS state that both halves of a connection share.
type Shared = Arc<Mutex<ClientConnection>>;

/// The size of the receive buffer of an endpoint that reads slowly: the kernel doubles it.
pub(crate) const NARROW: u32 = 16 * 1024;

/// The largest plaintext of a TLS record (RFC 8446 §5.1).
const RECORD: usize = 16 * 1024;

/// The receiving half.
pub(crate) struct Input {
    tcp: OwnedReadHalf,
    tls: Option<Shared>,
}

/// The sending half.
pub(crate) struct Output {
    tcp: OwnedWriteHalf,
    tls: Option<Shared>,
}

/// The result of one read.
pub(crate) struct Chunk {
    pub(crate) plain: Vec<u8>,
    /// Set after the `close_notify` of TLS.
    pub(crate) notified: bool,
}

/// Connects to `address`; a `narrow` endpoint has a small receive buffer.
pub(crate) async fn connect(address: SocketAddr, narrow: bool) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    if narrow {
        socket.set_recv_buffer_size(NARROW).expect("set the receive buffer");
    }
    let stream = socket.connect(address).await.unwrap_or_else(|error| panic!("connect to {address}: {error}"));
    stream.set_nodelay(true).expect("set TCP_NODELAY");
    stream
}

/// Returns a connection without TLS.
pub(crate) fn plain(stream: TcpStream) -> (Input, Output) {
    let (read, write) = stream.into_split();
    (Input { tcp: read, tls: None }, Output { tcp: write, tls: None })
}

/// Returns a connection with TLS, after its handshake.
pub(crate) async fn handshake(stream: TcpStream, config: Arc<ClientConfig>) -> (Input, Output) {
    let name = ServerName::try_from("localhost").expect("a valid name");
    let connection = ClientConnection::new(config, name).expect("a TLS client");
    let tls = Arc::new(Mutex::new(connection));
    let (read, write) = stream.into_split();
    let mut input = Input { tcp: read, tls: Some(Arc::clone(&tls)) };
    let mut output = Output { tcp: write, tls: Some(tls) };
    loop {
        output.send(&[]).await.expect("send the handshake");
        if !input.handshaking() {
            return (input, output);
        }
        if let Err(end) = input.read(RECORD).await {
            panic!("the TLS handshake ended: {end:?}");
        }
    }
}

impl Input {
    fn handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.lock().unwrap_or_else(PoisonError::into_inner).is_handshaking())
    }

    /// Reads at most `limit` bytes from the socket and returns what they decrypt to.
    pub(crate) async fn read(&mut self, limit: usize) -> Result<Chunk, End> {
        let mut buffer = vec![0; limit];
        let count = self.tcp.read(&mut buffer).await.map_err(|error| End::Reset(error.to_string()))?;
        if count == 0 {
            return Err(End::Fin);
        }
        buffer.truncate(count);
        let Some(tls) = &self.tls else { return Ok(Chunk { plain: buffer, notified: false }) };
        let mut tls = tls.lock().unwrap_or_else(PoisonError::into_inner);
        let mut chunk = Chunk { plain: Vec::new(), notified: false };
        let mut rest = &buffer[..];
        while !rest.is_empty() {
            tls.read_tls(&mut rest).map_err(|error| End::Tls(error.to_string()))?;
            let state = tls.process_new_packets().map_err(|error| End::Tls(error.to_string()))?;
            let (start, more) = (chunk.plain.len(), state.plaintext_bytes_to_read());
            chunk.plain.resize(start + more, 0);
            tls.reader().read_exact(&mut chunk.plain[start..]).map_err(|error| End::Tls(error.to_string()))?;
            if state.peer_has_closed() {
                chunk.notified = true;
                break;
            }
        }
        Ok(chunk)
    }
}

impl Output {
    /// Encrypts `plain` into records, without sending them.
    pub(crate) fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        let Some(tls) = &self.tls else { return plain.to_vec() };
        let mut tls = tls.lock().unwrap_or_else(PoisonError::into_inner);
        tls.set_buffer_limit(None);
        tls.writer().write_all(plain).expect("the buffer is unlimited");
        flush(&mut tls)
    }

    /// Sends bytes as they are.
    pub(crate) async fn send_sealed(&mut self, sealed: &[u8]) -> io::Result<()> {
        self.tcp.write_all(sealed).await
    }

    /// Encrypts and sends; waits until the kernel has taken everything.
    pub(crate) async fn send(&mut self, plain: &[u8]) -> io::Result<()> {
        if plain.is_empty() {
            let sealed = self.seal(&[]);
            return self.send_sealed(&sealed).await;
        }
        for part in plain.chunks(4 * RECORD) {
            let sealed = self.seal(part);
            self.send_sealed(&sealed).await?;
        }
        Ok(())
    }

    /// Ends this direction: `close_notify`, and a FIN.
    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        if let Some(tls) = &self.tls {
            let sealed = {
                let mut tls = tls.lock().unwrap_or_else(PoisonError::into_inner);
                tls.send_close_notify();
                flush(&mut tls)
            };
            self.send_sealed(&sealed).await?;
        }
        self.tcp.shutdown().await
    }

    /// Makes the kernel send a RST when the connection is dropped.
    pub(crate) fn reset_when_dropped(&self) {
        let stream: &TcpStream = self.tcp.as_ref();
        SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO)).expect("set SO_LINGER");
    }
}

fn flush(tls: &mut ClientConnection) -> Vec<u8> {
    let mut sealed = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut sealed).expect("writing to a vector");
    }
    sealed
}
