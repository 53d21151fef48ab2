//! WriteTxnMarkers: a transaction coordinator ends transactions in partitions that this broker
//! leads. Brokers send it to each other.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map},
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
    partition::{Acks, AppendError, Appended, Partition},
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
/// Once a marker of a request has its result, the request waits at most this long for the others,
/// so that a partition that cannot commit its marker does not hold up the rest of the transactions.
const OTHERS_WAIT_MAX: Duration = Duration::from_millis(500);
/// A request waits at most this long, even if none of its markers has a result. Coordinators send it
/// again. Otherwise partitions that cannot commit would use up the requests that a coordinator may
/// have in flight to this broker.
const WAIT_MAX: Duration = Duration::from_secs(5);
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
        let deadline = Instant::now() + Duration::from_millis(timeout_ms).min(WAIT_MAX);
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
            let appended = match (&*id.topic, marker) {
                (_, None) => Err(refusal_of_unknown_version(&partition, wire)),
                // Transactions cannot write to it, and a marker would disturb the coordinator's
                // shard. With this code, the sender of the marker counts it as written.
                (TRANSACTIONS_TOPIC, _) => Err(ErrorCode::UnsupportedForMessageFormat),
                (OFFSETS_TOPIC, Some(marker)) => match partition.uncommitted_marker(&marker) {
                    Some(uncommitted) => Ok(uncommitted),
                    None => {
                        self.of_groups.entry((producer_id, id)).or_default().push(marker);
                        continue;
                    }
                },
                (_, Some(marker)) => self.append(&partition, &marker),
            };
            let wait = appended.map(|appended| AckWait::new(partition, &appended, Acks::All));
            match wait {
                Ok(Some(wait)) => self.written.push(Written { producer_id, partition: id, wait }),
                Ok(None) => results.set(producer_id, id, Ok(())),
                Err(code) => results.set(producer_id, id, Err(code)),
            }
        }
    }

    fn append(
        &self,
        partition: &Arc<Partition>,
        marker: &TxnMarker,
    ) -> Result<Appended, ErrorCode> {
        partition.append_marker(marker, Acks::All, now_ms()).map_err(|error| {
            if let AppendError::Log(error) = &error {
                self.broker.replicas.on_log_error(partition, error);
            }
            errors::append(&error)
        })
    }

    /// Waits until all markers are committed, but not after the deadline. If some markers have
    /// results, waits for the others no longer than [`OTHERS_WAIT_MAX`]. The result of a marker that
    /// is not committed by then is REQUEST_TIMED_OUT.
    async fn wait(self, deadline: Instant, results: &mut Results) {
        let Self { broker, mut written, of_groups } = self;
        let mut some_have_results = !results.0.is_empty();
        let written_to = written.iter().map(|it| (it.producer_id, it.partition.clone()));
        for (producer_id, partition) in written_to.chain(of_groups.keys().cloned()) {
            results.set(producer_id, partition, Err(ErrorCode::RequestTimedOut));
        }
        let mut of_groups = GroupWrites::new(broker, of_groups, deadline);
        loop {
            let until = deadline.min(Instant::now() + OTHERS_WAIT_MAX);
            of_groups.send_next();
            let mut uncommitted = Vec::new();
            for it in written {
                match timeout_at(until, it.wait.refused()).await {
                    Ok(refused) => {
                        some_have_results = true;
                        results.set(it.producer_id, it.partition, refused.map_or(Ok(()), Err));
                    }
                    Err(_) => uncommitted.push(it),
                }
            }
            written = uncommitted;
            while let Ok(Some(answered)) = timeout_at(until, of_groups.answered()).await {
                some_have_results = true;
                let (producer_id, partition, result) = answered;
                results.set(producer_id, partition, result);
            }
            let all_have_results = written.is_empty() && of_groups.requests.is_empty();
            if all_have_results || some_have_results || Instant::now() >= deadline {
                return;
            }
        }
    }
}

/// A producer id, a partition of `__consumer_offsets`, and the result of its markers.
type GroupResult = (i64, TopicPartition, Result<(), ErrorCode>);

/// The requests to the group coordinator, of which a bounded number waits at a time. Dropping it
/// cancels those that are not answered.
struct GroupWrites {
    broker: Arc<Broker>,
    unsent: btree_map::IntoIter<(i64, TopicPartition), Vec<TxnMarker>>,
    requests: JoinSet<GroupResult>,
    deadline: Instant,
}

impl GroupWrites {
    fn new(
        broker: Arc<Broker>,
        markers: BTreeMap<(i64, TopicPartition), Vec<TxnMarker>>,
        deadline: Instant,
    ) -> Self {
        Self { broker, unsent: markers.into_iter(), requests: JoinSet::new(), deadline }
    }

    fn send_next(&mut self) {
        while self.requests.len() < GROUP_REQUESTS_MAX
            && let Some(((producer_id, id), markers)) = self.unsent.next()
        {
            let (broker, deadline) = (Arc::clone(&self.broker), self.deadline);
            self.requests.spawn(async move {
                let ended = end_in_group(&broker, id.partition, markers);
                let ended = timeout_at(deadline, ended).await;
                (producer_id, id, ended.unwrap_or(Err(ErrorCode::RequestTimedOut)))
            });
        }
    }

    /// Waits for the next result; `None` after the last one.
    async fn answered(&mut self) -> Option<GroupResult> {
        loop {
            let joined = self.requests.join_next().await?;
            self.send_next();
            // A request that has panicked has no result.
            if let Ok(result) = joined {
                return Some(result);
            }
        }
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

/// The error for a marker whose transaction version is unknown. As in Kafka, an older producer epoch
/// is reported first.
fn refusal_of_unknown_version(partition: &Partition, wire: &WritableTxnMarker) -> ErrorCode {
    let producer = Producer { id: wire.producer_id, epoch: wire.producer_epoch };
    match partition.check_epoch_of_marker(producer, Acks::All) {
        Ok(()) => ErrorCode::UnknownServerError,
        Err(error) => errors::append(&error),
    }
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
