//! Produce: validates the batch of each partition, appends it, and responds once all batches are
//! acknowledged or the request times out.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        ApiKey, BrokerId, ProduceRequest, ProduceResponse, TopicName, TransactionalId,
        produce_request::{PartitionProduceData, TopicProduceData},
        produce_response::{
            BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
            TopicProduceResponse,
        },
    },
    protocol::StrBytes,
};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Client, Context, ErrorCode, Handler, Reply, brokers, conversions,
    error_counts::{each, error_codes},
    errors, partitions,
};
use crate::{
    base::{
        config::{self, CompressionType, TopicConfig},
        environment::{in_place, now_ms},
        planted_bugs::{Bug, has_bug},
    },
    broker::Broker,
    controller::topic_names::is_internal,
    partition::{Acks, AppendError, Appended, Partition, Topic},
    protocol::checks::{TOPIC_WRITE, TRANSACTIONAL_ID_WRITE},
    records::{
        AppendRefused, AppendRules, Compression, RefusedKind, TimestampType, TopicCompression,
        validate_for_append,
    },
    telemetry::{Parked, TopicMetrics},
};

pub struct Produce;

/// The `acks` of a request that is acknowledged once the high watermark has passed its records.
const ACKS_ALL: i16 = -1;
/// The one client id that may write to internal topics (Kafka's `AdminUtils.ADMIN_CLIENT_ID`).
const ADMIN_CLIENT: &str = "__admin_client";
/// The first version whose response names the current leader of a partition (KIP-951).
const LEADER_HINTS: i16 = 10;
/// The first version that names topics by id (KIP-516).
const TOPIC_IDS: i16 = 13;
/// Byte offsets of magic and attributes in a batch of magic 2, and the transactional bit in the
/// low byte of the attributes.
const MAGIC_AT: usize = 16;
const ATTRIBUTES_AT: usize = 21;
const TRANSACTIONAL: u8 = 0x10;
/// From this many compressed bytes on, a request is validated outside the async workers, because
/// decompression may take long. Only a few such requests are validated at a time.
const LONG_DECOMPRESSION: usize = 256 << 10;
/// Each byte of gzip and zstd counts as this many bytes, because these codecs can expand a batch a
/// thousand times and more.
const GZIP_OR_ZSTD_WEIGHT: usize = 8;

impl Handler for Produce {
    const API: ApiKey = ApiKey::Produce;
    type Request = ProduceRequest;
    type Response = ProduceResponse;

    async fn handle(cx: &mut Context<'_>, request: ProduceRequest) -> Reply<ProduceResponse> {
        let (acks, timeout_ms) = (request.acks, request.timeout_ms);
        let takes_long = decompression_weight(&request) >= LONG_DECOMPRESSION;
        let _turn = match takes_long {
            true => cx.broker.limits.decompressions.acquire().await.ok(),
            false => None,
        };
        let append = Append {
            broker: cx.broker,
            client: &cx.session.client,
            version: cx.version,
            may_write_internal: cx.client_id() == ADMIN_CLIENT,
            acks,
            now_ms: now_ms(),
            takes_long,
        };
        let hints = (cx.version >= LEADER_HINTS).then(|| Arc::clone(&cx.session.listener));
        let mut waits = Vec::new();
        let mut response = ProduceResponse::default();
        let refused = is_forbidden_transaction(cx, &request)
            .then_some(ErrorCode::TransactionalIdAuthorizationFailed);
        for topic in merged(request.topic_data) {
            let reply = match refused {
                Some(code) => refuse_topic(topic, code),
                None => append.topic(topic, response.responses.len(), &mut waits),
            };
            response.responses.push(reply);
        }
        match acks {
            0 if any_error(&response) => Reply::Close(response),
            0 => Reply::None,
            _ if waits.is_empty() => {
                hint_leaders(cx.broker, hints.as_deref(), &mut response);
                Reply::Now(response)
            }
            _ => {
                let deadline = Instant::now() + Duration::from_millis(timeout_ms.max(0) as u64);
                let parked = cx.broker.metrics.purgatory.park_produce();
                let broker = Arc::clone(cx.broker);
                Reply::Later(Box::pin(async move {
                    let mut response = wait_for_acks(response, waits, deadline, parked).await;
                    hint_leaders(&broker, hints.as_deref(), &mut response);
                    response
                }))
            }
        }
    }
}

error_codes!(ProduceResponse: |it| each!(it.responses, partition_responses));

/// Whether the request has transactional batches, but no transactional id, or one that the client
/// may not use.
fn is_forbidden_transaction(cx: &Context<'_>, request: &ProduceRequest) -> bool {
    let is_transactional = |records: &Bytes| {
        let attributes = records.get(ATTRIBUTES_AT..ATTRIBUTES_AT + 2);
        records.get(MAGIC_AT) == Some(&2)
            && attributes.is_some_and(|bytes| bytes[1] & TRANSACTIONAL != 0)
    };
    let has_transaction = request.topic_data.iter().any(|topic| {
        let mut partitions = topic.partition_data.iter();
        partitions.any(|data| data.records.as_ref().is_some_and(is_transactional))
    });
    let may_write = |id: &TransactionalId| cx.allowed(TRANSACTIONAL_ID_WRITE, id);
    has_transaction && !request.transactional_id.as_ref().is_some_and(may_write)
}

/// The bytes of the request's compressed batches, weighted by how much they can expand.
fn decompression_weight(request: &ProduceRequest) -> usize {
    let partitions = request.topic_data.iter().flat_map(|topic| &topic.partition_data);
    let weigh = |records: &Bytes| {
        let attributes = records.get(ATTRIBUTES_AT..ATTRIBUTES_AT + 2);
        let Some(&[high, low]) = attributes else { return 0 };
        match Compression::from_attributes(i16::from_be_bytes([high, low])) {
            Ok(Compression::Gzip | Compression::Zstd) => GZIP_OR_ZSTD_WEIGHT * records.len(),
            Ok(Compression::Snappy | Compression::Lz4) => records.len(),
            Ok(Compression::None) | Err(_) => 0,
        }
    };
    partitions.filter_map(|data| data.records.as_ref()).map(weigh).sum()
}

fn refuse_topic(data: TopicProduceData, code: ErrorCode) -> TopicProduceResponse {
    let refuse = |data: &PartitionProduceData| PartitionError::from(code).into_reply(data.index);
    TopicProduceResponse::default()
        .with_partition_responses(data.partition_data.iter().map(refuse).collect())
        .with_name(data.name)
        .with_topic_id(data.topic_id)
}

/// Merges topics and partitions that the request names more than once. As in Kafka, the last batch
/// of a partition is kept, and topics without partitions are left out.
fn merged(topics: Vec<TopicProduceData>) -> Vec<TopicProduceData> {
    let mut merged: Vec<TopicProduceData> = Vec::with_capacity(topics.len());
    let mut places: HashMap<(TopicName, Uuid), usize> = HashMap::new();
    let is_many = topics.len() > 1;
    for mut topic in topics {
        if topic.partition_data.len() > 1 {
            topic.partition_data = last_of_each(std::mem::take(&mut topic.partition_data));
        }
        if topic.partition_data.is_empty() {
            continue;
        }
        let place = match is_many {
            true => *places.entry((topic.name.clone(), topic.topic_id)).or_insert(merged.len()),
            false => merged.len(),
        };
        match merged.get_mut(place) {
            Some(first) => {
                first.partition_data.append(&mut topic.partition_data);
                first.partition_data = last_of_each(std::mem::take(&mut first.partition_data));
            }
            None => merged.push(topic),
        }
    }
    merged
}

/// Keeps the last entry of each partition, in the place of the first.
fn last_of_each(partitions: Vec<PartitionProduceData>) -> Vec<PartitionProduceData> {
    let mut places: HashMap<i32, usize> = HashMap::with_capacity(partitions.len());
    let mut kept: Vec<PartitionProduceData> = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let place = *places.entry(partition.index).or_insert(kept.len());
        match kept.get_mut(place) {
            Some(earlier) => *earlier = partition,
            None => kept.push(partition),
        }
    }
    kept
}

fn any_error(response: &ProduceResponse) -> bool {
    let mut partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    partitions.any(|partition| partition.error_code != errors::NONE)
}

/// A partition whose response waits until its records are acknowledged.
struct AckWait {
    topic_at: usize,
    partition_at: usize,
    partition: Arc<Partition>,
    end_offset: i64,
    leadership_generation: u64,
    acks: Acks,
}

impl AckWait {
    /// Waits until the records are acknowledged, and returns `None`, or until they cannot be any
    /// more, and returns the reason.
    async fn refused(&self) -> Option<ErrorCode> {
        if has_bug(Bug::EarlyAck) {
            return None;
        }
        let (partition, end, leadership_generation) =
            (&self.partition, self.end_offset, self.leadership_generation);
        let committed = match self.acks {
            Acks::All => partition.wait_committed(end, leadership_generation).await,
            Acks::Leader => partition.wait_durable(end, leadership_generation).await,
        };
        let view = partition.view();
        match committed {
            false => Some(errors::not_committed(view.role)),
            // The records are committed, but the ISR is now smaller than `min.insync.replicas`.
            true if self.acks == Acks::All && view.isr.maximal < view.isr.min => {
                Some(ErrorCode::NotEnoughReplicasAfterAppend)
            }
            true => None,
        }
    }
}

/// Completes the response once each wait has ended or the deadline has passed. `_parked` counts the
/// request in the purgatory metric until then.
async fn wait_for_acks(
    mut response: ProduceResponse,
    waits: Vec<AckWait>,
    deadline: Instant,
    _parked: Parked,
) -> ProduceResponse {
    for wait in waits {
        let error = match tokio::time::timeout_at(deadline, wait.refused()).await {
            Ok(None) => continue,
            Ok(Some(error)) => error,
            Err(_) => ErrorCode::RequestTimedOut,
        };
        let replies = &mut response.responses[wait.topic_at].partition_responses;
        let reply = &mut replies[wait.partition_at];
        reply.error_code = error.code();
        reply.base_offset = -1;
    }
    response
}

/// Adds the current leaders and their endpoints for partitions that this broker does not lead.
/// `listener` is the listener of the client; without one, the response stays as it is.
fn hint_leaders(broker: &Broker, listener: Option<&str>, response: &mut ProduceResponse) {
    let Some(listener) = listener else { return };
    let code = ErrorCode::NotLeaderOrFollower.code();
    let mut endpoints = BTreeMap::new();
    for topic in &mut response.responses {
        for partition in topic.partition_responses.iter_mut().filter(|it| it.error_code == code) {
            let (name, id) = (&**topic.name, topic.topic_id);
            let Some(hint) = partitions::leader(broker, name, id, partition.index) else {
                continue;
            };
            partition.current_leader = LeaderIdAndEpoch::default()
                .with_leader_id(BrokerId(hint.leader))
                .with_leader_epoch(hint.epoch);
            brokers::add_endpoint(&broker.metadata(), hint.leader, listener, &mut endpoints);
        }
    }
    let endpoint = |(id, endpoint): (i32, brokers::Node)| {
        NodeEndpoint::default()
            .with_node_id(BrokerId(id))
            .with_host(conversions::str_bytes(&endpoint.host))
            .with_port(endpoint.port)
            .with_rack(endpoint.rack.as_deref().map(conversions::str_bytes))
    };
    response.node_endpoints = endpoints.into_iter().map(endpoint).collect();
}

/// What the appends to all partitions of one request have in common.
struct Append<'a> {
    broker: &'a Arc<Broker>,
    client: &'a Client,
    version: i16,
    may_write_internal: bool,
    acks: i16,
    now_ms: i64,
    /// Whether the batches are validated outside the async workers.
    takes_long: bool,
}

impl Append<'_> {
    /// Appends the batches of one topic. Adds an entry to `waits` for each partition whose batch is
    /// not acknowledged yet. `topic_at` is the topic's index in the response.
    fn topic(
        &self,
        data: TopicProduceData,
        topic_at: usize,
        waits: &mut Vec<AckWait>,
    ) -> TopicProduceResponse {
        let topic = match self.version {
            TOPIC_IDS.. => self.broker.replicas.partitions.topic_by_id(data.topic_id),
            _ => self.broker.replicas.partitions.topic(&data.name),
        };
        if !self.may_write(&data, topic.as_deref()) {
            return refuse_topic(data, ErrorCode::TopicAuthorizationFailed);
        }
        let config = topic.as_deref().map(|topic| topic.config.load_full());
        let mut replies = Vec::with_capacity(data.partition_data.len());
        for (partition_at, partition) in data.partition_data.into_iter().enumerate() {
            let index = partition.index;
            let result = match (&topic, &config) {
                (Some(topic), Some(config)) => {
                    let result = self.partition(topic, config, partition);
                    count(&topic.metrics, result.as_ref().err());
                    result
                }
                _ => {
                    let name = (self.version < TOPIC_IDS).then_some(&**data.name);
                    Err(partitions::elsewhere(self.broker, name, data.topic_id, index).into())
                }
            };
            replies.push(match result {
                Err(refusal) => refusal.into_reply(index),
                Ok((partition, appended)) => {
                    let end_offset = appended.last_offset + 1;
                    let (leadership_generation, acks) =
                        (appended.leadership_generation, self.required());
                    let must_wait = match acks {
                        Acks::All => !partition.has_committed(end_offset, leadership_generation),
                        Acks::Leader => appended.flush_due,
                    };
                    if must_wait {
                        waits.push(AckWait {
                            topic_at,
                            partition_at,
                            partition,
                            end_offset,
                            leadership_generation,
                            acks,
                        });
                    }
                    let config = config.as_ref().expect("appended by the topic's rules");
                    self.reply(index, &appended, timestamp_type(config))
                }
            });
        }
        TopicProduceResponse::default()
            .with_name(data.name)
            .with_topic_id(data.topic_id)
            .with_partition_responses(replies)
    }

    /// Whether the client may write to the topic. A request with an unknown topic id has no name to
    /// check, and fails anyway. `topic` is the topic if this broker has a replica of it.
    fn may_write(&self, data: &TopicProduceData, topic: Option<&Topic>) -> bool {
        let may_write = |name: &str| self.client.allowed(TOPIC_WRITE, name);
        match topic {
            Some(topic) => may_write(&topic.name),
            None if self.version < TOPIC_IDS => may_write(&data.name),
            None => {
                let image = self.broker.metadata();
                image.topic_by_id(data.topic_id).is_none_or(|topic| may_write(&topic.name))
            }
        }
    }

    /// Validates the batch of one partition and appends it.
    fn partition(
        &self,
        topic: &Topic,
        config: &TopicConfig,
        data: PartitionProduceData,
    ) -> Result<(Arc<Partition>, Appended), PartitionError> {
        let partition = topic.partition(data.index).map_err(|absent| {
            let code = partitions::absent(self.broker, topic, data.index, absent);
            PartitionError { before_log: code == ErrorCode::UnknownTopicOrPartition, ..code.into() }
        })?;
        if !(-1..=1).contains(&self.acks) {
            let refusal = PartitionError::from(ErrorCode::InvalidRequiredAcks);
            return Err(PartitionError { before_log: true, ..refusal });
        }
        if is_internal(&topic.name) && !self.may_write_internal {
            return Err(ErrorCode::InvalidTopicException.into());
        }
        let rules = self.rules(config, &partition);
        let log_start = || partition.view().log.log_start();
        // If the topic has its own codec, the batch may be compressed again, which takes long, too.
        let takes_long = self.takes_long || rules.compression != TopicCompression::Producer;
        let validate = || validate_for_append(data.records, &rules);
        let validated = if takes_long { in_place(validate) } else { validate() };
        let batch = validated.map_err(|refused| PartitionError::of_records(refused, log_start))?;
        if batch.header.is_transactional() {
            // There is no transaction coordinator yet, so the transaction would never end, and
            // `read_committed` consumers would wait for its end for ever.
            return Err(ErrorCode::InvalidTxnState.into());
        }
        let (bytes, records) = (batch.size() as u64, batch.header.record_count as u64);
        let appended = partition.append(&mut [batch], self.required(), self.now_ms);
        let appended = appended.map_err(|error| {
            if let AppendError::Log(error) = &error {
                self.broker.replicas.on_log_error(&partition, error);
            }
            let refusal = PartitionError::from(errors::append(&error));
            match errors::includes_log_start(&error) {
                true => PartitionError { log_start: log_start(), ..refusal },
                false => refusal,
            }
        })?;
        if !appended.duplicate {
            topic.metrics.produced(bytes, records);
        }
        Ok((partition, appended))
    }

    fn required(&self) -> Acks {
        match self.acks {
            ACKS_ALL => Acks::All,
            _ => Acks::Leader,
        }
    }

    fn rules(&self, config: &TopicConfig, partition: &Partition) -> AppendRules {
        AppendRules {
            partition: partition.id.clone(),
            now_ms: self.now_ms,
            timestamp_type: timestamp_type(config),
            before_max_ms: config.message_timestamp_before_max_ms,
            after_max_ms: config.message_timestamp_after_max_ms,
            compression: compression(config),
            max_message_bytes: config.max_message_bytes as usize,
            compacted: config.cleanup_policy.compact,
            max_decompressed: self.broker.settings().socket_request_max_bytes as usize,
            zstd_allowed: self.version >= 7,
        }
    }

    fn reply(
        &self,
        index: i32,
        appended: &Appended,
        timestamp_type: TimestampType,
    ) -> PartitionProduceResponse {
        let log_append_time_ms = match timestamp_type {
            _ if appended.duplicate => appended.duplicate_timestamp,
            TimestampType::CreateTime => -1,
            TimestampType::LogAppendTime => self.now_ms,
        };
        PartitionProduceResponse::default()
            .with_index(index)
            .with_base_offset(appended.first_offset)
            .with_log_append_time_ms(log_append_time_ms)
            .with_log_start_offset(appended.log_start)
            .with_current_leader(no_leader())
    }
}

/// Counts the append to one partition in the metrics of its topic. As in Kafka, a batch that is
/// refused before it reaches the partition is not a request of the topic, and an expected error
/// is not a failure (`ReplicaManager.appendToLocalLog`). `kafka_server_request_errors_total` counts
/// all errors.
fn count(topic: &TopicMetrics, refusal: Option<&PartitionError>) {
    if refusal.is_some_and(|refusal| refusal.before_log) {
        return;
    }
    topic.produce_requests.increment(1);
    let is_expected = |code| {
        use ErrorCode::*;
        matches!(
            code,
            InvalidTopicException
                | UnknownTopicOrPartition
                | NotLeaderOrFollower
                | MessageTooLarge
                | RecordListTooLarge
                | CorruptMessage
                | KafkaStorageError
        )
    };
    if refusal.is_some_and(|refusal| !is_expected(refusal.code)) {
        topic.failed_produce_requests.increment(1);
    }
}

fn timestamp_type(config: &TopicConfig) -> TimestampType {
    match config.message_timestamp_type {
        config::TimestampType::CreateTime => TimestampType::CreateTime,
        config::TimestampType::LogAppendTime => TimestampType::LogAppendTime,
    }
}

fn compression(config: &TopicConfig) -> TopicCompression {
    // For gzip and lz4, -1 means the default of the codec.
    let level = |level: i32| Some(level).filter(|level| *level != -1);
    match config.compression_type {
        CompressionType::Producer => TopicCompression::Producer,
        CompressionType::Uncompressed => TopicCompression::Fixed(Compression::None, None),
        CompressionType::Gzip => {
            TopicCompression::Fixed(Compression::Gzip, level(config.compression_gzip_level))
        }
        CompressionType::Snappy => TopicCompression::Fixed(Compression::Snappy, None),
        CompressionType::Lz4 => {
            TopicCompression::Fixed(Compression::Lz4, level(config.compression_lz4_level))
        }
        CompressionType::Zstd => {
            TopicCompression::Fixed(Compression::Zstd, Some(config.compression_zstd_level))
        }
    }
}

/// An error response for one partition.
struct PartitionError {
    code: ErrorCode,
    message: Option<String>,
    record_errors: Vec<(i32, Option<String>)>,
    log_start: i64,
    /// Whether Kafka detects this error before the batch reaches the partition.
    before_log: bool,
}

impl From<ErrorCode> for PartitionError {
    fn from(code: ErrorCode) -> Self {
        Self { code, message: None, record_errors: Vec::new(), log_start: -1, before_log: false }
    }
}

impl PartitionError {
    /// The response to a batch that failed its validation. It has the log start offset only where
    /// Kafka's has it: not if the batch did not reach the log, and not for the two errors below.
    fn of_records(refused: AppendRefused, log_start: impl FnOnce() -> i64) -> Self {
        let is_untold = refused.before_log
            || matches!(refused.kind, RefusedKind::CorruptMessage | RefusedKind::MessageTooLarge);
        Self {
            code: errors::append_refused(refused.kind),
            message: refused.wire_message().map(str::to_owned),
            record_errors: refused.record_errors,
            log_start: if is_untold { -1 } else { log_start() },
            before_log: refused.before_log,
        }
    }

    fn into_reply(self, index: i32) -> PartitionProduceResponse {
        let record_errors = self.record_errors.into_iter().map(|(batch_index, message)| {
            BatchIndexAndErrorMessage::default()
                .with_batch_index(batch_index)
                .with_batch_index_error_message(message.map(StrBytes::from_string))
        });
        PartitionProduceResponse::default()
            .with_index(index)
            .with_error_code(self.code.code())
            .with_base_offset(-1)
            .with_log_append_time_ms(-1)
            .with_log_start_offset(self.log_start)
            .with_record_errors(record_errors.collect())
            .with_error_message(self.message.map(StrBytes::from_string))
            .with_current_leader(no_leader())
    }
}

fn no_leader() -> LeaderIdAndEpoch {
    LeaderIdAndEpoch::default().with_leader_id(BrokerId(-1)).with_leader_epoch(-1)
}

#[cfg(test)]
mod tests;
