//! ListOffsets: the offset of a timestamp, or the earliest or latest offset of a log.

use std::collections::HashSet;

use kafka_protocol::messages::ApiKey;

use super::{
    Context, ErrorCode, Handler, Reply,
    error_counts::{each, error_codes},
    errors, partitions,
};
use crate::{
    base::environment::in_place,
    broker::Broker,
    log::TimestampOffset,
    partition::Partition,
    protocol::{
        checks::TOPIC_DESCRIBE,
        messages::{
            ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest,
            ListOffsetsResponse, ListOffsetsTopic, ListOffsetsTopicResponse,
        },
    },
};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

const NO_TIMESTAMP: i64 = -1;
const READ_COMMITTED: i8 = 1;
/// The first version with the error code OFFSET_NOT_AVAILABLE.
const OFFSET_NOT_AVAILABLE_SINCE: i16 = 5;

pub struct ListOffsets;

impl Handler for ListOffsets {
    const API: ApiKey = ApiKey::ListOffsets;
    type Request = ListOffsetsRequest;
    type Response = ListOffsetsResponse;

    async fn handle(
        cx: &mut Context<'_>,
        mut request: ListOffsetsRequest,
    ) -> Reply<ListOffsetsResponse> {
        let denied;
        (request.topics, denied) =
            request.topics.into_iter().partition(|topic| cx.allowed(TOPIC_DESCRIBE, &topic.name));
        let duplicates = duplicates(&request);
        // The look-up of a timestamp may decompress a batch. Only a few run at a time, outside the
        // async workers.
        let mut partitions = request.topics.iter().flat_map(|topic| &topic.partitions);
        let looks_up = partitions.any(|it| it.timestamp >= 0 || it.timestamp == MAX_TIMESTAMP);
        let (broker, version) = (cx.broker, cx.version);
        let answer = || {
            let mut response = answer(broker, version, request, &duplicates);
            response.topics.extend(denied.into_iter().map(denied_topic));
            response
        };
        if !looks_up {
            return Reply::Now(answer());
        }
        let _turn = broker.limits.look_ups.acquire().await.ok();
        Reply::Now(in_place(answer))
    }
}

error_codes!(ListOffsetsResponse: |it| each!(it.topics, partitions));

fn denied_topic(topic: ListOffsetsTopic) -> ListOffsetsTopicResponse {
    let code = ErrorCode::TopicAuthorizationFailed;
    let partitions = topic.partitions.iter().map(|it| reply(it.partition_index, Err(code)));
    ListOffsetsTopicResponse { partitions: partitions.collect(), name: topic.name }
}

type PartitionName = (String, i32);

fn answer(
    broker: &Broker,
    version: i16,
    request: ListOffsetsRequest,
    duplicates: &HashSet<PartitionName>,
) -> ListOffsetsResponse {
    let mut told = HashSet::new();
    // Kafka fails at an unknown isolation level, with UNKNOWN_SERVER_ERROR.
    let is_level_known = (0..=READ_COMMITTED).contains(&request.isolation_level);
    let mut response = ListOffsetsResponse::default();
    for topic in request.topics {
        let answer = |partition: &ListOffsetsPartition| {
            let id = (topic.name.to_string(), partition.partition_index);
            let is_duplicate = duplicates.contains(&id);
            if is_duplicate && !told.insert(id) {
                return None;
            }
            let found = match (is_level_known, is_duplicate) {
                (false, _) => Err(ErrorCode::UnknownServerError),
                (_, true) => Err(ErrorCode::InvalidRequest),
                (_, false) => {
                    let asked = Asked {
                        timestamp: partition.timestamp,
                        leader_epoch: partition.current_leader_epoch,
                        is_committed_only: request.isolation_level == READ_COMMITTED,
                        is_follower: request.replica_id >= 0,
                        version,
                    };
                    let index = partition.partition_index;
                    errors::read_again(|| find(broker, &topic.name, index, &asked))
                }
            };
            Some(reply(partition.partition_index, found))
        };
        let partitions: Vec<_> = topic.partitions.iter().filter_map(answer).collect();
        // All partitions of this entry are duplicates that the response has already.
        if partitions.is_empty() && !topic.partitions.is_empty() {
            continue;
        }
        response.topics.push(ListOffsetsTopicResponse { partitions, name: topic.name });
    }
    response
}

/// The request for one partition.
struct Asked {
    timestamp: i64,
    leader_epoch: i32,
    is_committed_only: bool,
    is_follower: bool,
    version: i16,
}

/// Partitions that the request names more than once.
fn duplicates(request: &ListOffsetsRequest) -> HashSet<PartitionName> {
    let mut seen: HashSet<PartitionName> = HashSet::new();
    let all = request.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| (topic.name.to_string(), partition.partition_index))
    });
    all.filter(|id| !seen.insert(id.clone())).collect()
}

fn reply(
    partition_index: i32,
    found: Result<Option<TimestampOffset>, ErrorCode>,
) -> ListOffsetsPartitionResponse {
    let error_code = found.as_ref().err().map_or(errors::NONE, |code| code.code());
    let (timestamp, offset, leader_epoch) = found.ok().flatten().unwrap_or((NO_TIMESTAMP, -1, -1));
    ListOffsetsPartitionResponse { partition_index, error_code, timestamp, offset, leader_epoch }
}

/// Timestamp, offset and leader epoch for one partition, or the inner `None` if no record matches.
/// The outer `None` means that the log was truncated or moved meanwhile, so that the caller must
/// repeat the look-up.
fn find(
    broker: &Broker,
    topic: &str,
    index: i32,
    asked: &Asked,
) -> Result<Option<Option<TimestampOffset>>, ErrorCode> {
    let since = match asked.timestamp {
        LATEST | EARLIEST | 0.. => 1,
        MAX_TIMESTAMP => 7,
        EARLIEST_LOCAL => 8,
        LATEST_TIERED => 9,
        EARLIEST_PENDING_UPLOAD => 11,
        _ => i16::MAX,
    };
    if asked.version < since {
        return Err(ErrorCode::UnsupportedVersion);
    }
    let partition = partitions::partition(broker, topic, index)?;
    let view = partition.view();
    errors::check_leader_epoch(view.role, asked.leader_epoch)?;
    let end = match (asked.is_follower, asked.is_committed_only) {
        (true, _) => view.log.log_end(),
        (false, true) => view.last_stable_offset,
        (false, false) => view.high_watermark,
    };
    // The high watermark of a new leader may still be lower than that of the previous one. Offsets
    // that a consumer sees must not go back, so it gets an error and retries.
    let is_behind = !asked.is_follower && view.high_watermark < view.epoch_start;
    let unknown = match asked.version {
        OFFSET_NOT_AVAILABLE_SINCE.. => ErrorCode::OffsetNotAvailable,
        _ => ErrorCode::LeaderNotAvailable,
    };
    let read = match asked.timestamp {
        LATEST if is_behind => return Err(unknown),
        LATEST => return Ok(Some(Some((NO_TIMESTAMP, end, view.role.leader_epoch())))),
        EARLIEST | EARLIEST_LOCAL => return Ok(Some(Some(earliest(&partition)))),
        // There is no tiered storage, so there are no such offsets.
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => return Ok(Some(None)),
        MAX_TIMESTAMP => view.log.max_timestamp(),
        timestamp => view.log.offset_for_timestamp(timestamp, end),
    };
    let found = match read {
        Ok(found) => found,
        Err(error) => {
            errors::read(&partition, &view, error)?;
            return Ok(None);
        }
    };
    match found.filter(|(_, offset, _)| *offset < end) {
        None if is_behind => Err(unknown),
        found => Ok(Some(found)),
    }
}

fn earliest(partition: &Partition) -> TimestampOffset {
    let (start, epoch) = partition.earliest();
    (NO_TIMESTAMP, start, epoch.unwrap_or(-1))
}
