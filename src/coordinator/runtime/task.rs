//! One shard's task: load, then decide, append, apply, answer, until it is stopped.

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
    base::world::{blocking, now_ms},
    coordinator::{Outcome, Shard, Token},
    records::{BatchBuilder, BatchOptions},
};

/// How many calls share one append.
const CALLS_PER_APPEND: usize = 256;
/// How long a shard whose log failed waits before it loads again.
const RELOAD_DELAY: Duration = Duration::from_secs(1);

pub struct ShardTask<S: Shard> {
    partition: i32,
    log: Arc<dyn ShardLog>,
    limits: Limits,
    mailbox: mpsc::Receiver<Call<S>>,
    clock: ShardClock,
}

/// Wall-clock milliseconds that move with the monotonic clock: no session ends because somebody
/// sets the time.
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
        // A millisecond more, for the part of one that `now_ms` cuts off.
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

    /// Runs until the handle is dropped or the partition is led elsewhere. A shard whose log
    /// fails is loaded again.
    pub async fn run(
        mut self,
        ready: Arc<AtomicBool>,
        loads: Arc<Semaphore>,
        new_soft: impl Fn() -> S::Soft + Send,
    ) {
        loop {
            let ended = match self.load(&loads).await {
                Ok(Loaded { hard, end_offset }) => {
                    let mut running = Running::<S>::new(&self, hard, new_soft(), end_offset);
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
            return Ok(Loaded { hard: S::Hard::default(), end_offset: 0 });
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
    /// It waits no longer.
    until: Instant,
    caller: oneshot::Sender<Answered<S>>,
    reply: S::Reply,
}

/// A loaded shard.
struct Running<S: Shard> {
    log: Arc<dyn ShardLog>,
    limits: Limits,
    clock: ShardClock,
    hard: S::Hard,
    soft: S::Soft,
    timers: Timers<S::Timer>,
    next_token: Token,
    callers: HashMap<Token, oneshot::Sender<Answered<S>>>,
    decided: VecDeque<Decided<S>>,
    /// Applied, not yet appended.
    batch: BatchBuilder,
    /// Where the log ends once the batch is appended.
    end_offset: i64,
}

impl<S: Shard> Running<S> {
    /// `end_offset` is where the load ended: an append by anybody else since then is noticed at
    /// the first of this shard's own.
    fn new(task: &ShardTask<S>, hard: S::Hard, soft: S::Soft, end_offset: i64) -> Self {
        Self {
            log: Arc::clone(&task.log),
            limits: task.limits,
            clock: task.clock,
            hard,
            soft,
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

    /// Decides on an event and applies what comes of it, to be appended with the batch.
    fn decide(&mut self, event: S::Event) -> Result<(), ShardLogError> {
        let now_ms = self.clock.now_ms();
        // A panic is a bug of ours; the shard starts anew from its log rather than being gone.
        let decide = AssertUnwindSafe(|| S::decide(&self.hard, &mut self.soft, now_ms, event));
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
            // What one event decides stays together unless it is more than a batch can hold.
            let full =
                self.batch.size() + record_len(key, value.as_deref()) > self.limits.max_batch_bytes;
            if full && self.batch.count() > 0 {
                self.append()?;
            }
            let apply = AssertUnwindSafe(|| S::apply(&mut self.hard, self.end_offset, record));
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

    fn answer(&mut self) {
        if self.decided.is_empty() {
            return;
        }
        let high_watermark = self.log.high_watermark();
        while let Some(next) = self.decided.pop_front_if(|next| next.offset <= high_watermark) {
            let _ = next.caller.send(Ok(next.reply)); // the client may be gone
        }
    }

    /// Tells who has waited too long. What was decided stands, and may be committed later.
    fn give_up(&mut self) {
        let now = Instant::now();
        while let Some(next) = self.decided.pop_front_if(|next| next.until <= now) {
            let _ = next.caller.send(Err(NotCommitted));
        }
    }
}

/// Kafka's coordinators count sequences from 0 though they have no producer id; so the same bytes.
fn batch_options() -> BatchOptions {
    BatchOptions { base_sequence: 0, ..BatchOptions::default() }
}

/// About what a record takes in a batch; never less.
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

async fn committed(log: &dyn ShardLog, awaited: Option<i64>) -> bool {
    match awaited {
        Some(offset) => log.wait_committed(offset).await,
        None => std::future::pending().await,
    }
}
