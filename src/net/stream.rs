//! [`Stream`]: the byte stream of a connection.

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// The byte stream of a connection. Connections are generic over it, so that each kind of stream
/// gets code of its own and a TCP socket costs nothing extra. Simulated connections are such
/// streams.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// The socket whose bytes are the bytes of this stream. `sendfile` then sends pieces of files.
    /// `None` if the bytes change on their way (encryption) or if there is no socket. Pieces of
    /// files are then read into memory and written like other bytes.
    fn plain_socket(&self) -> Option<&TcpStream>;
}

impl Stream for TcpStream {
    fn plain_socket(&self) -> Option<&TcpStream> {
        Some(self)
    }
}
