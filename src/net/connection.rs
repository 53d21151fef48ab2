//! One connection: reads frames, passes them to the handler table, and writes responses in the
//! order of the requests.
//!
//! A request is handled up to its ordering point before the next one is parsed. If its handler
//! leaves a future, the future waits in a queue. Only the response at the front of the queue may
//! leave. Responses that are ready together are written together.

use std::{collections::VecDeque, future::pending, io, sync::Arc, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_core::future::BoxFuture;
use kafka_protocol::messages::ApiKey;
use tokio::{io::AsyncReadExt, sync::watch, time::Instant};

use super::{limits::ConnectionPermit, output::Output, stream::Stream};
use crate::{
    broker::Broker,
    handlers::{self, ConnectionContext, ErrorCode, HandlerError, Outcome, ReplyBuffer},
    protocol::frame::{self, DecodeError, Incoming},
    telemetry::CloseReason,
};

/// The most requests of one connection that wait for their responses at a time.
const PIPELINE_MAX: usize = 64;
/// The read buffer of a connection that sends small requests, in bytes.
const READ_CHUNK: usize = 8 << 10;
/// Frames up to this size, in bytes, get their buffer at once. For a larger frame, this many bytes
/// must have arrived before the rest gets memory.
const RESERVE_MAX: usize = 1 << 20;
/// The smallest buffer for a large frame, in bytes. glibc always maps a buffer of this size,
/// because it is above the largest `M_MMAP_THRESHOLD`. Untouched pages of a mapped buffer take no
/// memory, and all pages go back to the system when it is dropped. The heap would keep pages of
/// large frames.
const MAPPED_MIN: usize = (32 << 20) + 1;
/// A buffer with more bytes than this is freed when the connection becomes idle.
const KEEP_MAX: usize = 64 << 10;

/// Why a connection was closed.
#[derive(Debug, thiserror::Error)]
pub enum Closed {
    #[error("the client closed it")]
    ByPeer,
    #[error("idle")]
    Idle,
    #[error("more than max.connections")]
    Excess,
    #[error("the broker stops")]
    Shutdown,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] DecodeError),
    #[error(transparent)]
    Handler(#[from] HandlerError),
}

/// A request whose response has not been written yet.
struct Pending {
    api: ApiKey,
    request_bytes: usize,
    since: Instant,
    reply: PendingReply,
}

enum PendingReply {
    Ready(ReplyBuffer),
    Waiting(BoxFuture<'static, Result<ReplyBuffer, HandlerError>>),
}

impl Closed {
    pub fn reason(&self) -> CloseReason {
        match self {
            Self::ByPeer => CloseReason::Client,
            Self::Idle => CloseReason::Idle,
            Self::Excess => CloseReason::Limit,
            Self::Shutdown => CloseReason::Shutdown,
            Self::Io(_) => CloseReason::Io,
            Self::Frame(_) | Self::Handler(_) => CloseReason::Protocol,
        }
    }
}

/// An open connection with its buffers and its queue of requests.
pub struct Connection<S> {
    stream: S,
    session: ConnectionContext,
    broker: Arc<Broker>,
    place: Arc<ConnectionPermit>,
    /// Bytes that have arrived and have not been handled.
    input: BytesMut,
    /// Whether `input` is in a mapped buffer for a large frame. That frame may have been handled.
    is_mapped: bool,
    /// The requests that wait for their responses, oldest first.
    replies: VecDeque<Pending>,
    output: Output,
    frame_max: i32,
    idle_max: Option<Duration>,
}

/// An event that a connection has waited for.
enum Wake {
    Reply(Result<ReplyBuffer, HandlerError>),
    Read(io::Result<usize>),
    Idle,
    Shutdown,
}

/// How long a stop waits for a response that is being written.
const LAST_WRITE_MAX: Duration = Duration::from_secs(1);

/// Returns when a write must be aborted: [`LAST_WRITE_MAX`] after the stop signal.
async fn cut_off(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
    tokio::time::sleep(LAST_WRITE_MAX).await;
}

impl<S: Stream> Connection<S> {
    pub fn new(
        stream: S,
        session: ConnectionContext,
        broker: Arc<Broker>,
        place: Arc<ConnectionPermit>,
    ) -> Self {
        let config = broker.settings();
        let idle_max = u64::try_from(config.connections_max_idle_ms).ok();
        Self {
            frame_max: config.socket_request_max_bytes,
            idle_max: idle_max.map(Duration::from_millis),
            stream,
            session,
            broker,
            place,
            input: BytesMut::new(),
            is_mapped: false,
            replies: VecDeque::new(),
            output: Output::default(),
        }
    }

    /// Serves requests until the connection ends. Returns the reason.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Closed {
        loop {
            if let Err(closed) = self.step(&mut stop).await {
                return closed;
            }
        }
    }

    /// Handles the requests that have arrived, writes the responses that are ready, and waits for
    /// the next event.
    async fn step(&mut self, stop: &mut watch::Receiver<bool>) -> Result<(), Closed> {
        while self.replies.len() < PIPELINE_MAX {
            let Some(request) = self.next_frame()? else { break };
            self.handle(request).await?;
        }
        while let Some(Pending { reply: PendingReply::Ready(_), .. }) = self.replies.front() {
            self.send_front();
        }
        if !self.output.is_empty() {
            let write = self.output.write_to(&mut self.stream, self.idle_max);
            tokio::select! {
                written = write => written?,
                () = cut_off(stop) => return Err(Closed::Shutdown),
            }
        }
        if self.replies.len() < PIPELINE_MAX && self.missing_bytes() == 0 {
            // The queue was full, and a whole frame still waits in `input`. Handle it now, because
            // the client may send nothing else.
            return Ok(());
        }
        match self.wake(stop).await {
            Wake::Reply(reply) => {
                let front = self.replies.front_mut().expect("its reply has come");
                front.reply = PendingReply::Ready(reply?);
                self.send_front();
                Ok(())
            }
            Wake::Read(Ok(0)) => Err(Closed::ByPeer),
            Wake::Read(Ok(_)) => Ok(()),
            Wake::Read(Err(error)) => Err(error.into()),
            Wake::Idle => Err(Closed::Idle),
            Wake::Shutdown => Err(Closed::Shutdown),
        }
    }

    /// Moves the response at the front of the queue, which is ready, to the output.
    fn send_front(&mut self) {
        let Some(Pending { api, request_bytes, since, reply }) = self.replies.pop_front() else {
            return;
        };
        let PendingReply::Ready(reply) = reply else { unreachable!("only ready replies are sent") };
        let metrics = self.broker.metrics.api(api as i16);
        metrics.answered(request_bytes, reply.wire_len(), since.elapsed());
        self.output.push(reply);
    }

    /// Waits for the next event: the stop, the response at the front of the queue, bytes from the
    /// client, or the idle timeout.
    async fn wake(&mut self, stop: &mut watch::Receiver<bool>) -> Wake {
        let may_read = self.replies.len() < PIPELINE_MAX;
        let need = self.missing_bytes();
        let is_large = self.is_mapped || self.input.capacity() > KEEP_MAX;
        if is_large && self.input.is_empty() && self.replies.is_empty() {
            self.input = BytesMut::new();
            self.is_mapped = false;
        }
        if may_read {
            self.make_room(need);
        }
        let idle = match (self.idle_max, self.replies.is_empty()) {
            (Some(idle_max), true) => Some(Instant::now() + idle_max),
            _ => None,
        };
        let front = self.replies.front_mut();
        let (stream, input) = (&mut self.stream, &mut self.input);
        tokio::select! {
            biased;
            // First, because a client that never pauses could otherwise prevent the stop.
            _ = stop.wait_for(|stop| *stop) => Wake::Shutdown,
            reply = async {
                match front {
                    Some(Pending { reply: PendingReply::Waiting(rest), .. }) => rest.await,
                    _ => pending().await,
                }
            } => Wake::Reply(reply),
            // A large frame is read to its end and not beyond, so that its buffer does not grow.
            read = async {
                match need > READ_CHUNK {
                    true => stream.read_buf(&mut input.limit(need)).await,
                    false => stream.read_buf(input).await,
                }
            }, if may_read => Wake::Read(read),
            () = async {
                match idle {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => pending().await,
                }
            } => Wake::Idle,
        }
    }

    /// Reserves space in `input` for some or all of the `need` bytes that the next frame lacks.
    fn make_room(&mut self, need: usize) {
        let spare = self.input.capacity() - self.input.len();
        if self.input.len() < RESERVE_MAX || spare >= need {
            self.input.reserve(need.clamp(READ_CHUNK, RESERVE_MAX));
            return;
        }
        // The first part of a large frame has arrived. The whole frame gets a mapped buffer.
        let mut mapped = BytesMut::with_capacity((self.input.len() + need).max(MAPPED_MIN));
        mapped.extend_from_slice(&self.input);
        self.input = mapped;
        self.is_mapped = true;
    }

    /// The number of bytes that the next frame in `input` lacks, or its size field.
    fn missing_bytes(&self) -> usize {
        match self.input.first_chunk::<4>() {
            Some(size) => (u32::from_be_bytes(*size) as usize + 4).saturating_sub(self.input.len()),
            None => 4 - self.input.len(),
        }
    }

    /// Takes the next frame from `input`, without its size field. `None` if it is not complete.
    fn next_frame(&mut self) -> Result<Option<Bytes>, Closed> {
        let Some(size) = self.input.first_chunk::<4>() else { return Ok(None) };
        let size = frame::check_frame_size(i32::from_be_bytes(*size), self.frame_max)?;
        if self.input.len() < 4 + size {
            return Ok(None);
        }
        self.input.advance(4);
        Ok(Some(self.input.split_to(size).freeze()))
    }

    /// Handles a request up to its ordering point, and puts its response into the queue.
    async fn handle(&mut self, mut frame: Bytes) -> Result<(), Closed> {
        let (since, request_bytes) = (Instant::now(), frame.len());
        let whole = frame.clone();
        self.place.used(since.into_std());
        let pending = |api, reply| Pending { api, request_bytes, since, reply };
        let header = match frame::parse_header(&mut frame)? {
            Incoming::Request(header) => header,
            Incoming::UnsupportedApiVersions { correlation_id } => {
                let metrics = self.broker.metrics.api(ApiKey::ApiVersions as i16);
                metrics.error(ErrorCode::UnsupportedVersion.code());
                let reply = frame::unsupported_api_versions(correlation_id);
                let reply = PendingReply::Ready(ReplyBuffer::from_frame(reply));
                self.replies.push_back(pending(ApiKey::ApiVersions, reply));
                return Ok(());
            }
            Incoming::Raft { correlation_id } if self.session.on_controller_listener => {
                let quorum = self.broker.quorum.clone();
                let rest = async move {
                    let answer = quorum.answer(frame).await.map_err(|error| {
                        tracing::debug!(%error, "a message of another controller is refused");
                        HandlerError::Close
                    })?;
                    let answer = frame::raft_response(correlation_id, &answer);
                    Ok(ReplyBuffer::from_frame(answer))
                };
                // Raft messages count as Vote requests in the metrics.
                self.replies
                    .push_back(pending(ApiKey::Vote, PendingReply::Waiting(Box::pin(rest))));
                return Ok(());
            }
            Incoming::Raft { .. } => return Err(DecodeError::UnknownApi(frame::RAFT_KEY).into()),
        };
        let api = header.api.key;
        let (broker, session) = (&self.broker, &mut self.session);
        let reply = match handlers::handle(broker, session, &header, (whole, frame)).await? {
            Outcome::Now(reply) => PendingReply::Ready(reply),
            Outcome::Later(rest) => PendingReply::Waiting(rest),
            Outcome::Silent => {
                let metrics = self.broker.metrics.api(api as i16);
                metrics.answered(request_bytes, 0, since.elapsed());
                return Ok(());
            }
        };
        self.replies.push_back(pending(api, reply));
        Ok(())
    }
}
