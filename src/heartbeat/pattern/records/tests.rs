//! Tests of heartbeats among records.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use RecordFormat::{Mqtt, SignalrJson, SignalrMessagePack, StompBinary, StompText};

const ALL: [RecordFormat; 5] = [SignalrJson, SignalrMessagePack, Mqtt, StompText, StompBinary];

/// Asserts for each of `messages` whether it contains a heartbeat and whether it contains nothing else.
fn assert_each(format: RecordFormat, has_beat: bool, only_beats: bool, messages: &[&[u8]]) {
    for message in messages {
        let found = (format.has_beat(message), format.is_only_beats(message));
        assert_eq!(found, (has_beat, only_beats), "{format:?} {:?}", message.escape_ascii().to_string());
        assert!(!has_beat || format.may_begin(&message[..1]), "{format:?} {message:?}");
    }
}

#[test]
fn s65_signalr_in_json() {
    assert_each(
        SignalrJson,
        true,
        true,
        &[
            b"{\"type\":6}\x1e",
            b"{\"type\": 6}\x1e",
            b" {\r\n\"type\" : 6.0 }\x1e\n",
            b"{\"type\":6e0}\x1e",
            b"{\"type\":0.6e1}\x1e",
            b"{\"t\\u0079pe\":6}\x1e",
            b"{\"sequence\":1,\"type\":6}\x1e",
            b"{\"type\":6}\x1e{\"type\":6}\x1e",
        ],
    );
    assert_each(
        SignalrJson,
        true,
        false,
        &[
            b"{\"type\":6}\x1e{\"type\":1,\"target\":\"send\",\"arguments\":[\"hello\"]}\x1e",
            b"{\"type\":3,\"invocationId\":\"6\"}\x1e {\"type\":6} \x1e",
            b"{\"protocol\":\"json\",\"version\":1}\x1e{\"type\":6}\x1e",
            b"{\"type\":6}\x1e{\"type\":1",
        ],
    );
    assert_each(
        SignalrJson,
        false,
        false,
        &[
            b"",
            b"\x1e",
            b"{\"type\":6}",
            b"{\"type\":1,\"arguments\":[6]}\x1e",
            b"{\"type\":1,\"arguments\":[{\"type\":6}]}\x1e",
            b"{\"type\":\"6\"}\x1e",
            b"{\"type\":66}\x1e",
            b"{\"type\":-6}\x1e",
            b"{\"type\":6.5}\x1e",
            b"{\"Type\":6}\x1e",
            b"[6]\x1e",
            b"6\x1e",
            b"{\"type\":6\x1e",
        ],
    );
}

#[test]
fn s65_signalr_in_message_pack() {
    assert_each(
        SignalrMessagePack,
        true,
        true,
        &[
            &[0x02, 0x91, 0x06],
            &[0x02, 0x91, 0x06, 0x02, 0x91, 0x06],
            // A length in more bytes than needed, and other encodings of the array and of the number.
            &[0x82, 0x00, 0x91, 0x06],
            &[0x04, 0xDC, 0x00, 0x01, 0x06],
            &[0x06, 0xDD, 0x00, 0x00, 0x00, 0x01, 0x06],
            &[0x03, 0x91, 0xCC, 0x06],
            &[0x04, 0x91, 0xD1, 0x00, 0x06],
            &[0x06, 0x91, 0xCE, 0x00, 0x00, 0x00, 0x06],
            &[0x0A, 0x91, 0xD3, 0, 0, 0, 0, 0, 0, 0, 0x06],
            // One more element, as a later version of the protocol may have.
            &[0x03, 0x92, 0x06, 0xC0],
        ],
    );
    assert_each(
        SignalrMessagePack,
        true,
        false,
        &[
            &[0x02, 0x91, 0x06, 0x03, 0x92, 0x07, 0xC0],
            &[0x03, 0x92, 0x07, 0xC0, 0x02, 0x91, 0x06],
            &[0x02, 0x91, 0x06, 0x7F],
        ],
    );
    assert_each(
        SignalrMessagePack,
        false,
        false,
        &[
            &[],
            &[0x02],
            &[0x02, 0x91],
            &[0x01, 0x91, 0x06],
            &[0x02, 0x91, 0x07],
            &[0x02, 0x92, 0x01],
            &[0x02, 0x90, 0x06],
            &[0x03, 0x91, 0xCC, 0x07],
            &[0x04, 0x91, 0xCD, 0x06, 0x06],
            &[0x03, 0x91, 0xCD, 0x06],
            &[0x06, 0x95, 0x01, 0x02, 0x91, 0x06, 0xC0],
            &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x02, 0x91, 0x06],
            b"{\"type\":6}\x1e",
        ],
    );
}

#[test]
fn s65_packets_of_mqtt() {
    assert_each(Mqtt, true, true, &[&[0xC0, 0x00], &[0xC0, 0x00, 0xC0, 0x00]]);
    let publish = [0x30, 0x05, 0x00, 0x01, b'a', 0xC0, 0x00];
    assert_each(Mqtt, false, false, &[&[], &[0xC0], &[0xC0, 0x01, 0x00], &[0xD0, 0x00], &publish]);
    let [before, behind] = [[&publish[..], &[0xC0, 0x00]].concat(), [&[0xC0, 0x00], &publish[..]].concat()];
    assert_each(Mqtt, true, false, &[&before, &behind]);
}

#[test]
fn s65_line_ends_of_stomp() {
    for format in [StompText, StompBinary] {
        assert_each(format, true, true, &[b"\n", b"\r\n", b"\n\n", b"\r\n\n"]);
        assert_each(format, true, false, &[b"\nSEND\n\nx\0", b"SEND\n\nx\0\n", b"SEND\n\nx\0\r\nSEND\n\ny\0"]);
        assert_each(format, false, false, &[b"", b"\r", b"SEND\n\nx\0", b"SEND\n\n\n"]);
    }
}

/// Generates `MessagePack` records, each an invocation with arbitrary bytes.
fn invocations() -> impl Strategy<Value = Vec<u8>> {
    let invocation = vec(any::<u8>(), 0..200).prop_map(|bytes| {
        let body = [&[0x92, 0x01], &bytes[..]].concat();
        let [low, high] = [body.len() & 0x7F, body.len() >> 7].map(|bits| u8::try_from(bits).unwrap());
        let length = if high == 0 { [low].to_vec() } else { [low | 0x80, high].to_vec() };
        [length, body].concat()
    });
    vec(invocation, 0..4).prop_map(|records| records.concat())
}

proptest! {
    #[test]
    fn s65_a_heartbeat_is_found_among_any_records(before in invocations(), behind in invocations()) {
        let others = [&before[..], &behind[..]].concat();
        let message = [&before[..], &[0x02, 0x91, 0x06], &behind[..]].concat();
        prop_assert!(SignalrMessagePack.has_beat(&message));
        prop_assert!(!SignalrMessagePack.has_beat(&others));
        prop_assert_eq!(SignalrMessagePack.is_only_beats(&message), others.is_empty());
    }

    #[test]
    fn s65_no_message_does_harm(noise in vec(any::<u8>(), 0..600)) {
        for format in ALL {
            let (has_beat, only_beats) = (format.has_beat(&noise), format.is_only_beats(&noise));
            prop_assert!(has_beat || !only_beats);
        }
    }
}
