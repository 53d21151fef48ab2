//! The task of one shard: it loads the shard, then decides, appends, applies and replies until it
//! is stopped.

use std::{
    collections::{HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::Instant,
};

use super::{
    Answered, Call, CallError, EffectHandler, Limits, ShardLog, ShardLogError, ShardStatus,
    WriteRefused,
    batches::{OpenBatch, end_transaction, record_len},
    load::{Loaded, load},
    timers::Timers,
};
use crate::{
    base::{
        environment::{blocking, now_ms},
        planted_bugs::{Bug, has_bug},
    },
    coordinator::{BatchKind, Event, Outcome, PlannedBatch, Shard, TimerOp, Token},
};

/// The most calls that share one append.
const CALLS_PER_APPEND: usize = 256;
/// Delay of a timer that has come due while there were too few in-sync replicas.
const TIMER_RETRY_MS: i64 = 1000;
/// Delay before a shard whose log failed is loaded again.
const RELOAD_DELAY: Duration = Duration::from_secs(1);

pub struct ShardTask<S: Shard> {
    pub partition: i32,
    pub log: Arc<dyn ShardLog>,
    pub limits: Limits,
    pub mailbox: mpsc::Receiver<Call<S>>,
    pub status: Arc<ShardStatus>,
    pub on_effect: EffectHandler<S>,
    pub clock: ShardClock,
}

/// Wall-clock milliseconds that advance with the monotonic clock, so that no session ends because
/// the system time is set.
#[derive(Clone, Copy)]
pub struct ShardClock {
    started: Instant,
    started_ms: i64,
}

impl ShardClock {
    pub fn new() -> Self {
        Self { started: Instant::now(), started_ms: now_ms() }
    }

    fn now_ms(&self) -> i64 {
        self.started_ms + self.started.elapsed().as_millis() as i64
    }

    fn instant(&self, at_ms: i64) -> Instant {
        // One millisecond later, because `now_ms` cuts off the fraction.
        let after_ms = (at_ms - self.started_ms).max(0) as u64 + 1;
        self.started + Duration::from_millis(after_ms)
    }
}

impl<S: Shard> ShardTask<S> {
    /// Loads the shard and serves calls, until its handle is dropped or another broker leads the
    /// partition. `status.ready` is true while it serves. If the log fails, the shard is loaded
    /// again after `RELOAD_DELAY`.
    pub async fn run(
        mut self,
        loads: Arc<Semaphore>,
        new_volatile: impl Fn() -> S::VolatileState + Send,
    ) {
        loop {
            let ended = match self.load(&loads).await {
                Ok(Loaded { logged, end_offset }) => {
                    let mut running = Running::<S>::new(&self, logged, new_volatile(), end_offset);
                    match running.start() {
                        Ok(()) => {
                            self.status.ready.store(true, Ordering::Release);
                            running.serve(&mut self.mailbox).await
                        }
                        Err(error) => Err(error),
                    }
                }
                Err(error) => Err(error),
            };
            self.status.ready.store(false, Ordering::Release);
            match ended {
                Ok(()) | Err(ShardLogError::NotLeader) => return,
                Err(error) => {
                    tracing::error!(partition = self.partition, %error, "coordinator shard failed");
                }
            }
            tokio::time::sleep(RELOAD_DELAY).await;
        }
    }

    async fn load(&self, loads: &Semaphore) -> Result<Loaded<S>, ShardLogError> {
        if self.log.end_offset() == 0 {
            return Ok(Loaded { logged: S::LoggedState::default(), end_offset: 0 });
        }
        let _turn = loads.acquire().await.expect("never closed");
        let log = Arc::clone(&self.log);
        let loaded = blocking(move || load::<S>(&*log)).await;
        loaded.unwrap_or_else(|panic| Err(ShardLogError::Failed(panic.to_string())))
    }
}

/// A reply that waits for the high watermark to reach an offset.
struct Decided<S: Shard> {
    offset: i64,
    /// When it is answered with [`CallError::NotCommitted`] instead.
    until: Instant,
    caller: oneshot::Sender<Answered<S>>,
    reply: S::Reply,
}

/// A loaded shard.
struct Running<S: Shard> {
    partition: i32,
    status: Arc<ShardStatus>,
    on_effect: EffectHandler<S>,
    log: Arc<dyn ShardLog>,
    limits: Limits,
    clock: ShardClock,
    logged: S::LoggedState,
    volatile: S::VolatileState,
    timers: Timers<S::Timer>,
    next_token: Token,
    callers: HashMap<Token, oneshot::Sender<Answered<S>>>,
    decided: VecDeque<Decided<S>>,
    /// Effects that wait for the high watermark to reach an offset.
    effects: VecDeque<(i64, S::Effect)>,
    batch: OpenBatch,
    /// The log end offset after the batch is appended.
    end_offset: i64,
}

impl<S: Shard> Running<S> {
    /// `end_offset` is the log end offset that the load reached. If another broker has appended
    /// since, this shard's first append ends at another offset than expected, and fails.
    fn new(
        task: &ShardTask<S>,
        logged: S::LoggedState,
        volatile: S::VolatileState,
        end_offset: i64,
    ) -> Self {
        Self {
            partition: task.partition,
            status: Arc::clone(&task.status),
            on_effect: Arc::clone(&task.on_effect),
            log: Arc::clone(&task.log),
            limits: task.limits,
            clock: task.clock,
            logged,
            volatile,
            timers: Timers::default(),
            next_token: 0,
            callers: HashMap::new(),
            decided: VecDeque::new(),
            effects: VecDeque::new(),
            batch: OpenBatch::new(BatchKind::Plain, S::BASE_SEQUENCE),
            end_offset,
        }
    }

    fn start(&mut self) -> Result<(), ShardLogError> {
        self.decide(Event::Loaded)?;
        self.append()
    }

    async fn serve(&mut self, mailbox: &mut mpsc::Receiver<Call<S>>) -> Result<(), ShardLogError> {
        let log = Arc::clone(&self.log);
        loop {
            let wake_at = self.timers.next_look_ms().map(|at_ms| self.clock.instant(at_ms));
            let reply = self.decided.front().map(|front| front.offset);
            let effect = self.effects.front().map(|(offset, _)| *offset);
            let awaited = reply.into_iter().chain(effect).min();
            let given_up_at = self.decided.front().map(|front| front.until);
            tokio::select! {
                call = mailbox.recv() => {
                    let Some(call) = call else { return Ok(()) };
                    self.take(call)?;
                    for _ in 1..CALLS_PER_APPEND {
                        let Ok(call) = mailbox.try_recv() else { break };
                        self.take(call)?;
                    }
                }
                () = sleep_until(wake_at) => {
                    self.expire_timers()?;
                }
                () = sleep_until(given_up_at) => self.give_up(),
                still_leads = committed(&*log, awaited) => {
                    if !still_leads {
                        return Err(ShardLogError::NotLeader);
                    }
                }
            }
            self.append()?;
            self.release_committed();
        }
    }

    /// Decides on the timers that are due. If the log takes no records now, they are set again.
    fn expire_timers(&mut self) -> Result<(), ShardLogError> {
        let now_ms = self.clock.now_ms();
        let refused = S::NEEDS_ALL_REPLICAS && self.check(&PlannedBatch::Plain)?.is_err();
        let mut later = Vec::new();
        while let Some(timer) = self.timers.pop_due(now_ms) {
            match refused {
                true => later.push(TimerOp::Set { key: timer, at_ms: now_ms + TIMER_RETRY_MS }),
                false => self.decide(Event::Timer(timer))?,
            }
        }
        later.into_iter().for_each(|timer| self.timers.change(timer));
        Ok(())
    }

    /// Asks the log whether it takes a batch. Records that were decided before are appended first,
    /// because they may change the answer.
    fn check(&mut self, planned: &PlannedBatch) -> Result<Result<(), WriteRefused>, ShardLogError> {
        if *planned != PlannedBatch::Plain {
            self.append()?;
        }
        Ok(self.log.check(planned, S::NEEDS_ALL_REPLICAS))
    }

    fn take(&mut self, call: Call<S>) -> Result<(), ShardLogError> {
        if let Some(planned) = S::planned_batch(&call.request)
            && let Err(refused) = self.check(&planned)?
        {
            if let Some(caller) = call.reply {
                let _ = caller.send(Err(CallError::Refused(refused))); // the client may be gone
            }
            return Ok(());
        }
        self.next_token += 1;
        if let Some(reply) = call.reply {
            self.callers.insert(self.next_token, reply);
        }
        self.decide(Event::Request { token: self.next_token, request: call.request })
    }

    /// Decides on an event, and applies its records and adds them to the batch.
    fn decide(&mut self, event: Event<S::Request, S::Timer>) -> Result<(), ShardLogError> {
        let now_ms = self.clock.now_ms();
        // A panic in the state machine is a bug. The shard is then loaded again, like after a
        // failure of its log.
        let leader_epoch = self.status.leader_epoch.load(Ordering::Acquire);
        let decide = AssertUnwindSafe(|| {
            S::decide(&self.logged, &mut self.volatile, now_ms, leader_epoch, event)
        });
        let outcome = catch_unwind(decide).map_err(|_| panicked("deciding"))?;
        let Outcome { records, replies, timers, effects } = outcome;
        self.write(now_ms, &records)?;
        for timer in timers {
            self.timers.change(timer);
        }
        for (token, reply) in replies {
            if let Some(caller) = self.callers.remove(&token) {
                let until = Instant::now() + self.limits.commit_timeout;
                self.decided.push_back(Decided { offset: self.end_offset, until, caller, reply });
            }
        }
        self.effects.extend(effects.into_iter().map(|effect| (self.end_offset, effect)));
        Ok(())
    }

    /// Applies the records of one event and adds them to the batch. They are appended together,
    /// unless they need different batches or do not fit in one.
    fn write(&mut self, now_ms: i64, records: &[S::Record]) -> Result<(), ShardLogError> {
        let encoded: Vec<(Bytes, Option<Bytes>)> = records.iter().map(S::encode).collect();
        // Before the first record, the batch must have room for all of them.
        let mut needed: usize = encoded.iter().map(record_len).sum();
        for (record, encoded) in records.iter().zip(&encoded) {
            let (kind, len) = (S::batch_kind(record), record_len(encoded).max(needed));
            needed = 0;
            if !self.batch.has_room_for(kind, len, self.limits.max_batch_bytes) {
                self.append()?;
            }
            let (key, value) = encoded;
            let apply = AssertUnwindSafe(|| match kind {
                BatchKind::Control(producer) => {
                    end_transaction::<S>(&mut self.logged, producer.id, key);
                }
                _ => S::apply(&mut self.logged, self.end_offset, kind, record),
            });
            catch_unwind(apply).map_err(|_| panicked("applying"))?;
            self.batch.push(kind, now_ms, key, value.as_deref());
            self.end_offset += 1;
        }
        Ok(())
    }

    /// Appends the batch. Fails if the log does not end where the shard expects.
    fn append(&mut self) -> Result<(), ShardLogError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let end_offset = self.log.append(self.batch.take())?;
        if end_offset != self.end_offset {
            let expected = self.end_offset;
            let text = format!("the log ends at {end_offset} where {expected} was expected");
            return Err(ShardLogError::Failed(text));
        }
        Ok(())
    }

    /// Hands over the effects and sends the replies whose records are below the high watermark.
    fn release_committed(&mut self) {
        if self.decided.is_empty() && self.effects.is_empty() {
            return;
        }
        let high_watermark = self.log.high_watermark();
        while let Some((_, effect)) =
            self.effects.pop_front_if(|(offset, _)| *offset <= high_watermark)
        {
            (self.on_effect)(self.partition, effect);
        }
        let is_due = |next: &mut Decided<S>| {
            next.offset <= high_watermark
                || has_bug(Bug::EarlyCoordinatorAnswer)
                || S::answers_early(&next.reply)
        };
        while let Some(next) = self.decided.pop_front_if(is_due) {
            let _ = next.caller.send(Ok(next.reply)); // the client may be gone
        }
    }

    /// Sends [`CallError::NotCommitted`] for replies that have waited for `commit_timeout`. Their
    /// records stay in the log and may be committed later.
    fn give_up(&mut self) {
        let now = Instant::now();
        while let Some(next) = self.decided.pop_front_if(|next| next.until <= now) {
            let _ = next.caller.send(Err(CallError::NotCommitted));
        }
    }
}

fn panicked(what: &str) -> ShardLogError {
    ShardLogError::Failed(format!("the state machine panicked in {what}"))
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Waits until the log is committed up to an offset; forever for `None`. Returns false if this
/// broker stops leading.
async fn committed(log: &dyn ShardLog, awaited: Option<i64>) -> bool {
    match awaited {
        Some(offset) => log.wait_committed(offset).await,
        None => std::future::pending().await,
    }
}
