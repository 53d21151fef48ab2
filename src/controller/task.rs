//! The controller's task. While this node leads the quorum, the task decides on requests and on
//! timers, in batches.

use std::time::Duration;

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    Context, ControllerError, Random, Settings, VolatileState,
    events::{Cause, Events},
    features, timers,
};
use crate::{
    base::environment::new_uuid,
    metadata::{Image, MetadataRecord},
    quorum::{Durability, Leadership, Quorum, QuorumError},
};

/// A batch with this many records takes no further request, and a proposal has at most this many.
const BATCH_RECORDS: usize = 10_000;
/// How long a broker may need to find a new controller, in milliseconds.
const FIND_MS: i64 = 1_000;
/// Delay before a controller that failed to become active tries again.
const RETRY: Duration = Duration::from_secs(1);

/// Sends the response. It is called with the offset of the last committed record, or with the error
/// if the batch was not committed.
pub(super) type Answer = Box<dyn FnOnce(Result<i64, ControllerError>) + Send>;
/// Makes a decision. It returns the records to propose and the function that sends the response.
pub(super) type Decide = Box<dyn FnOnce(&mut Context<'_>) -> (Vec<MetadataRecord>, Answer) + Send>;

/// A request in the mailbox of the controller. If it is dropped, its caller gets an error.
pub(super) struct Request {
    pub cause: Cause,
    pub decide: Decide,
    pub durability: Durability,
    /// The controller drops the request if it has not begun to decide on it by then.
    pub deadline: Option<Instant>,
}

/// Whether the deadline of a request has passed.
pub(super) fn is_past(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| deadline <= Instant::now())
}

/// The task that owns the state of the controller. `run` ends when the last `Controller` is
/// dropped.
pub(super) struct Task {
    quorum: Quorum,
    leadership: watch::Receiver<Leadership>,
    settings: Settings,
    bootstrap: Vec<MetadataRecord>,
    random: Random,
    mailbox: mpsc::Receiver<Request>,
    started: Instant,
    phase: Phase,
}

enum Phase {
    /// Another node leads the quorum, or there is no leader.
    Inactive,
    /// This node leads, but writing the first records of the cluster failed. It tries again at this
    /// time.
    Failed(Instant),
    /// This node is the active controller in this epoch. It decides in no other epoch.
    Active { epoch: i32, volatile: VolatileState },
    /// The quorum refused records of this epoch, so the epoch has ended, even if the `leadership`
    /// channel still shows it.
    Ended { epoch: i32 },
}

/// The decisions of one batch.
struct Batch {
    node_id: i32,
    image: Image,
    /// The records of each proposal. The records of one request are split only if they are more
    /// than `BATCH_RECORDS`.
    proposals: Vec<Vec<MetadataRecord>>,
    /// What to log once all proposals are committed.
    events: Vec<Events>,
    answers: Vec<Answer>,
    durability: Durability,
}

impl Task {
    pub fn new(
        quorum: Quorum,
        settings: Settings,
        bootstrap: Vec<MetadataRecord>,
        mailbox: mpsc::Receiver<Request>,
    ) -> Self {
        Self {
            leadership: quorum.leadership(),
            quorum,
            settings,
            bootstrap,
            random: Random::new(new_uuid().as_u128()),
            mailbox,
            started: Instant::now(),
            phase: Phase::Inactive,
        }
    }

    pub async fn run(mut self) {
        loop {
            self.follow().await;
            let deadline = self.deadline();
            tokio::select! {
                biased;
                () = changed(&mut self.leadership) => {}
                request = self.mailbox.recv() => match request {
                    Some(request) => self.serve(Some(request)).await,
                    None => return,
                },
                () = wait(deadline) => self.serve(None).await,
            }
        }
    }

    /// Becomes or stops being the active controller, according to the leadership of the quorum.
    async fn follow(&mut self) {
        let seen = *self.leadership.borrow_and_update();
        match self.phase {
            Phase::Active { epoch, .. } | Phase::Ended { epoch }
                if seen.active && seen.epoch == epoch => {}
            Phase::Failed(again) if seen.active && Instant::now() < again => {}
            _ => {
                self.resign();
                if seen.active {
                    self.activate(seen.epoch).await;
                }
            }
        }
    }

    fn resign(&mut self) {
        if let Phase::Active { epoch, .. } = self.phase {
            tracing::info!(epoch, "controller resigned");
        }
        self.phase = Phase::Inactive;
    }

    /// Makes this node the active controller. In a new cluster, it first writes the bootstrap
    /// records.
    async fn activate(&mut self, epoch: i32) {
        if self.quorum.image().feature(features::METADATA_VERSION) == 0 {
            let records = self.bootstrap.clone();
            let begun = self.quorum.propose_with(epoch, records, Durability::Deferred).await;
            if let Err(error) = begun {
                tracing::error!(%error, epoch, "cannot write the bootstrap records, will retry");
                self.phase = Phase::Failed(Instant::now() + RETRY);
                return;
            }
            let metadata_version = self.quorum.image().feature(features::METADATA_VERSION);
            tracing::info!(metadata_version, "metadata of a new cluster written");
        }
        tracing::info!(epoch, "controller became active");
        self.phase = Phase::Active { epoch, volatile: self.new_volatile_state() };
    }

    fn new_volatile_state(&self) -> VolatileState {
        let (now_ms, settings) = (self.now_ms(), &self.settings);
        // The sessions continue from the previous controller. Each unfenced broker gets the rest of
        // a session: two heartbeat intervals and `FIND_MS`, in which a live broker sends a
        // heartbeat to this controller.
        let rest = 2 * settings.broker_heartbeat_interval_ms + FIND_MS;
        let heard_ms = now_ms - (settings.broker_session_timeout_ms - rest).max(0);
        let here = settings.is_broker.then_some(settings.node_id);
        VolatileState::activate(&self.quorum.image(), here, now_ms, heard_ms)
    }

    fn now_ms(&self) -> i64 {
        self.started.elapsed().as_millis() as i64
    }

    /// When `serve` must run even if no request arrives.
    fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Inactive | Phase::Ended { .. } => None,
            Phase::Failed(again) => Some(*again),
            Phase::Active { volatile, .. } => {
                let at_ms = volatile.next_deadline(self.settings.broker_session_timeout_ms)?;
                Some(self.started + Duration::from_millis(at_ms.max(0) as u64))
            }
        }
    }

    /// Decides on waiting requests and due timers, commits the records and sends the responses. An
    /// inactive controller drops the request; its caller then gets `NotController`.
    async fn serve(&mut self, first: Option<Request>) {
        let Some((epoch, batch)) = self.decide(first) else { return };
        let outcome = self.commit(epoch, batch.image.offset, batch.proposals, batch.durability);
        let outcome = outcome.await;
        if outcome.is_ok() {
            batch.events.into_iter().for_each(|events| events.log(&batch.image));
        }
        for answer in batch.answers {
            answer(outcome.clone());
        }
    }

    /// Decides on all waiting requests, each on an image that includes the decisions before it.
    /// Timers come last, so that a broker whose heartbeat is among the requests is not fenced.
    fn decide(&mut self, first: Option<Request>) -> Option<(i32, Batch)> {
        let now_ms = self.now_ms();
        let Phase::Active { epoch, volatile } = &mut self.phase else { return None };
        let image = Image::clone(&self.quorum.image());
        let mut batch = Batch::new(self.settings.node_id, image);
        let (settings, random) = (&self.settings, &mut self.random);
        let mut next = first;
        while let Some(request) = next {
            if is_past(request.deadline) {
                next = self.mailbox.try_recv().ok();
                continue;
            }
            let mut cx = Context { image: &batch.image, settings, volatile, random, now_ms };
            let (records, answer) = (request.decide)(&mut cx);
            timers::arm(&mut cx, &records);
            batch.answers.push(answer);
            batch.add(request.cause, records, request.durability);
            next = if batch.has_room() { self.mailbox.try_recv().ok() } else { None };
        }
        loop {
            let mut cx = Context { image: &batch.image, settings, volatile, random, now_ms };
            let Some((cause, decision)) = timers::due(&mut cx) else { break };
            timers::arm(&mut cx, &decision.records);
            batch.add(cause, decision.records, Durability::Deferred);
        }
        Some((*epoch, batch))
    }

    /// Proposes the batch, and returns the offset of the last committed record. `offset` is
    /// returned if the batch has no records.
    async fn commit(
        &mut self,
        epoch: i32,
        offset: i64,
        proposals: Vec<Vec<MetadataRecord>>,
        durability: Durability,
    ) -> Result<i64, ControllerError> {
        let mut last = offset;
        for records in proposals {
            match self.quorum.propose_with(epoch, records, durability).await {
                Ok(offset) => last = offset,
                Err(error) => return Err(self.refused(epoch, error)),
            }
        }
        Ok(last)
    }

    /// Discards the volatile state, because it includes decisions that were not committed, and
    /// returns the error for the callers.
    fn refused(&mut self, epoch: i32, error: QuorumError) -> ControllerError {
        match error {
            QuorumError::NotLeader { .. } | QuorumError::WrongEpoch { .. } => {
                tracing::debug!(%error, "records refused");
                self.resign();
                self.phase = Phase::Ended { epoch };
                let leader = self.leadership.borrow().leader;
                ControllerError::not_controller(leader.filter(|id| *id != self.settings.node_id))
            }
            error => {
                tracing::error!(%error, "metadata records are not committed");
                self.phase = Phase::Active { epoch, volatile: self.new_volatile_state() };
                match error {
                    QuorumError::NoRoom(_) => ControllerError::NoRoom(error.to_string()),
                    error => ControllerError::NotController(error.to_string()),
                }
            }
        }
    }
}

impl Batch {
    fn new(node_id: i32, image: Image) -> Self {
        let (proposals, events, answers) = (Vec::new(), Vec::new(), Vec::new());
        Self { node_id, image, proposals, events, answers, durability: Durability::Deferred }
    }

    fn has_room(&self) -> bool {
        self.proposals.len() <= 1
            && self.proposals.first().is_none_or(|first| first.len() < BATCH_RECORDS)
    }

    /// Applies the records of a decision to the batch's image and adds them to its proposals.
    fn add(&mut self, cause: Cause, records: Vec<MetadataRecord>, durability: Durability) {
        if records.is_empty() {
            return;
        }
        let mut events = Events::new(cause);
        for record in &records {
            events.note(self.image.apply(record));
        }
        self.events.push(events);
        self.image.offset += records.len() as i64;
        // If this node's broker is the only one, a `Deferred` batch need not be synced: a crash
        // takes the broker along, and the next start decides the same again. Other brokers rely on
        // what is committed, so the batch must be synced.
        let has_others = self.image.brokers.keys().any(|id| *id != self.node_id);
        if durability == Durability::Synced || has_others {
            self.durability = Durability::Synced;
        }
        match self.proposals.last_mut() {
            Some(last) if last.len() + records.len() <= BATCH_RECORDS => last.extend(records),
            _ => {
                let mut records = records.into_iter().peekable();
                while records.peek().is_some() {
                    self.proposals.push(records.by_ref().take(BATCH_RECORDS).collect());
                }
            }
        }
    }
}

async fn changed(leadership: &mut watch::Receiver<Leadership>) {
    // After the quorum has stopped, there are no more changes, and all proposals fail.
    if leadership.changed().await.is_err() {
        std::future::pending().await
    }
}

async fn wait(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
