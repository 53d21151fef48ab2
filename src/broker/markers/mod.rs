//! Writes the markers of ended transactions to their partitions (WriteTxnMarkers, Kafka's
//! `TransactionMarkerChannelManager`), and does what else the shards of the transaction coordinator
//! request.
//!
//! Each broker gets one request at a time, with the markers of all transactions that wait for it.
//! A marker is sent again, for ever, until its partition has it, its topic is deleted, or another
//! coordinator has ended the transaction.

mod outbox;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use kafka_protocol::protocol::StrBytes;
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::{error, info, warn};

use self::outbox::{Batch, Destination, EndedTxn, Outbox, Written};
use super::{Broker, BrokerChannels, broker_channels::ToBrokerError};
use crate::{
    base::TopicPartition,
    coordinator::{TRANSACTIONS_TOPIC, txn::messages::Effect},
    metadata::Image,
    peers::Channel,
    protocol::{
        ErrorCode, error_code,
        messages::{
            WritableTxnMarker, WritableTxnMarkerTopic, WriteTxnMarkersRequest,
            WriteTxnMarkersResponse,
        },
    },
    records::TxnMarker,
};

/// The version of WriteTxnMarkers that names the transaction version of a marker.
const VERSION: i16 = 2;
/// The pause before a marker is sent again.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// The shard that requests work, and the work.
type Requested = (i32, Effect);

/// The work that shards of the transaction coordinator have requested.
pub struct TxnWork {
    own_channel: Arc<dyn Channel>,
    /// `None` once [`run`] has taken it.
    requested: Mutex<Option<mpsc::UnboundedReceiver<Requested>>>,
}

impl TxnWork {
    /// Returns the work, and the function with which shards request it.
    pub fn new(own_channel: Arc<dyn Channel>) -> (Self, impl Fn(i32, Effect) + Send + Sync) {
        // A transaction has at most one request, so its transactions bound the length.
        let (sender, requested) = mpsc::unbounded_channel();
        let request = move |shard, effect| {
            let _ = sender.send((shard, effect)); // the broker may have stopped
        };
        (Self { own_channel, requested: Mutex::new(Some(requested)) }, request)
    }
}

/// Does the work that shards request, until the stop signal.
pub async fn run(broker: Arc<Broker>, mut stop: watch::Receiver<bool>) {
    let Some(mut requested) = broker.txn_work.requested.lock().take() else { return };
    let channels =
        BrokerChannels::new(Arc::clone(&broker.node), Arc::clone(&broker.txn_work.own_channel));
    let sender = Sender { broker, channels: Arc::new(channels) };
    let mut outbox = Outbox::default();
    let mut sent = JoinSet::new();
    let mut retry_at = None;
    loop {
        tokio::select! {
            Some((shard, effect)) = requested.recv() => sender.begin(&mut outbox, shard, effect),
            Some(Ok((batch, answer))) = sent.join_next() => sender.end(&mut outbox, batch, answer),
            () = sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => {
                retry_at = None;
                let image = sender.broker.metadata();
                let is_led = |shard| sender.leads(&image, shard);
                outbox.retry(is_led, |partition| destination(&image, partition));
            }
            _ = stop.wait_for(|stop| *stop) => return,
        }
        for (shard, written) in outbox.take_reports() {
            sender.broker.coordinators.transactions.markers_written(shard, written).await;
        }
        for batch in outbox.take_batches() {
            sent.spawn(sender.send(batch));
        }
        if outbox.has_delayed() && retry_at.is_none() {
            retry_at = Some(Instant::now() + RETRY_DELAY);
        }
    }
}

struct Sender {
    broker: Arc<Broker>,
    channels: Arc<BrokerChannels>,
}

type Answer = Result<WriteTxnMarkersResponse, ToBrokerError>;

impl Sender {
    fn begin(&self, outbox: &mut Outbox, shard: i32, effect: Effect) {
        match effect {
            Effect::WriteMarkers { id, marker, end_ms, partitions } => {
                let image = self.broker.metadata();
                let ended = EndedTxn { shard, id, marker, end_ms };
                outbox.add(ended, partitions, |partition| destination(&image, partition));
            }
            Effect::AbortTimedOut { id, producer } => {
                let broker = Arc::clone(&self.broker);
                self.broker.node.runtime.spawn(async move {
                    let ids = &broker.membership.producer_ids;
                    let transactions = &broker.coordinators.transactions;
                    let aborted = transactions.abort_timed_out(shard, Arc::clone(&id), producer, ids);
                    if let Err(error) = aborted.await {
                        warn!(transactional_id = %id, ?error, "cannot abort a timed out transaction");
                    }
                });
            }
        }
    }

    fn send(&self, batch: Batch) -> impl Future<Output = (Batch, Answer)> + Send + use<> {
        let channels = Arc::clone(&self.channels);
        let timeout_ms = self.broker.settings().cluster.request_timeout_ms.max(1) as u64;
        async move {
            let request = request(&batch);
            let timeout = Duration::from_millis(timeout_ms);
            let answer = channels.send(batch.broker, VERSION, &request, timeout).await;
            (batch, answer)
        }
    }

    fn end(&self, outbox: &mut Outbox, batch: Batch, answer: Answer) {
        match answer {
            Ok(response) => {
                let codes = codes(response);
                outbox.answered(batch, |marker, partition| {
                    let code = codes.get(&(marker.producer.id, partition.clone()));
                    result(marker, partition, code.copied())
                });
            }
            Err(error) => {
                warn!(broker = batch.broker, %error, "cannot write transaction markers: retrying");
                outbox.answered(batch, |_, _| Written::NotYet);
            }
        }
    }

    /// Whether this broker coordinates the transactions of a partition of `__transaction_state`.
    fn leads(&self, image: &Image, shard: i32) -> bool {
        let partition = image.partition(TRANSACTIONS_TOPIC, shard);
        partition.is_some_and(|partition| partition.leader == self.broker.node.id)
    }
}

/// The broker that leads a partition. The metadata of this broker has every partition of a
/// transaction that it coordinates, unless the topic was deleted: the partition was in the
/// metadata before it was added to the transaction.
fn destination(image: &Image, partition: &TopicPartition) -> Destination {
    let Some(partition) = image.partition(&partition.topic, partition.partition) else {
        return Destination::Deleted;
    };
    match image.broker(partition.leader) {
        Some(broker) if !broker.fenced => Destination::Broker(partition.leader),
        _ => Destination::NoLeader,
    }
}

fn request(batch: &Batch) -> WriteTxnMarkersRequest {
    let markers = batch.markers.iter().map(|it| {
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for partition in &it.partitions {
            topics.entry(&partition.topic).or_default().push(partition.partition);
        }
        let topic = |(name, partition_indexes): (&str, Vec<i32>)| WritableTxnMarkerTopic {
            name: StrBytes::from_string(name.to_owned()),
            partition_indexes,
        };
        let TxnMarker { producer, commits, coordinator_epoch, version } = it.marker;
        WritableTxnMarker {
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            transaction_result: commits,
            topics: topics.into_iter().map(topic).collect(),
            coordinator_epoch,
            transaction_version: version.level() as i8,
        }
    });
    WriteTxnMarkersRequest { markers: markers.collect() }
}

/// The error codes of a response by producer id and partition.
fn codes(response: WriteTxnMarkersResponse) -> HashMap<(i64, TopicPartition), i16> {
    let mut codes = HashMap::new();
    for marker in response.markers {
        for topic in marker.topics {
            let name: Arc<str> = Arc::from(topic.name.as_str());
            for partition in topic.partitions {
                let key = TopicPartition::new(Arc::clone(&name), partition.partition_index);
                codes.insert((marker.producer_id, key), partition.error_code);
            }
        }
    }
    codes
}

/// What an error code means for a marker. A response that leaves it out counts as a transient
/// error, and so do codes that the API does not have.
fn result(marker: &TxnMarker, partition: &TopicPartition, code: Option<i16>) -> Written {
    use ErrorCode::*;
    let Some(code) = code else { return Written::NotYet };
    let error = ErrorCode::try_from_code(code);
    let name = error_code::name(code);
    let (topic, index) = (&partition.topic, partition.partition);
    match error {
        // A partition in an old format cannot have records of the transaction.
        None | Some(UnsupportedForMessageFormat | UnsupportedVersion) => Written::Yes,
        Some(InvalidProducerEpoch | TransactionCoordinatorFenced) => {
            info!(%topic, index, producer = ?marker.producer, error = name,
                "a newer coordinator ends the transaction");
            Written::Fenced
        }
        Some(
            UnknownTopicOrPartition
            | NotLeaderOrFollower
            | NotEnoughReplicas
            | NotEnoughReplicasAfterAppend
            | RequestTimedOut
            | KafkaStorageError,
        ) => Written::NotYet,
        Some(_) => {
            error!(%topic, index, producer = ?marker.producer, error = name,
                "unexpected error for a transaction marker: retrying");
            Written::NotYet
        }
    }
}
