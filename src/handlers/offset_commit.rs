//! OffsetCommit: refuses partitions that do not exist, and commits the offsets of the others.
//! Version 10 names topics by id.

use kafka_protocol::messages::ApiKey;

use super::{
    Context, ErrorCode, Handler, Reply,
    conversions::{optional_text, text},
    error_counts::{each, error_codes},
    errors::{group_code, group_code_of},
    partitions::has_partition,
};
use crate::{
    coordinator::group::{
        GroupError,
        messages::{CommitPartition, CommitRequest, CommitTopic, CommittedTopic},
    },
    metadata::Image,
    protocol::{
        checks::{GROUP_READ, TOPIC_READ},
        messages::{
            OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
            OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
        },
    },
};

pub struct OffsetCommit;

const TOPIC_IDS_SINCE: i16 = 10;

impl Handler for OffsetCommit {
    const API: ApiKey = ApiKey::OffsetCommit;
    type Request = OffsetCommitRequest;
    type Response = OffsetCommitResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: OffsetCommitRequest,
    ) -> Reply<OffsetCommitResponse> {
        if let Err(code) = cx.check(GROUP_READ, &request.group_id) {
            return Reply::Now(denied(&request, code.code()));
        }
        let image = cx.broker.metadata();
        let topics = request.topics.iter();
        let mut rows: Vec<Row> = topics.filter_map(|topic| Row::of(cx, &image, topic)).collect();
        // As in Kafka, topics with refused partitions come first in the response.
        rows.sort_by_key(|row| row.valid.is_some() && row.answer.partitions.is_empty());
        let mut response = OffsetCommitResponse::default();
        let (mut valid, mut places) = (Vec::new(), Vec::new());
        for (at, row) in rows.into_iter().enumerate() {
            response.topics.push(row.answer);
            if let Some(topic) = row.valid {
                valid.push(topic);
                places.push(at);
            }
        }
        if valid.is_empty() {
            return Reply::Now(response);
        }
        let names: Vec<_> = valid.iter().map(partitions_of).collect();
        let commit = CommitRequest {
            group: text(&request.group_id),
            generation: request.generation_id_or_member_epoch,
            member_id: text(&request.member_id),
            instance_id: optional_text(request.group_instance_id.as_ref()),
            retention_ms: Some(request.retention_time_ms).filter(|ms| *ms != -1),
            knows_group_id_not_found: cx.version >= 9,
            topics: valid,
            transaction: None,
        };
        let answer = cx.broker.coordinators.groups.commit_offsets(commit).await;
        Reply::Later(Box::pin(async move {
            let committed = answer.wait().await.and_then(|committed| committed);
            let results = match committed {
                Ok(topics) => topics.iter().map(results_of).collect(),
                Err(error) => names.iter().map(|names| all_refused(names, error)).collect(),
            };
            fill(&mut response, &places, results);
            response
        }))
    }
}

error_codes!(OffsetCommitResponse: |it| each!(it.topics, partitions));

/// The response to a client that may not commit offsets of the group.
fn denied(request: &OffsetCommitRequest, code: i16) -> OffsetCommitResponse {
    let topics = request.topics.iter().map(|topic| OffsetCommitResponseTopic {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: topic.partitions.iter().map(|it| result(it.partition_index, code)).collect(),
    });
    OffsetCommitResponse { topics: topics.collect(), ..Default::default() }
}

/// A topic of the request.
struct Row {
    /// The partitions to commit, if there are any.
    valid: Option<CommitTopic>,
    /// The response for the topic, with the refused partitions.
    answer: OffsetCommitResponseTopic,
}

impl Row {
    /// `None` if the topic exists and the request has no partitions of it. The response omits it.
    fn of(cx: &Context<'_>, image: &Image, topic: &OffsetCommitRequestTopic) -> Option<Self> {
        let (found, unknown) = match cx.version >= TOPIC_IDS_SINCE {
            true => (image.topic_by_id(topic.topic_id), ErrorCode::UnknownTopicId),
            false => (image.topic(&topic.name), ErrorCode::UnknownTopicOrPartition),
        };
        let name = found.map_or(topic.name.as_str(), |found| &found.name);
        let is_named = found.is_some() || cx.version < TOPIC_IDS_SINCE;
        let (found, unknown) = match is_named && !cx.allowed(TOPIC_READ, name) {
            true => (None, ErrorCode::TopicAuthorizationFailed),
            false => (found, unknown),
        };
        if found.is_some() && topic.partitions.is_empty() {
            return None;
        }
        let exists = |index: i32| found.is_some_and(|found| has_partition(found, index));
        let (valid, missing): (Vec<_>, Vec<_>) =
            topic.partitions.iter().partition(|partition| exists(partition.partition_index));
        let code = match found {
            Some(_) => ErrorCode::UnknownTopicOrPartition.code(),
            None => unknown.code(),
        };
        let refused = missing.iter().map(|it| result(it.partition_index, code));
        let valid = found.filter(|_| !valid.is_empty()).map(|found| CommitTopic {
            name: found.name.clone(),
            id: found.id,
            partitions: valid.into_iter().map(commit_partition).collect(),
        });
        let answer = OffsetCommitResponseTopic {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partitions: refused.collect(),
        };
        Some(Self { valid, answer })
    }
}

fn commit_partition(partition: &OffsetCommitRequestPartition) -> CommitPartition {
    CommitPartition {
        partition: partition.partition_index,
        offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch,
        metadata: partition.committed_metadata.as_ref().map(|text| text.to_string()),
    }
}

fn partitions_of(topic: &CommitTopic) -> Vec<i32> {
    topic.partitions.iter().map(|partition| partition.partition).collect()
}

type Results = Vec<OffsetCommitResponsePartition>;

fn results_of(topic: &CommittedTopic) -> Results {
    topic
        .partitions
        .iter()
        .map(|(index, committed)| result(*index, group_code_of(committed)))
        .collect()
}

fn all_refused(partitions: &[i32], error: GroupError) -> Results {
    partitions.iter().map(|index| result(*index, group_code(error))).collect()
}

fn result(partition_index: i32, error_code: i16) -> OffsetCommitResponsePartition {
    OffsetCommitResponsePartition { partition_index, error_code }
}

/// Adds the results of the coordinator to the topics of the response at `places`.
fn fill(response: &mut OffsetCommitResponse, places: &[usize], results: Vec<Results>) {
    for (place, results) in places.iter().zip(results) {
        response.topics[*place].partitions.extend(results);
    }
}
