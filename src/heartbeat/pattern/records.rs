//! Heartbeats of protocols that put several records into one WebSocket message.

use memchr::memchr;
use serde_json::Value;

use super::json;
use crate::ws::Opcode;

/// The layout of the records in a message, which determines the form of its heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordFormat {
    /// JSON texts, each followed by 0x1E; `{"type":6}` is the heartbeat (the hub protocol of ASP.NET Core).
    SignalrJson,
    /// Arrays of `MessagePack`, each preceded by its length; `[6]` is the heartbeat (the same protocol).
    SignalrMessagePack,
    /// Control packets; PINGREQ is the heartbeat (MQTT 3.1.1 §3.12).
    Mqtt,
    /// Frames that end with NUL, in a text message; an EOL before or after one is the heartbeat (STOMP 1.2,
    /// "Heart-beating").
    StompText,
    /// The same in a binary message.
    StompBinary,
}

/// The separator after each JSON record.
const SEPARATOR: u8 = 0x1E;
/// The type of a heartbeat in the hub protocol of ASP.NET Core.
const PING: u8 = 6;
/// The maximum size of the length before a `MessagePack` record, in bytes.
const MESSAGE_PACK_LENGTH: usize = 5;
/// The maximum size of the length in an MQTT packet, in bytes.
pub(in crate::heartbeat) const MQTT_LENGTH: usize = 4;

impl RecordFormat {
    /// Returns the opcode of messages with this layout.
    pub(super) fn opcode(self) -> Opcode {
        match self {
            Self::SignalrJson | Self::StompText => Opcode::TEXT,
            Self::SignalrMessagePack | Self::Mqtt | Self::StompBinary => Opcode::BINARY,
        }
    }

    /// Returns whether a message that begins with `start` can have this layout.
    pub(super) fn may_begin(self, start: &[u8]) -> bool {
        match self {
            Self::SignalrJson => json::Json::may_begin(start),
            Self::SignalrMessagePack | Self::Mqtt | Self::StompText | Self::StompBinary => true,
        }
    }

    /// Returns whether one of the records in `payload` is a heartbeat.
    pub(super) fn has_beat(self, payload: &[u8]) -> bool {
        self.records(payload).any(|is_beat| is_beat)
    }

    /// Returns whether all records in `payload` are heartbeats, and there is at least one.
    pub(super) fn is_only_beats(self, payload: &[u8]) -> bool {
        self.has_beat(payload) && self.records(payload).all(|is_beat| is_beat)
    }

    fn records(self, payload: &[u8]) -> Records<'_> {
        Records { format: self, rest: payload }
    }
}

/// An iterator over the records of a message: true for each heartbeat. A record without its end is not a heartbeat.
struct Records<'a> {
    format: RecordFormat,
    rest: &'a [u8],
}

impl Iterator for Records<'_> {
    type Item = bool;

    fn next(&mut self) -> Option<bool> {
        if self.rest.is_empty() {
            return None;
        }
        let record = match self.format {
            RecordFormat::SignalrJson => json_record(self.rest),
            RecordFormat::SignalrMessagePack => message_pack_record(self.rest),
            RecordFormat::Mqtt => mqtt_packet(self.rest),
            RecordFormat::StompText | RecordFormat::StompBinary => stomp_frame(self.rest),
        };
        match record {
            Some((is_beat, rest)) => {
                self.rest = rest;
                Some(is_beat)
            }
            None => {
                let rest = std::mem::take(&mut self.rest);
                let is_space = self.format == RecordFormat::SignalrJson && rest.trim_ascii().is_empty();
                (!is_space).then_some(false)
            }
        }
    }
}

fn json_record(bytes: &[u8]) -> Option<(bool, &[u8])> {
    let end = memchr(SEPARATOR, bytes)?;
    let record = &bytes[..end];
    // The digit occurs in every notation of the number.
    let is_beat = memchr(b'0' + PING, record).is_some()
        && serde_json::from_slice::<Value>(record).is_ok_and(|record| json::covers(&PING.into(), &record["type"]));
    Some((is_beat, &bytes[end + 1..]))
}

fn message_pack_record(bytes: &[u8]) -> Option<(bool, &[u8])> {
    let (length, behind) = variable_length(bytes, MESSAGE_PACK_LENGTH)?;
    let (record, rest) = behind.split_at_checked(length)?;
    Some((is_message_pack_ping(record), rest))
}

/// Returns whether `record` is an array whose first element is the heartbeat type, in any encoding of either.
fn is_message_pack_ping(record: &[u8]) -> bool {
    let kind = match *record {
        [0x91..=0x9F, ref elements @ ..] => elements,
        [0xDC, high, low, ref elements @ ..] if [high, low] != [0; 2] => elements,
        [0xDD, a, b, c, d, ref elements @ ..] if [a, b, c, d] != [0; 4] => elements,
        _ => return false,
    };
    let Some((&first, behind)) = kind.split_first() else { return false };
    let width = match first {
        PING => return true,
        0xCC | 0xD0 => 1,
        0xCD | 0xD1 => 2,
        0xCE | 0xD2 => 4,
        0xCF | 0xD3 => 8,
        _ => return false,
    };
    behind
        .get(..width)
        .and_then(<[u8]>::split_last)
        .is_some_and(|(low, high)| *low == PING && high.iter().all(|byte| *byte == 0))
}

fn mqtt_packet(bytes: &[u8]) -> Option<(bool, &[u8])> {
    const PINGREQ: u8 = 0xC0;
    let (&kind, behind) = bytes.split_first()?;
    let (length, behind) = variable_length(behind, MQTT_LENGTH)?;
    Some((kind == PINGREQ && length == 0, behind.get(length..)?))
}

fn stomp_frame(bytes: &[u8]) -> Option<(bool, &[u8])> {
    if let Some(rest) = bytes.strip_prefix(b"\n").or_else(|| bytes.strip_prefix(b"\r\n")) {
        return Some((true, rest));
    }
    let end = memchr(0, bytes)?;
    Some((false, &bytes[end + 1..]))
}

/// Parses a length of one to `most` bytes, seven bits in each and the lowest first. Returns it with the bytes that
/// follow; `None` if it is incomplete or longer (MQTT 3.1.1 §2.2.3).
pub(in crate::heartbeat) fn variable_length(bytes: &[u8], most: usize) -> Option<(usize, &[u8])> {
    let mut length = 0;
    for (at, byte) in bytes.iter().take(most).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((length, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests;
