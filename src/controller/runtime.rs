//! The handle to the controller, and what can be asked of it. Every node that may lead the quorum
//! has one; `task` decides while this node leads.

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::{
    AlterPartition, AlteredPartitions, Assigned, Assignments, ConfigOp, ConfigResults,
    ConfigValues, Context, ControllerError, CreatedTopic, Decision, ElectionResults, ElectionType,
    FeatureUpdate, Heartbeat, HeartbeatReply, NewPartitions, NewTopic, Partitions, Reassigned,
    Reassignment, Registration, Results, Settings, alter_partition, configs, directories,
    elections,
    events::Cause,
    features, heartbeat, producer_ids, reassignment, registration,
    task::{Answer, Decide, Request, Task},
    topics,
};
use crate::{
    base::TopicId,
    metadata::{ConfigResource, MetadataRecord, records::RegisterControllerRecord},
    quorum::{Durability, Leadership, Quorum},
};

/// Requests that may wait; a caller beyond that waits for room.
const MAILBOX: usize = 1_024;

/// An answer, and where in the metadata log it holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Committed<T> {
    /// Of the last committed record that the answer rests on; wait for it to be applied.
    pub offset: i64,
    pub value: T,
}

/// A handle to the controller; clones share it. It stops when the last one is dropped.
#[derive(Clone)]
pub struct Controller {
    requests: mpsc::Sender<Request>,
    leadership: watch::Receiver<Leadership>,
    deadline: Option<Instant>,
}

type Outcome<T> = Result<Committed<T>, ControllerError>;

/// A refusal of the whole request is one of the outcome.
fn flat<T>(outcome: Outcome<Result<T, ControllerError>>) -> Outcome<T> {
    outcome.and_then(|it| it.value.map(|value| Committed { offset: it.offset, value }))
}

impl Controller {
    /// Starts the controller of a node; it decides while this node leads the quorum. A log without
    /// a `metadata.version` is a new cluster's: it gets `bootstrap` (or what `kafka-storage format`
    /// writes).
    pub fn start(
        quorum: Quorum,
        settings: Settings,
        bootstrap: Option<Vec<MetadataRecord>>,
    ) -> Self {
        let (requests, mailbox) = mpsc::channel(MAILBOX);
        let leadership = quorum.leadership();
        let min_isr = settings.min_insync_replicas;
        let bootstrap = match bootstrap {
            Some(chosen) => features::bootstrap_with(chosen, min_isr),
            None => features::bootstrap(min_isr),
        };
        tokio::spawn(Task::new(quorum, settings, bootstrap, mailbox).run());
        Self { requests, leadership, deadline: None }
    }

    /// A handle for a request with a time limit. If the controller has not begun to decide by the
    /// deadline, it refuses the request with `TimedOut` and does not decide on it any more.
    pub fn until(&self, deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..self.clone() }
    }

    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    async fn run<T: Send + 'static>(
        &self,
        cause: Cause,
        durability: Durability,
        decide: impl FnOnce(&mut Context<'_>) -> Decision<T> + Send + 'static,
    ) -> Outcome<T> {
        if self.is_late() {
            return Err(ControllerError::TimedOut);
        }
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
        // A controller drops requests that are late, and all requests while it is not active.
        let refused = || match self.is_late() {
            true => ControllerError::TimedOut,
            false => ControllerError::not_controller(self.leadership.borrow().leader),
        };
        let deadline = self.deadline;
        let sent = self.requests.send(Request { cause, decide, durability, deadline }).await;
        sent.map_err(|_| refused())?;
        committed.await.map_err(|_| refused())?
    }

    /// Topics must have different names.
    pub async fn create_topics(
        &self,
        topics: Vec<NewTopic>,
        validate_only: bool,
    ) -> Outcome<Results<CreatedTopic>> {
        self.run(Cause::request("create_topics"), Durability::Synced, move |cx| {
            let decision = topics::create(cx, &topics);
            if validate_only { decision.validated() } else { decision }
        })
        .await
    }

    pub async fn delete_topics(
        &self,
        ids: Vec<TopicId>,
    ) -> Outcome<Vec<(TopicId, Result<(), ControllerError>)>> {
        self.run(Cause::request("delete_topics"), Durability::Synced, move |cx| {
            topics::delete(cx, &ids)
        })
        .await
    }

    pub async fn create_partitions(
        &self,
        topics: Vec<NewPartitions>,
        validate_only: bool,
    ) -> Outcome<Results<()>> {
        self.run(Cause::request("create_partitions"), Durability::Synced, move |cx| {
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
        self.run(Cause::request("alter_configs"), Durability::Synced, move |cx| {
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
        self.run(Cause::request("alter_configs"), Durability::Synced, move |cx| {
            let decision = configs::alter_incrementally(cx, &changes);
            if validate_only { decision.validated() } else { decision }
        })
        .await
    }

    /// The first id of a block of `PRODUCER_ID_BLOCK`. On disk before it is answered: an id is
    /// never handed out twice.
    pub async fn allocate_producer_ids(&self, broker_id: i32, broker_epoch: i64) -> Outcome<i64> {
        let decide =
            move |cx: &mut Context<'_>| producer_ids::allocate(cx, broker_id, broker_epoch);
        flat(
            self.run(Cause::broker("allocate_producer_ids", broker_id), Durability::Synced, decide)
                .await,
        )
    }

    /// Registers a broker, fenced, and answers its epoch. Each start registers anew, so it need
    /// not wait for the disk.
    pub async fn register_broker(
        &self,
        registration: Registration,
    ) -> Outcome<Result<i64, ControllerError>> {
        let cause = Cause::broker("registration", registration.broker_id);
        let decide = move |cx: &mut Context<'_>| registration::register(cx, &registration);
        self.run(cause, Durability::Deferred, decide).await
    }

    /// A broker lives, and tells how far it is and what it wants. The first heartbeat that shows it
    /// caught up with its registration unfences it.
    pub async fn heartbeat(&self, heartbeat: Heartbeat) -> Outcome<HeartbeatReply> {
        let cause = heartbeat.cause();
        let decide = move |cx: &mut Context<'_>| heartbeat::process(cx, &heartbeat);
        flat(self.run(cause, Durability::Deferred, decide).await)
    }

    /// The process of a broker is known to be gone: fences it at once. `epoch` is the incarnation
    /// that is meant; `None` the present one.
    pub async fn broker_gone(&self, broker_id: i32, epoch: Option<i64>) -> Outcome<()> {
        let decide = move |cx: &mut Context<'_>| registration::gone(cx, broker_id, epoch);
        self.run(Cause::fault("process_ended", broker_id), Durability::Deferred, decide).await
    }

    /// Brokers of which the controller has not heard since it became active, though they are not
    /// fenced: they may have gone with the controller before. Each with its epoch.
    pub async fn unheard_of(&self) -> Outcome<Vec<(i32, i64)>> {
        let decide = |cx: &mut Context<'_>| {
            let response = cx.soft.unheard_of(cx.image);
            Decision { records: Vec::new(), response }
        };
        self.run(Cause::default(), Durability::Deferred, decide).await
    }

    pub async fn unregister_broker(&self, id: i32) -> Outcome<Result<(), ControllerError>> {
        self.run(Cause::broker("unregistration", id), Durability::Synced, move |cx| {
            registration::unregister(cx, id)
        })
        .await
    }

    /// A leader changes the ISRs of its partitions.
    pub async fn alter_partition(
        &self,
        broker_id: i32,
        broker_epoch: i64,
        topics: Vec<(TopicId, Vec<AlterPartition>)>,
    ) -> Outcome<AlteredPartitions> {
        let decide = move |cx: &mut Context<'_>| {
            alter_partition::alter(cx, broker_id, broker_epoch, &topics)
        };
        flat(
            self.run(Cause::broker("alter_partition", broker_id), Durability::Deferred, decide)
                .await,
        )
    }

    /// A broker tells in which log directories its replicas lie; in `LOST` ones are unusable.
    pub async fn assign_replicas_to_dirs(
        &self,
        broker_id: i32,
        broker_epoch: i64,
        assignments: Assignments,
    ) -> Outcome<Assigned> {
        let decide = move |cx: &mut Context<'_>| {
            directories::assign(cx, broker_id, broker_epoch, &assignments)
        };
        flat(
            self.run(
                Cause::broker("assign_replicas_to_dirs", broker_id),
                Durability::Deferred,
                decide,
            )
            .await,
        )
    }

    pub async fn alter_partition_reassignments(
        &self,
        topics: Vec<(String, Vec<Reassignment>)>,
        allow_replication_factor_change: bool,
    ) -> Outcome<Reassigned> {
        let decide = move |cx: &mut Context<'_>| {
            reassignment::alter(cx, &topics, allow_replication_factor_change)
        };
        self.run(Cause::request("alter_partition_reassignments"), Durability::Synced, decide).await
    }

    pub async fn register_controller(&self, record: RegisterControllerRecord) -> Outcome<()> {
        self.run(Cause::request("controller_registration"), Durability::Deferred, move |_| {
            Decision { records: vec![record.into()], response: () }
        })
        .await
    }

    pub async fn update_features(
        &self,
        updates: Vec<FeatureUpdate>,
        kraft_version: i16,
        validate_only: bool,
    ) -> Outcome<Result<(), ControllerError>> {
        self.run(Cause::request("update_features"), Durability::Synced, move |cx| {
            let decision = features::update(cx, &updates, kraft_version);
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
        self.run(Cause::request("elect_leaders"), Durability::Synced, decide).await
    }
}
