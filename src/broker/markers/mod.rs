//! Writes the markers of ended transactions to their partitions (WriteTxnMarkers, Kafka's
//! `TransactionMarkerChannelManager`), and does what else the shards of the transaction coordinator
//! request.
//!
//! Usually one request is in flight to a broker, and the markers that come meanwhile share the next
//! one. A partition that cannot commit its marker does not hold up others for long ([`queue`]). A
//! marker is sent again, for ever, until its partition has it, its topic is deleted, or another
//! coordinator has ended the transaction.

mod outbox;
mod queue;

use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use kafka_protocol::protocol::StrBytes;
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};
use tracing::warn;

use self::outbox::{Batch, Destination, EndedTxn, Outbox, Written};
use super::{Broker, BrokerChannels, broker_channels::ToBrokerError};
use crate::{
    base::{
        TopicPartition,
        planted_bugs::{Bug, has_bug},
    },
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
    /// True once [`run`] has panicked. Ended transactions would then never complete.
    pub failed: watch::Sender<bool>,
}

impl TxnWork {
    /// Returns the work, and the function with which shards request it.
    pub fn new(own_channel: Arc<dyn Channel>) -> (Self, impl Fn(i32, Effect) + Send + Sync) {
        // A transaction has at most one request, so its transactions bound the length.
        let (sender, requested) = mpsc::unbounded_channel();
        let request = move |shard, effect| {
            let _ = sender.send((shard, effect)); // the broker may have stopped
        };
        let (requested, failed) = (Mutex::new(Some(requested)), watch::channel(false).0);
        (Self { own_channel, requested, failed }, request)
    }
}

/// Does the work that shards request, until the stop signal.
pub async fn run(broker: Arc<Broker>, mut stop: watch::Receiver<bool>) {
    let Some(mut requested) = broker.txn_work.requested.lock().take() else { return };
    let channels =
        BrokerChannels::new(Arc::clone(&broker.node), Arc::clone(&broker.txn_work.own_channel));
    let mut sender = Sender { broker, channels: Arc::new(channels), failing: HashSet::new() };
    let mut outbox = Outbox::default();
    let mut sent = JoinSet::new();
    let (started, mut retry_at, mut send_at) = (Instant::now(), None, None);
    loop {
        tokio::select! {
            Some((shard, effect)) = requested.recv() => sender.begin(&mut outbox, shard, effect),
            Some(answered) = sent.join_next() => {
                let (batch, answer) = answered.expect("a request does not panic");
                sender.end(&mut outbox, batch, answer);
            }
            () = sleep_until(send_at) => {}
            () = sleep_until(retry_at) => {
                retry_at = None;
                let image = sender.broker.metadata();
                let is_led = |shard| sender.leads(&image, shard);
                outbox.retry(is_led, |partition| destination(&image, partition));
            }
            _ = stop.wait_for(|stop| *stop) => return,
        }
        for (shard, written) in outbox.take_reports() {
            // The mailbox of a shard may be full, which must not hold up the others.
            let transactions = sender.broker.coordinators.transactions.clone();
            tokio::spawn(async move { transactions.markers_written(shard, written).await });
        }
        let now = started.elapsed();
        for batch in outbox.take_batches(now) {
            sent.spawn(sender.send(batch));
        }
        send_at = outbox.next_send_at().map(|at| started + at);
        if outbox.has_delayed() && retry_at.is_none() {
            retry_at = Some(Instant::now() + RETRY_DELAY);
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

struct Sender {
    broker: Arc<Broker>,
    channels: Arc<BrokerChannels>,
    /// Brokers whose last request failed. A failure is logged once until a request succeeds.
    failing: HashSet<i32>,
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
        async move {
            let answer = channels.send(batch.broker, VERSION, &request(&batch)).await;
            (batch, answer)
        }
    }

    fn end(&mut self, outbox: &mut Outbox, batch: Batch, answer: Answer) {
        let broker = batch.broker;
        let failure = match answer {
            Ok(response) => {
                let codes = codes(response);
                let unexpected = Cell::new(None);
                outbox.answered(batch, |marker, partition| {
                    let code = codes.get(&(marker.producer.id, partition.clone())).copied();
                    result(code).unwrap_or_else(|| {
                        unexpected.set(code);
                        Written::NotYet
                    })
                });
                unexpected.get().map(|code| error_code::name(code).to_owned())
            }
            Err(error) => {
                let is_lost = has_bug(Bug::LostMarker);
                let written = if is_lost { Written::Yes } else { Written::NotYet };
                outbox.answered(batch, |_, _| written);
                Some(error.to_string())
            }
        };
        match failure {
            Some(error) if self.failing.insert(broker) => {
                warn!(broker, %error, "cannot write transaction markers: retrying");
            }
            Some(_) => {}
            None => {
                self.failing.remove(&broker);
            }
        }
    }

    /// Whether this broker coordinates the transactions of a partition of `__transaction_state`.
    fn leads(&self, image: &Image, shard: i32) -> bool {
        let partition = image.partition(TRANSACTIONS_TOPIC, shard);
        partition.is_some_and(|partition| partition.leader == self.broker.node.id)
    }
}

/// The broker that leads a partition. The metadata of this broker has every partition that was
/// added to a transaction by AddPartitionsToTxn, unless the topic was deleted: it was there before.
/// As in Kafka, AddOffsetsToTxn adds a partition of `__consumer_offsets` even if that topic does not
/// exist.
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
        let topics = TopicPartition::by_topic(&it.partitions);
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

/// What an error code means for a marker. A response that leaves the partition out counts as a
/// transient error. `None` for codes that the API does not have.
fn result(code: Option<i16>) -> Option<Written> {
    use ErrorCode::*;
    let Some(code) = code else { return Some(Written::NotYet) };
    match ErrorCode::try_from_code(code) {
        // A partition with such an error cannot have records of the transaction.
        None | Some(UnsupportedForMessageFormat | UnsupportedVersion) => Some(Written::Yes),
        Some(InvalidProducerEpoch | TransactionCoordinatorFenced) => Some(Written::Fenced),
        Some(
            UnknownTopicOrPartition
            | NotLeaderOrFollower
            | NotEnoughReplicas
            | NotEnoughReplicasAfterAppend
            | KafkaStorageError,
        ) => Some(Written::NotYet),
        Some(RequestTimedOut) => Some(Written::TimedOut),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_end_the_work_or_repeat_it() {
        let of = |code: ErrorCode| result(Some(code.code()));
        assert_eq!(result(Some(error_code::NONE)), Some(Written::Yes));
        assert_eq!(of(ErrorCode::UnsupportedForMessageFormat), Some(Written::Yes));
        assert_eq!(of(ErrorCode::NotLeaderOrFollower), Some(Written::NotYet));
        assert_eq!(of(ErrorCode::RequestTimedOut), Some(Written::TimedOut));
        assert_eq!(of(ErrorCode::TransactionCoordinatorFenced), Some(Written::Fenced));
        assert_eq!(of(ErrorCode::InvalidProducerEpoch), Some(Written::Fenced));
        assert_eq!(result(None), Some(Written::NotYet), "left out of the response");
        assert_eq!(of(ErrorCode::ClusterAuthorizationFailed), None, "unexpected");
    }
}
