//! Sockets whose other side has to take what it is sent. Invariant: while anything waits to be sent, the grace runs, and only
//! what is taken gives some of it back; while nothing waits a connection may live on, as a stream of rare events does.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// A socket that fails when it is not read fast enough. Below TLS, whose own buffer would hide what is taken.
pub(crate) struct Paced<S> {
    socket: S,
    grace: Duration,
    rate: u32,
    /// What is left of the grace, while nothing waits.
    left: Duration,
    /// When the grace is over, while something waits to be sent.
    over: Option<Pin<Box<Sleep>>>,
}

impl<S> Paced<S> {
    /// Fails when nothing was taken for the `grace`, or less than `rate` bytes a second were for longer than that.
    pub(crate) fn new(socket: S, grace: Duration, rate: u32) -> Self {
        Paced {
            socket,
            grace,
            rate,
            left: grace,
            over: None,
        }
    }

    /// What a write came to, unless the grace is over.
    fn judge(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let (grace, left) = (self.grace, self.left);
        let Poll::Ready(written) = written else {
            let over = self.over.get_or_insert_with(|| Box::pin(sleep(left)));
            ready!(over.as_mut().poll(context));
            let slow = io::Error::new(
                io::ErrorKind::TimedOut,
                "what was sent is read too slowly, or not at all",
            );
            return Poll::Ready(Err(slow));
        };
        if let Ok(bytes) = &written {
            let earned = Duration::from_secs(*bytes as u64).checked_div(self.rate);
            let earned = earned.unwrap_or_default();
            match &mut self.over {
                Some(over) => {
                    let later = over.deadline() + earned;
                    over.as_mut().reset(later.min(Instant::now() + grace));
                }
                None => self.left = (left + earned).min(grace),
            }
        }
        Poll::Ready(written)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.judge(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(context, slices);
        self.judge(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    /// Whoever writes flushes when all that there was is written: then nothing waits.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(context);
        if flushed.is_ready()
            && let Some(over) = self.over.take()
        {
            self.left = over.deadline().saturating_duration_since(Instant::now());
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
