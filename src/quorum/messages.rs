//! The Raft messages between controllers: openraft's requests and responses in Kafka's encoding.
//! Log entries are sent as their record batches, unchanged.

use bytes::{BufMut, Bytes, BytesMut};
use openraft::{
    LeaderId, LogId, SnapshotMeta, Vote,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, VoteRequest,
        VoteResponse,
    },
};
use uuid::Uuid;

use super::{
    format::{self, FormatError},
    types::{Content, Entry, TypeConfig, epoch_of, log_id},
    voters::{self, Membership, StoredMembership},
};
use crate::{
    protocol::schema::{Reader, WireError, WireMessage},
    records::{Batch, BatchError},
    wire,
};

#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    #[error("the message's kind {0} is unknown")]
    UnknownKind(i8),
    #[error("the result code {0} is unknown")]
    UnknownResult(i8),
    #[error("the message is for node {0}")]
    NotForThisNode(i32),
    #[error("the message is for directory {0}, which this node no longer has")]
    OtherDirectory(Uuid),
    #[error("the message is from cluster {0:?}")]
    OtherCluster(String),
    #[error(
        "the leader epoch of an entry is below that of the entry before, or above the epoch of the \
         sender"
    )]
    EpochOutOfOrder,
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error("Raft has stopped: {0}")]
    Stopped(String),
}

wire! {
    /// The header of each request: the cluster, the sender and the receiver.
    pub struct Header (flexible 0..) {
        cluster_id: String, in 0..;
        from: i32, in 0..;
        to: i32, in 0..;
        /// The id of the receiver's metadata log directory. Nil if the sender's voters have only
        /// ids.
        to_directory: Uuid, in 0.., tag 0;
    }
    /// openraft's vote.
    pub struct VoteData (flexible 0..) {
        epoch: i32, in 0..;
        voted_for: i32 = -1, in 0..;
        committed: bool, in 0..;
    }
    /// Epoch and index of a batch. Index -1 is the position before the first batch.
    pub struct LogIdData (flexible 0..) {
        epoch: i32, in 0..;
        index: i64 = -1, in 0..;
    }
    /// The batches after a position.
    pub struct AppendData (flexible 0..) {
        vote: VoteData, in 0..;
        previous: LogIdData, in 0..;
        committed: LogIdData, in 0..;
        batches: Bytes, in 0..;
    }
    /// The response to `AppendData`. Result 0: appended; 1: appended up to `matching`; 2:
    /// `previous` conflicts; 3: `vote` is higher; 4: the disk has not written the entries yet.
    pub struct AppendResponseData (flexible 0..) {
        result: i8, in 0..;
        matching: LogIdData, in 0..;
        vote: VoteData, in 0..;
    }
    /// A candidate's request, with the end of its log. With `is_pre_vote`, the candidate only asks
    /// whether it would be elected.
    pub struct VoteRequestData (flexible 0..) {
        vote: VoteData, in 0..;
        last: LogIdData, in 0..;
        is_pre_vote: bool, in 0..;
    }
    /// The response to a candidate.
    pub struct VoteResponseData (flexible 0..) {
        vote: VoteData, in 0..;
        granted: bool, in 0..;
        last: LogIdData, in 0..;
    }
    /// A part of a snapshot.
    pub struct SnapshotChunkData (flexible 0..) {
        vote: VoteData, in 0..;
        last: LogIdData, in 0..;
        snapshot_id: String, in 0..;
        voters_at: LogIdData, in 0..;
        voters: Bytes, in 0..;
        offset: i64, in 0..;
        data: Bytes, in 0..;
        done: bool, in 0..;
    }
    /// The response to `SnapshotChunkData`. The result is 0 if the part was accepted, 1 if parts
    /// before it are missing.
    pub struct SnapshotChunkResponseData (flexible 0..) {
        result: i8, in 0..;
        vote: VoteData, in 0..;
    }
    /// The body of a probe.
    pub struct Empty (flexible 0..) {}
    /// The response to a probe: the id of the node's metadata log directory.
    pub struct ProbedData (flexible 0..) {
        directory_id: Uuid, in 0..;
    }
}

const APPEND: i8 = 0;
const BALLOT: i8 = 1;
const CHUNK: i8 = 2;
const PROBE: i8 = 3;

/// A request from another controller.
pub enum Request {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<i32>),
    PreVote(VoteRequest<i32>),
    Snapshot(InstallSnapshotRequest<TypeConfig>),
    /// Asks whether the process runs, and for its metadata log directory.
    Probe,
}

impl From<&Vote<i32>> for VoteData {
    fn from(vote: &Vote<i32>) -> Self {
        Self {
            epoch: vote.leader_id.term as i32,
            voted_for: vote.leader_id.voted_for.unwrap_or(-1),
            committed: vote.committed,
        }
    }
}

impl From<VoteData> for Vote<i32> {
    fn from(data: VoteData) -> Self {
        let voted_for = (data.voted_for >= 0).then_some(data.voted_for);
        // A committed vote always names the leader.
        let committed = data.committed && voted_for.is_some();
        let leader_id = LeaderId { term: data.epoch.max(0) as u64, voted_for };
        Self { leader_id, committed }
    }
}

impl From<Option<LogId<i32>>> for LogIdData {
    fn from(at: Option<LogId<i32>>) -> Self {
        let position = |at: LogId<i32>| Self { epoch: epoch_of(&at), index: at.index as i64 };
        at.map_or_else(Self::default, position)
    }
}

impl From<LogIdData> for Option<LogId<i32>> {
    fn from(position: LogIdData) -> Self {
        let index = u64::try_from(position.index).ok()?;
        Some(log_id(position.epoch.max(0), index))
    }
}

macro_rules! encode {
    ($out:ident, $data:expr) => {
        $data.encode(&mut $out, 0)
    };
}

/// Encodes a request: its kind, the header and the body.
pub fn encode_request(header: &Header, request: &Request) -> Bytes {
    let mut out = BytesMut::new();
    let kind = match request {
        Request::Append(_) => APPEND,
        Request::Vote(_) | Request::PreVote(_) => BALLOT,
        Request::Snapshot(_) => CHUNK,
        Request::Probe => PROBE,
    };
    out.put_i8(kind);
    encode!(out, header);
    match request {
        Request::Append(append) => encode!(out, append_data(append)),
        Request::Vote(vote) => encode!(out, vote_request_data(vote, false)),
        Request::PreVote(vote) => encode!(out, vote_request_data(vote, true)),
        Request::Snapshot(chunk) => encode!(out, snapshot_chunk_data(chunk)),
        Request::Probe => encode!(out, Empty {}),
    }
    out.freeze()
}

fn append_data(append: &AppendEntriesRequest<TypeConfig>) -> AppendData {
    let mut batches = BytesMut::new();
    for entry in &append.entries {
        // Entries to send come from the log, so all are `Content::Batch`.
        if let Content::Batch { bytes, .. } = &entry.content {
            batches.extend_from_slice(bytes);
        } else {
            debug_assert!(false, "entry {entry} is not encoded");
        }
    }
    AppendData {
        vote: (&append.vote).into(),
        previous: append.prev_log_id.into(),
        committed: append.leader_commit.into(),
        batches: batches.freeze(),
    }
}

fn vote_request_data(request: &VoteRequest<i32>, is_pre_vote: bool) -> VoteRequestData {
    VoteRequestData { vote: (&request.vote).into(), last: request.last_log_id.into(), is_pre_vote }
}

fn snapshot_chunk_data(chunk: &InstallSnapshotRequest<TypeConfig>) -> SnapshotChunkData {
    let meta = &chunk.meta;
    SnapshotChunkData {
        vote: (&chunk.vote).into(),
        last: meta.last_log_id.into(),
        snapshot_id: meta.snapshot_id.clone(),
        voters_at: (*meta.last_membership.log_id()).into(),
        voters: voters::encode(meta.last_membership.membership()),
        offset: chunk.offset as i64,
        data: Bytes::copy_from_slice(&chunk.data),
        done: chunk.done,
    }
}

/// Decodes a request. The message comes from another node, so nothing in it is trusted.
pub fn decode_request(message: Bytes) -> Result<(Header, Request), MessageError> {
    use crate::protocol::schema::Field as _;
    let mut reader = Reader::new(message);
    let kind = reader.i8()?;
    let header = Header::read(&mut reader, true, 0)?;
    let body = reader.into_rest();
    let request = match kind {
        APPEND => Request::Append(append_request(AppendData::decode(body, 0)?)?),
        BALLOT => {
            let data = VoteRequestData::decode(body, 0)?;
            let is_pre_vote = data.is_pre_vote;
            let request = VoteRequest::new(data.vote.into(), data.last.into());
            if is_pre_vote { Request::PreVote(request) } else { Request::Vote(request) }
        }
        CHUNK => Request::Snapshot(snapshot_request(SnapshotChunkData::decode(body, 0)?)?),
        PROBE => Empty::decode(body, 0).map(|_| Request::Probe)?,
        other => return Err(MessageError::UnknownKind(other)),
    };
    Ok((header, request))
}

fn append_request(data: AppendData) -> Result<AppendEntriesRequest<TypeConfig>, MessageError> {
    let vote: Vote<i32> = data.vote.into();
    let previous: Option<LogId<i32>> = data.previous.into();
    let mut entries: Vec<Entry> = Vec::new();
    let mut rest = data.batches;
    let mut next = previous.map_or(0, |at| at.index + 1);
    let mut epoch = previous.map_or(0, |at| epoch_of(&at));
    while !rest.is_empty() {
        let whole = rest.clone();
        let batch = Batch::split_first(&mut rest)?;
        batch.verify_crc()?;
        let bytes = whole.slice(..batch.size());
        let header = &batch.header;
        if header.leader_epoch < epoch || header.leader_epoch as u64 > vote.leader_id.term {
            return Err(MessageError::EpochOutOfOrder);
        }
        let membership = voters::last_of(&format::controls(&batch)?)?;
        let log_id = log_id(header.leader_epoch, next);
        entries.push(Entry { log_id, content: Content::Batch { bytes, membership } });
        (epoch, next) = (header.leader_epoch, next + 1);
    }
    let leader_commit = data.committed.into();
    Ok(AppendEntriesRequest { vote, prev_log_id: previous, entries, leader_commit })
}

fn snapshot_request(
    data: SnapshotChunkData,
) -> Result<InstallSnapshotRequest<TypeConfig>, MessageError> {
    let membership: Membership = voters::decode(data.voters)?;
    let meta = SnapshotMeta {
        last_log_id: data.last.into(),
        last_membership: StoredMembership::new(data.voters_at.into(), membership),
        snapshot_id: data.snapshot_id,
    };
    Ok(InstallSnapshotRequest {
        vote: data.vote.into(),
        meta,
        offset: data.offset.max(0) as u64,
        data: data.data.to_vec(),
        done: data.done,
    })
}

fn finish(data: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::new();
    data(&mut out);
    out.freeze()
}

/// Encodes the response to entries. `None`: the follower accepts the leader, but its disk has not
/// written the entries yet.
pub fn encode_appended(response: Option<&AppendEntriesResponse<i32>>) -> Bytes {
    let mut data = AppendResponseData::default();
    match response {
        Some(AppendEntriesResponse::Success) => {}
        Some(AppendEntriesResponse::PartialSuccess(matching)) => {
            (data.result, data.matching) = (1, (*matching).into());
        }
        Some(AppendEntriesResponse::Conflict) => data.result = 2,
        Some(AppendEntriesResponse::HigherVote(vote)) => {
            (data.result, data.vote) = (3, vote.into());
        }
        None => data.result = 4,
    }
    finish(|out| data.encode(out, 0))
}

pub fn decode_appended(bytes: Bytes) -> Result<Option<AppendEntriesResponse<i32>>, MessageError> {
    let data = AppendResponseData::decode(bytes, 0)?;
    match data.result {
        0 => Ok(Some(AppendEntriesResponse::Success)),
        1 => Ok(Some(AppendEntriesResponse::PartialSuccess(data.matching.into()))),
        2 => Ok(Some(AppendEntriesResponse::Conflict)),
        3 => Ok(Some(AppendEntriesResponse::HigherVote(data.vote.into()))),
        4 => Ok(None),
        other => Err(MessageError::UnknownResult(other)),
    }
}

pub fn encode_ballot_result(response: &VoteResponse<i32>) -> Bytes {
    let (vote, last) = ((&response.vote).into(), response.last_log_id.into());
    let data = VoteResponseData { vote, granted: response.vote_granted, last };
    finish(|out| data.encode(out, 0))
}

pub fn decode_ballot_result(bytes: Bytes) -> Result<VoteResponse<i32>, MessageError> {
    let data = VoteResponseData::decode(bytes, 0)?;
    Ok(VoteResponse {
        vote: data.vote.into(),
        vote_granted: data.granted,
        last_log_id: data.last.into(),
    })
}

/// Encodes the response to a part of a snapshot. `None`: parts before it are missing.
pub fn encode_chunk_result(vote: Option<&Vote<i32>>) -> Bytes {
    let result = i8::from(vote.is_none());
    let data = SnapshotChunkResponseData { result, vote: vote.map(Into::into).unwrap_or_default() };
    finish(|out| data.encode(out, 0))
}

pub fn decode_chunk_result(bytes: Bytes) -> Result<Option<Vote<i32>>, MessageError> {
    let data = SnapshotChunkResponseData::decode(bytes, 0)?;
    match data.result {
        0 => Ok(Some(data.vote.into())),
        1 => Ok(None),
        other => Err(MessageError::UnknownResult(other)),
    }
}

pub fn encode_probed(directory_id: Uuid) -> Bytes {
    finish(|out| ProbedData { directory_id }.encode(out, 0))
}

pub fn decode_probed(bytes: Bytes) -> Result<Uuid, MessageError> {
    Ok(ProbedData::decode(bytes, 0)?.directory_id)
}
