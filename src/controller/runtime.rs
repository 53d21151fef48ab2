//! The handle to the controller, with a method per request. Every node that may lead the quorum has
//! one. The controller's task (`task`) decides while this node leads.

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
    task::{Answer, Decide, Request, Task, is_past},
    topics,
};
use crate::{
    base::TopicId,
    metadata::{ConfigResource, MetadataRecord, records::RegisterControllerRecord},
    quorum::{Durability, Leadership, Quorum},
};

/// Number of requests that may wait in the mailbox. If it is full, callers wait until there is
/// room.
const MAILBOX: usize = 1_024;

/// A response, and the offset of the metadata log that it depends on.
#[derive(Debug, Clone, PartialEq)]
pub struct Committed<T> {
    /// Offset of the last committed record that the response depends on. Before a broker sends the
    /// response, it waits until it has applied this offset.
    pub offset: i64,
    pub value: T,
}

/// A handle to this node's controller. Clones share one controller, which stops when the last
/// handle is dropped.
///
/// Each method puts a request in the controller's mailbox and returns once the records of the
/// decision are committed. It fails with `NotController` while another node leads the quorum, with
/// `TimedOut` if the controller has not begun to decide by the deadline (see `until`), and with
/// `NoRoom` if the disk of the metadata log is full.
#[derive(Clone)]
pub struct Controller {
    requests: mpsc::Sender<Request>,
    leadership: watch::Receiver<Leadership>,
    deadline: Option<Instant>,
}

type Outcome<T> = Result<Committed<T>, ControllerError>;

/// Turns an error that refuses the whole request into an error of the outcome.
fn flat<T>(outcome: Outcome<Result<T, ControllerError>>) -> Outcome<T> {
    outcome.and_then(|it| it.value.map(|value| Committed { offset: it.offset, value }))
}

impl Controller {
    /// Starts the controller of a node. It decides while this node leads the quorum. A metadata log
    /// without a `metadata.version` belongs to a new cluster; the controller then writes
    /// `bootstrap` first, or the records that `kafka-storage format` writes by default.
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

    /// Returns a handle whose requests have a deadline. If the controller has not begun to decide
    /// on a request by then, it drops the request, which fails with `TimedOut`.
    pub fn until(&self, deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..self.clone() }
    }

    /// Sends a decision to the controller's task and waits until it is committed.
    async fn run<T: Send + 'static>(
        &self,
        cause: Cause,
        durability: Durability,
        decide: impl FnOnce(&mut Context<'_>) -> Decision<T> + Send + 'static,
    ) -> Outcome<T> {
        if is_past(self.deadline) {
            return Err(ControllerError::TimedOut);
        }
        let (reply, committed) = oneshot::channel();
        let decide: Decide = Box::new(move |cx| {
            let Decision { records, response } = decide(cx);
            let answer: Answer = Box::new(move |outcome| {
                let outcome = outcome.map(|offset| Committed { offset, value: response });
                // The caller may be gone. The records stay committed.
                let _ = reply.send(outcome);
            });
            (records, answer)
        });
        // The task drops requests after their deadline, and all requests while it is inactive.
        let refused = || match is_past(self.deadline) {
            true => ControllerError::TimedOut,
            false => ControllerError::not_controller(self.leadership.borrow().leader),
        };
        let deadline = self.deadline;
        let sent = self.requests.send(Request { cause, decide, durability, deadline }).await;
        sent.map_err(|_| refused())?;
        committed.await.map_err(|_| refused())?
    }

    /// Creates topics. The caller must have removed duplicate names.
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

    /// Adds partitions to topics. The caller must have removed duplicate names.
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

    /// AlterConfigs: replaces the configuration of each resource. Keys that are not named are
    /// unset.
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

    /// IncrementalAlterConfigs (KIP-339): changes only the named keys.
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

    /// Allocates a block of `PRODUCER_ID_BLOCK` producer ids and returns its first id. The record
    /// is on disk before the response, so no id is handed out twice.
    pub async fn allocate_producer_ids(&self, broker_id: i32, broker_epoch: i64) -> Outcome<i64> {
        let decide =
            move |cx: &mut Context<'_>| producer_ids::allocate(cx, broker_id, broker_epoch);
        flat(
            self.run(Cause::broker("allocate_producer_ids", broker_id), Durability::Synced, decide)
                .await,
        )
    }

    /// Registers a broker as fenced, and returns its epoch. The record need not be on disk before
    /// the response, because a broker registers again at every start.
    pub async fn register_broker(
        &self,
        registration: Registration,
    ) -> Outcome<Result<i64, ControllerError>> {
        let cause = Cause::broker("registration", registration.broker_id);
        let decide = move |cx: &mut Context<'_>| registration::register(cx, &registration);
        self.run(cause, Durability::Deferred, decide).await
    }

    /// Processes a heartbeat: the broker is alive, reports the metadata offset that it has applied,
    /// and may ask to be fenced or to shut down. A fenced broker is unfenced by the first heartbeat
    /// that shows that it has applied its own registration.
    pub async fn heartbeat(&self, heartbeat: Heartbeat) -> Outcome<HeartbeatReply> {
        let cause = heartbeat.cause();
        let decide = move |cx: &mut Context<'_>| heartbeat::process(cx, &heartbeat);
        flat(self.run(cause, Durability::Deferred, decide).await)
    }

    /// Fences a broker whose process has ended, without waiting for its session to time out.
    /// `epoch` is the broker epoch of the ended process; `None` means the current one. Called by
    /// the watch for brokers without a heartbeat connection
    /// (`broker/membership/disconnect_fencing.rs`).
    pub async fn broker_gone(&self, broker_id: i32, epoch: Option<i64>) -> Outcome<()> {
        let decide = move |cx: &mut Context<'_>| registration::gone(cx, broker_id, epoch);
        self.run(Cause::fault("process_ended", broker_id), Durability::Deferred, decide).await
    }

    /// Unfenced brokers, with their epochs, that have sent no heartbeat since this controller
    /// became active. They may have ended together with the previous controller.
    pub async fn unheard_of(&self) -> Outcome<Vec<(i32, i64)>> {
        let decide = |cx: &mut Context<'_>| {
            let response = cx.volatile.unheard_of(cx.image);
            Decision { records: Vec::new(), response }
        };
        self.run(Cause::default(), Durability::Deferred, decide).await
    }

    /// Removes a broker from the cluster metadata.
    pub async fn unregister_broker(&self, id: i32) -> Outcome<Result<(), ControllerError>> {
        self.run(Cause::broker("unregistration", id), Durability::Synced, move |cx| {
            registration::unregister(cx, id)
        })
        .await
    }

    /// AlterPartition: a leader changes the ISRs of partitions that it leads.
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

    /// AssignReplicasToDirs: a broker reports in which log directories its replicas are. The
    /// directory id `LOST` stands for one that cannot be used.
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

    /// Starts or cancels reassignments (KIP-455).
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

    /// Records the endpoints and features of a controller.
    pub async fn register_controller(&self, record: RegisterControllerRecord) -> Outcome<()> {
        self.run(Cause::request("controller_registration"), Durability::Deferred, move |_| {
            Decision { records: vec![record.into()], response: () }
        })
        .await
    }

    /// Changes feature levels. `kraft_version` is the current level of `kraft.version`, which the
    /// quorum keeps.
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

    /// Elects leaders of the partitions, or of all partitions for `None`.
    pub async fn elect_leaders(
        &self,
        kind: ElectionType,
        partitions: Option<Partitions>,
    ) -> Outcome<ElectionResults> {
        let decide = move |cx: &mut Context<'_>| elections::elect(cx, kind, partitions.as_ref());
        self.run(Cause::request("elect_leaders"), Durability::Synced, decide).await
    }
}
