//! Channels over TCP.

use std::{io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_core::future::BoxFuture;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Mutex,
    time::timeout,
};

use super::{Address, Channel, Network, PeerError};

/// The longest time to open a connection. After it, the node counts as unreachable.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// The most bytes that are reserved at a time for a response, so that a wrong size in its frame
/// reserves little memory.
const RESERVE_MAX: usize = 1 << 20;
/// The largest response in bytes. A connection that announces a larger one is closed.
const RESPONSE_MAX: usize = 1 << 30;

/// The real network: channels over TCP.
pub struct Tcp;

impl Network for Tcp {
    fn channel(&self, to: &Address) -> Arc<dyn Channel> {
        Arc::new(TcpChannel { to: to.clone(), stream: Mutex::new(None) })
    }
}

struct TcpChannel {
    to: Address,
    /// The idle connection. `None` before the first request, while a request is in flight, and
    /// after a failure. The lock is held for a whole call.
    stream: Mutex<Option<TcpStream>>,
}

impl Channel for TcpChannel {
    fn call(&self, request: Bytes, after: Duration) -> BoxFuture<'_, Result<Bytes, PeerError>> {
        Box::pin(async move {
            let call = self.call_in_time(request, after);
            let timed_out = || PeerError::TimedOut { to: self.to.clone(), after };
            timeout(after, call).await.map_err(|_| timed_out())?
        })
    }
}

impl TcpChannel {
    async fn call_in_time(&self, request: Bytes, after: Duration) -> Result<Bytes, PeerError> {
        let mut place = self.stream.lock().await;
        // Taken out of its place: if this call is cancelled or fails, the connection is closed.
        let mut stream = match place.take().filter(is_quiet) {
            Some(stream) => stream,
            None => self.connect(after).await?,
        };
        let broken = |source| PeerError::Broken { to: self.to.clone(), source };
        let response = exchange(&mut stream, &request).await.map_err(broken)?;
        *place = Some(stream);
        Ok(response)
    }

    async fn connect(&self, after: Duration) -> Result<TcpStream, PeerError> {
        let unreachable = |source| PeerError::Unreachable { to: self.to.clone(), source };
        let connect = TcpStream::connect((self.to.host.as_str(), self.to.port));
        let connected = timeout(after.min(CONNECT_MAX), connect).await;
        let late = || unreachable(io::ErrorKind::TimedOut.into());
        let stream = connected.map_err(|_| late())?.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        Ok(stream)
    }
}

/// Whether an idle connection is still open and has received no unexpected bytes.
fn is_quiet(stream: &TcpStream) -> bool {
    let read = stream.try_read(&mut [0; 1]);
    matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

async fn exchange(stream: &mut TcpStream, request: &Bytes) -> io::Result<Bytes> {
    let mut frame = BytesMut::with_capacity(4 + request.len());
    frame.extend_from_slice(&(request.len() as u32).to_be_bytes());
    frame.extend_from_slice(request);
    stream.write_all(&frame).await?;
    let size = stream.read_u32().await? as usize;
    if !(4..=RESPONSE_MAX).contains(&size) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {size} bytes")));
    }
    let mut response = BytesMut::with_capacity(size.min(RESERVE_MAX));
    while response.len() < size {
        let left = size - response.len();
        response.reserve(left.min(RESERVE_MAX));
        let mut part = bytes::BufMut::limit(&mut response, left);
        if stream.read_buf(&mut part).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    // The response starts with the request's correlation id (bytes 4 to 8 of the request).
    if response[..4] != request[4..8] {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer of another request"));
    }
    Ok(response.freeze())
}
