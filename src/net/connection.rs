//! One connection: reads frames, hands them to the handler table, writes replies in request order.
//!
//! A request is handled up to its ordering point before the next one is looked at; what a handler
//! leaves as a future waits in a queue, and only the queue's front may leave. Replies that are
//! ready together leave together.

use std::{collections::VecDeque, future::pending, io, sync::Arc, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;
use tokio::{io::AsyncReadExt, net::TcpStream, sync::watch, time::Instant};

use super::{limits::Admitted, output::Output};
use crate::{
    broker::Broker,
    handlers::{self, BoxFuture, ErrorCode, HandlerError, Outcome, ReplyBuffer, Session},
    protocol::frame::{self, DecodeError, Incoming},
    telemetry::CloseReason,
};

/// Requests of one connection that may wait for their replies at a time.
const PIPELINE_MAX: usize = 64;
/// The read buffer of a connection that sends small requests.
const READ_CHUNK: usize = 8 << 10;
/// Frames up to this size get their buffer at once; larger ones grow it as bytes really arrive.
const RESERVE_MAX: usize = 1 << 20;
/// What glibc never takes from its heap, whatever it has freed before (its largest
/// `M_MMAP_THRESHOLD`): such a buffer is mapped, so its untouched pages cost nothing and all of it
/// goes back to the system when it is dropped. A heap would keep the pages of large frames.
const MAPPED_MIN: usize = (32 << 20) + 1;
/// A buffer that has grown past this is given back when the connection falls idle.
const KEEP_MAX: usize = 64 << 10;

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

/// A request on its way to its reply.
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

pub struct Connection {
    stream: TcpStream,
    session: Session,
    broker: Arc<Broker>,
    place: Arc<Admitted>,
    input: BytesMut,
    /// Whether `input` lies in a buffer for a large frame, though none of that may be left in it.
    is_mapped: bool,
    replies: VecDeque<Pending>,
    output: Output,
    frame_max: i32,
    idle_max: Option<Duration>,
}

enum Wake {
    Reply(Result<ReplyBuffer, HandlerError>),
    Read(io::Result<usize>),
    Idle,
    Shutdown,
}

/// A stop leaves a reply that is on its way this long.
const LAST_WRITE_MAX: Duration = Duration::from_secs(1);

async fn cut_off(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
    tokio::time::sleep(LAST_WRITE_MAX).await;
}

impl Connection {
    pub fn new(
        stream: TcpStream,
        session: Session,
        broker: Arc<Broker>,
        place: Arc<Admitted>,
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

    /// Serves until the connection ends, and says why it did.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Closed {
        loop {
            if let Err(closed) = self.step(&mut stop).await {
                return closed;
            }
        }
    }

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
            // A pipeline longer than the queue: its rest is here already, and nothing else may come.
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

    /// Moves the front reply, which is ready, to the output.
    fn send_front(&mut self) {
        let Some(Pending { api, request_bytes, since, reply }) = self.replies.pop_front() else {
            return;
        };
        let PendingReply::Ready(reply) = reply else { unreachable!("only ready replies are sent") };
        let metrics = self.broker.metrics.api(api as i16);
        metrics.answered(request_bytes, reply.wire_len(), since.elapsed());
        self.output.push(reply);
    }

    /// Waits for the first thing that moves the connection on.
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
            // First, or a client that never pauses would never be told.
            _ = stop.wait_for(|stop| *stop) => Wake::Shutdown,
            reply = async {
                match front {
                    Some(Pending { reply: PendingReply::Waiting(rest), .. }) => rest.await,
                    _ => pending().await,
                }
            } => Wake::Reply(reply),
            // A large frame is read to its end and not beyond, so that its buffer need not move.
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

    /// Room for at least a part of what the frame at the front still lacks.
    fn make_room(&mut self, need: usize) {
        let spare = self.input.capacity() - self.input.len();
        if self.input.len() < RESERVE_MAX || spare >= need {
            self.input.reserve(need.clamp(READ_CHUNK, RESERVE_MAX));
            return;
        }
        // The first of a large frame has really come: the rest gets a buffer that is mapped.
        let mut mapped = BytesMut::with_capacity((self.input.len() + need).max(MAPPED_MIN));
        mapped.extend_from_slice(&self.input);
        self.input = mapped;
        self.is_mapped = true;
    }

    /// Bytes that the frame at the front of the buffer still lacks.
    fn missing_bytes(&self) -> usize {
        match self.input.first_chunk::<4>() {
            Some(size) => (u32::from_be_bytes(*size) as usize + 4).saturating_sub(self.input.len()),
            None => 4 - self.input.len(),
        }
    }

    fn next_frame(&mut self) -> Result<Option<Bytes>, Closed> {
        let Some(size) = self.input.first_chunk::<4>() else { return Ok(None) };
        let size = frame::check_frame_size(i32::from_be_bytes(*size), self.frame_max)?;
        if self.input.len() < 4 + size {
            return Ok(None);
        }
        self.input.advance(4);
        Ok(Some(self.input.split_to(size).freeze()))
    }

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
            Incoming::Raft { correlation_id } if self.session.of_controllers => {
                let quorum = self.broker.quorum.clone();
                let rest = async move {
                    let answer = quorum.answer(frame).await.map_err(|error| {
                        tracing::debug!(%error, "a message of another controller is refused");
                        HandlerError::Close
                    })?;
                    let answer = frame::raft_response(correlation_id, &answer);
                    Ok(ReplyBuffer::from_frame(answer))
                };
                // Counted with the votes of KRaft, whose place it takes.
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
