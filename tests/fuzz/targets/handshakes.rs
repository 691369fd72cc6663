//! The heartbeats that the handshakes of STOMP, MQTT and Pusher agree on, against small parsers of the same bytes; an
//! MQTT packet may be split anywhere.

use std::time::Duration;

use pulsegate::heartbeat::{Builtin, MessageKind, MessageMatcher, Mode, Policy, ProofOfLife, Role};
use pulsegate::ws::{Opcode, Sender};
use serde_json::Value;

/// The maximum bytes of one side that are parsed.
const MOST: usize = 4096;

/// Reads `data`: the protocol, the split position, and the messages of both sides, with 0xFE 0xFE between.
pub fn run(data: &[u8]) {
    let Some((&[kind, cut], said)) = data.split_first_chunk::<2>() else { return };
    let between = said.windows(2).position(|two| two == [0xFE, 0xFE]).unwrap_or(said.len());
    let (client, app) = (&said[..between], said.get(between + 2..).unwrap_or_default());
    if client.len() >= MOST || app.len() >= MOST {
        return;
    }
    match kind % 3 {
        0 => {
            let expected = stomp(client, app);
            assert_eq!(proof(Builtin::Stomp, &[(Sender::Client, client), (Sender::Server, app)]), expected);
            assert_eq!(proof(Builtin::Stomp, &[(Sender::Server, app), (Sender::Client, client)]), expected);
        }
        1 => {
            let expected = mqtt(client, app);
            assert_eq!(proof(Builtin::Mqtt, &[(Sender::Client, client), (Sender::Server, app)]), expected, "at once");
            for size in [1, usize::from(cut) + 1] {
                let client = client.chunks(size).map(|piece| (Sender::Client, piece));
                let app = app.chunks(size).map(|piece| (Sender::Server, piece));
                let pieces: Vec<_> = client.chain(app).collect();
                assert_eq!(proof(Builtin::Mqtt, &pieces), expected, "in pieces of {size}");
            }
        }
        _ => assert_eq!(proof(Builtin::Pusher, &[(Sender::Server, app)]), pusher(app)),
    }
}

/// Returns the result of a matcher for these messages.
fn proof(of: Builtin, messages: &[(Sender, &[u8])]) -> Option<ProofOfLife> {
    let policy = Policy { mode: Mode::Passive(of.profile(Role::Passive).into()), ..Policy::default() };
    let mut listener = MessageMatcher::new(&policy).expect("there is a handshake to listen for");
    messages.iter().find_map(|(from, said)| {
        if !listener.may_need(*from) {
            return None;
        }
        match listener.classify(*from, Opcode::BINARY, said, true) {
            MessageKind::Negotiated(proof) => Some(proof),
            _ => None,
        }
    })
}

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Returns the agreement by STOMP 1.2, "Heart-beating": the client sends at the longer of the two announced intervals,
/// if it can and the app requests it.
fn stomp(client: &[u8], app: &[u8]) -> Option<ProofOfLife> {
    let (can, _) = stomp_frame(client, &["CONNECT", "STOMP"])?;
    let (_, wants) = stomp_frame(app, &["CONNECTED"])?;
    Some(if can == 0 || wants == 0 { ProofOfLife::Pongs } else { ProofOfLife::Sends(millis(3 * can.max(wants))) })
}

fn stomp_frame(said: &[u8], commands: &[&str]) -> Option<(u64, u64)> {
    let start = said.iter().position(|byte| *byte != b'\n' && *byte != b'\r')?;
    let mut lines = said[start..].split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let command = lines.next()?;
    if !commands.iter().any(|known| known.as_bytes() == command) {
        return None;
    }
    for line in lines {
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix(b"heart-beat:") {
            let (can, wants) = std::str::from_utf8(value).ok()?.split_once(',')?;
            let number = |text: &str| text.trim().parse::<u32>().ok().map(u64::from);
            return Some((number(can)?, number(wants)?));
        }
    }
    Some((0, 0))
}

/// Returns one packet of MQTT with the first byte `kind`: the received part of its body, and its length.
fn packet(said: &[u8], kind: u8) -> Option<(&[u8], usize)> {
    let (&first, rest) = said.split_first()?;
    let (mut length, mut scale) = (0, 1);
    for (at, byte) in rest.iter().take(4).enumerate() {
        length += usize::from(byte & 127) * scale;
        scale *= 128;
        if *byte < 128 {
            let body = &rest[at + 1..];
            return (first == kind).then(|| (&body[..body.len().min(length)], length));
        }
    }
    None
}

/// Returns the agreement by MQTT 3.1.1 §3.1.2.10 and MQTT 5 §3.2.2.3.14.
fn mqtt(client: &[u8], app: &[u8]) -> Option<ProofOfLife> {
    let (connect, _) = packet(client, 0x10)?;
    let name = usize::from(u16::from_be_bytes(*connect.first_chunk::<2>()?));
    let fields = connect.get(2 + name..).filter(|_| name <= 6)?;
    let (version, keep_alive) = (*fields.first()?, u64::from(u16::from_be_bytes([*fields.get(2)?, *fields.get(3)?])));
    let mut agreed = keep_alive;
    if version >= 5 {
        let (connack, length) = packet(app, 0x20)?;
        if connack.len() < length {
            return None;
        }
        if let Some(overruled) = server_keep_alive(connack).filter(|_| keep_alive > 0) {
            agreed = overruled;
        }
    }
    Some(if agreed == 0 { ProofOfLife::Pongs } else { ProofOfLife::Sends(millis(agreed * 1500)) })
}

fn server_keep_alive(connack: &[u8]) -> Option<u64> {
    let lengths = [&[0x20], connack.get(2..)?].concat();
    let (properties, _) = packet(&lengths, 0x20)?;
    let mut rest = properties;
    loop {
        let (&property, value) = rest.split_first()?;
        let string = |from: usize| Some(2 + usize::from(u16::from_be_bytes(*value.get(from..)?.first_chunk::<2>()?)));
        let len = match property {
            0x13 => return Some(u64::from(u16::from_be_bytes(*value.first_chunk::<2>()?))),
            0x24 | 0x25 | 0x28..=0x2A => 1,
            0x21 | 0x22 => 2,
            0x11 | 0x27 => 4,
            0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => string(0)?,
            0x26 => {
                let key = string(0)?;
                key + string(key)?
            }
            _ => return None,
        };
        rest = value.get(len..)?;
    }
}

/// Returns the agreement by `activity_timeout` of `pusher:connection_established`, in whole seconds, rounded up.
fn pusher(app: &[u8]) -> Option<ProofOfLife> {
    let event: Value = serde_json::from_slice(app).ok()?;
    if event.get("event")?.as_str()? != "pusher:connection_established" {
        return None;
    }
    let data = match event.get("data")? {
        Value::String(text) => serde_json::from_str(text).ok()?,
        data => data.clone(),
    };
    let seconds = data.get("activity_timeout")?.as_f64()?;
    if !(seconds > 0.0 && seconds.ceil() <= f64::from(u32::MAX)) {
        return None;
    }
    // As in the proxy: to the nanosecond.
    let seconds = Duration::try_from_secs_f64(seconds).ok()?;
    let whole = seconds.as_secs() + u64::from(seconds.subsec_nanos() > 0);
    (whole > 0).then(|| ProofOfLife::SendsWhenIdle(millis(whole * 1500)))
}
