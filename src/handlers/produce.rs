//! Produce: validates the batch of each partition, appends it, and responds once all batches are
//! acknowledged or the request times out.

mod acks;
mod response;
mod topics;
mod transactions;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiKey, ProduceRequest, ProduceResponse,
    produce_request::{PartitionProduceData, TopicProduceData},
    produce_response::{PartitionProduceResponse, TopicProduceResponse},
};
use tokio::time::Instant;

use self::{
    acks::{PartitionWait, wait_for_acks},
    response::{PartitionError, hint_leaders, no_leader, refuse_topic},
    topics::{may_write, merged, topic_of},
    transactions::{Verified, has_transaction, verify},
};
use super::{
    Client, Context, ErrorCode, Handler, Reply,
    acks::AckWait,
    error_counts::{each, error_codes},
    errors, partitions,
};
use crate::{
    base::{
        config::{self, CompressionType, TopicConfig},
        environment::{in_place, now_ms},
    },
    broker::Broker,
    controller::topic_names::is_internal,
    partition::{Acks, AppendError, Appended, Partition, Topic},
    records::{AppendRules, Compression, TimestampType, TopicCompression, validate_for_append},
    telemetry::TopicMetrics,
};

pub struct Produce;

/// The `acks` of a request that is acknowledged once the high watermark has passed its records.
const ACKS_ALL: i16 = -1;
/// The one client id that may write to internal topics (Kafka's `AdminUtils.ADMIN_CLIENT_ID`).
const ADMIN_CLIENT: &str = "__admin_client";
/// The first version whose response names the current leader of a partition (KIP-951).
const LEADER_HINTS: i16 = 10;
/// Byte offset of the attributes in a batch of magic 2.
const ATTRIBUTES_AT: usize = 21;
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
        let topics = merged(request.topic_data);
        // The coordinator is asked before the first append, so that requests keep their order.
        let verified = match has_transaction(&topics) {
            true => verify(cx, request.transactional_id.as_ref(), &topics).await,
            false => Ok(Verified::default()),
        };
        let (verified, refusal) = match verified {
            Ok(verified) => (verified, None),
            Err(refusal) => (Verified::default(), Some(refusal)),
        };
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
            verified: &verified,
        };
        let hints = (cx.version >= LEADER_HINTS).then(|| Arc::clone(&cx.session.listener));
        let mut waits = Vec::new();
        let mut response = ProduceResponse::default();
        for topic in topics {
            let reply = match &refusal {
                Some(refusal) => refuse_topic(topic, refusal),
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

fn any_error(response: &ProduceResponse) -> bool {
    let mut partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    partitions.any(|partition| partition.error_code != errors::NONE)
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
    verified: &'a Verified,
}

impl Append<'_> {
    /// Appends the batches of one topic. Adds an entry to `waits` for each partition whose batch is
    /// not acknowledged yet. `topic_at` is the topic's index in the response.
    fn topic(
        &self,
        data: TopicProduceData,
        topic_at: usize,
        waits: &mut Vec<PartitionWait>,
    ) -> TopicProduceResponse {
        let topic = topic_of(self.broker, self.version, &data);
        if !may_write(self.broker, self.client, (self.version, &data), topic.as_deref()) {
            return refuse_topic(data, &ErrorCode::TopicAuthorizationFailed.into());
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
                    let name = (self.version < topics::TOPIC_IDS).then_some(&**data.name);
                    Err(partitions::elsewhere(self.broker, name, data.topic_id, index).into())
                }
            };
            replies.push(match result {
                Err(refusal) => refusal.into_reply(index),
                Ok((partition, appended)) => {
                    if let Some(wait) = AckWait::new(partition, &appended, self.required()) {
                        waits.push(PartitionWait { topic_at, partition_at, wait });
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
        if let Some(refusal) = self.verified.refusal(&partition.id) {
            return Err(refusal.clone());
        }
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
        let (bytes, records) = (batch.size() as u64, batch.header.record_count as u64);
        let (batches, acks) = (&mut [batch], self.required());
        let verification = self.verified.verification(&partition.id);
        let appended = partition.append_verified(verification, batches, acks, self.now_ms);
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
