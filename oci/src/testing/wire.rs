//! The connections of the fake registry: TCP that can be broken at a byte of an answer.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// How a connection ends in the middle of things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With an RST: the peer sees "connection reset".
    Reset,
    /// As if all had been said.
    Close,
    /// Not at all: nothing comes any more.
    Hang,
}

/// A connection's breaking point, shared between what serves it and its bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Wire(Arc<Mutex<Option<(usize, End)>>>);

impl Wire {
    /// So many more bytes are written; then it ends.
    pub(super) fn end_after(&self, bytes: usize, end: End) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((bytes, end));
    }

    fn limit(&self) -> Option<(usize, End)> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wrote(&self, bytes: usize) {
        let mut limit = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((left, _)) = limit.as_mut() {
            *left = left.saturating_sub(bytes);
        }
    }
}

#[derive(Debug)]
pub(super) struct Ports(pub(super) TcpListener);

impl Listener for Ports {
    type Io = Connection;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            if let Ok((stream, address)) = self.0.accept().await {
                // The client's delayed acknowledgements would slow every cut answer down.
                let _ = stream.set_nodelay(true);
                let wire = Wire::default();
                return (Connection { stream, wire }, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    wire: Wire,
}

impl Connected<IncomingStream<'_, Ports>> for Wire {
    fn connect_info(stream: IncomingStream<'_, Ports>) -> Self {
        stream.io().wire.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let part = match self.wire.limit() {
            None => buf,
            Some((0, End::Hang)) => return Poll::Pending,
            Some((0, end)) => {
                if end == End::Reset {
                    // Dropped with this set, a socket sends RST instead of FIN.
                    let _ = self.stream.set_zero_linger();
                }
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            Some((left, _)) => buf.get(..left).unwrap_or(buf),
        };
        let written = Pin::new(&mut self.stream).poll_write(cx, part);
        if let Poll::Ready(Ok(written)) = written {
            self.wire.wrote(written);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        if self.wire.limit().is_some() {
            return Poll::Ready(Ok(()));
        }
        // As servers do it: a socket that is closed with bytes unread sends RST, and the client
        // loses the answer that it had not read yet.
        let mut unread = [0; 8192];
        loop {
            let mut rest = ReadBuf::new(&mut unread);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut rest))?;
            if rest.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
