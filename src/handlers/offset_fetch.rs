//! OffsetFetch: the committed offsets of one group, or of several from version 8 on. Version 10
//! names topics by id. From version 7 on, a client can require stable offsets (KIP-447): a
//! partition with an offset in an open transaction then has the error UNSTABLE_OFFSET_COMMIT.

use kafka_protocol::messages::ApiKey;

use super::{
    Client, Context, ErrorCode, Handler, Reply,
    conversions::{optional_text, str_bytes, text},
    error_counts::{each, error_codes},
    errors::{NONE, group_code},
};
use crate::{
    base::TopicId,
    coordinator::{
        Answer,
        group::messages::{FetchRequest, FetchTopic, FetchedOffset, FetchedTopic, GroupError},
    },
    metadata::Image,
    protocol::{
        checks::{GROUP_DESCRIBE, TOPIC_DESCRIBE},
        messages::{
            OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
            OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartition,
            OffsetFetchResponsePartitions, OffsetFetchResponseTopic, OffsetFetchResponseTopics,
        },
    },
};

pub struct OffsetFetch;

/// The first version with an error code for the group. Before it, each partition has the error.
const GROUP_ERROR_SINCE: i16 = 2;
/// The first version that names several groups.
const GROUPS_SINCE: i16 = 8;
const TOPIC_IDS_SINCE: i16 = 10;

impl Handler for OffsetFetch {
    const API: ApiKey = ApiKey::OffsetFetch;
    type Request = OffsetFetchRequest;
    type Response = OffsetFetchResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: OffsetFetchRequest,
    ) -> Reply<OffsetFetchResponse> {
        let (version, requires_stable) = (cx.version, request.require_stable);
        let image = cx.broker.metadata();
        let groups = match version >= GROUPS_SINCE {
            true => request.groups,
            false => vec![only_group(request)],
        };
        let mut asked = Vec::with_capacity(groups.len());
        for group in groups {
            if !cx.allowed(GROUP_DESCRIBE, &group.group_id) {
                asked.push(Asked { group, answer: None, refused: Vec::new() });
                continue;
            }
            let (topics, refused) = topics_of(cx, &group, &image);
            let id = text(&group.group_id);
            let fetch = FetchRequest {
                group: id,
                member_id: optional_text(group.member_id.as_ref()),
                member_epoch: group.member_epoch,
                topics,
                requires_stable,
            };
            let answer = Some(cx.broker.coordinators.groups.fetch_offsets(fetch).await);
            asked.push(Asked { group, answer, refused });
        }
        let client = cx.session.client.clone();
        Reply::Later(Box::pin(async move {
            let mut groups = Vec::with_capacity(asked.len());
            for asked in asked {
                groups.push(asked.response(&client, &image, version).await);
            }
            match version >= GROUPS_SINCE {
                true => OffsetFetchResponse { groups, ..Default::default() },
                false => single(groups.pop().unwrap_or_default(), version),
            }
        }))
    }
}

error_codes!(OffsetFetchResponse: |it| {
    let topics = it.groups.iter().flat_map(|group| &group.topics);
    let by_group = topics.flat_map(|it| &it.partitions).map(|it| it.error_code);
    by_group.chain(each!(it.groups)).chain(each!(it.topics, partitions)).chain([it.error_code])
});

/// A group of the request.
struct Asked {
    group: OffsetFetchRequestGroup,
    /// What the coordinator answers. `None` if the client may not describe the group.
    answer: Option<Answer<Result<Vec<FetchedTopic>, GroupError>>>,
    /// The responses for topics that the coordinator is not asked for.
    refused: Vec<OffsetFetchResponseTopics>,
}

impl Asked {
    async fn response(
        self,
        client: &Client,
        image: &Image,
        version: i16,
    ) -> OffsetFetchResponseGroup {
        let Self { group, answer, refused } = self;
        let mut response =
            OffsetFetchResponseGroup { group_id: group.group_id, ..Default::default() };
        let answered = match answer {
            Some(answer) => {
                let answered = answer.wait().await.and_then(|fetched| fetched);
                answered.map_err(|error| group_code(retriable(error)))
            }
            None => Err(ErrorCode::GroupAuthorizationFailed.code()),
        };
        match answered {
            Ok(mut topics) => {
                // A request for all topics gets those that the client may describe. The topics that
                // a request names have been checked before.
                if group.topics.is_none() {
                    topics.retain(|topic| client.allowed(TOPIC_DESCRIBE, &topic.name));
                }
                let topics = topics.into_iter().filter_map(|it| response_topic(it, image, version));
                response.topics = topics.collect();
                response.topics.extend(refused);
            }
            Err(code) => {
                response.error_code = code;
                if version < GROUP_ERROR_SINCE {
                    let topics = group.topics.unwrap_or_default().into_iter();
                    response.topics =
                        topics.map(|topic| failed_topic(topic, response.error_code)).collect();
                }
            }
        }
        response
    }
}

/// The group of a request before version 8, in the form of later versions.
fn only_group(request: OffsetFetchRequest) -> OffsetFetchRequestGroup {
    let topics = request.topics.map(|topics| {
        let topics = topics.into_iter().map(|topic| OffsetFetchRequestTopics {
            name: topic.name,
            partition_indexes: topic.partition_indexes,
            ..Default::default()
        });
        topics.collect()
    });
    OffsetFetchRequestGroup { group_id: request.group_id, topics, ..Default::default() }
}

/// The topics to look up, or `None` for all, and the responses for the others: topics with an
/// unknown id, and those that the client may not describe.
fn topics_of(
    cx: &Context<'_>,
    group: &OffsetFetchRequestGroup,
    image: &Image,
) -> (Option<Vec<FetchTopic>>, Vec<OffsetFetchResponseTopics>) {
    let Some(topics) = &group.topics else { return (None, Vec::new()) };
    let mut known = Vec::with_capacity(topics.len());
    let mut refused = Vec::new();
    for topic in topics {
        let partitions = topic.partition_indexes.clone();
        let (name, id) = if cx.version < TOPIC_IDS_SINCE {
            let id = image.topic(&topic.name).map_or(TopicId::nil(), |found| found.id);
            (text(&topic.name), id)
        } else if let Some(found) = image.topic_by_id(topic.topic_id) {
            (found.name.clone(), found.id)
        } else {
            refused.push(refused_topic(topic, ErrorCode::UnknownTopicId));
            continue;
        };
        if let Err(code) = cx.check(TOPIC_DESCRIBE, &name) {
            refused.push(refused_topic(topic, code));
            continue;
        }
        known.push(FetchTopic { name, id, partitions });
    }
    (Some(known), refused)
}

fn refused_topic(topic: &OffsetFetchRequestTopics, code: ErrorCode) -> OffsetFetchResponseTopics {
    let partitions = topic.partition_indexes.iter();
    OffsetFetchResponseTopics {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: partitions.map(|index| no_offset(*index, code.code())).collect(),
    }
}

/// A topic of the response. `None` if the version names topics by id and the topic has none.
fn response_topic(
    topic: FetchedTopic,
    image: &Image,
    version: i16,
) -> Option<OffsetFetchResponseTopics> {
    let topic_id = match version >= TOPIC_IDS_SINCE {
        false => TopicId::nil(),
        true if topic.id.is_nil() => image.topic(&topic.name)?.id,
        true => topic.id,
    };
    Some(OffsetFetchResponseTopics {
        name: str_bytes(&topic.name),
        topic_id,
        partitions: topic.partitions.into_iter().map(response_partition).collect(),
    })
}

fn response_partition(offset: FetchedOffset) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index: offset.partition,
        committed_offset: offset.offset,
        committed_leader_epoch: offset.leader_epoch,
        metadata: Some(str_bytes(&offset.metadata)),
        error_code: match offset.is_unstable {
            true => ErrorCode::UnstableOffsetCommit.code(),
            false => NONE,
        },
    }
}

fn no_offset(partition_index: i32, error_code: i16) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset: -1,
        committed_leader_epoch: -1,
        metadata: Some(str_bytes("")),
        error_code,
    }
}

/// Replaces COORDINATOR_NOT_AVAILABLE by NOT_COORDINATOR. In this API, Java consumers before 3.9
/// fail on the former. On the latter, they find the coordinator again and retry (Kafka's
/// `handleOffsetFetchException`).
fn retriable(error: GroupError) -> GroupError {
    match error {
        GroupError::CoordinatorNotAvailable => GroupError::NotCoordinator,
        error => error,
    }
}

fn failed_topic(topic: OffsetFetchRequestTopics, code: i16) -> OffsetFetchResponseTopics {
    let partitions = topic.partition_indexes.into_iter();
    OffsetFetchResponseTopics {
        name: topic.name,
        partitions: partitions.map(|index| no_offset(index, code)).collect(),
        ..Default::default()
    }
}

/// The response for one group in the form of versions before 8.
fn single(group: OffsetFetchResponseGroup, version: i16) -> OffsetFetchResponse {
    let topics = group.topics.into_iter().map(|topic| OffsetFetchResponseTopic {
        name: topic.name,
        partitions: topic
            .partitions
            .into_iter()
            .map(|partition| OffsetFetchResponsePartition {
                partition_index: partition.partition_index,
                committed_offset: partition.committed_offset,
                committed_leader_epoch: partition.committed_leader_epoch,
                metadata: partition.metadata,
                error_code: partition.error_code,
            })
            .collect(),
    });
    OffsetFetchResponse {
        topics: topics.collect(),
        error_code: if version >= GROUP_ERROR_SINCE { group.error_code } else { 0 },
        ..Default::default()
    }
}
