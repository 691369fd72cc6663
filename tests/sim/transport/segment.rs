//! The segments of the small TCP, one in a datagram.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The most payload of one segment.
pub const MAX_PAYLOAD: usize = 8 * 1024;
/// Bytes of a segment without payload.
const HEADER: usize = 29;

/// The purpose of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The first of a connection.
    Open,
    /// The answer to it.
    Opened,
    /// Payload, or an acknowledgement alone.
    Data,
    /// Payload behind which the stream ends.
    Fin,
    /// The connection is aborted.
    Reset,
    /// Requests an acknowledgement of a peer whose window is closed.
    Probe,
}

/// One segment.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The connection that it belongs to.
    pub id: u32,
    pub kind: Kind,
    /// Position of the first byte of its payload.
    pub at: u64,
    /// Position up to which the sender has received everything; one more behind the end of the stream.
    pub acked: u64,
    /// Bytes that the sender can take from there on.
    pub room: u64,
    pub data: Bytes,
}

impl Segment {
    /// Returns the datagram.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEADER + self.data.len());
        out.put_u32(self.id);
        out.put_u8(self.kind as u8);
        for position in [self.at, self.acked, self.room] {
            out.put_u64(position);
        }
        out.put_slice(&self.data);
        out.freeze()
    }

    /// Returns the segment in a datagram.
    pub fn decode(mut datagram: &[u8]) -> Self {
        let id = datagram.get_u32();
        let kind = match datagram.get_u8() {
            0 => Kind::Open,
            1 => Kind::Opened,
            2 => Kind::Data,
            3 => Kind::Fin,
            4 => Kind::Reset,
            _ => Kind::Probe,
        };
        let (at, acked, room) = (datagram.get_u64(), datagram.get_u64(), datagram.get_u64());
        Self { id, kind, at, acked, room, data: Bytes::copy_from_slice(datagram) }
    }
}
