use std::future::poll_fn;

use h2::client;
use h2::server;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Instant;

use super::super::shared_io::SharedIo;
use super::super::shared_io::tests::Pipe;
use super::super::streams::StreamKind;
use super::*;

/// A leg, the driver of its connection, and the client's end of its stream with the connection that brings its bytes.
struct Pair {
    leg: StreamLeg<Pipe>,
    server: server::Connection<SharedIo<Pipe>, Bytes>,
    wire: SharedIo<Pipe>,
    client: client::Connection<DuplexStream, Bytes>,
    receiver: h2::RecvStream,
    sender: SendStream<Bytes>,
}

/// A stream with a `window` to the client, on a pipe that holds 8 KiB.
async fn pair(window: u32) -> Pair {
    let (far, near) = duplex(8 * 1024);
    let wire = SharedIo::new(Pipe(near), Instant::now());
    let mut builder = client::Builder::new();
    builder.initial_window_size(window).initial_connection_window_size(1 << 20);
    let (client, server) = tokio::join!(builder.handshake::<_, Bytes>(far), server::handshake(wire.clone()));
    let ((mut requests, mut client), mut server) = (client.expect("a client"), server.expect("a server"));
    wire.cork();
    let (response, sender) = requests.send_request(hyper::Request::new(()), false).expect("a sound request");
    let mut response = Box::pin(response);
    let mut leg = None;
    let answered = poll_fn(|cx| {
        let _ = Pin::new(&mut client).poll(cx);
        while let Poll::Ready(Some(Ok((request, mut respond)))) = server.poll_accept(cx) {
            let outflow = respond.send_response(hyper::Response::new(()), false).expect("open");
            let entry = wire.enter(respond.stream_id().into(), StreamKind::WebSocket);
            leg = Some(StreamLeg::new(Inflow::new(request.into_body(), None), outflow, entry));
        }
        wire.settle(cx);
        response.as_mut().poll(cx)
    });
    let receiver = answered.await.expect("an answer").into_body();
    Pair { leg: leg.expect("a stream"), server, wire, client, receiver, sender }
}

impl Pair {
    /// Drives the server's side once.
    fn drive(&mut self, cx: &mut Context<'_>) {
        assert!(self.server.poll_accept(cx).is_pending());
        self.wire.settle(cx);
    }

    /// Drives both sides and reads until the end of the stream; gives how much came.
    async fn reads(&mut self) -> Result<usize, h2::Error> {
        let mut came = 0;
        poll_fn(|cx| {
            loop {
                self.drive(cx);
                let _ = Pin::new(&mut self.client).poll(cx);
                match ready!(self.receiver.poll_data(cx)) {
                    Some(Ok(data)) => {
                        came += data.len();
                        self.receiver.flow_control().release_capacity(data.len()).expect("it came");
                    }
                    Some(Err(error)) => return Poll::Ready(Err(error)),
                    None => return Poll::Ready(Ok(came)),
                }
            }
        })
        .await
    }
}

/// Bytes that the library takes of one stream at once.
const HELD: usize = 60_000;

#[tokio::test]
async fn s54_an_end_is_reached_behind_all_bytes_and_a_later_abort_costs_none() {
    let mut pair = pair(1 << 20).await;
    pair.leg.write_all(&[7; HELD]).await.expect("the library takes it");
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(Pin::new(&mut pair.leg).poll_flush(&mut cx).is_ready(), "nothing is known to keep the driver from it");
    pair.drive(&mut cx);
    assert!(Pin::new(&mut pair.leg).poll_flush(&mut cx).is_pending(), "the pipe holds less");
    assert!(Pin::new(&mut pair.leg).poll_shutdown(&mut cx).is_pending(), "the end is behind it");
    assert!(pair.leg.unsent() > 0);
    let came = pair.reads().await.expect("END_STREAM, no reset");
    assert_eq!(came, HELD);
    assert!(Pin::new(&mut pair.leg).poll_shutdown(&mut cx).is_ready(), "END_STREAM is on the wire");
    pair.leg.abort_on_drop();
    assert_eq!(pair.leg.unsent(), 0);
}

#[tokio::test]
async fn s43_a_reset_that_is_carried_stands_behind_all_bytes() {
    let mut pair = pair(1 << 20).await;
    pair.leg.write_all(&[7; HELD]).await.expect("the library takes it");
    pair.leg.other_leg_reset();
    let mut cx = Context::from_waker(std::task::Waker::noop());
    pair.drive(&mut cx);
    assert!(Pin::new(&mut pair.leg).poll_shutdown(&mut cx).is_pending());
    let mut came = 0;
    let end = poll_fn(|cx| {
        loop {
            pair.drive(cx);
            let _ = Pin::new(&mut pair.client).poll(cx);
            let _ = Pin::new(&mut pair.leg).poll_shutdown(cx);
            match ready!(pair.receiver.poll_data(cx)) {
                Some(Ok(data)) => came += data.len(),
                Some(Err(error)) => return Poll::Ready(Some(error)),
                None => return Poll::Ready(None),
            }
        }
    });
    let reset = end.await.expect("a reset");
    assert_eq!((reset.reason(), came), (Some(Reason::CANCEL), HELD));
}

#[tokio::test]
async fn s41_what_a_shut_window_holds_is_never_flushed_and_a_reset_by_the_client_tells() {
    let mut pair = pair(10_000).await;
    pair.leg.write_all(&[7; HELD / 6]).await.expect("the window takes it");
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let (mut came, mut more) = (0, Vec::new());
    // The client reads everything, and opens no window.
    for _ in 0..20 {
        pair.drive(&mut cx);
        let _ = Pin::new(&mut pair.client).poll(&mut cx);
        while let Poll::Ready(Some(Ok(data))) = pair.receiver.poll_data(&mut cx) {
            came += data.len();
        }
        if Pin::new(&mut pair.leg).poll_flush(&mut cx).is_ready() {
            more.push(came);
        }
    }
    assert_eq!((came, more.last()), (HELD / 6, Some(&came)), "flushed as soon as the socket has it");
    assert!(Pin::new(&mut pair.leg).poll_write(&mut cx, b"ping").is_pending(), "no window, so no room");
    pair.sender.send_reset(Reason::CANCEL);
    let read = async {
        poll_fn(|cx| {
            let _ = Pin::new(&mut pair.client).poll(cx);
            let _ = pair.server.poll_accept(cx);
            pair.wire.settle(cx);
            Poll::Ready(())
        })
        .await;
        pair.leg.read(&mut [0; 16]).await
    };
    assert_eq!(read.await.expect_err("a reset").kind(), io::ErrorKind::ConnectionReset);
    let written = poll_fn(|cx| Pin::new(&mut pair.leg).poll_write(cx, b"ping")).await;
    assert!(written.is_err(), "{written:?}");
}
