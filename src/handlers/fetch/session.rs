//! Fetch sessions in handlers: which partitions a request reads, and which results its response
//! contains. The cache of sessions is in `fetch_sessions`.

use std::{collections::BTreeMap, sync::Arc};

use kafka_protocol::messages::{FetchRequest, fetch_request::FetchTopic};

use super::reply::{FetchReply, PartitionReply, TopicReply};
use crate::{
    base::{
        TopicId,
        environment::{new_uuid, now_ms},
    },
    broker::Broker,
    fetch_sessions::{
        Forgotten, PartitionRequest, PartitionResult, SessionError, SessionFetch, SessionRequest,
    },
    handlers::{ErrorCode, errors},
};

/// The first version that names topics by id (KIP-516).
const TOPIC_IDS: i16 = 13;

/// Finds or creates the session of a request. The result has the partitions to read. If the request
/// is invalid, the error is the whole response.
pub fn begin(
    broker: &Broker,
    request: FetchRequest,
    version: i16,
) -> Result<SessionFetch, FetchReply> {
    let name_of = |id: TopicId| match broker.replicas.partitions.topic_by_id(id) {
        Some(topic) => Some(topic.name.clone()),
        None => broker.metadata().topic_by_id(id).map(|topic| topic.name.clone()),
    };
    let named = |name: &str, id: TopicId| match version {
        TOPIC_IDS.. => name_of(id),
        _ => Some(match broker.replicas.partitions.topic(name) {
            // Share the broker's copy. A slice of the request would keep its whole frame in memory.
            Some(topic) => topic.name.clone(),
            None => Arc::from(name),
        }),
    };
    let is_from_follower = request.replica_id.0 >= 0 || request.replica_state.replica_id.0 >= 0;
    let forgotten = request.forgotten_topics_data.iter().flat_map(|topic| {
        let (name, id) = (named(&topic.topic, topic.topic_id), topic.topic_id);
        let forget = move |&partition| Forgotten { topic: name.clone(), topic_id: id, partition };
        topic.partitions.iter().map(forget)
    });
    let session = SessionRequest {
        session_id: request.session_id,
        epoch: request.session_epoch,
        uses_topic_ids: version >= TOPIC_IDS,
        is_from_follower,
        partitions: request
            .topics
            .iter()
            .flat_map(|topic| partitions(topic, named(&topic.topic, topic.topic_id)))
            .collect(),
        forgotten: forgotten.collect(),
    };
    // The lock of the cache is not held while the fetch reads or waits. `finish` takes it again.
    let mut cache = broker.sessions.lock();
    cache.begin(session, &name_of, now_ms(), random_session_id()).map_err(refusal)
}

fn partitions(
    topic: &FetchTopic,
    name: Option<Arc<str>>,
) -> impl Iterator<Item = PartitionRequest> {
    topic.partitions.iter().map(move |partition| PartitionRequest {
        topic: name.clone(),
        topic_id: topic.topic_id,
        partition: partition.partition,
        fetch_offset: partition.fetch_offset,
        log_start_offset: partition.log_start_offset,
        max_bytes: partition.partition_max_bytes,
        current_leader_epoch: partition.current_leader_epoch,
        last_fetched_epoch: partition.last_fetched_epoch,
    })
}

fn random_session_id() -> i32 {
    let (random, _) = new_uuid().as_u64_pair();
    ((random >> 33) as i32).max(1)
}

/// Updates the session with the results of the fetch, and builds the response. `replies` has one
/// entry for each partition of `fetch`, in the same order.
pub fn finish(broker: &Broker, fetch: SessionFetch, replies: Vec<PartitionReply>) -> FetchReply {
    let names: Vec<_> = fetch
        .partitions()
        .map(|partition| (partition.request.topic.clone(), partition.request.topic_id))
        .collect();
    let results: Vec<_> = replies.iter().map(result).collect();
    let answer = {
        let mut cache = broker.sessions.lock();
        cache.finish(fetch, &results, now_ms())
    };
    if let Some(error) = answer.error {
        return refusal(error);
    }
    let mut topics: Vec<TopicReply> = Vec::new();
    let mut answered = answer.answered.into_iter().peekable();
    let all = replies.into_iter().zip(names).enumerate();
    let mut included: Vec<_> = all.filter(|(at, _)| answered.next_if_eq(at).is_some()).collect();
    included.sort_by_key(|(_, (reply, _))| order_in_response(reply));
    for (_, (reply, (name, id))) in included {
        let name = name.unwrap_or_default();
        match topics.last_mut().filter(|topic| topic.id == id && topic.name == name) {
            Some(topic) => topic.partitions.push(reply),
            None => topics.push(TopicReply { name, id, partitions: vec![reply] }),
        }
    }
    FetchReply {
        error_code: errors::NONE,
        session_id: answer.session_id,
        topics,
        nodes: BTreeMap::new(),
    }
}

/// The place of a partition in the response. As in Kafka, unknown topic ids come after partitions
/// that were read, and unknown topics or partitions come last.
fn order_in_response(reply: &PartitionReply) -> u8 {
    match ErrorCode::try_from_code(reply.error_code) {
        Some(ErrorCode::UnknownTopicId) => 1,
        Some(ErrorCode::UnknownTopicOrPartition) => 2,
        _ => 0,
    }
}

/// The response to a request that fails as a whole: the error for each partition, and no session.
pub fn refuse_all(request: &FetchRequest, code: ErrorCode) -> FetchReply {
    let topics = request.topics.iter().map(|topic| TopicReply {
        name: Arc::from(&**topic.topic),
        id: topic.topic_id,
        partitions: topic
            .partitions
            .iter()
            .map(|partition| PartitionReply {
                aborted: Some(Vec::new()),
                ..PartitionReply::error(partition.partition, code)
            })
            .collect(),
    });
    let topics = topics.collect();
    FetchReply { error_code: code.code(), session_id: 0, topics, nodes: BTreeMap::new() }
}

fn result(reply: &PartitionReply) -> PartitionResult {
    PartitionResult {
        is_error: reply.error_code != errors::NONE,
        high_watermark: reply.high_watermark,
        log_start_offset: reply.log_start,
        records_len: reply.records.as_ref().map_or(0, |slice| slice.len),
        is_redirect: reply.diverging.is_some() || reply.preferred.is_some(),
    }
}

fn refusal(error: SessionError) -> FetchReply {
    let code = match error {
        SessionError::NotFound(_) => ErrorCode::FetchSessionIdNotFound,
        SessionError::InvalidEpoch => ErrorCode::InvalidFetchSessionEpoch,
        SessionError::TopicIdMismatch => ErrorCode::FetchSessionTopicIdError,
    };
    FetchReply {
        error_code: code.code(),
        session_id: 0,
        topics: Vec::new(),
        nodes: BTreeMap::new(),
    }
}
