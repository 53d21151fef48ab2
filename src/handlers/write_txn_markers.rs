//! WriteTxnMarkers: a transaction coordinator ends transactions in partitions that this broker
//! leads. Brokers send it to each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use kafka_protocol::{messages::ApiKey, protocol::StrBytes};
use tokio::{
    task::{JoinSet, yield_now},
    time::{Instant, timeout_at},
};

use super::{Context, ErrorCode, Handler, Reply, acks::AckWait, error_counts::error_codes, errors};
use crate::{
    base::{TopicPartition, environment::now_ms},
    broker::Broker,
    coordinator::{OFFSETS_TOPIC, TRANSACTIONS_TOPIC},
    partition::{Acks, AppendError, Partition},
    protocol::{
        checks::{CLUSTER_ACTION, CLUSTER_ALTER},
        error_code::NONE,
        messages::{
            WritableTxnMarker, WritableTxnMarkerPartitionResult, WritableTxnMarkerResult,
            WritableTxnMarkerTopic, WritableTxnMarkerTopicResult, WriteTxnMarkersRequest,
            WriteTxnMarkersResponse,
        },
    },
    records::{Producer, TransactionVersion, TxnMarker},
};

pub struct WriteTxnMarkers;

/// After this many markers, other tasks of the worker run.
const MARKERS_AT_A_TIME: usize = 200;
/// Most requests to the group coordinator that wait at a time.
const GROUP_REQUESTS_MAX: usize = 500;
/// Kafka refuses a whole request that has these as producer id or epoch.
const NO_PRODUCER_ID: i64 = -1;
const NO_EPOCH: i16 = -1;
/// Kafka refuses a marker that has this as transaction version.
const UNKNOWN_VERSION: i8 = -1;

impl Handler for WriteTxnMarkers {
    const API: ApiKey = ApiKey::WriteTxnMarkers;
    type Request = WriteTxnMarkersRequest;
    type Response = WriteTxnMarkersResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: WriteTxnMarkersRequest,
    ) -> Reply<WriteTxnMarkersResponse> {
        let is_invalid = |marker: &WritableTxnMarker| {
            marker.producer_id == NO_PRODUCER_ID || marker.producer_epoch == NO_EPOCH
        };
        let mut results = Results::default();
        if !cx.allowed_on_cluster(CLUSTER_ALTER)
            && let Err(code) = cx.check_on_cluster(CLUSTER_ACTION)
        {
            results.refuse_all(&request, code);
            return Reply::Now(results.into_response());
        }
        if request.markers.iter().any(is_invalid) {
            results.refuse_all(&request, ErrorCode::UnknownServerError);
            return Reply::Now(results.into_response());
        }
        let timeout_ms = cx.broker.settings().cluster.request_timeout_ms.max(0) as u64;
        let deadline = Instant::now() + Duration::from_millis(timeout_ms);
        let mut writes = Writes::new(Arc::clone(cx.broker));
        for (at, marker) in request.markers.iter().enumerate() {
            writes.write(marker, &mut results);
            if at % MARKERS_AT_A_TIME == MARKERS_AT_A_TIME - 1 {
                yield_now().await;
            }
        }
        Reply::Later(Box::pin(async move {
            writes.wait(deadline, &mut results).await;
            results.into_response()
        }))
    }
}

error_codes!(WriteTxnMarkersResponse: |it| {
    let topics = it.markers.iter().flat_map(|marker| &marker.topics);
    topics.flat_map(|topic| &topic.partitions).map(|partition| partition.error_code)
});

/// The results of a request. As in Kafka, markers of one producer are merged: a later result for
/// a partition replaces an earlier one.
#[derive(Default)]
struct Results(BTreeMap<i64, BTreeMap<TopicPartition, i16>>);

impl Results {
    fn set(&mut self, producer_id: i64, partition: TopicPartition, result: Result<(), ErrorCode>) {
        let code = result.map_or_else(|code| code.code(), |()| NONE);
        self.0.entry(producer_id).or_default().insert(partition, code);
    }

    /// Sets the same error for all partitions of a request.
    fn refuse_all(&mut self, request: &WriteTxnMarkersRequest, code: ErrorCode) {
        for marker in &request.markers {
            for partition in partitions_of(marker) {
                self.set(marker.producer_id, partition, Err(code));
            }
        }
    }

    fn into_response(self) -> WriteTxnMarkersResponse {
        let of_producer = |(producer_id, partitions): (i64, BTreeMap<TopicPartition, i16>)| {
            let mut topics: Vec<WritableTxnMarkerTopicResult> = Vec::new();
            for (TopicPartition { topic, partition }, error_code) in partitions {
                let result =
                    WritableTxnMarkerPartitionResult { partition_index: partition, error_code };
                match topics.last_mut().filter(|last| *last.name == *topic) {
                    Some(last) => last.partitions.push(result),
                    None => topics.push(WritableTxnMarkerTopicResult {
                        name: StrBytes::from_string(topic.to_string()),
                        partitions: vec![result],
                    }),
                }
            }
            WritableTxnMarkerResult { producer_id, topics }
        };
        WriteTxnMarkersResponse { markers: self.0.into_iter().map(of_producer).collect() }
    }
}

/// The partitions of a marker, each once.
fn partitions_of(marker: &WritableTxnMarker) -> BTreeSet<TopicPartition> {
    let of_topic = |topic: &WritableTxnMarkerTopic| {
        let name: Arc<str> = Arc::from(topic.name.as_str());
        let id = move |index: &i32| TopicPartition::new(Arc::clone(&name), *index);
        topic.partition_indexes.iter().map(id).collect::<Vec<_>>()
    };
    marker.topics.iter().flat_map(of_topic).collect()
}

/// A marker that was appended to a partition, and is not committed yet.
struct Written {
    producer_id: i64,
    partition: TopicPartition,
    wait: AckWait,
}

/// The markers of a request on their way into the partitions.
struct Writes {
    broker: Arc<Broker>,
    written: Vec<Written>,
    /// Markers for `__consumer_offsets` by producer id and partition. The group coordinator writes
    /// them.
    of_groups: BTreeMap<(i64, TopicPartition), Vec<TxnMarker>>,
}

impl Writes {
    fn new(broker: Arc<Broker>) -> Self {
        Self { broker, written: Vec::new(), of_groups: BTreeMap::new() }
    }

    /// Appends a marker to its partitions, and notes the results that are known already.
    fn write(&mut self, wire: &WritableTxnMarker, results: &mut Results) {
        let producer_id = wire.producer_id;
        let marker = marker_of(wire);
        for id in partitions_of(wire) {
            let replicas = &self.broker.replicas.partitions;
            let topic = replicas.topic(&id.topic);
            let Some(partition) = topic.and_then(|topic| topic.partition(id.partition).ok()) else {
                results.set(producer_id, id, Err(ErrorCode::UnknownTopicOrPartition));
                continue;
            };
            let result = match (&*id.topic, marker) {
                (_, None) => Err(ErrorCode::UnknownServerError),
                // Transactions cannot write to it, and a marker would disturb the coordinator's
                // shard. With this code, the sender of the marker counts it as written.
                (TRANSACTIONS_TOPIC, _) => Err(ErrorCode::UnsupportedForMessageFormat),
                (OFFSETS_TOPIC, Some(marker)) => {
                    self.of_groups.entry((producer_id, id)).or_default().push(marker);
                    continue;
                }
                (_, Some(marker)) => match self.append(&partition, &marker) {
                    Ok(Some(wait)) => {
                        self.written.push(Written { producer_id, partition: id, wait });
                        continue;
                    }
                    appended => appended.map(drop),
                },
            };
            results.set(producer_id, id, result);
        }
    }

    fn append(
        &self,
        partition: &Arc<Partition>,
        marker: &TxnMarker,
    ) -> Result<Option<AckWait>, ErrorCode> {
        match partition.append_marker(marker, Acks::All, now_ms()) {
            Ok(appended) => Ok(AckWait::new(Arc::clone(partition), &appended, Acks::All)),
            Err(error) => {
                if let AppendError::Log(error) = &error {
                    self.broker.replicas.on_log_error(partition, error);
                }
                Err(errors::append(&error))
            }
        }
    }

    /// Waits until all markers are committed, or until the deadline.
    async fn wait(self, deadline: Instant, results: &mut Results) {
        let mut requests = JoinSet::new();
        for ((producer_id, id), markers) in self.of_groups {
            if requests.len() >= GROUP_REQUESTS_MAX {
                note_next(&mut requests, results).await;
            }
            let broker = Arc::clone(&self.broker);
            requests.spawn(async move {
                let ended = end_in_group(&broker, id.partition, markers);
                let ended = timeout_at(deadline, ended).await;
                (producer_id, id, ended.unwrap_or(Err(ErrorCode::RequestTimedOut)))
            });
        }
        for Written { producer_id, partition, wait } in self.written {
            let result = match timeout_at(deadline, wait.refused()).await {
                Ok(None) => Ok(()),
                Ok(Some(code)) => Err(code),
                Err(_) => Err(ErrorCode::RequestTimedOut),
            };
            results.set(producer_id, partition, result);
        }
        while !requests.is_empty() {
            note_next(&mut requests, results).await;
        }
    }
}

type GroupRequests = JoinSet<(i64, TopicPartition, Result<(), ErrorCode>)>;

async fn note_next(requests: &mut GroupRequests, results: &mut Results) {
    if let Some(Ok((producer_id, partition, result))) = requests.join_next().await {
        results.set(producer_id, partition, result);
    }
}

/// Has the group coordinator write the markers of one producer, one after the other.
async fn end_in_group(
    broker: &Broker,
    partition: i32,
    markers: Vec<TxnMarker>,
) -> Result<(), ErrorCode> {
    let mut ended = Ok(());
    for marker in markers {
        ended = broker.coordinators.groups.end_transaction(partition, marker).await;
    }
    ended.map_err(errors::group_marker)
}

/// The marker, unless its transaction version is unknown.
fn marker_of(wire: &WritableTxnMarker) -> Option<TxnMarker> {
    (wire.transaction_version != UNKNOWN_VERSION).then_some(TxnMarker {
        producer: Producer { id: wire.producer_id, epoch: wire.producer_epoch },
        commits: wire.transaction_result,
        coordinator_epoch: wire.coordinator_epoch,
        version: TransactionVersion::of_level(wire.transaction_version.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(producer_id: i64, topics: &[(&'static str, &[i32])]) -> WritableTxnMarker {
        let topic = |(name, indexes): &(&'static str, &[i32])| WritableTxnMarkerTopic {
            name: StrBytes::from_static_str(name),
            partition_indexes: indexes.to_vec(),
        };
        let topics = topics.iter().map(topic).collect();
        WritableTxnMarker { producer_id, topics, ..WritableTxnMarker::default() }
    }

    fn codes(results: Results) -> String {
        let mut text = String::new();
        for marker in results.into_response().markers {
            for topic in marker.topics {
                let codes = topic.partitions.iter();
                let codes: Vec<_> = codes.map(|it| (it.partition_index, it.error_code)).collect();
                text += &format!("{} {} {codes:?}\n", marker.producer_id, topic.name);
            }
        }
        text
    }

    #[test]
    fn markers_of_one_producer_are_merged() {
        let mut results = Results::default();
        let id = |topic: &str, partition| TopicPartition::new(topic, partition);
        results.set(7, id("b", 1), Err(ErrorCode::InvalidProducerEpoch));
        results.set(9, id("a", 0), Ok(()));
        results.set(7, id("a", 0), Ok(()));
        results.set(7, id("b", 1), Ok(()));
        results.set(7, id("b", 0), Err(ErrorCode::UnknownTopicOrPartition));
        assert_eq!(codes(results), "7 a [(0, 0)]\n7 b [(0, 3), (1, 0)]\n9 a [(0, 0)]\n");
    }

    #[test]
    fn repeated_partitions_count_once() {
        let mut results = Results::default();
        let twice = marker(7, &[("t", &[0, 1, 0]), ("t", &[0])]);
        let request = WriteTxnMarkersRequest { markers: vec![twice, marker(8, &[])] };
        results.refuse_all(&request, ErrorCode::ClusterAuthorizationFailed);
        assert_eq!(codes(results), "7 t [(0, 31), (1, 31)]\n");
    }

    #[test]
    fn version_of_marker_decides_its_checks() {
        let version = |level| {
            let wire = WritableTxnMarker { transaction_version: level, ..marker(7, &[]) };
            marker_of(&wire).map(|marker| marker.version)
        };
        assert_eq!(version(0), Some(TransactionVersion::V0));
        assert_eq!(version(2), Some(TransactionVersion::V2));
        assert_eq!(version(3), Some(TransactionVersion::V2));
        assert_eq!(version(-2), Some(TransactionVersion::V0));
        assert_eq!(version(UNKNOWN_VERSION), None);
    }
}
