//! The legs of a simulated session: streams with a kernel behind them, and what the judge records of them.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pulsegate::relay::{Delivery, Leg, Partial};
use pulsegate::tls::client::{TlsClient, Trust};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::transport::{Stream, now};
use crate::wire::LegWire;

/// The transport of a leg's bytes.
enum Channel {
    Plain(Stream),
    Tls(Box<TlsStream<Stream>>),
}

/// One leg of a session at the proxy.
pub struct SimLeg {
    channel: Channel,
    wire: Rc<RefCell<LegWire>>,
    /// Bytes of the socket that have become readable, and the last ones that have not.
    decrypted: u64,
    partial: Option<Partial>,
    was_aborted: bool,
    /// Flips a bit of the first message byte of this leg that passes: for tests of the judge.
    pub corrupts: bool,
}

impl SimLeg {
    pub fn plain(stream: Stream, wire: Rc<RefCell<LegWire>>) -> Self {
        stream.record(&wire);
        Self::new(Channel::Plain(stream), wire)
    }

    pub fn tls(stream: TlsStream<Stream>, wire: Rc<RefCell<LegWire>>) -> Self {
        stream.get_ref().0.record(&wire);
        Self::new(Channel::Tls(Box::new(stream)), wire)
    }

    fn new(channel: Channel, wire: Rc<RefCell<LegWire>>) -> Self {
        Self { channel, wire, decrypted: 0, partial: None, was_aborted: false, corrupts: false }
    }

    fn socket(&self) -> &Stream {
        match &self.channel {
            Channel::Plain(stream) => stream,
            Channel::Tls(stream) => stream.get_ref().0,
        }
    }

    /// Records the bytes that have left the socket and cannot be read yet.
    fn note_partial(&mut self, is_readable: bool) {
        let taken = self.socket().taken();
        if is_readable || taken == self.decrypted {
            (self.decrypted, self.partial) = (taken, None);
        } else {
            let len = usize::try_from(taken - self.decrypted).expect("a record is short");
            if self.partial.is_none_or(|partial| partial.len != len) {
                self.partial = Some(Partial { at: Instant::now().into_std(), len });
            }
        }
    }
}

impl AsyncRead for SimLeg {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let outcome = match &mut this.channel {
            Channel::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Channel::Tls(stream) => {
                let outcome = Pin::new(&mut **stream).poll_read(cx, buf);
                this.note_partial(outcome.is_ready());
                outcome
            }
        };
        ready!(outcome)?;
        let read = &mut buf.filled_mut()[before..];
        if this.corrupts
            && let Some(last) = read.last_mut().filter(|_| before == 0)
        {
            *last ^= 1;
        }
        let mut wire = this.wire.borrow_mut();
        if wire.is_encrypted {
            wire.read(now(), &buf.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SimLeg {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let written = match &mut this.channel {
            Channel::Plain(stream) => ready!(Pin::new(stream).poll_write(cx, bytes))?,
            Channel::Tls(stream) => {
                ready!(Pin::new(&mut **stream).poll_flush(cx))?;
                ready!(Pin::new(&mut **stream).poll_write(cx, bytes))?
            }
        };
        this.wire.borrow_mut().sent(now(), &bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.channel {
            Channel::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Channel::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.borrow_mut().finished(now());
        match &mut self.channel {
            Channel::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Channel::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }
}

impl Leg for SimLeg {
    fn delivery(&self) -> Option<Delivery> {
        Some(Delivery { acked: self.socket().acked(), unread: self.socket().has_unread() })
    }

    fn written(&self) -> u64 {
        self.socket().written()
    }

    fn partial(&self) -> Option<Partial> {
        self.partial
    }

    fn untransmitted(&self) -> Option<u64> {
        Some(self.socket().untransmitted())
    }

    fn abort_on_drop(&mut self) {
        self.was_aborted = true;
        self.socket().abort_on_drop();
    }
}

impl Drop for SimLeg {
    fn drop(&mut self) {
        self.wire.borrow_mut().dropped(now(), self.was_aborted);
    }
}

/// Both ends of TLS on the simulated network.
#[derive(Clone)]
pub struct Tls {
    pub acceptor: TlsAcceptor,
    pub client: TlsClient,
}

impl Tls {
    /// Creates a certificate for the proxy, and clients that accept any. The signatures of its key all have one length,
    /// so that the same seed has the same segments.
    pub fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        let names = vec!["proxy".to_owned()];
        let certificate =
            CertificateParams::new(names).and_then(|params| params.self_signed(&key)).expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key in PKCS #8");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("the key is the certificate's");
        let client = TlsClient::new(&Trust::AnyCertificate, None).expect("no files are read");
        Self { acceptor: TlsAcceptor::from(Arc::new(config)), client }
    }
}
