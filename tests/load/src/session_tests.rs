//! The session against tungstenite, an independent implementation of the framing, and against peers that misbehave.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

use super::*;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Returns a session and, as its peer, a tungstenite server on a pipe that holds `room` bytes.
async fn pair(room: usize, manners: Manners) -> (Session<DuplexStream>, WebSocketStream<DuplexStream>) {
    let (near, far) = duplex(room);
    let session = Session::new(near, Vec::new(), Arc::new(Pattern::new(100_000)), manners).expect("nothing came early");
    (session, WebSocketStream::from_raw_socket(far, Role::Server, None).await)
}

/// Returns the session's result for `wire` while it waits for the echo of a 4-byte message.
async fn echo_of(wire: impl FnOnce(&[u8]) -> Vec<u8>) -> Result<(), SessionError> {
    let pattern = Arc::new(Pattern::new(4));
    let (near, mut far) = duplex(1024);
    let mut session =
        Session::new(near, Vec::new(), Arc::clone(&pattern), Manners::Answers).expect("nothing came early");
    far.write_all(&wire(pattern.bytes(pattern.place(0, 0, 4)))).await.expect("the pipe has room");
    far.shutdown().await.expect("the pipe is open");
    timeout(TIMEOUT, session.echo(0, 0, 4)).await.expect("the session comes to a verdict")
}

/// Returns a frame as a server sends it.
fn frame_of(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    Header { fin: true, opcode, mask: None, length: payload.len() as u64 }.encode(&mut wire);
    wire.extend_from_slice(payload);
    wire
}

#[tokio::test]
async fn tungstenite_reads_every_size() {
    // A pipe far smaller than the message: both directions must make progress at once.
    let (mut session, mut server) = pair(1000, Manners::Answers).await;
    let client = async {
        for (sequence, length) in [(0, 0), (1, 1), (2, 125), (3, 126), (4, 65_535), (5, 65_536), (6, 100_000)] {
            session.echo(7, sequence, length).await.unwrap_or_else(|error| panic!("{length} bytes: {error}"));
        }
        session.close().await.expect("the server closes too");
    };
    // Moved, because tungstenite ends the connection only when its stream is dropped.
    let server = async move {
        while let Some(Ok(message)) = server.next().await {
            if message.is_binary() {
                server.send(message).await.expect("the client reads");
            }
        }
    };
    timeout(TIMEOUT, async { tokio::join!(client, server) }).await.expect("all echoes come in time");
}

#[tokio::test]
async fn pings_are_answered_even_inside_an_echo() {
    let (mut session, mut server) = pair(64 * 1024, Manners::Answers).await;
    let server = async {
        server.send(Message::Ping("early".into())).await.expect("the client reads");
        assert_eq!(server.next().await.expect("alive").expect("valid").len(), 1000);
        assert_eq!(server.next().await.expect("alive").expect("valid"), Message::Pong("early".into()));
        server.send(Message::Ping("late".into())).await.expect("the client reads");
        let echo = Pattern::new(1000);
        let echo = echo.bytes(echo.place(0, 0, 1000)).to_vec();
        server.send(Message::binary(echo)).await.expect("the client reads");
        assert_eq!(server.next().await.expect("alive").expect("valid"), Message::Pong("late".into()));
    };
    let client = async {
        session.echo(0, 0, 1000).await.expect("the echo is right");
        assert_eq!(session.seen().pings, 2);
    };
    timeout(TIMEOUT, async { tokio::join!(client, server) }).await.expect("all pongs come in time");
}

#[tokio::test]
async fn a_silent_session_answers_neither_ping_nor_close() {
    let (mut session, mut server) = pair(1024, Manners::Silent).await;
    server.send(Message::Ping("alive?".into())).await.expect("the pipe has room");
    let close = CloseFrame { code: 1012.into(), reason: "heartbeat timeout".into() };
    server.send(Message::Close(Some(close))).await.expect("the pipe has room");
    let mut raw = server.into_inner();
    raw.shutdown().await.expect("the pipe is open");
    let client = async { while session.turn().await.expect("nothing is wrong") == Turn::Progress {} };
    timeout(TIMEOUT, client).await.expect("the end comes in time");
    assert_eq!(session.seen().pings, 1);
    assert_eq!(session.seen().close.map(|close| close.code), Some(Some(1012)));
    drop(session);
    let mut said = Vec::new();
    raw.read_to_end(&mut said).await.expect("the pipe is readable");
    assert!(said.is_empty(), "a silent session said {said:?}");
}

#[tokio::test]
async fn a_close_of_the_peer_is_echoed_and_ends_an_echo_with_its_code() {
    let (near, mut far) = duplex(1024);
    let mut session =
        Session::new(near, Vec::new(), Arc::new(Pattern::new(4)), Manners::Answers).expect("nothing came early");
    far.write_all(&frame_of(Opcode::Close, &1012_u16.to_be_bytes())).await.expect("the pipe has room");
    far.shutdown().await.expect("the pipe is open");
    let error = timeout(TIMEOUT, session.echo(0, 0, 4)).await.expect("in time").expect_err("the peer closes");
    assert!(matches!(error, SessionError::Ended { code: Some(1012) }), "{error}");
    drop(session);
    let mut said = Vec::new();
    far.read_to_end(&mut said).await.expect("the pipe is readable");
    // The message of 4 bytes, then the Close with its code: 2 bytes of header and 4 of key before each payload.
    assert_eq!((said.len(), said[0], said[10]), (10 + 8, 0x82, 0x88), "{said:?}");
    let key = [said[12], said[13], said[14], said[15]];
    frame::apply_mask(&mut said[16..], key);
    assert_eq!(said[16..], 1012_u16.to_be_bytes());
}

#[tokio::test]
async fn an_echo_must_be_the_message() {
    assert!(echo_of(|message| frame_of(Opcode::Binary, message)).await.is_ok());
    let wrong =
        echo_of(|message| frame_of(Opcode::Binary, &message.iter().map(|byte| !byte).collect::<Vec<_>>())).await;
    assert!(matches!(wrong, Err(SessionError::Differs)), "{wrong:?}");
    let text = echo_of(|message| frame_of(Opcode::Text, message)).await;
    assert!(matches!(text, Err(SessionError::Differs)), "{text:?}");
    let short = echo_of(|message| frame_of(Opcode::Binary, &message[..3])).await;
    assert!(matches!(short, Err(SessionError::Short { missing: 1 })), "{short:?}");
    let long = echo_of(|message| frame_of(Opcode::Binary, &[message, b"x"].concat())).await;
    assert!(matches!(long, Err(SessionError::Long { surplus: 1 })), "{long:?}");
    let twice =
        echo_of(|message| [frame_of(Opcode::Binary, message), frame_of(Opcode::Binary, message)].concat()).await;
    assert!(matches!(twice, Err(SessionError::Unasked)), "{twice:?}");
    let end = echo_of(|_| Vec::new()).await;
    assert!(matches!(end, Err(SessionError::Ended { code: None })), "{end:?}");
}

#[tokio::test]
async fn a_server_must_not_mask() {
    let masked = echo_of(|message| {
        let mut wire = Vec::new();
        frame::encode_masked(Opcode::Binary, [1, 2, 3, 4], message, &mut wire);
        wire
    })
    .await;
    assert!(matches!(masked, Err(SessionError::Masked)), "{masked:?}");
}
