use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

/// A connection without a kernel behind it.
pub(in crate::http::h2) struct Pipe(pub(in crate::http::h2) DuplexStream);

impl Leg for Pipe {}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn every_byte_arrives_however_little_is_read_at_a_time() {
    let ping = [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], b"12345678"].concat();
    let empty = [0, 0, 0, 0, 0, 0, 0, 0, 1];
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let opens = [0, 0, 1, 1, 4, 0, 0, 0, 1, 0x82];
    let sent = [&[b'P'; 24][..], &settings, &opens, &ping, &empty, &ping, &ping].concat();
    let expected = [&[b'P'; 24][..], &settings, &opens, &ping, &ping, &ping].concat();
    for arriving in 1..20 {
        for wanted in 1..20 {
            let (mut far, near) = duplex(arriving);
            let mut wire = SharedIo::new(Pipe(near), Instant::now());
            let write = async {
                far.write_all(&sent).await.expect("the wire reads");
                drop(far);
            };
            let read = async {
                let mut all = Vec::new();
                let mut buffer = vec![0; wanted];
                loop {
                    match wire.read(&mut buffer).await.expect("readable") {
                        0 => break all,
                        read => all.extend_from_slice(&buffer[..read]),
                    }
                }
            };
            let (all, ()) = tokio::join!(read, write);
            assert_eq!(all, expected, "{arriving} bytes arriving and {wanted} wanted at a time");
        }
    }
}

/// A DATA frame of stream 1.
fn data(payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&[len[1], len[2], len[3], 0, 0, 0, 0, 0, 1][..], payload].concat()
}

#[tokio::test]
async fn what_is_gathered_goes_out_at_once_and_what_finds_no_room_follows() {
    let (mut far, near) = duplex(GATHERED);
    let mut wire = SharedIo::new(Pipe(near), Instant::now());
    let mut cx = Context::from_waker(Waker::noop());
    wire.cork();
    let entry = wire.enter(1, StreamKind::WebSocket);
    let half = data(&vec![7; GATHERED / 2 - frame::HEADER]);
    for _ in 0..2 {
        entry.hand(half.len() - frame::HEADER);
        wire.write_all(&half).await.expect("gathered");
        wire.flush().await.expect("left to the driver");
    }
    assert!(entry.poll_flushed(&cx).is_pending(), "nothing is written yet");
    let mut read = vec![0; 2 * GATHERED];
    let mut space = ReadBuf::new(&mut read);
    assert!(Pin::new(&mut far).poll_read(&mut cx, &mut space).is_pending(), "nothing is written yet");
    // A third finds no room before the first two are written; then there is none in the pipe.
    entry.hand(half.len() - frame::HEADER);
    wire.write_all(&half).await.expect("gathered");
    wire.settle(&mut cx);
    assert!(wire.is_blocked() && entry.poll_flushed(&cx).is_pending());
    far.read_exact(&mut read[..GATHERED]).await.expect("what was gathered first");
    wire.settle(&mut cx);
    assert!(!wire.is_blocked() && entry.poll_flushed(&cx).is_ready());
    far.read_exact(&mut read[GATHERED..][..half.len()]).await.expect("the rest");
    assert_eq!(read[..GATHERED + half.len()], half.repeat(3));
}

#[tokio::test]
async fn a_stream_that_broke_is_told_to_the_next_who_writes() {
    let (far, near) = duplex(64);
    let mut wire = SharedIo::new(Pipe(near), Instant::now());
    wire.cork();
    let entry = wire.enter(1, StreamKind::WebSocket);
    entry.hand(8);
    wire.write_all(&data(b"gathered")).await.expect("gathered");
    drop(far);
    let mut cx = Context::from_waker(Waker::noop());
    wire.settle(&mut cx);
    assert!(matches!(entry.poll_flushed(&cx), Poll::Ready(Err(_))), "the bytes can never be written");
    assert_eq!(wire.flush().await.expect_err("it broke").kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn what_the_library_holds_is_not_flushed() {
    let (_far, near) = duplex(64);
    let mut wire = SharedIo::new(Pipe(near), Instant::now());
    wire.cork();
    let entry = wire.enter(1, StreamKind::WebSocket);
    entry.hand(10);
    let mut cx = Context::from_waker(Waker::noop());
    wire.settle(&mut cx);
    assert!(entry.poll_flushed(&cx).is_pending(), "the library has written nothing");
    assert_eq!((entry.unsent(), entry.written()), (10, 10));
    wire.write_all(&data(b"gathered")).await.expect("gathered");
    wire.settle(&mut cx);
    assert!(entry.poll_flushed(&cx).is_pending(), "two bytes are left");
    wire.release();
    assert!(matches!(entry.poll_flushed(&cx), Poll::Ready(Err(_))), "the connection is not driven");
}

#[tokio::test]
async fn frames_of_the_proxys_own_stand_between_those_of_the_library() {
    let (mut far, near) = duplex(256);
    let mut wire = SharedIo::new(Pipe(near), Instant::now());
    wire.cork();
    let _entry = wire.enter(1, StreamKind::WebSocket);
    let frame = data(b"gathered");
    wire.write_all(&frame[..12]).await.expect("gathered");
    wire.streams(|streams| streams.credit(1, 5));
    let mut cx = Context::from_waker(Waker::noop());
    wire.settle(&mut cx);
    wire.write_all(&frame[12..]).await.expect("gathered");
    wire.settle(&mut cx);
    let expected = [&frame[..], &frame::window_update(1, 5), &frame::window_update(0, 5)].concat();
    let mut read = vec![0; expected.len()];
    far.read_exact(&mut read).await.expect("all of it");
    assert_eq!(read, expected);
}
