//! The client: over TLS to a proxy with HTTP/1.1 or HTTP/2, or without TLS to the app.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request};
use pulsegate_load::head::Head;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::sleep;
use tokio_rustls::TlsConnector;

use crate::app::watch;
use crate::endpoint::{self, Setup};
use crate::gate::{Gate, Switch};
use crate::link;
use crate::plan::{Opening, Transfer};
use crate::tunnel::Tunnel;

/// Returns the TLS settings of a client that trusts the authority in `file` and accepts one version of HTTP.
///
/// # Errors
///
/// Fails if the file contains no certificate.
pub fn tls(file: &Path, http2: bool) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file)? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    Ok(Arc::new(config))
}

/// Runs a session over HTTP/1.1: connects, upgrades `path`, and runs the script to the end.
///
/// # Errors
///
/// Returns any failure before the upgrade is complete. A refusal is in the record.
pub async fn http1(
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    path: &str,
    offer: bool,
    opening: Opening,
    mut setup: Setup,
) -> Result<()> {
    sleep(Duration::from_millis(opening.at)).await;
    let stream = link::connect(address, u32::try_from(setup.script.buffer).unwrap_or(0)).await?;
    let socket = link::handle(&stream)?;
    let watched = setup.link.as_ref().map_or_else(|| vec![Arc::downgrade(&socket)], |_| Vec::new());
    let pause = Duration::from_millis(opening.pause);
    let gate = Gate::pausing(stream, Arc::clone(&setup.switch), opening.bytes, pause);
    let (ended, trace) = (setup.link.clone(), setup.trace.clone());
    setup.socket = Some(socket);
    let upgrade = async {
        if let Some(tls) = tls {
            let name = ServerName::try_from("localhost")?;
            let stream = TlsConnector::from(tls).connect(name, gate).await.context("TLS handshake")?;
            upgrade(stream, path, offer, setup).await
        } else {
            upgrade(gate, path, offer, setup).await
        }
    };
    let watching = async {
        // The proxy's end of the leg is recorded even if the client is stopped or the link holds everything.
        let sockets = match ended {
            Some(control) => loop {
                let far = control.far();
                if !far.is_empty() {
                    break far;
                }
                sleep(Duration::from_millis(5)).await;
            },
            None => watched,
        };
        if let Some(socket) = sockets.into_iter().next() {
            watch(socket, trace).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        result = upgrade => result,
        () = watching => Ok(()),
    }
}

async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    path: &str,
    offer: bool,
    mut setup: Setup,
) -> Result<()> {
    let extensions = if offer { "Sec-WebSocket-Extensions: permessage-deflate\r\n" } else { "" };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extensions}\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let (head, early) = Head::read(&mut stream).await.context("the answer to the upgrade")?;
    if head.status() != Some(101) {
        setup.trace.lock().refused = Some(head.start_line().to_owned());
        return Ok(());
    }
    setup.deflate = head.field("Sec-WebSocket-Extensions").is_some_and(|agreed| agreed.contains("permessage-deflate"));
    endpoint::run(stream, early, setup).await;
    Ok(())
}

/// An HTTP/2 connection to the proxy.
#[derive(Debug)]
pub struct Http2 {
    requests: SendRequest<Bytes>,
    /// The task of the connection. It returns the time at which the proxy ended it.
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Http2 {
    /// Opens the connection. Streams have a receive window of `window` bytes.
    ///
    /// # Errors
    ///
    /// Returns any failure before the settings are exchanged.
    pub async fn open(
        address: SocketAddr,
        tls: Arc<ClientConfig>,
        window: u32,
        opening: Opening,
        switch: Arc<Switch>,
    ) -> Result<Self> {
        sleep(Duration::from_millis(opening.at)).await;
        let stream = link::connect(address, 0).await?;
        let gate = Gate::pausing(stream, switch, opening.bytes, Duration::from_millis(opening.pause));
        let tls = TlsConnector::from(tls).connect(ServerName::try_from("localhost")?, gate).await?;
        let (requests, mut connection) = h2::client::Builder::new()
            .initial_window_size(window)
            .initial_connection_window_size(window.saturating_mul(4))
            .data_frame_budget(64 << 20)
            .enable_push(false)
            .handshake::<_, Bytes>(tls)
            .await?;
        let pings = connection.ping_pong();
        let driver = tokio::spawn(async move {
            // Every stream reports the error.
            let _ = connection.await;
        });
        if let Some(mut pings) = pings {
            pings.ping(h2::Ping::opaque()).await?;
        }
        Ok(Self { requests, driver })
    }

    /// Runs a session on a stream of its own.
    ///
    /// # Errors
    ///
    /// Returns any failure before the upgrade is complete. A refusal is in the record.
    pub async fn session(&self, path: &str, offer: bool, mut setup: Setup) -> Result<()> {
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri(format!("https://localhost{path}"))
            .extension(h2::ext::Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13");
        if offer {
            request = request.header("sec-websocket-extensions", "permessage-deflate");
        }
        let mut requests = self.requests.clone().ready().await?;
        let (response, up) = requests.send_request(request.body(())?, false)?;
        let response = response.await?;
        if !response.status().is_success() {
            setup.trace.lock().refused = Some(format!("{:?}", response.status()));
            return Ok(());
        }
        let agreed = response.headers().get("sec-websocket-extensions");
        setup.deflate = agreed.is_some_and(|agreed| String::from_utf8_lossy(agreed.as_bytes()).contains("deflate"));
        endpoint::run(Tunnel::new(up, response.into_body()), Vec::new(), setup).await;
        Ok(())
    }

    /// Makes an ordinary request and returns the time at which it was complete.
    ///
    /// # Errors
    ///
    /// Fails if there is no response, or one with another status than 200 or another length than requested.
    pub async fn transfer(&self, base: &str, transfer: Transfer) -> Result<Instant> {
        sleep(Duration::from_millis(transfer.at)).await;
        let method = if transfer.up > 0 { Method::POST } else { Method::GET };
        let request = Request::builder()
            .method(method)
            .uri(format!("https://localhost{base}down/{}", transfer.down))
            .header("content-length", transfer.up);
        let mut requests = self.requests.clone().ready().await?;
        let (response, mut up) = requests.send_request(request.body(())?, transfer.up == 0)?;
        let mut left = transfer.up;
        while left > 0 {
            up.reserve_capacity(left.min(16 * 1024));
            let granted = std::future::poll_fn(|context| up.poll_capacity(context)).await;
            let count = granted.context("the stream was reset while it was uploading")??.min(left);
            left -= count;
            up.send_data(Bytes::from(vec![b'u'; count]), left == 0)?;
        }
        let response = response.await?;
        if !response.status().is_success() {
            bail!("the answer was {}", response.status());
        }
        let mut body = response.into_body();
        let mut received = 0;
        while let Some(data) = body.data().await {
            let data = data?;
            received += data.len();
            body.flow_control().release_capacity(data.len())?;
        }
        if received != transfer.down {
            bail!("{received} of {} bytes came", transfer.down);
        }
        Ok(Instant::now())
    }
}
