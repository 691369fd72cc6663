//! A proxy with a selected fault, for tests of the soak's verdicts: HTTP/1.1 over TLS, one relay for each session, and
//! the admin API and metrics as far as the soak reads them.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::frame::{self, Decoder, Header, Opcode, Part};
use crate::head::Head;

/// The payload of the proxy's own Pings.
const OWN: &[u8] = b"own ping";

/// The fault of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// Nothing
    None,
    /// Keeps a descriptor of every session
    Descriptor,
    /// Keeps half a MiB of every session
    Memory,
    /// Ends every tenth session that lives for 300 ms
    Kill,
    /// Never ends a session of a dead client
    Undead,
    /// Ends only the client's leg of a dead client's session
    OneLeg,
    /// Flips a bit of every tenth session's messages
    Flip,
    /// Counts every tenth end under another reason
    Miscount,
}

/// Serve as a proxy with a fault, for tests of the soak
#[derive(Args, Clone, Debug)]
pub struct StandIn {
    /// The app
    #[arg(long)]
    upstream: SocketAddr,
    /// The directory of cert.pem and key.pem
    #[arg(long)]
    directory: PathBuf,
    /// The heartbeat's interval
    #[arg(long, value_parser = humantime::parse_duration)]
    interval: Duration,
    /// The heartbeat's timeout
    #[arg(long, value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// The fault
    #[arg(long, value_enum)]
    fault: Fault,
}

/// The state that all sessions share.
struct Proxy {
    options: StandIn,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    opened: u64,
    open: u64,
    ends: BTreeMap<[&'static str; 3], u64>,
    kept: Vec<File>,
    memory: Vec<Vec<u8>>,
}

impl Proxy {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves until the process ends. Prints the addresses of the proxy and of its admin endpoints, in one line.
pub async fn serve(options: StandIn) -> Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(server_config(&options.directory)?));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let answers = TcpListener::bind("127.0.0.1:0").await?;
    println!("{} {}", listener.local_addr()?, answers.local_addr()?);
    let proxy = Arc::new(Proxy { options, book: Mutex::default() });
    let shared = Arc::clone(&proxy);
    tokio::spawn(async move {
        while let Ok((stream, _)) = answers.accept().await {
            // The generator repeats a request that is cut off.
            let _ = answer(stream, &shared).await;
        }
    });
    loop {
        let (stream, _) = listener.accept().await?;
        let (acceptor, proxy) = (acceptor.clone(), Arc::clone(&proxy));
        tokio::spawn(async move {
            if let Err(error) = accept(&acceptor, stream, &proxy).await {
                eprintln!("stand-in: {error:#}");
            }
        });
    }
}

fn server_config(directory: &Path) -> Result<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(directory.join("cert.pem"))?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(directory.join("key.pem"))?;
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    Ok(builder.with_safe_default_protocol_versions()?.with_no_client_auth().with_single_cert(chain, key)?)
}

async fn answer(mut stream: TcpStream, proxy: &Proxy) -> Result<()> {
    let (head, _) = Head::read(&mut stream).await?;
    let body = {
        let book = proxy.book();
        if head.start_line().starts_with("GET /metrics ") {
            let line = |([initiator, reason, code], count): (&[&str; 3], &u64)| {
                format!(
                    "pulsegate_websockets_closed_total{{route=\"/\",initiator=\"{initiator}\",reason=\"{reason}\",\
                     code=\"{code}\"}} {count}\n"
                )
            };
            book.ends.iter().map(line).collect()
        } else {
            format!("{{\"total\":{}}}", book.open)
        }
    };
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    Ok(stream.shutdown().await?)
}

async fn accept(acceptor: &TlsAcceptor, stream: TcpStream, proxy: &Proxy) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut client = acceptor.accept(stream).await.context("TLS handshake")?;
    let (request, early) = Head::read(&mut client).await?;
    let mut app = TcpStream::connect(proxy.options.upstream).await.context("connect to the app")?;
    app.set_nodelay(true)?;
    app.write_all(request.as_str().as_bytes()).await?;
    let (response, first) = Head::read(&mut app).await?;
    client.write_all(response.as_str().as_bytes()).await?;
    client.write_all(&first).await?;
    client.flush().await?;
    let number = {
        let mut book = proxy.book();
        book.opened += 1;
        book.open += 1;
        match proxy.options.fault {
            Fault::Descriptor => book.kept.push(File::open("/dev/null")?),
            Fault::Memory => book.memory.push(vec![1; 512 * 1024]),
            _ => {}
        }
        book.opened
    };
    let labels = Session::new(proxy, number, client, app).run(early).await;
    let mut book = proxy.book();
    book.open -= 1;
    let labels = match proxy.options.fault {
        Fault::Miscount if number.is_multiple_of(10) => ["proxy", "trickle", "1012"],
        _ => labels,
    };
    *book.ends.entry(labels).or_default() += 1;
    Ok(())
}

/// The first sign of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    ClientClose,
    ClientEnd,
    AppClose,
}

/// One relay.
struct Session<'a> {
    proxy: &'a Proxy,
    number: u64,
    from_client: AsyncMutex<ReadHalf<TlsStream<TcpStream>>>,
    to_client: AsyncMutex<WriteHalf<TlsStream<TcpStream>>>,
    from_app: AsyncMutex<OwnedReadHalf>,
    to_app: AsyncMutex<OwnedWriteHalf>,
    seen: Mutex<Seen>,
}

#[derive(Clone, Copy)]
struct Seen {
    /// The time of the last read from the client.
    client: Instant,
    first: Option<First>,
    /// The code of the first Close.
    code: u16,
}

/// The reason for which the relay of one direction ended.
enum Stop {
    ClientReset,
    AppEnd,
    Miss,
    Killed,
}

impl<'a> Session<'a> {
    fn new(proxy: &'a Proxy, number: u64, client: TlsStream<TcpStream>, app: TcpStream) -> Self {
        let (from_client, to_client) = split(client);
        let (from_app, to_app) = app.into_split();
        let seen = Mutex::new(Seen { client: Instant::now(), first: None, code: 1006 });
        Self {
            proxy,
            number,
            from_client: AsyncMutex::new(from_client),
            to_client: AsyncMutex::new(to_client),
            from_app: AsyncMutex::new(from_app),
            to_app: AsyncMutex::new(to_app),
            seen,
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Relays to the end and returns the labels of the end.
    async fn run(self, early: Vec<u8>) -> [&'static str; 3] {
        let stop = tokio::select! {
            stop = self.upward(early) => stop,
            stop = self.downward() => stop,
        };
        let Seen { first, code, .. } = *self.seen();
        let code = label(code);
        match stop {
            Stop::Killed => ["proxy", "admin", "1006"],
            Stop::ClientReset if first.is_none() => ["client", "client_lost", "1006"],
            Stop::ClientReset | Stop::AppEnd => {
                if first.is_none() {
                    self.close_client(1012).await;
                    return ["upstream", "upstream_lost", "1012"];
                }
                // An error means that the peer has ended already.
                let _ = self.to_client.lock().await.shutdown().await;
                if first == Some(First::AppClose) { ["upstream", "normal", code] } else { ["client", "normal", code] }
            }
            Stop::Miss => {
                self.close_client(1012).await;
                if self.proxy.options.fault == Fault::OneLeg {
                    // The app's leg stays open until the process ends.
                    std::mem::forget(self.to_app.into_inner());
                    std::mem::forget(self.from_app.into_inner());
                } else {
                    let mut close = Vec::new();
                    frame::encode_masked(Opcode::Close, [0; 4], &4408_u16.to_be_bytes(), &mut close);
                    let _ = self.to_app.lock().await.write_all(&close).await;
                }
                ["proxy", "heartbeat_timeout", "1012"]
            }
        }
    }

    async fn close_client(&self, code: u16) {
        let mut close = Vec::new();
        Header { fin: true, opcode: Opcode::Close, mask: None, length: 2 }.encode(&mut close);
        close.extend_from_slice(&code.to_be_bytes());
        let mut client = self.to_client.lock().await;
        // An error means that the client has ended already.
        let _ = client.write_all(&close).await;
        let _ = client.shutdown().await;
        drop(client);
        // The rest of the client's bytes is read, so that no RST overtakes the Close.
        let mut rest = [0; 1024];
        let mut from = self.from_client.lock().await;
        let read = async { while from.read(&mut rest).await.is_ok_and(|read| read > 0) {} };
        let _ = timeout(Duration::from_millis(100), read).await;
    }

    async fn upward(&self, mut input: Vec<u8>) -> Stop {
        let (mut client, mut app) = (self.from_client.lock().await, self.to_app.lock().await);
        let mut decoder = Decoder::default();
        let (mut control, mut out) = (Vec::new(), Vec::new());
        loop {
            out.clear();
            let mut rest = &mut input[..];
            // The generator's frames are valid.
            while let Ok(Some(part)) = decoder.next(&mut rest) {
                self.relay(part, &mut control, &mut out);
            }
            // The end of the app is noticed on the read side.
            let _ = app.write_all(&out).await;
            input.resize(16 * 1024, 0);
            match client.read(&mut input).await {
                Ok(0) => break,
                Ok(read) => input.truncate(read),
                Err(_) => return Stop::ClientReset,
            }
            self.seen().client = Instant::now();
        }
        self.seen().first.get_or_insert(First::ClientEnd);
        let _ = app.shutdown().await;
        std::future::pending().await
    }

    /// Forwards a part of a client's frame, masked with zeros. Pongs for the proxy's own Pings are removed.
    fn relay(&self, part: Part<'_>, control: &mut Vec<u8>, out: &mut Vec<u8>) {
        let zeros = Some([0; 4]);
        match part {
            Part::Header(header) if header.opcode.is_control() => {}
            Part::Header(header) => Header { mask: zeros, ..header }.encode(out),
            Part::Payload { header, bytes, last } if header.opcode.is_control() => {
                control.extend_from_slice(bytes);
                if !last {
                    return;
                }
                if header.opcode == Opcode::Close {
                    self.close_seen(First::ClientClose, control);
                }
                if header.opcode != Opcode::Pong || control != OWN {
                    frame::encode_masked(header.opcode, [0; 4], control, out);
                }
                control.clear();
            }
            Part::Payload { bytes, .. } => {
                if self.proxy.options.fault == Fault::Flip
                    && self.number.is_multiple_of(10)
                    && let Some(first) = bytes.first_mut()
                {
                    *first ^= 0x10;
                }
                out.extend_from_slice(bytes);
            }
        }
    }

    fn close_seen(&self, by: First, payload: &[u8]) {
        let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
        let mut seen = self.seen();
        if matches!(seen.first, None | Some(First::ClientEnd)) {
            seen.first.get_or_insert(by);
            seen.code = code;
        }
    }

    async fn downward(&self) -> Stop {
        let (mut app, mut client) = (self.from_app.lock().await, self.to_client.lock().await);
        let mut decoder = Decoder::default();
        let mut control = Vec::new();
        let mut input = vec![0; 16 * 1024];
        let mut asked: Option<Instant> = None;
        let opened = Instant::now();
        let StandIn { interval, timeout, fault, .. } = self.proxy.options;
        loop {
            let heard = self.seen().client;
            asked = asked.filter(|asked| heard <= *asked);
            let due = asked.map_or(heard + interval, |asked| asked + timeout);
            let kill = fault == Fault::Kill && self.number.is_multiple_of(10);
            let killed_at = opened + if kill { Duration::from_millis(300) } else { Duration::from_secs(3600) };
            tokio::select! {
                read = app.read(&mut input) => {
                    let Ok(read @ 1..) = read else { return Stop::AppEnd };
                    if client.write_all(&input[..read]).await.is_err() {
                        return Stop::ClientReset;
                    }
                    let _ = client.flush().await;
                    let mut rest = &mut input[..read];
                    while let Ok(Some(part)) = decoder.next(&mut rest) {
                        if let Part::Payload { header: Header { opcode: Opcode::Close, .. }, bytes, last } = part {
                            control.extend_from_slice(bytes);
                            if last {
                                self.close_seen(First::AppClose, &control);
                            }
                        }
                    }
                }
                () = sleep_until(killed_at) => return Stop::Killed,
                () = sleep_until(due) => {
                    let Seen { client: last, first, .. } = *self.seen();
                    let quiet = last == heard && first.is_none();
                    if asked.is_some() && quiet && fault != Fault::Undead {
                        return Stop::Miss;
                    }
                    if quiet && !decoder.at_boundary() {
                        sleep(Duration::from_millis(10)).await;
                    } else if quiet {
                        let mut ping = Vec::new();
                        Header { fin: true, opcode: Opcode::Ping, mask: None, length: OWN.len() as u64 }.encode(&mut ping);
                        ping.extend_from_slice(OWN);
                        if client.write_all(&ping).await.is_err() {
                            return Stop::ClientReset;
                        }
                        let _ = client.flush().await;
                        asked = Some(Instant::now());
                    }
                }
            }
        }
    }
}

/// Returns the label of a code.
fn label(code: u16) -> &'static str {
    match code {
        1000 => "1000",
        1001 => "1001",
        3000..=3999 => "3xxx",
        4000..=4999 => "4xxx",
        _ => "1006",
    }
}
