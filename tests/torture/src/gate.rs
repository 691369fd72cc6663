//! A socket whose process can be stopped: meanwhile nothing is read or written, and the kernel still acknowledges, as
//! for a process under SIGSTOP.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// The switch of all sockets of one process.
#[derive(Debug, Default)]
pub struct Switch {
    state: Mutex<(bool, Vec<Waker>)>,
}

impl Switch {
    fn state(&self) -> MutexGuard<'_, (bool, Vec<Waker>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops or continues the process.
    pub fn set(&self, stopped: bool) {
        let mut state = self.state();
        state.0 = stopped;
        if !stopped {
            state.1.drain(..).for_each(Waker::wake);
        }
    }

    /// Returns true while the process is stopped.
    pub fn is_stopped(&self) -> bool {
        self.state().0
    }

    fn poll_running(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if !state.0 {
            return Poll::Ready(());
        }
        state.1.push(context.waker().clone());
        Poll::Pending
    }

    /// Waits until the process runs.
    pub async fn running(&self) {
        std::future::poll_fn(|context| self.poll_running(context)).await;
    }
}

/// A socket of a process that can be stopped.
#[derive(Debug)]
pub struct Gate {
    stream: TcpStream,
    switch: Arc<Switch>,
    /// The bytes before a pause, and its length.
    pause: Option<(usize, Duration)>,
    pausing: Option<Pin<Box<Sleep>>>,
}

impl Gate {
    /// Returns a socket that obeys `switch`.
    pub fn new(stream: TcpStream, switch: Arc<Switch>) -> Self {
        Self { stream, switch, pause: None, pausing: None }
    }

    /// Returns a socket that obeys `switch` and pauses once after this many bytes written.
    pub fn pausing(stream: TcpStream, switch: Arc<Switch>, bytes: usize, pause: Duration) -> Self {
        Self { pause: (bytes > 0).then_some((bytes, pause)), ..Self::new(stream, switch) }
    }
}

impl AsyncRead for Gate {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        std::task::ready!(gate.switch.poll_running(context));
        Pin::new(&mut gate.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Gate {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let gate = self.get_mut();
        std::task::ready!(gate.switch.poll_running(context));
        if let Some(pausing) = &mut gate.pausing {
            std::task::ready!(pausing.as_mut().poll(context));
            gate.pausing = None;
        }
        let Some((left, pause)) = gate.pause else { return Pin::new(&mut gate.stream).poll_write(context, bytes) };
        let most = bytes.len().min(left);
        let count = std::task::ready!(Pin::new(&mut gate.stream).poll_write(context, &bytes[..most]))?;
        gate.pause = (left > count).then_some((left - count, pause));
        if gate.pause.is_none() {
            gate.pausing = Some(Box::pin(sleep(pause)));
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        std::task::ready!(gate.switch.poll_running(context));
        Pin::new(&mut gate.stream).poll_shutdown(context)
    }
}
