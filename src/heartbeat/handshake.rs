//! The heartbeat intervals negotiated by the handshakes of application protocols.

use std::time::Duration;

use serde_json::Value;

use super::pattern::{MQTT_LENGTH, variable_length};
use super::profile::{Handshake, ProofOfLife};
use crate::ws::Sender;

/// The maximum number of bytes kept of a handshake message; the negotiated values are near its beginning.
pub const MAX_HANDSHAKE: usize = 4096;

/// The parser of one session's handshake.
#[derive(Debug)]
pub(super) struct HandshakeParser {
    of: Handshake,
    client: Side,
    app: Side,
}

/// The state of one side of the handshake.
#[derive(Debug)]
enum Side {
    /// Incomplete. MQTT packets may be split over messages, so the bytes so far are kept.
    Awaited(Vec<u8>),
    /// Complete, with values in seconds or milliseconds, the units of the protocol; two values in STOMP.
    Complete(u32, u32),
    /// Finished, or without values in this protocol.
    Unneeded,
}

/// The result of parsing one side's bytes so far.
enum Parse {
    Incomplete,
    Complete(u32, u32),
    /// Not a handshake: nothing will be negotiated.
    Invalid,
}

impl HandshakeParser {
    pub(super) fn new(of: Handshake) -> Self {
        let awaited = || Side::Awaited(Vec::new());
        match of {
            Handshake::Pusher => Self { of, client: Side::Unneeded, app: awaited() },
            Handshake::Stomp | Handshake::Mqtt => Self { of, client: awaited(), app: awaited() },
        }
    }

    /// Returns whether the next message of `from` may belong to the handshake.
    pub(super) fn awaits(&self, from: Sender) -> bool {
        let side = if from == Sender::Client { &self.client } else { &self.app };
        matches!(side, Side::Awaited(_))
    }

    /// Parses the next message of `from`, at most its first [`MAX_HANDSHAKE`] bytes. Returns the negotiated proof of
    /// life once both sides are complete.
    pub(super) fn parse(&mut self, from: Sender, payload: &[u8]) -> Option<ProofOfLife> {
        let side = if from == Sender::Client { &mut self.client } else { &mut self.app };
        let Side::Awaited(bytes) = side else { return None };
        let room = MAX_HANDSHAKE.saturating_sub(bytes.len());
        bytes.extend_from_slice(&payload[..payload.len().min(room)]);
        let parsed = match (self.of, from) {
            (Handshake::Pusher, _) => pusher(bytes),
            (Handshake::Stomp, Sender::Client) => stomp(bytes, &[b"CONNECT", b"STOMP"]),
            (Handshake::Stomp, Sender::Server) => stomp(bytes, &[b"CONNECTED"]),
            (Handshake::Mqtt, Sender::Client) => mqtt_connect(bytes),
            (Handshake::Mqtt, Sender::Server) => mqtt_connack(bytes),
        };
        match parsed {
            Parse::Incomplete if room > payload.len() => return None,
            Parse::Complete(first, second) => *side = Side::Complete(first, second),
            Parse::Incomplete | Parse::Invalid => {
                (self.client, self.app) = (Side::Unneeded, Side::Unneeded);
                return None;
            }
        }
        self.agreed()
    }

    /// Returns the negotiated proof of life once the required sides are complete.
    fn agreed(&mut self) -> Option<ProofOfLife> {
        let agreed = match (self.of, &self.client, &self.app) {
            (Handshake::Pusher, _, Side::Complete(activity_s, _)) => {
                ProofOfLife::SendsWhenIdle(seconds(*activity_s) * 3 / 2)
            }
            (Handshake::Stomp, Side::Complete(can_ms, _), Side::Complete(_, wants_ms)) => {
                let beats = *can_ms > 0 && *wants_ms > 0;
                let interval = millis((*can_ms).max(*wants_ms));
                if beats { ProofOfLife::Sends(interval * 3) } else { ProofOfLife::Pongs }
            }
            (Handshake::Mqtt, Side::Complete(keep_alive_s, version), app) => {
                let keep_alive = match app {
                    // A client with its own keep-alive off may send none whatever the app requests (mqtt.js does not).
                    Side::Complete(overruled_s, 1) if *keep_alive_s > 0 => *overruled_s,
                    // Before version 5 the app cannot override the keep-alive; from version 5 its CONNACK is awaited.
                    Side::Awaited(_) if *version >= 5 => return None,
                    _ => *keep_alive_s,
                };
                let interval = seconds(keep_alive);
                if keep_alive > 0 { ProofOfLife::Sends(interval * 3 / 2) } else { ProofOfLife::Pongs }
            }
            _ => return None,
        };
        (self.client, self.app) = (Side::Unneeded, Side::Unneeded);
        Some(agreed)
    }
}

/// Parses `{"event":"pusher:connection_established","data":"{\"activity_timeout\":120,…}"}`; `data` is JSON in a
/// string, or from some servers an object.
fn pusher(bytes: &[u8]) -> Parse {
    let established = serde_json::from_slice::<Value>(bytes).ok();
    let event = established.filter(|event| event["event"] == "pusher:connection_established");
    let activity = event.and_then(|event| match &event["data"] {
        Value::String(data) => whole_seconds(&serde_json::from_str::<Value>(data).ok()?["activity_timeout"]),
        data => whole_seconds(&data["activity_timeout"]),
    });
    activity.filter(|seconds| *seconds > 0).map_or(Parse::Invalid, |seconds| Parse::Complete(seconds, 0))
}

/// Parses the header `heart-beat` of one of the frames `commands`: two numbers of milliseconds, 0 if the header is
/// missing (STOMP 1.2, "Heart-beating"). Line ends before a frame are already heartbeats.
fn stomp(bytes: &[u8], commands: &[&[u8]]) -> Parse {
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
    let Some(start) = start else { return Parse::Incomplete };
    let mut lines = bytes[start..].split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    if !lines.next().is_some_and(|command| commands.contains(&command)) {
        return Parse::Invalid;
    }
    let mut headers = lines.take_while(|line| !line.is_empty());
    // Of a repeated header the first counts.
    let value = headers.find_map(|line| line.strip_prefix(b"heart-beat:"));
    let Some(value) = value else { return Parse::Complete(0, 0) };
    let numbers = std::str::from_utf8(value).ok().and_then(|value| value.split_once(','));
    match numbers.map(|(can, wants)| (can.trim().parse(), wants.trim().parse())) {
        Some((Ok(can), Ok(wants))) => Parse::Complete(can, wants),
        _ => Parse::Invalid,
    }
}

/// Parses keep-alive and version of a CONNECT (MQTT 3.1.1 §3.1, MQTT 5 §3.1).
fn mqtt_connect(bytes: &[u8]) -> Parse {
    let Some((body, _)) = mqtt_packet(bytes, 0x10) else { return incomplete_or_invalid(bytes, 0x10) };
    let Some((name_len, rest)) = body.split_first_chunk::<2>() else { return Parse::Incomplete };
    let name_len = usize::from(u16::from_be_bytes(*name_len));
    if name_len > 6 {
        return Parse::Invalid;
    }
    // After the protocol name: version, one byte of flags, keep-alive.
    match rest.get(name_len..) {
        Some(&[version, _, high, low, ..]) => {
            Parse::Complete(u32::from(u16::from_be_bytes([high, low])), u32::from(version))
        }
        _ => Parse::Incomplete,
    }
}

/// Parses the keep-alive with which a CONNACK of version 5 overrides the client's, if any (MQTT 5 §3.2.2.3.14).
fn mqtt_connack(bytes: &[u8]) -> Parse {
    const KEPT: Parse = Parse::Complete(0, 0);
    let Some((body, whole)) = mqtt_packet(bytes, 0x20) else { return incomplete_or_invalid(bytes, 0x20) };
    if !whole {
        return Parse::Incomplete;
    }
    // After one byte of flags and the reason code come the properties, from version 5.
    let Some((length, mut rest)) = body.get(2..).and_then(|properties| variable_length(properties, MQTT_LENGTH)) else {
        return KEPT;
    };
    rest = &rest[..length.min(rest.len())];
    while let Some((&property, value)) = rest.split_first() {
        if property == 0x13 {
            return value.first_chunk::<2>().map_or(KEPT, |s| Parse::Complete(u32::from(u16::from_be_bytes(*s)), 1));
        }
        let text = |value: &[u8]| value.first_chunk::<2>().map(|len| 2 + usize::from(u16::from_be_bytes(*len)));
        let len = match property {
            0x24 | 0x25 | 0x28 | 0x29 | 0x2A => Some(1),
            0x21 | 0x22 => Some(2),
            0x11 | 0x27 => Some(4),
            0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => text(value),
            0x26 => text(value).and_then(|key| Some(key + text(value.get(key..)?)?)),
            _ => None,
        };
        let Some(behind) = len.and_then(|len| value.get(len..)) else { return KEPT };
        rest = behind;
    }
    KEPT
}

/// Returns the body of the packet with the first byte `kind` at the front, as far as received, and whether it is
/// complete.
fn mqtt_packet(bytes: &[u8], kind: u8) -> Option<(&[u8], bool)> {
    let (first, rest) = bytes.split_first()?;
    let (length, body) = variable_length(rest, MQTT_LENGTH).filter(|_| *first == kind)?;
    Some((&body[..length.min(body.len())], body.len() >= length))
}

fn incomplete_or_invalid(bytes: &[u8], kind: u8) -> Parse {
    if bytes.first().is_none_or(|first| *first == kind) && bytes.len() < 5 { Parse::Incomplete } else { Parse::Invalid }
}

/// Parses a number of seconds in any JSON notation, rounded up.
fn whole_seconds(value: &Value) -> Option<u32> {
    let seconds = Duration::try_from_secs_f64(value.as_f64()?).ok()?;
    u32::try_from(seconds.as_secs() + u64::from(seconds.subsec_nanos() > 0)).ok()
}

fn millis(ms: u32) -> Duration {
    Duration::from_millis(u64::from(ms))
}

fn seconds(s: u32) -> Duration {
    Duration::from_secs(u64::from(s))
}

#[cfg(test)]
mod tests {
    use super::*;

    use Sender::{Client, Server};

    /// Returns the proof of life negotiated by these messages, in this order.
    fn agreed(of: Handshake, messages: &[(Sender, &[u8])]) -> Option<ProofOfLife> {
        let mut parser = HandshakeParser::new(of);
        messages.iter().find_map(|(from, payload)| parser.parse(*from, payload))
    }

    fn speaks(ms: u64) -> ProofOfLife {
        ProofOfLife::Sends(Duration::from_millis(ms))
    }

    const PONGS: Option<ProofOfLife> = Some(ProofOfLife::Pongs);

    #[test]
    fn pusher_names_its_activity_timeout_in_a_text_of_json() {
        let open =
            br#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.2\",\"activity_timeout\":30}"}"#;
        let object = br#"{"event":"pusher:connection_established","data":{"activity_timeout":30}}"#;
        let window = ProofOfLife::SendsWhenIdle(Duration::from_secs(45));
        assert_eq!(agreed(Handshake::Pusher, &[(Server, open)]), Some(window));
        assert_eq!(agreed(Handshake::Pusher, &[(Server, object)]), Some(window));
    }

    #[test]
    fn s65_pusher_may_write_its_timeout_as_any_number() {
        let after = |timeout: &str| {
            let open =
                format!(r#"{{"data":{{"activity_timeout" :{timeout}}},"event":"pusher\u003aconnection_established"}}"#);
            agreed(Handshake::Pusher, &[(Server, open.as_bytes())])
        };
        for thirty in ["30", "30.0", "3e1", "29.5"] {
            assert_eq!(after(thirty), Some(ProofOfLife::SendsWhenIdle(Duration::from_secs(45))), "{thirty}");
        }
        for none in ["0", "0.0", "-30", "1e30", "\"30\"", "null"] {
            assert_eq!(after(none), None, "{none}");
        }
    }

    #[test]
    fn stomp_negotiates_between_both_sides() {
        let talk = |client: &str, app: &str| {
            let connect = format!("CONNECT\naccept-version:1.2\nheart-beat:{client}\n\n\0");
            let connected = format!("CONNECTED\r\nversion:1.2\r\nheart-beat:{app}\r\nheart-beat:1,1\r\n\r\n\0");
            agreed(Handshake::Stomp, &[(Client, connect.as_bytes()), (Server, connected.as_bytes())])
        };
        assert_eq!(talk("10000,0", "0,20000"), Some(speaks(60_000)));
        assert_eq!(talk("10000,10000", "10000, 5000 "), Some(speaks(30_000)));
        assert_eq!(talk("0,10000", "10000,10000"), PONGS, "the client cannot");
        assert_eq!(talk("10000,10000", "10000,0"), PONGS, "the app does not want it");
        assert_eq!(talk("soon,10000", "0,10000"), None);
    }

    #[test]
    fn stomp_without_the_header_and_with_line_ends_before_it() {
        let messages: [(Sender, &[u8]); 3] =
            [(Client, b"\n"), (Client, b"\nSTOMP\nhost:a\n\nheart-beat:1,1\0"), (Server, b"CONNECTED\n\n\0")];
        assert_eq!(agreed(Handshake::Stomp, &messages), PONGS, "what stands in the body is no header");
    }

    fn connect(version: u8, keep_alive: u16) -> Vec<u8> {
        let [high, low] = keep_alive.to_be_bytes();
        let mut packet = vec![0x10, 0, 0, 4, b'M', b'Q', b'T', b'T', version, 2, high, low];
        packet.extend(if version == 5 { &[0, 0, 1, b'c'][..] } else { &[0, 1, b'c'][..] });
        packet[1] = u8::try_from(packet.len() - 2).unwrap();
        packet
    }

    #[test]
    fn mqtt_takes_the_keep_alive_of_connect() {
        assert_eq!(agreed(Handshake::Mqtt, &[(Client, &connect(4, 60))]), Some(speaks(90_000)));
        assert_eq!(agreed(Handshake::Mqtt, &[(Client, &connect(4, 1))]), Some(speaks(1_500)));
        assert_eq!(agreed(Handshake::Mqtt, &[(Client, &connect(4, 0))]), PONGS);
    }

    #[test]
    fn mqtt_packets_may_be_cut_anywhere() {
        let packet = connect(4, 60);
        let pieces: Vec<(Sender, &[u8])> = packet.chunks(1).map(|piece| (Client, piece)).collect();
        assert_eq!(agreed(Handshake::Mqtt, &pieces), Some(speaks(90_000)));
    }

    #[test]
    fn an_app_of_mqtt_5_may_overrule_the_keep_alive() {
        let connect = connect(5, 60);
        let accepted: &[u8] = &[0x20, 3, 0, 0, 0];
        assert_eq!(agreed(Handshake::Mqtt, &[(Client, &connect)]), None, "the app has not answered");
        assert_eq!(agreed(Handshake::Mqtt, &[(Client, &connect), (Server, accepted)]), Some(speaks(90_000)));
        let overruled: &[u8] =
            &[0x20, 18, 0, 0, 15, 0x21, 0, 9, 0x26, 0, 1, b'k', 0, 1, b'v', 0x24, 1, 0x13, 0, 10][..19];
        assert_eq!(agreed(Handshake::Mqtt, &[(Client, &connect), (Server, overruled)]), None, "its end is missing");
        let overruled: &[u8] = &[0x20, 18, 0, 0, 15, 0x21, 0, 9, 0x26, 0, 1, b'k', 0, 1, b'v', 0x24, 1, 0x13, 0, 10];
        let silent = self::connect(5, 0);
        assert_eq!(agreed(Handshake::Mqtt, &[(Client, &silent), (Server, overruled)]), PONGS);
        assert_eq!(agreed(Handshake::Mqtt, &[(Client, &connect), (Server, overruled)]), Some(speaks(15_000)));
    }

    #[test]
    fn what_is_no_handshake_teaches_nothing_and_ends_the_lesson() {
        let noise: [&[u8]; 6] =
            [b"", b"hello", b"{}", &[0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], &[0x30, 2, 0, 0], &[0; 5000]];
        for of in [Handshake::Stomp, Handshake::Mqtt, Handshake::Pusher] {
            for (noise, from) in noise.iter().flat_map(|noise| [(noise, Client), (noise, Server)]) {
                let mut parser = HandshakeParser::new(of);
                assert_eq!(parser.parse(from, noise), None, "{of:?} {noise:?}");
                assert!(noise.is_empty() || !parser.awaits(from), "{of:?} still listens after {noise:?}");
            }
        }
    }

    #[test]
    fn a_handshake_without_end_is_given_up() {
        let mut parser = HandshakeParser::new(Handshake::Stomp);
        for _ in 0..MAX_HANDSHAKE {
            assert_eq!(parser.parse(Client, b"\n\n"), None);
        }
        assert!(!parser.awaits(Client));
    }
}
