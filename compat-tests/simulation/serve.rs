//! The server's end of a simulated connection. It does with frames what `net` does with a socket.

use std::{collections::VecDeque, sync::Arc};

use bytes::{Bytes, BytesMut};
use sordini::{
    broker::Broker,
    handlers::{
        self, BoxFuture, Client, ConnectionContext, HandlerError, Outcome, Part, ReplyBuffer,
    },
    log::disk::read_exact_at,
    protocol::frame::{self, Incoming},
};

use crate::wire::{Accepted, ConnectionId, SharedWire};

type Waiting = BoxFuture<'static, Result<Bytes, HandlerError>>;

/// Closes the connection when its task ends for any reason.
struct ServerEnd {
    wire: SharedWire,
    id: ConnectionId,
}

impl Drop for ServerEnd {
    fn drop(&mut self) {
        self.wire.lock().close_server(self.id);
    }
}

/// Serves a connection. Handles a request once the one before it has passed its ordering point, and
/// sends responses in the order of the requests.
pub async fn serve(broker: Arc<Broker>, wire: SharedWire, accepted: Accepted, controllers: bool) {
    let Accepted { id, peer, mut frames, .. } = accepted;
    let end = ServerEnd { wire, id };
    let mut session =
        ConnectionContext::of_controller_listener(&broker.settings(), Client::anonymous(peer));
    if !controllers {
        session.listener = Arc::from("PLAINTEXT");
        session.on_controller_listener = false;
    }
    let mut waiting = VecDeque::<Waiting>::new();
    loop {
        let is_waiting = !waiting.is_empty();
        let reply = async {
            match waiting.front_mut() {
                Some(front) => front.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            reply = reply, if is_waiting => {
                waiting.pop_front();
                let Ok(reply) = reply else { return };
                end.wire.lock().respond(id, reply);
            }
            frame = frames.recv() => {
                let Some(frame) = frame else { return };
                match handle(&broker, &mut session, frame).await {
                    Ok(reply) => waiting.extend(reply),
                    Err(_) => return,
                }
            }
        }
    }
}

async fn handle(
    broker: &Arc<Broker>,
    session: &mut ConnectionContext,
    mut frame: Bytes,
) -> Result<Option<Waiting>, HandlerError> {
    let whole = frame.clone();
    let header = match frame::parse_header(&mut frame)? {
        Incoming::Request(header) => header,
        Incoming::Raft { correlation_id } if session.on_controller_listener => {
            let quorum = broker.quorum.clone();
            return Ok(Some(Box::pin(async move {
                let answer = quorum.answer(frame).await.map_err(|_| HandlerError::Close)?;
                in_memory(ReplyBuffer::from_frame(frame::raft_response(correlation_id, &answer)))
            })));
        }
        _ => return Err(HandlerError::Close),
    };
    Ok(match handlers::handle(broker, session, &header, (whole, frame)).await? {
        Outcome::Now(reply) => Some(Box::pin(async { in_memory(reply) })),
        Outcome::Later(rest) => Some(Box::pin(async { in_memory(rest.await?) })),
        Outcome::Silent => None,
    })
}

/// Returns the response frame without its size. Reads the parts that a socket would send from
/// files.
fn in_memory(reply: ReplyBuffer) -> Result<Bytes, HandlerError> {
    let mut frame = BytesMut::with_capacity(reply.wire_len());
    let (parts, rest) = reply.into_parts();
    for part in parts {
        match part {
            Part::Memory(bytes) => frame.extend_from_slice(&bytes),
            Part::File { file, position, len } => {
                let from = frame.len();
                frame.resize(from + len, 0);
                let read = read_exact_at(&*file, &mut frame[from..], position);
                read.map_err(|_| HandlerError::Close)?;
            }
        }
    }
    frame.extend_from_slice(&rest);
    Ok(frame.freeze().slice(4..))
}
