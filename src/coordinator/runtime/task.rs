//! The task of one shard: it loads the shard, then decides, appends, applies and replies until it
//! is stopped.

use std::{
    collections::{HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::Instant,
};

use super::{
    Answered, Call, Limits, NotCommitted, ShardLog, ShardLogError,
    load::{Loaded, load},
    timers::Timers,
};
use crate::{
    base::environment::{blocking, now_ms},
    coordinator::{Outcome, Shard, Token},
    records::{BatchBuilder, BatchOptions},
};

/// The most calls that share one append.
const CALLS_PER_APPEND: usize = 256;
/// Delay before a shard whose log failed is loaded again.
const RELOAD_DELAY: Duration = Duration::from_secs(1);

pub struct ShardTask<S: Shard> {
    partition: i32,
    log: Arc<dyn ShardLog>,
    limits: Limits,
    mailbox: mpsc::Receiver<Call<S>>,
    clock: ShardClock,
}

/// Wall-clock milliseconds that advance with the monotonic clock, so that no session ends because
/// the system time is set.
#[derive(Clone, Copy)]
struct ShardClock {
    started: Instant,
    started_ms: i64,
}

impl ShardClock {
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
    pub fn new(
        partition: i32,
        log: Arc<dyn ShardLog>,
        limits: Limits,
        mailbox: mpsc::Receiver<Call<S>>,
    ) -> Self {
        let clock = ShardClock { started: Instant::now(), started_ms: now_ms() };
        Self { partition, log, limits, mailbox, clock }
    }

    /// Loads the shard and serves calls, until its handle is dropped or another broker leads the
    /// partition. `ready` is true while it serves. If the log fails, the shard is loaded again
    /// after `RELOAD_DELAY`.
    pub async fn run(
        mut self,
        ready: Arc<AtomicBool>,
        loads: Arc<Semaphore>,
        new_volatile: impl Fn() -> S::VolatileState + Send,
    ) {
        loop {
            let ended = match self.load(&loads).await {
                Ok(Loaded { logged, end_offset }) => {
                    let mut running = Running::<S>::new(&self, logged, new_volatile(), end_offset);
                    match running.start() {
                        Ok(()) => {
                            ready.store(true, Ordering::Release);
                            running.serve(&mut self.mailbox).await
                        }
                        Err(error) => Err(error),
                    }
                }
                Err(error) => Err(error),
            };
            ready.store(false, Ordering::Release);
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
    /// When it is answered with `NotCommitted` instead.
    until: Instant,
    caller: oneshot::Sender<Answered<S>>,
    reply: S::Reply,
}

/// A loaded shard.
struct Running<S: Shard> {
    log: Arc<dyn ShardLog>,
    limits: Limits,
    clock: ShardClock,
    logged: S::LoggedState,
    volatile: S::VolatileState,
    timers: Timers<S::Timer>,
    next_token: Token,
    callers: HashMap<Token, oneshot::Sender<Answered<S>>>,
    decided: VecDeque<Decided<S>>,
    /// Records that have been applied, but not appended yet.
    batch: BatchBuilder,
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
            log: Arc::clone(&task.log),
            limits: task.limits,
            clock: task.clock,
            logged,
            volatile,
            timers: Timers::default(),
            next_token: 0,
            callers: HashMap::new(),
            decided: VecDeque::new(),
            batch: BatchBuilder::new(batch_options()),
            end_offset,
        }
    }

    fn start(&mut self) -> Result<(), ShardLogError> {
        self.decide(S::loaded())?;
        self.append()
    }

    async fn serve(&mut self, mailbox: &mut mpsc::Receiver<Call<S>>) -> Result<(), ShardLogError> {
        let log = Arc::clone(&self.log);
        loop {
            let wake_at = self.timers.next_look_ms().map(|at_ms| self.clock.instant(at_ms));
            let awaited = self.decided.front().map(|front| front.offset);
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
                    let now_ms = self.clock.now_ms();
                    while let Some(timer) = self.timers.pop_due(now_ms) {
                        self.decide(S::expired(timer))?;
                    }
                }
                () = sleep_until(given_up_at) => self.give_up(),
                still_leads = committed(&*log, awaited) => {
                    if !still_leads {
                        return Err(ShardLogError::NotLeader);
                    }
                }
            }
            self.append()?;
            self.answer();
        }
    }

    fn take(&mut self, call: Call<S>) -> Result<(), ShardLogError> {
        self.next_token += 1;
        if let Some(reply) = call.reply {
            self.callers.insert(self.next_token, reply);
        }
        self.decide(S::requested(self.next_token, call.request))
    }

    /// Decides on an event, and applies its records and adds them to the batch.
    fn decide(&mut self, event: S::Event) -> Result<(), ShardLogError> {
        let now_ms = self.clock.now_ms();
        // A panic in the state machine is a bug. The shard is then loaded again, like after a
        // failure of its log.
        let decide =
            AssertUnwindSafe(|| S::decide(&self.logged, &mut self.volatile, now_ms, event));
        let outcome = catch_unwind(decide).map_err(|_| panicked("deciding"))?;
        let Outcome { records, replies, timers } = outcome;
        let mut encoded = Vec::with_capacity(records.len());
        let mut len = 0;
        for record in &records {
            let (key, value) = S::encode(record);
            len += record_len(&key, value.as_deref());
            encoded.push((key, value));
        }
        if self.batch.count() > 0 && self.batch.size() + len > self.limits.max_batch_bytes {
            self.append()?;
        }
        for (record, (key, value)) in records.iter().zip(&encoded) {
            // The records of one event are appended together, unless they do not fit in one batch.
            let full =
                self.batch.size() + record_len(key, value.as_deref()) > self.limits.max_batch_bytes;
            if full && self.batch.count() > 0 {
                self.append()?;
            }
            let apply = AssertUnwindSafe(|| S::apply(&mut self.logged, self.end_offset, record));
            catch_unwind(apply).map_err(|_| panicked("applying"))?;
            self.batch.append(now_ms, Some(key), value.as_deref(), &[]);
            self.end_offset += 1;
        }
        for timer in timers {
            self.timers.change(timer);
        }
        for (token, reply) in replies {
            if let Some(caller) = self.callers.remove(&token) {
                let until = Instant::now() + self.limits.commit_timeout;
                self.decided.push_back(Decided { offset: self.end_offset, until, caller, reply });
            }
        }
        Ok(())
    }

    /// Appends the batch. Fails if the log does not end where the shard expects.
    fn append(&mut self) -> Result<(), ShardLogError> {
        if self.batch.count() == 0 {
            return Ok(());
        }
        let batch = BatchBuilder::new(batch_options());
        let batch = std::mem::replace(&mut self.batch, batch).build();
        let end_offset = self.log.append(batch)?;
        if end_offset != self.end_offset {
            let expected = self.end_offset;
            let text = format!("the log ends at {end_offset} where {expected} was expected");
            return Err(ShardLogError::Failed(text));
        }
        Ok(())
    }

    /// Sends the replies whose records are below the high watermark.
    fn answer(&mut self) {
        if self.decided.is_empty() {
            return;
        }
        let high_watermark = self.log.high_watermark();
        while let Some(next) = self.decided.pop_front_if(|next| next.offset <= high_watermark) {
            let _ = next.caller.send(Ok(next.reply)); // the client may be gone
        }
    }

    /// Sends `NotCommitted` for replies that have waited for `commit_timeout`. Their records stay
    /// in the log and may be committed later.
    fn give_up(&mut self) {
        let now = Instant::now();
        while let Some(next) = self.decided.pop_front_if(|next| next.until <= now) {
            let _ = next.caller.send(Err(NotCommitted));
        }
    }
}

/// Options for batches as Kafka's coordinators write them: without a producer id, but with a base
/// sequence of 0.
fn batch_options() -> BatchOptions {
    BatchOptions { base_sequence: 0, ..BatchOptions::default() }
}

/// An upper bound of the bytes that a record takes in a batch.
fn record_len(key: &[u8], value: Option<&[u8]>) -> usize {
    const LENGTHS_AND_DELTAS: usize = 36;
    LENGTHS_AND_DELTAS + key.len() + value.map_or(0, <[u8]>::len)
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
