//! Live clients: they read all the time, answer pings, and compare every byte that returns.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use pulsegate_test_kit::client::Wss;
use pulsegate_test_kit::frame::{BINARY, FIN, Frame, PING, PONG};
use pulsegate_test_kit::http2::Http2WebSocket;
use pulsegate_test_kit::wait::within;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error, Message};

/// The time limit of an echo on a bad link: as long as a client may be silent on it.
const ECHO: Duration = Duration::from_secs(60);

/// Sizes of messages, from one byte to many segments.
const SIZES: [usize; 5] = [1, 125, 20_000, 1_400, 66_000];

/// Silence between two messages, in which only pings are sent.
const PAUSES: [Duration; 3] = [Duration::from_millis(50), Duration::from_millis(1200), Duration::from_millis(300)];

/// A session of a live client, over HTTP/1.1 or HTTP/2.
pub(crate) enum Session {
    One(Box<Wss>),
    Two(Http2WebSocket),
}

/// A received event.
enum Event {
    Ping,
    Message(Vec<u8>),
}

impl Session {
    /// Sends messages that the app echoes, with pauses, for `time`; returns the number of pings. An end is an error.
    pub(crate) async fn talks(&mut self, time: Duration) -> Result<u32, String> {
        let began = Instant::now();
        let mut pings = 0;
        for turn in 0.. {
            if began.elapsed() >= time {
                break;
            }
            self.echoes(turn, &mut pings)
                .await
                .map_err(|error| format!("turn {turn} after {:?} and {pings} pings: {error}", began.elapsed()))?;
            self.idles(PAUSES[turn % PAUSES.len()], &mut pings).await?;
        }
        Ok(pings)
    }

    /// Sends one message and expects it back, byte for byte.
    pub(crate) async fn echoes(&mut self, turn: usize, pings: &mut u32) -> Result<(), String> {
        let size = SIZES[turn % SIZES.len()];
        let sent: Vec<u8> = (0..size).map(|at| (at * 31 + turn).to_le_bytes()[0]).collect();
        self.send(sent.clone()).await?;
        loop {
            match within(ECHO, "an echo", self.next()).await? {
                Event::Ping => *pings += 1,
                Event::Message(echo) if echo == sent => return Ok(()),
                Event::Message(echo) => return Err(format!("sent {size} bytes, {} other ones came", echo.len())),
            }
        }
    }

    /// Answers pings for `time`; a message or an end is an error.
    pub(crate) async fn idles(&mut self, time: Duration, pings: &mut u32) -> Result<(), String> {
        let began = Instant::now();
        while let Ok(event) = timeout(time.saturating_sub(began.elapsed()), self.next()).await {
            match event? {
                Event::Ping => *pings += 1,
                Event::Message(message) => return Err(format!("{} bytes came unasked", message.len())),
            }
        }
        Ok(())
    }

    async fn send(&mut self, payload: Vec<u8>) -> Result<(), String> {
        match self {
            Self::One(websocket) => websocket.send(Message::binary(payload)).await.map_err(|error| error.to_string()),
            Self::Two(websocket) => {
                websocket.send_frame(&Frame::client(FIN | BINARY, payload)).await;
                Ok(())
            }
        }
    }

    async fn next(&mut self) -> Result<Event, String> {
        match self {
            Self::One(websocket) => loop {
                match websocket.next().await.unwrap_or(Err(Error::ConnectionClosed)) {
                    Ok(Message::Ping(_)) => {
                        // The answer is queued; it is sent before the next read waits.
                        websocket.flush().await.map_err(|error| error.to_string())?;
                        return Ok(Event::Ping);
                    }
                    Ok(Message::Binary(payload)) => return Ok(Event::Message(payload.to_vec())),
                    Ok(Message::Pong(_)) => {}
                    end => return Err(format!("{end:?}")),
                }
            },
            Self::Two(websocket) => match websocket.frame_within(ECHO).await {
                Ok(Some(frame)) if frame.opcode() == PING => {
                    websocket.send_frame(&Frame::client(FIN | PONG, frame.payload)).await;
                    Ok(Event::Ping)
                }
                Ok(Some(frame)) if frame.first == FIN | BINARY => Ok(Event::Message(frame.payload)),
                end => Err(format!("{end:?}")),
            },
        }
    }
}
