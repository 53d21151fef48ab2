//! Channels over TCP.

use std::{io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Mutex,
    time::timeout,
};

use super::{Address, BoxFuture, Channel, Network, PeerError};

/// A node that does not take a connection within this is not there.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// A response's buffer is reserved at once up to this size; beyond it grows with what comes.
const RESERVE_MAX: usize = 1 << 20;
/// No response of a node is larger than this.
const RESPONSE_MAX: usize = 1 << 30;

/// The network of this machine.
pub struct Tcp;

impl Network for Tcp {
    fn channel(&self, to: &Address) -> Arc<dyn Channel> {
        Arc::new(TcpChannel { to: to.clone(), stream: Mutex::new(None) })
    }
}

struct TcpChannel {
    to: Address,
    /// Empty before the first request, while one is on its way, and after a failure.
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
        // Taken out, so that it is closed if this call ends before its response has come.
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

/// Whether a connection is still open and nothing has come that nobody asked for.
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
    // A channel carries one request at a time, and its response repeats the request's number.
    if response[..4] != request[4..8] {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer of another request"));
    }
    Ok(response.freeze())
}
