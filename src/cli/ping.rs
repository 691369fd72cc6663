//! `pulsegate ping`: a client that opens a WebSocket and prints heartbeat round trips as ping(8) does.

mod connect;
mod probes;

use std::fmt::Arguments;
use std::io::{self, Write};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::{SinkExt, StreamExt};
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Bytes, Error as WsError};

use self::connect::{ByteStream, ConnectTimeout, UpgradeHeader, WebSocketUrl};
use self::probes::{Pong, Probes, millis};
use crate::drain;
use crate::tls::client::Trust;

/// The time limit for the server's Close after this side's.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The arguments of `pulsegate ping`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The server at the URL answers the pings: through pulsegate that is the app, unless its route has client_ping = \
\"answer\". Pings that the server sends are answered and shown too; a server may send them only when the connection is \
idle, so use a long --interval.

Ends at --count, at Ctrl-C, or when the server closes. Exit codes: 0 at least one pong came, 1 none did, 2 wrong usage")]
pub struct PingArgs {
    /// URL of the server: `wss://host[:port]/path`, or `ws://host[:port]/path` without TLS.
    url: WebSocketUrl,
    /// End after this many pings.
    #[arg(short, long)]
    count: Option<NonZeroU32>,
    /// Time between two pings.
    #[arg(short, long, default_value = "1s", value_parser = super::duration::parse)]
    interval: Duration,
    /// Time limit to open the connection, and of a pong before it is reported as missing.
    #[arg(long, default_value = "10s", value_parser = super::duration::parse)]
    timeout: Duration,
    /// Trust only the CA certificates in this PEM file.
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    ca: Option<PathBuf>,
    /// Accept any certificate.
    #[arg(long)]
    insecure: bool,
    /// Offer this subprotocol; may be repeated.
    #[arg(long = "subprotocol", value_name = "NAME")]
    subprotocols: Vec<String>,
    /// Send this header with the upgrade; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<UpgradeHeader>,
}

/// Runs until the count is reached, until Ctrl-C, or until the connection ends.
///
/// # Errors
///
/// No WebSocket could be opened, or printing failed.
pub fn run(args: &PingArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let mut probes = Probes::new(fastrand::u32(..).to_be_bytes(), args.timeout);
    match runtime.block_on(ping(args, &mut probes)) {
        Ok(()) => {}
        // The reader of the pipe has closed it, as `head` does, which is no failure.
        Err(error) if is_broken_pipe(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(if probes.received() > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn ping(args: &PingArgs, probes: &mut Probes) -> anyhow::Result<()> {
    let trust = match &args.ca {
        Some(path) => Trust::File(path.clone()),
        None if args.insecure => Trust::AnyCertificate,
        None => Trust::System,
    };
    let time_limit = ConnectTimeout::new(args.timeout);
    let request =
        connect::request(&args.url, &args.headers, &args.subprotocols).context("cannot ask for the upgrade")?;
    let connected = connect::connect(&args.url, &trust, time_limit).await?;
    let mut wire = connected.wire;
    let (socket, subprotocol) = match connect::upgrade(request, &mut wire, time_limit).await {
        Ok(opened) => opened,
        Err(error) => return Err(connect::into_connect_error(error, &mut wire).await.into()),
    };
    let chosen = subprotocol.map_or_else(String::new, |name| format!(", subprotocol {name}"));
    print_line(format_args!("PING {} ({}{chosen})", args.url, connected.description))?;
    let mut session = Session { args, probes, socket, server_pings: 0, last_server_ping: None, messages: 0 };
    let began = Instant::now();
    let end = session.exchange().await?;
    let elapsed = began.elapsed();
    // The run ends here with or without the server's Close, so its absence is no error.
    let _ = timeout(CLOSE_TIMEOUT, session.close(&end)).await;
    session.summary(elapsed, &end)?;
    Ok(())
}

/// An open WebSocket, with its counters.
struct Session<'a> {
    args: &'a PingArgs,
    probes: &'a mut Probes,
    socket: WebSocketStream<&'a mut Box<dyn ByteStream>>,
    server_pings: u32,
    last_server_ping: Option<Instant>,
    messages: u64,
}

/// The reason for which a session ended.
enum End {
    /// All pings were sent, and answered or given up.
    Counted,
    /// Ctrl-C.
    Interrupted,
    /// The server sent a Close, with or without a code and a reason.
    Closed(Option<CloseFrame>),
    /// The connection broke without a Close; code 1006 (RFC 6455 §7.1.5).
    Lost(WsError),
}

/// The next event of a session.
enum Event {
    Tick,
    Overdue,
    Interrupted,
    Received(Option<Result<Message, WsError>>),
}

impl Session<'_> {
    /// Sends pings and reads messages until there is an [`End`].
    ///
    /// # Errors
    ///
    /// The errors of printing.
    async fn exchange(&mut self) -> io::Result<End> {
        let mut ticks = interval(self.args.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let interrupted = drain::interrupted();
        tokio::pin!(interrupted);
        loop {
            let all_sent = self.args.count.is_some_and(|count| self.probes.sent() >= count.get());
            let overdue = self.probes.deadline();
            if all_sent && (overdue.is_none() || self.probes.received() == self.probes.sent()) {
                return Ok(End::Counted);
            }
            let event = tokio::select! {
                () = &mut interrupted => Event::Interrupted,
                received = self.socket.next() => Event::Received(received),
                _ = ticks.tick(), if !all_sent => Event::Tick,
                () = sleep_until(overdue.unwrap_or_else(Instant::now).into()), if overdue.is_some() => Event::Overdue,
            };
            let ended = match event {
                Event::Interrupted => Some(End::Interrupted),
                Event::Tick => self.launch().await,
                Event::Overdue => self.tell_overdue()?,
                Event::Received(None) => Some(End::Closed(None)),
                Event::Received(Some(Err(error))) => Some(End::Lost(error)),
                Event::Received(Some(Ok(message))) => self.take(message)?,
            };
            if let Some(end) = ended {
                return Ok(end);
            }
        }
    }

    /// Sends the next ping; one that cannot be written within the time limit means that the server has stopped reading.
    async fn launch(&mut self) -> Option<End> {
        let payload = Bytes::copy_from_slice(&self.probes.record_ping(Instant::now()));
        let sending = self.socket.send(Message::Ping(payload));
        match timeout(self.args.timeout, sending).await {
            // If the connection has ended, reading returns a more precise error than writing.
            Ok(_) => None,
            Err(_) => {
                Some(End::Lost(WsError::Io(io::Error::new(io::ErrorKind::TimedOut, "the server stopped reading"))))
            }
        }
    }

    fn tell_overdue(&mut self) -> io::Result<Option<End>> {
        let time_limit = humantime::format_duration(self.args.timeout);
        while let Some(seq) = self.probes.overdue(Instant::now()) {
            print_line(format_args!("no pong for seq={seq} after {time_limit}"))?;
        }
        Ok(None)
    }

    /// Processes a message of the server. The WebSocket library sends pongs and the Close reply.
    fn take(&mut self, message: Message) -> io::Result<Option<End>> {
        let now = Instant::now();
        match message {
            Message::Pong(payload) => {
                let host = &self.args.url.host;
                match self.probes.record_pong(&payload, now) {
                    Pong::Ours { seq, rtt } => {
                        print_line(format_args!("pong from {host}: seq={seq} rtt={:.3} ms", millis(rtt)))?;
                    }
                    Pong::Again { seq } => print_line(format_args!("pong from {host}: seq={seq} again"))?,
                    Pong::Unsolicited => print_line(format_args!("pong from {host}: unsolicited"))?,
                }
            }
            Message::Ping(_) => {
                self.server_pings += 1;
                match self.last_server_ping.replace(now) {
                    None => print_line(format_args!("ping from server, answered"))?,
                    Some(last) => {
                        let since = (now - last).as_secs_f64();
                        print_line(format_args!("ping from server, answered, {since:.1} s since the last"))?;
                    }
                }
            }
            Message::Close(frame) => return Ok(Some(End::Closed(frame))),
            Message::Text(_) | Message::Binary(_) | Message::Frame(_) => self.messages += 1,
        }
        Ok(None)
    }

    /// Closes the WebSocket, or replies to the server's Close, and waits for the end of the connection.
    async fn close(&mut self, end: &End) -> Result<(), WsError> {
        match end {
            End::Counted | End::Interrupted => {
                self.socket.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })).await?;
            }
            // The reply to the server's Close is sent by reading on.
            End::Closed(_) => {}
            End::Lost(_) => return Ok(()),
        }
        while self.socket.next().await.transpose()?.is_some() {}
        Ok(())
    }

    fn summary(&self, elapsed: Duration, end: &End) -> io::Result<()> {
        match end {
            End::Counted => {}
            // The terminal has just printed ^C on this line.
            End::Interrupted => print_line(format_args!(""))?,
            End::Closed(None) => print_line(format_args!("closed by the server without a code"))?,
            End::Closed(Some(CloseFrame { code, reason })) => {
                print_line(format_args!("closed by the server: {} {:?}", u16::from(*code), reason.as_str()))?;
            }
            End::Lost(WsError::Io(error)) => print_line(format_args!("connection lost (1006): {error}"))?,
            End::Lost(error) => print_line(format_args!("connection lost (1006): {error}"))?,
        }
        print_line(format_args!("--- {} ---", self.args.url))?;
        let (sent, received, loss) = (self.probes.sent(), self.probes.received(), self.probes.loss());
        let seconds = elapsed.as_secs_f64();
        print_line(format_args!("{sent} pings sent, {received} pongs received, {loss:.0}% lost, {seconds:.1} s"))?;
        if let Some(round_trips) = self.probes.round_trips() {
            print_line(format_args!("{round_trips}"))?;
        }
        if self.server_pings > 0 {
            print_line(format_args!("{} pings from the server", self.server_pings))?;
        }
        if self.messages > 0 {
            print_line(format_args!("{} messages from the server, not shown", self.messages))?;
        }
        Ok(())
    }
}

/// Prints one line and flushes it, for readers of a pipe.
fn print_line(line: Arguments<'_>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
