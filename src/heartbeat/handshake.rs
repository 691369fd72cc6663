//! What the handshakes of application protocols agree on: how often a client beats by itself.

use std::time::Duration;

use serde_json::Value;

use super::pattern::{MQTT_LENGTH, variable_length};
use super::profile::{Handshake, Proof};
use crate::ws::Sender;

/// Bytes of a handshake message that are looked at; what is agreed stands near the front.
pub const MAX_HANDSHAKE: usize = 4096;

/// Listens to one session's first messages.
#[derive(Debug)]
pub(super) struct Lesson {
    of: Handshake,
    client: Part,
    app: Part,
}

/// What one side has said.
#[derive(Debug)]
enum Part {
    /// Nothing that counts yet; MQTT packets may be cut over messages, so what there is is kept.
    Awaited(Vec<u8>),
    /// Seconds or milliseconds, in the units of the protocol; two in STOMP.
    Said(u32, u32),
    /// Nothing more is to be learnt from it.
    Unneeded,
}

/// How far one side's part has come.
enum Reading {
    More,
    Said(u32, u32),
    /// This is no handshake: nothing will be agreed.
    Strange,
}

impl Lesson {
    pub(super) fn new(of: Handshake) -> Self {
        let awaited = || Part::Awaited(Vec::new());
        match of {
            Handshake::Pusher => Self { of, client: Part::Unneeded, app: awaited() },
            Handshake::Stomp | Handshake::Mqtt => Self { of, client: awaited(), app: awaited() },
        }
    }

    /// Whether the next message of `from` may teach something.
    pub(super) fn awaits(&self, from: Sender) -> bool {
        let part = if from == Sender::Client { &self.client } else { &self.app };
        matches!(part, Part::Awaited(_))
    }

    /// The next message of `from`, its first [`MAX_HANDSHAKE`] bytes at most.
    pub(super) fn hear(&mut self, from: Sender, payload: &[u8]) -> Option<Proof> {
        let part = if from == Sender::Client { &mut self.client } else { &mut self.app };
        let Part::Awaited(said) = part else { return None };
        let room = MAX_HANDSHAKE.saturating_sub(said.len());
        said.extend_from_slice(&payload[..payload.len().min(room)]);
        let reading = match (self.of, from) {
            (Handshake::Pusher, _) => pusher(said),
            (Handshake::Stomp, Sender::Client) => stomp(said, &[b"CONNECT", b"STOMP"]),
            (Handshake::Stomp, Sender::Server) => stomp(said, &[b"CONNECTED"]),
            (Handshake::Mqtt, Sender::Client) => mqtt_connect(said),
            (Handshake::Mqtt, Sender::Server) => mqtt_connack(said),
        };
        match reading {
            Reading::More if room > payload.len() => return None,
            Reading::Said(first, second) => *part = Part::Said(first, second),
            Reading::More | Reading::Strange => {
                (self.client, self.app) = (Part::Unneeded, Part::Unneeded);
                return None;
            }
        }
        self.agreed()
    }

    /// What follows once everything has been said.
    fn agreed(&mut self) -> Option<Proof> {
        let agreed = match (self.of, &self.client, &self.app) {
            (Handshake::Pusher, _, Part::Said(activity_s, _)) => Proof::SpeaksWhenQuiet(seconds(*activity_s) * 3 / 2),
            (Handshake::Stomp, Part::Said(can_ms, _), Part::Said(_, wants_ms)) => {
                let beats = *can_ms > 0 && *wants_ms > 0;
                let interval = millis((*can_ms).max(*wants_ms));
                if beats { Proof::Speaks(interval * 3) } else { Proof::Pongs }
            }
            (Handshake::Mqtt, Part::Said(keep_alive_s, version), app) => {
                let keep_alive = match app {
                    // A client whose own keep-alive is off may not beat whatever the app says (mqtt.js does not).
                    Part::Said(overruled_s, 1) if *keep_alive_s > 0 => *overruled_s,
                    // Before version 5 the app has no say; in it, its word is waited for.
                    Part::Awaited(_) if *version >= 5 => return None,
                    _ => *keep_alive_s,
                };
                let interval = seconds(keep_alive);
                if keep_alive > 0 { Proof::Speaks(interval * 3 / 2) } else { Proof::Pongs }
            }
            _ => return None,
        };
        (self.client, self.app) = (Part::Unneeded, Part::Unneeded);
        Some(agreed)
    }
}

/// `{"event":"pusher:connection_established","data":"{\"activity_timeout\":120,…}"}`; the data are JSON in a text, or
/// from some servers an object.
fn pusher(said: &[u8]) -> Reading {
    let established = serde_json::from_slice::<Value>(said).ok();
    let event = established.filter(|event| event["event"] == "pusher:connection_established");
    let activity = event.and_then(|event| match &event["data"] {
        Value::String(data) => whole_seconds(&serde_json::from_str::<Value>(data).ok()?["activity_timeout"]),
        data => whole_seconds(&data["activity_timeout"]),
    });
    activity.filter(|seconds| *seconds > 0).map_or(Reading::Strange, |seconds| Reading::Said(seconds, 0))
}

/// The header `heart-beat` of one of the frames `commands`: two numbers of milliseconds, nought where it is missing
/// (STOMP 1.2, "Heart-beating"). Line ends before a frame are heartbeats already.
fn stomp(said: &[u8], commands: &[&[u8]]) -> Reading {
    let start = said.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
    let Some(start) = start else { return Reading::More };
    let mut lines = said[start..].split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    if !lines.next().is_some_and(|command| commands.contains(&command)) {
        return Reading::Strange;
    }
    let mut headers = lines.take_while(|line| !line.is_empty());
    // Of a header that stands twice the first counts.
    let value = headers.find_map(|line| line.strip_prefix(b"heart-beat:"));
    let Some(value) = value else { return Reading::Said(0, 0) };
    let numbers = std::str::from_utf8(value).ok().and_then(|value| value.split_once(','));
    match numbers.map(|(can, wants)| (can.trim().parse(), wants.trim().parse())) {
        Some((Ok(can), Ok(wants))) => Reading::Said(can, wants),
        _ => Reading::Strange,
    }
}

/// Keep-alive and version of a CONNECT (MQTT 3.1.1 §3.1, MQTT 5 §3.1).
fn mqtt_connect(said: &[u8]) -> Reading {
    let Some((body, _)) = mqtt_packet(said, 0x10) else { return more_or_strange(said, 0x10) };
    let Some((name_len, rest)) = body.split_first_chunk::<2>() else { return Reading::More };
    let name_len = usize::from(u16::from_be_bytes(*name_len));
    if name_len > 6 {
        return Reading::Strange;
    }
    // Behind the protocol's name: its version, a byte of flags, the keep-alive.
    match rest.get(name_len..) {
        Some(&[version, _, high, low, ..]) => {
            Reading::Said(u32::from(u16::from_be_bytes([high, low])), u32::from(version))
        }
        _ => Reading::More,
    }
}

/// Whether a CONNACK of version 5 overrules the keep-alive, and with what (MQTT 5 §3.2.2.3.14).
fn mqtt_connack(said: &[u8]) -> Reading {
    const KEPT: Reading = Reading::Said(0, 0);
    let Some((body, whole)) = mqtt_packet(said, 0x20) else { return more_or_strange(said, 0x20) };
    if !whole {
        return Reading::More;
    }
    // Behind a byte of flags and the reason stand the properties, where the version has them.
    let Some((length, mut rest)) = body.get(2..).and_then(|properties| variable_length(properties, MQTT_LENGTH)) else {
        return KEPT;
    };
    rest = &rest[..length.min(rest.len())];
    while let Some((&property, value)) = rest.split_first() {
        if property == 0x13 {
            return value.first_chunk::<2>().map_or(KEPT, |s| Reading::Said(u32::from(u16::from_be_bytes(*s)), 1));
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

/// The body of the packet with the first byte `kind` at the front, as far as it has come, and whether that is all.
fn mqtt_packet(said: &[u8], kind: u8) -> Option<(&[u8], bool)> {
    let (first, rest) = said.split_first()?;
    let (length, body) = variable_length(rest, MQTT_LENGTH).filter(|_| *first == kind)?;
    Some((&body[..length.min(body.len())], body.len() >= length))
}

fn more_or_strange(said: &[u8], kind: u8) -> Reading {
    if said.first().is_none_or(|first| *first == kind) && said.len() < 5 { Reading::More } else { Reading::Strange }
}

/// A number of seconds, however it is written; a part of a second counts as a whole one.
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

    /// What is agreed after these messages, in this order.
    fn agreed(of: Handshake, messages: &[(Sender, &[u8])]) -> Option<Proof> {
        let mut lesson = Lesson::new(of);
        messages.iter().find_map(|(from, payload)| lesson.hear(*from, payload))
    }

    fn speaks(ms: u64) -> Proof {
        Proof::Speaks(Duration::from_millis(ms))
    }

    const PONGS: Option<Proof> = Some(Proof::Pongs);

    #[test]
    fn pusher_names_its_activity_timeout_in_a_text_of_json() {
        let open =
            br#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.2\",\"activity_timeout\":30}"}"#;
        let object = br#"{"event":"pusher:connection_established","data":{"activity_timeout":30}}"#;
        let window = Proof::SpeaksWhenQuiet(Duration::from_secs(45));
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
            assert_eq!(after(thirty), Some(Proof::SpeaksWhenQuiet(Duration::from_secs(45))), "{thirty}");
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
                let mut lesson = Lesson::new(of);
                assert_eq!(lesson.hear(from, noise), None, "{of:?} {noise:?}");
                assert!(noise.is_empty() || !lesson.awaits(from), "{of:?} still listens after {noise:?}");
            }
        }
    }

    #[test]
    fn a_handshake_without_end_is_given_up() {
        let mut lesson = Lesson::new(Handshake::Stomp);
        for _ in 0..MAX_HANDSHAKE {
            assert_eq!(lesson.hear(Client, b"\n\n"), None);
        }
        assert!(!lesson.awaits(Client));
    }
}
