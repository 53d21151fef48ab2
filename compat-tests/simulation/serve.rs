//! The server's end of a simulated connection, as a byte stream for the connections of `net`.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use sordini::{
    broker::Broker,
    handlers::{Client, ConnectionContext},
    net::{Connection, ConnectionLimits, Stream},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{mpsc::UnboundedReceiver, watch},
};

use crate::wire::{Accepted, ConnectionId, SharedWire};

/// A byte stream over the wire, whose packets are whole frames. Dropping it closes the connection.
struct ServerEnd {
    wire: SharedWire,
    id: ConnectionId,
    frames: UnboundedReceiver<Bytes>,
    /// The rest of the frame that is being read, with its size.
    input: BytesMut,
    /// A response frame that is not complete yet, with its size.
    output: BytesMut,
}

impl Drop for ServerEnd {
    fn drop(&mut self) {
        self.wire.lock().close_server(self.id);
    }
}

impl Stream for ServerEnd {
    fn plain_socket(&self) -> Option<&TcpStream> {
        None
    }
}

impl AsyncRead for ServerEnd {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.input.is_empty() {
            // Reads nothing if the client has closed the connection, as from a socket.
            let Some(frame) = ready!(self.frames.poll_recv(cx)) else { return Poll::Ready(Ok(())) };
            self.input.put_u32(frame.len() as u32);
            self.input.extend_from_slice(&frame);
        }
        let len = self.input.len().min(into.remaining());
        into.put_slice(&self.input.split_to(len));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ServerEnd {
    /// Sends each response frame once it is complete.
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.output.extend_from_slice(bytes);
        while let Some(size) = self.output.first_chunk::<4>() {
            let size = u32::from_be_bytes(*size) as usize;
            if self.output.len() < 4 + size {
                break;
            }
            self.output.advance(4);
            let frame = self.output.split_to(size).freeze();
            self.wire.lock().respond(self.id, frame);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Serves a connection until the client closes it, or until a request or its response fails. The
/// end of the process ends it, too.
pub async fn serve(
    broker: Arc<Broker>,
    limits: Arc<ConnectionLimits>,
    wire: SharedWire,
    accepted: Accepted,
    on_controller_listener: bool,
) {
    let Accepted { id, peer, frames, .. } = accepted;
    let (input, output) = (BytesMut::new(), BytesMut::new());
    let stream = ServerEnd { wire, id, frames, input, output };
    let mut context =
        ConnectionContext::of_controller_listener(&broker.settings(), Client::anonymous(peer));
    if !on_controller_listener {
        context.listener = Arc::from("PLAINTEXT");
        context.on_controller_listener = false;
    }
    let Some(place) = limits.admit(peer.ip(), on_controller_listener).await else { return };
    // Connections stay open while a simulated node stops, until its process ends.
    let (_running, stop) = watch::channel(false);
    Connection::new(stream, context, broker, Arc::new(place)).run(stop).await;
}
