//! `pulsegate dev`, and clients of its echo app.

use std::path::PathBuf;

use futures_util::StreamExt;
use pulsegate::tls::client::{TlsClient, Trust};
use pulsegate_test_kit::process::Process;
use pulsegate_test_kit::wait::wait_for;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::USER_AGENT;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::PULSEGATE;

/// A running `pulsegate dev`.
pub(crate) struct Dev {
    pub(crate) process: Process,
    /// The address of the inspect page.
    pub(crate) inspect: String,
    pub(crate) port: u16,
    ca: PathBuf,
    _dir: TempDir,
}

/// A client that answers pings, and otherwise does only what the test orders.
pub(crate) struct Guest {
    orders: mpsc::Sender<Message>,
    life: JoinHandle<(u16, String)>,
}

impl Dev {
    /// Starts it with a heartbeat of `interval` and `timeout`.
    pub(crate) async fn start(interval: &str, timeout: &str) -> Self {
        let dir = TempDir::new().expect("make a temporary directory");
        let ca = dir.path().join("ca.pem");
        let mut command = Command::new(PULSEGATE);
        command.args(["dev", "--listen", "127.0.0.1:0", "--inspect", "127.0.0.1:0", "--interval", interval]);
        command.args(["--timeout", timeout, "--ca-out"]).arg(&ca);
        let process = Process::start("pulsegate dev", &mut command);
        process.line("the end of the guide", |line| line.text.contains("Ctrl-C ends it")).await;
        let value_of = |term: &str| {
            let line = process.lines().into_iter().take(8).find(|line| line.text.trim_start().starts_with(term));
            let line = line.unwrap_or_else(|| panic!("no {term:?} among the first lines of\n{}", process.transcript()));
            line.text.split_whitespace().last().expect("it says something").to_owned()
        };
        let inspect = value_of("inspect ");
        let port = value_of("https ").trim_end_matches('/').rsplit(':').next().and_then(|port| port.parse().ok());
        Self { inspect, port: port.expect("a port"), process, ca, _dir: dir }
    }

    /// Connects a client with the User-Agent `agent`.
    pub(crate) async fn guest(&self, agent: &'static str) -> Guest {
        let url = format!("wss://localhost:{}/echo", self.port);
        let mut request = url.into_client_request().expect("a valid URL");
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(agent));
        let tcp = wait_for("connect", TcpStream::connect(("127.0.0.1", self.port))).await.expect("it listens");
        let client = TlsClient::new(&Trust::File(self.ca.clone()), None).expect("an authority");
        let tls = wait_for("the handshake", client.handshake("localhost", tcp)).await.expect("it is trusted");
        let (mut socket, _) = wait_for("the upgrade", Box::pin(client_async(request, tls))).await.expect("accepted");
        let (orders, mut received) = mpsc::channel(1);
        let life = tokio::spawn(async move {
            loop {
                let message = tokio::select! {
                    Some(order) = received.recv() => {
                        let _ = futures_util::SinkExt::send(&mut socket, order).await;
                        continue;
                    }
                    message = socket.next() => message,
                };
                match message {
                    Some(Ok(Message::Close(frame))) => {
                        return frame
                            .map_or((1005, String::new()), |frame| (frame.code.into(), frame.reason.to_string()));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return (1006, String::new()),
                }
            }
        });
        Guest { orders, life }
    }
}

impl Guest {
    /// Begins the closing handshake.
    pub(crate) async fn leave(&self, code: u16, reason: &'static str) {
        let frame = CloseFrame { code: code.into(), reason: reason.into() };
        self.orders.send(Message::Close(Some(frame))).await.expect("it lives");
    }

    /// Returns the code and the reason of the Close it gets.
    pub(crate) async fn close(self) -> (u16, String) {
        wait_for("its end", self.life).await.expect("it does not panic")
    }
}
