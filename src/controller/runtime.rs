//! The controller's task and its handle.

use tokio::sync::{mpsc, oneshot};

use super::{
    ConfigOp, ConfigResults, ConfigValues, Context, ControllerError, CreatedTopic, Decision,
    DirsFailure, ElectionResults, ElectionType, FeatureUpdate, NewPartitions, NewTopic, Partitions,
    Random, Registration, Results, Settings, brokers, configs, elections, features, topics,
};
use crate::{
    base::TopicId,
    metadata::{ConfigResource, Image, MetadataRecord, records::RegisterControllerRecord},
    quorum::{Durability, Quorum, QuorumError},
};

/// Requests that may wait; a caller beyond that waits for room.
const MAILBOX: usize = 1_024;
/// A batch takes no further request once it has this many records.
const BATCH_RECORDS: usize = 10_000;

/// An answer, and where in the metadata log it holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Committed<T> {
    /// Of the last committed record that the answer rests on; wait for it to be applied.
    pub offset: i64,
    pub value: T,
}

/// Told the last offset, or why the batch was not committed.
type Answer = Box<dyn FnOnce(Result<i64, ControllerError>) + Send>;
type Decide = Box<dyn FnOnce(&mut Context<'_>) -> (Vec<MetadataRecord>, Answer) + Send>;

struct Request {
    decide: Decide,
    durability: Durability,
}

/// A handle to the controller; clones share it. It stops when the last one is dropped.
#[derive(Clone)]
pub struct Controller {
    requests: mpsc::Sender<Request>,
}

type Outcome<T> = Result<Committed<T>, ControllerError>;

impl Controller {
    /// Starts the controller on a quorum that this node leads. A log without a `metadata.version`
    /// is a new cluster's: it gets `bootstrap` (or what `kafka-storage format` writes).
    pub async fn start(
        quorum: Quorum,
        settings: Settings,
        bootstrap: Option<Vec<MetadataRecord>>,
    ) -> Result<Self, QuorumError> {
        let epoch = quorum.epoch();
        if quorum.image().feature(features::METADATA_VERSION) == 0 {
            let min_isr = settings.min_insync_replicas;
            let records = match bootstrap {
                Some(chosen) => features::bootstrap_with(chosen, min_isr),
                None => features::bootstrap(min_isr),
            };
            quorum.propose_with(epoch, records, Durability::Deferred).await?;
        }
        let (requests, mailbox) = mpsc::channel(MAILBOX);
        let random = Random::new(uuid::Uuid::new_v4().as_u128());
        tokio::spawn(Task { quorum, epoch, settings, random, mailbox }.run());
        Ok(Self { requests })
    }

    async fn run<T: Send + 'static>(
        &self,
        durability: Durability,
        decide: impl FnOnce(&mut Context<'_>) -> Decision<T> + Send + 'static,
    ) -> Outcome<T> {
        let (reply, committed) = oneshot::channel();
        let decide: Decide = Box::new(move |cx| {
            let Decision { records, response } = decide(cx);
            let answer: Answer = Box::new(move |outcome| {
                let outcome = outcome.map(|offset| Committed { offset, value: response });
                // The caller may have gone; what is committed stays so.
                let _ = reply.send(outcome);
            });
            (records, answer)
        });
        let stopped = || ControllerError::NotController("The controller has stopped.".into());
        let sent = self.requests.send(Request { decide, durability }).await;
        sent.map_err(|_| stopped())?;
        committed.await.map_err(|_| stopped())?
    }

    /// Topics must have different names.
    pub async fn create_topics(
        &self,
        topics: Vec<NewTopic>,
        validate_only: bool,
    ) -> Outcome<Results<CreatedTopic>> {
        self.run(Durability::Synced, move |cx| {
            let decision = topics::create(cx, &topics);
            if validate_only { decision.validated() } else { decision }
        })
        .await
    }

    pub async fn delete_topics(
        &self,
        ids: Vec<TopicId>,
    ) -> Outcome<Vec<(TopicId, Result<(), ControllerError>)>> {
        self.run(Durability::Synced, move |cx| topics::delete(cx, &ids)).await
    }

    pub async fn create_partitions(
        &self,
        topics: Vec<NewPartitions>,
        validate_only: bool,
    ) -> Outcome<Results<()>> {
        self.run(Durability::Synced, move |cx| {
            let decision = topics::create_partitions(cx, &topics);
            if validate_only { decision.validated() } else { decision }
        })
        .await
    }

    /// AlterConfigs: what is not named is unset.
    pub async fn alter_configs(
        &self,
        changes: Vec<(ConfigResource, ConfigValues)>,
        validate_only: bool,
    ) -> Outcome<ConfigResults> {
        self.run(Durability::Synced, move |cx| {
            let decision = configs::alter(cx, &changes);
            if validate_only { decision.validated() } else { decision }
        })
        .await
    }

    pub async fn incremental_alter_configs(
        &self,
        changes: Vec<(ConfigResource, Vec<(String, ConfigOp)>)>,
        validate_only: bool,
    ) -> Outcome<ConfigResults> {
        self.run(Durability::Synced, move |cx| {
            let decision = configs::alter_incrementally(cx, &changes);
            if validate_only { decision.validated() } else { decision }
        })
        .await
    }

    /// The first id of a block of `PRODUCER_ID_BLOCK`. On disk before it is answered: an id is
    /// never handed out twice.
    pub async fn allocate_producer_ids(
        &self,
        broker_id: i32,
    ) -> Outcome<Result<i64, ControllerError>> {
        self.run(Durability::Synced, move |cx| brokers::allocate_producer_ids(cx, broker_id)).await
    }

    /// Answers the broker's epoch. Each start registers anew, so it need not wait for the disk.
    pub async fn register_broker(
        &self,
        registration: Registration,
    ) -> Outcome<Result<i64, ControllerError>> {
        self.run(Durability::Deferred, move |cx| brokers::register(cx, &registration)).await
    }

    pub async fn unregister_broker(&self, id: i32) -> Outcome<Result<(), ControllerError>> {
        self.run(Durability::Synced, move |cx| brokers::unregister(cx, id)).await
    }

    /// Takes the leadership of all that lies in log directories that have failed (KIP-858).
    pub async fn directories_failed(&self, failure: DirsFailure) -> Outcome<()> {
        self.run(Durability::Deferred, move |cx| brokers::directories_failed(cx, &failure)).await
    }

    /// Tells the cluster that this broker is about to stop.
    pub async fn begin_shutdown(&self, broker_id: i32) -> Outcome<()> {
        self.run(Durability::Deferred, move |cx| brokers::begin_shutdown(cx, broker_id)).await
    }

    pub async fn register_controller(&self, record: RegisterControllerRecord) -> Outcome<()> {
        self.run(Durability::Deferred, move |_| Decision {
            records: vec![record.into()],
            response: (),
        })
        .await
    }

    pub async fn update_features(
        &self,
        updates: Vec<FeatureUpdate>,
        validate_only: bool,
    ) -> Outcome<Result<(), ControllerError>> {
        self.run(Durability::Synced, move |cx| {
            let decision = features::update(cx, &updates);
            if validate_only { decision.validated() } else { decision }
        })
        .await
    }

    /// `None` asks for all partitions.
    pub async fn elect_leaders(
        &self,
        kind: ElectionType,
        partitions: Option<Partitions>,
    ) -> Outcome<ElectionResults> {
        let decide = move |cx: &mut Context<'_>| elections::elect(cx, kind, partitions.as_ref());
        self.run(Durability::Synced, decide).await
    }
}

struct Task {
    quorum: Quorum,
    /// The epoch in which this node leads; in any other this controller decides nothing.
    epoch: i32,
    settings: Settings,
    random: Random,
    mailbox: mpsc::Receiver<Request>,
}

/// The decisions of one batch.
struct Batch {
    image: Image,
    records: Vec<MetadataRecord>,
    answers: Vec<Answer>,
    durability: Durability,
}

impl Task {
    async fn run(mut self) {
        while let Some(first) = self.mailbox.recv().await {
            let batch = self.decide(first);
            let outcome = self.commit(batch.image.offset, batch.records, batch.durability).await;
            for answer in batch.answers {
                answer(outcome.clone());
            }
        }
    }

    /// Decides on all requests that wait, each in sight of those before it.
    fn decide(&mut self, first: Request) -> Batch {
        let mut batch = Batch {
            image: Image::clone(&self.quorum.image()),
            records: Vec::new(),
            answers: Vec::new(),
            durability: Durability::Deferred,
        };
        let mut next = Some(first);
        while let Some(request) = next {
            self.decide_one(&mut batch, request);
            let room = batch.records.len() < BATCH_RECORDS;
            next = if room { self.mailbox.try_recv().ok() } else { None };
        }
        batch
    }

    fn decide_one(&mut self, batch: &mut Batch, request: Request) {
        let (settings, random) = (&self.settings, &mut self.random);
        let mut cx = Context { image: &batch.image, settings, random };
        let (records, answer) = (request.decide)(&mut cx);
        for record in &records {
            batch.image.apply(record);
        }
        batch.image.offset += records.len() as i64;
        if !records.is_empty() && request.durability == Durability::Synced {
            batch.durability = Durability::Synced;
        }
        batch.records.extend(records);
        batch.answers.push(answer);
    }

    async fn commit(
        &self,
        offset: i64,
        records: Vec<MetadataRecord>,
        durability: Durability,
    ) -> Result<i64, ControllerError> {
        if records.is_empty() {
            return Ok(offset);
        }
        let committed = self.quorum.propose_with(self.epoch, records, durability).await;
        committed.map_err(|error| {
            tracing::error!(%error, "metadata records are not committed");
            ControllerError::NotController(error.to_string())
        })
    }
}
