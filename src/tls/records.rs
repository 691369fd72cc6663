//! TLS records over buffers of the caller: rustls holds keys and state, and no bytes.
//!
//! The buffered connection of rustls holds a read buffer of 4 KiB for its whole life, and reads 4 KiB at a time. Here
//! records are decrypted in the worker's buffer and encrypted into it, so an idle connection holds no buffer and a
//! large message takes few system calls.

use std::fmt;

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus, WriteTraffic,
};
use rustls::{CommonState, Error};

use super::sni;

/// The space for the headers and tags of the records that [`MAX_PLAINTEXT`] bytes make, in bytes.
pub(super) const OVERHEAD: usize = 1024;
/// The most plaintext that one call encrypts, in bytes.
pub(super) const MAX_PLAINTEXT: usize = 64 * 1024;

/// The record layer and handshake of one connection.
pub(super) struct Records {
    connection: UnbufferedServerConnection,
    /// Encrypted bytes that rustls has not consumed: an incomplete record, or the beginning of a handshake message.
    /// They are passed to every call again, because rustls keeps offsets into them.
    rest: Vec<u8>,
    /// Set after an error, which ends the connection.
    failed: bool,
    /// Set when the peer has sent `close_notify` (RFC 8446 §6.1).
    peer_closed: bool,
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("peer_closed", &self.peer_closed).finish_non_exhaustive()
    }
}

impl Records {
    pub(super) fn new(connection: UnbufferedServerConnection) -> Self {
        Self { connection, rest: Vec::new(), failed: false, peer_closed: false }
    }

    /// Returns the parameters negotiated so far.
    pub(super) fn common(&self) -> &CommonState {
        &self.connection
    }

    pub(super) fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Returns the number of encrypted bytes held until the rest of their record arrives.
    pub(super) fn waiting(&self) -> usize {
        self.rest.len()
    }

    /// Decrypts the records in `buffer`. The first [`waiting`](Self::waiting) bytes of `buffer` are free for the held
    /// bytes; behind them are the bytes just read. The payload of each complete record goes to `plaintext`; bytes to
    /// send in response (handshake, alerts, key updates) are appended to `answer`.
    ///
    /// # Errors
    ///
    /// A violation of TLS. The connection is unusable afterwards; `answer` ends with the alert for the peer.
    pub(super) fn decrypt(
        &mut self,
        buffer: &mut [u8],
        answer: &mut Vec<u8>,
        mut plaintext: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        self.check_usable()?;
        buffer[..self.rest.len()].copy_from_slice(&self.rest);
        self.rest = Vec::new();
        let mut taken = 0;
        loop {
            let UnbufferedStatus { mut discard, state } = self.connection.process_tls_records(&mut buffer[taken..]);
            let settled = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        plaintext(record.payload);
                    }
                    false
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(answer, |space| data.encode(space).map_err(Shortage::from))?;
                    false
                }
                Ok(ConnectionState::TransmitTlsData(transmit)) => {
                    transmit.done();
                    false
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.peer_closed = true;
                    false
                }
                // All of the input is processed: early data is never accepted, so no other state needs a response.
                Ok(_) => true,
                Err(error) => {
                    self.take_alert(answer);
                    sni::correct_alert(answer);
                    self.failed = true;
                    return Err(error);
                }
            };
            taken += discard;
            if settled {
                if taken < buffer.len() {
                    self.rest = buffer[taken..].to_vec();
                }
                return Ok(());
            }
        }
    }

    /// Encrypts `plaintext`, at most [`MAX_PLAINTEXT`] bytes, into `space`, which is [`OVERHEAD`] bytes larger. Bytes
    /// that rustls has to send first are appended to `answer`. Returns the number of bytes written to `space`.
    ///
    /// # Errors
    ///
    /// The handshake is not complete, or the connection has failed or was closed.
    pub(super) fn encrypt(&mut self, plaintext: &[u8], space: &mut [u8], answer: &mut Vec<u8>) -> Result<usize, Error> {
        self.write_traffic(answer, |traffic, _| traffic.encrypt(plaintext, space).map_err(Shortage::from))
    }

    /// Appends a `close_notify` alert to `answer`.
    pub(super) fn close(&mut self, answer: &mut Vec<u8>) -> Result<(), Error> {
        self.write_traffic(answer, |traffic, answer| {
            append(answer, |space| traffic.queue_close_notify(space).map_err(Shortage::from)).map(|()| 0)
        })?;
        Ok(())
    }

    fn write_traffic<E: Into<Error>>(
        &mut self,
        answer: &mut Vec<u8>,
        write: impl FnOnce(&mut WriteTraffic<'_, ServerConnectionData>, &mut Vec<u8>) -> Result<usize, E>,
    ) -> Result<usize, Error> {
        self.check_usable()?;
        loop {
            match self.connection.process_tls_records(&mut self.rest).state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    return write(&mut traffic, answer).map_err(Into::into);
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(answer, |space| data.encode(space).map_err(Shortage::from))?;
                }
                Ok(ConnectionState::TransmitTlsData(transmit)) => transmit.done(),
                Ok(ConnectionState::PeerClosed) => self.peer_closed = true,
                Ok(ConnectionState::Closed) => return Err(Error::General("written to after the end".into())),
                Ok(_) => return Err(Error::HandshakeNotComplete),
                Err(error) => {
                    self.failed = true;
                    return Err(error);
                }
            }
        }
    }

    /// Refuses further use after an error: rustls would read at offsets of discarded bytes, and panic.
    fn check_usable(&self) -> Result<(), Error> {
        if self.failed { Err(Error::General("the connection has failed".into())) } else { Ok(()) }
    }

    /// Appends the alert that rustls may hold after an error. No other call is allowed then.
    fn take_alert(&mut self, answer: &mut Vec<u8>) {
        while self.connection.wants_write() {
            let Ok(ConnectionState::EncodeTlsData(mut data)) = self.connection.process_tls_records(&mut []).state
            else {
                return;
            };
            if append(answer, |space| data.encode(space).map_err(Shortage::from)).is_err() {
                return;
            }
        }
    }
}

/// The reason for which nothing was written into a buffer: the required size, or an error.
enum Shortage {
    Bytes(usize),
    Failed(Error),
}

impl From<EncodeError> for Shortage {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => Self::Bytes(required_size),
            EncodeError::AlreadyEncoded => Self::Failed(Error::General(error.to_string())),
        }
    }
}

impl From<EncryptError> for Shortage {
    fn from(error: EncryptError) -> Self {
        match error {
            EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => Self::Bytes(required_size),
            EncryptError::EncryptExhausted => Self::Failed(Error::EncryptError),
        }
    }
}

impl From<Shortage> for Error {
    fn from(shortage: Shortage) -> Self {
        match shortage {
            Shortage::Bytes(required) => Self::General(format!("a record needs {required} bytes")),
            Shortage::Failed(error) => error,
        }
    }
}

/// Appends the output of `write`, with as much space as `write` requires.
fn append(to: &mut Vec<u8>, mut write: impl FnMut(&mut [u8]) -> Result<usize, Shortage>) -> Result<(), Error> {
    let from = to.len();
    let mut room = 64;
    loop {
        to.resize(from + room, 0);
        match write(&mut to[from..]) {
            Ok(written) => {
                to.truncate(from + written);
                return Ok(());
            }
            Err(Shortage::Bytes(required)) if required > room => room = required,
            Err(shortage) => {
                to.truncate(from);
                return Err(shortage.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::ServerConfig;

    use super::super::testing::{Localhost, localhost};
    use super::*;

    #[test]
    fn no_bytes_make_it_panic() {
        let Localhost { identity, .. } = localhost();
        let config = super::super::Terminator::new(identity).expect("terminator").config;
        let mut random = fastrand::Rng::with_seed(11);
        for round in 0..3000 {
            attack(&config, &mut random, round);
        }
    }

    /// Feeds records of every type with random bodies, in pieces of random size, with writes in between.
    fn attack(config: &Arc<ServerConfig>, random: &mut fastrand::Rng, round: usize) {
        let connection = UnbufferedServerConnection::new(Arc::clone(config)).expect("connection");
        let mut records = Records::new(connection);
        let mut answer = Vec::new();
        let mut stream = Vec::new();
        for _ in 0..random.usize(1..5) {
            let mut body = vec![0; random.usize(0..300)];
            random.fill(&mut body);
            let len = u16::try_from(body.len()).expect("small");
            stream.extend([random.u8(20..25), 3, random.u8(0..5)]);
            stream.extend(len.to_be_bytes());
            stream.extend(body);
            // A handshake message longer than its record continues in the next one.
            if let Some(message) = stream.get_mut(5..9)
                && round.is_multiple_of(2)
            {
                message.copy_from_slice(&[1, 0, random.u8(..4), random.u8(..)]);
                stream[0] = 22;
            }
        }
        while !stream.is_empty() {
            let piece: Vec<u8> = stream.drain(..random.usize(1..=stream.len())).collect();
            let mut buffer = vec![0; records.waiting()];
            buffer.extend(piece);
            if records.decrypt(&mut buffer, &mut answer, |_| {}).is_err() {
                break;
            }
            let mut space = vec![0; 100 + OVERHEAD];
            let _ = records.encrypt(b"hello", &mut space, &mut answer);
        }
        let _ = records.close(&mut answer);
    }
}
