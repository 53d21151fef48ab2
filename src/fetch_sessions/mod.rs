//! Incremental fetch sessions (KIP-227) with topic ids (KIP-516). The first request of a session
//! has all partitions of the fetcher. Later requests and responses have only what has changed.
//!
//! This module owns the cache of sessions, with their epochs and evictions. It does not know logs,
//! connections or records; time and random ids are arguments. The rules are those of Kafka's
//! `FetchManager`, `FetchSession` and `FetchSessionCacheShard`.
//!
//! Invariants:
//! - A session's epoch increases when a request begins. If the epoch has changed again when the
//!   response is finished, the response is an error, so that at most one request of an epoch
//!   succeeds.
//! - The offsets that a session remembers as sent change only when a response is finished.
//! - A fetch shares the partitions of its session without copying them, unless a second request of
//!   the same session begins before the first is finished.

mod partitions;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

pub use partitions::{PartitionRequest, Partitions, SessionPartition};

use crate::base::TopicId;

/// The session id of requests and responses without a session.
pub const INVALID_SESSION_ID: i32 = 0;
/// The epoch of a request that has all partitions and asks for a new session.
pub const INITIAL_EPOCH: i32 = 0;
/// The epoch of a request that has all partitions and asks for no session.
pub const FINAL_EPOCH: i32 = -1;

/// Milliseconds. A session that has been idle for longer may be evicted by any new session. A
/// session that was created longer ago may be evicted by a larger new session (Kafka's
/// `MIN_INCREMENTAL_FETCH_SESSION_EVICTION_MS`).
pub const MIN_EVICTION_MS: i64 = 120_000;

/// The epoch after `epoch`. After `i32::MAX` follows 1.
pub fn next_epoch(epoch: i32) -> i32 {
    match epoch {
        ..0 => FINAL_EPOCH,
        i32::MAX => 1,
        epoch => epoch + 1,
    }
}

/// The reason why a request of a session is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum SessionError {
    #[error("there is no fetch session {0}")]
    NotFound(i32),
    #[error("the fetch session is at another epoch")]
    InvalidEpoch,
    #[error("the fetch session began with another way of naming topics")]
    TopicIdMismatch,
}

/// The parts of a Fetch request that concern its session. Before version 7, requests have no
/// session: id 0 and epoch -1.
#[derive(Debug, Clone)]
pub struct SessionRequest {
    pub session_id: i32,
    pub epoch: i32,
    /// Whether the request names topics by id (version 13 and later).
    pub uses_topic_ids: bool,
    /// Sessions of followers are privileged: a consumer's session evicts them only if they are
    /// idle.
    pub is_from_follower: bool,
    pub partitions: Vec<PartitionRequest>,
    pub forgotten: Vec<Forgotten>,
}

/// A partition to remove from a session.
#[derive(Debug, Clone)]
pub struct Forgotten {
    pub topic: Option<Arc<str>>,
    pub topic_id: TopicId,
    pub partition: i32,
}

/// A fetch in progress, from [`SessionCache::begin`] to [`SessionCache::finish`].
#[derive(Debug)]
pub struct SessionFetch {
    partitions: Arc<Partitions>,
    kind: FetchKind,
}

#[derive(Debug)]
enum FetchKind {
    Sessionless,
    /// Creates a session when it is finished.
    Full {
        new_id: i32,
        uses_topic_ids: bool,
        is_from_follower: bool,
    },
    Incremental {
        session_id: i32,
        epoch: i32,
    },
}

impl SessionFetch {
    /// The partitions to read, in order. `finish` takes their results in the same order.
    pub fn partitions(&self) -> impl Iterator<Item = &SessionPartition> {
        self.partitions.iter()
    }

    pub fn len(&self) -> usize {
        self.partitions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// Whether the response has only partitions that have changed.
    pub fn is_incremental(&self) -> bool {
        matches!(self.kind, FetchKind::Incremental { .. })
    }
}

/// The result of reading a partition. It decides whether the partition is in an incremental
/// response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionResult {
    pub is_error: bool,
    pub high_watermark: i64,
    pub log_start_offset: i64,
    pub records_len: usize,
    /// Whether the result has a preferred read replica or a diverging epoch. It is then always in
    /// the response.
    pub is_redirect: bool,
}

/// The session fields of a response, and the results that it contains, by index.
#[derive(Debug, PartialEq, Eq)]
pub struct SessionAnswer {
    pub session_id: i32,
    pub error: Option<SessionError>,
    pub answered: Vec<usize>,
}

#[derive(Debug)]
struct FetchSession {
    partitions: Arc<Partitions>,
    is_privileged: bool,
    uses_topic_ids: bool,
    created_ms: i64,
    last_used_ms: i64,
    /// The epoch that the next request must have.
    epoch: i32,
    /// The number of partitions when the session was last used. It is part of the eviction order.
    cached_len: usize,
}

/// The eviction order: whether the session is privileged, its number of partitions, its id. The
/// smallest key is evicted first.
type EvictableKey = (bool, usize, i32);

/// All sessions of a broker, at most `max.incremental.fetch.session.cache.slots` of them.
#[derive(Debug)]
pub struct SessionCache {
    slots_max: usize,
    sessions: HashMap<i32, FetchSession>,
    by_last_use: BTreeSet<(i64, i32)>,
    evictable_by_all: BTreeSet<EvictableKey>,
    evictable_by_privileged: BTreeSet<EvictableKey>,
    partitions: usize,
    evictions: u64,
}

impl SessionCache {
    pub fn new(slots_max: usize) -> Self {
        Self {
            slots_max,
            sessions: HashMap::new(),
            by_last_use: BTreeSet::new(),
            evictable_by_all: BTreeSet::new(),
            evictable_by_privileged: BTreeSet::new(),
            partitions: 0,
            evictions: 0,
        }
    }

    /// The number of sessions (Kafka's NumIncrementalFetchSessions).
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// The number of partitions in all sessions (Kafka's NumIncrementalFetchPartitionsCached).
    pub fn cached_partitions(&self) -> usize {
        self.partitions
    }

    /// The number of evictions since the start (Kafka's IncrementalFetchSessionEvictionsPerSec).
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Begins a fetch. The Fetch handler calls it, reads the partitions, and calls
    /// [`Self::finish`]. `new_id` is a random positive number, which becomes the id of a new
    /// session. `name_of` returns the name of a topic, for partitions whose topic was unknown
    /// before.
    ///
    /// # Errors
    /// If the session does not exist, has another epoch, or names topics in the other way (by name
    /// or by id). The cache is then unchanged.
    pub fn begin(
        &mut self,
        request: SessionRequest,
        name_of: &dyn Fn(TopicId) -> Option<Arc<str>>,
        now_ms: i64,
        new_id: i32,
    ) -> Result<SessionFetch, SessionError> {
        if request.epoch != INITIAL_EPOCH && request.epoch != FINAL_EPOCH {
            return self.begin_incremental(request, name_of, now_ms);
        }
        self.remove(request.session_id);
        let kind = match request.epoch {
            FINAL_EPOCH => FetchKind::Sessionless,
            _ => FetchKind::Full {
                new_id,
                uses_topic_ids: request.uses_topic_ids,
                is_from_follower: request.is_from_follower,
            },
        };
        Ok(SessionFetch { partitions: Arc::new(all_of(request.partitions)), kind })
    }

    fn begin_incremental(
        &mut self,
        request: SessionRequest,
        name_of: &dyn Fn(TopicId) -> Option<Arc<str>>,
        now_ms: i64,
    ) -> Result<SessionFetch, SessionError> {
        let session_id = request.session_id;
        let session = self.sessions.get_mut(&session_id);
        let session = session.ok_or(SessionError::NotFound(session_id))?;
        if session.epoch != request.epoch {
            return Err(SessionError::InvalidEpoch);
        }
        if session.uses_topic_ids != request.uses_topic_ids {
            return Err(SessionError::TopicIdMismatch);
        }
        session.update(&request, name_of);
        if session.partitions.is_empty() {
            self.remove(session_id);
            let partitions = Arc::new(all_of(request.partitions));
            return Ok(SessionFetch { partitions, kind: FetchKind::Sessionless });
        }
        session.epoch = next_epoch(session.epoch);
        let partitions = session.partitions.clone();
        self.touch(session_id, now_ms);
        let kind = FetchKind::Incremental { session_id, epoch: request.epoch };
        Ok(SessionFetch { partitions, kind })
    }

    /// Finishes a fetch with the results of its partitions, in the same order. Returns which of
    /// them are in the response.
    ///
    /// # Panics
    /// If there are more or fewer results than partitions.
    pub fn finish(
        &mut self,
        fetch: SessionFetch,
        results: &[PartitionResult],
        now_ms: i64,
    ) -> SessionAnswer {
        assert_eq!(results.len(), fetch.partitions.len(), "a result for each partition");
        let all = |session_id| SessionAnswer {
            session_id,
            error: None,
            answered: (0..results.len()).collect(),
        };
        match fetch.kind {
            FetchKind::Sessionless => all(INVALID_SESSION_ID),
            FetchKind::Full { .. } => all(self.create(fetch, results, now_ms)),
            FetchKind::Incremental { session_id, epoch } => {
                let expected = next_epoch(epoch);
                match self.sessions.get_mut(&session_id) {
                    Some(session) if session.epoch != expected => SessionAnswer {
                        session_id,
                        error: Some(SessionError::InvalidEpoch),
                        answered: Vec::new(),
                    },
                    session => finish_incremental(fetch, session_id, session, results),
                }
            }
        }
    }

    /// Creates a session for a full fetch, and returns its id. Returns [`INVALID_SESSION_ID`] if
    /// the cache is full and no session can be evicted.
    fn create(&mut self, fetch: SessionFetch, results: &[PartitionResult], now_ms: i64) -> i32 {
        let FetchKind::Full { new_id, uses_topic_ids, is_from_follower } = fetch.kind else {
            unreachable!("only a full fetch makes a session");
        };
        let key = (is_from_follower, results.len(), 0);
        if self.sessions.len() >= self.slots_max && !self.try_evict(key, now_ms) {
            return INVALID_SESSION_ID;
        }
        let mut partitions = fetch.partitions;
        let owned = Arc::make_mut(&mut partitions);
        let slots: Vec<u32> = owned.slots_in_order().map(|(slot, _)| slot).collect();
        for (slot, result) in slots.into_iter().zip(results) {
            let told = owned.get_mut(slot);
            told.high_watermark = result.high_watermark;
            told.log_start_offset = result.log_start_offset;
        }
        let session_id = self.free_id(new_id);
        let session = FetchSession {
            cached_len: partitions.len(),
            partitions,
            is_privileged: is_from_follower,
            uses_topic_ids,
            created_ms: now_ms,
            last_used_ms: now_ms,
            epoch: next_epoch(INITIAL_EPOCH),
        };
        self.partitions += session.cached_len;
        self.sessions.insert(session_id, session);
        self.touch(session_id, now_ms);
        session_id
    }

    /// The first unused session id from `wanted` on.
    fn free_id(&self, wanted: i32) -> i32 {
        let mut id = wanted.max(1);
        while self.sessions.contains_key(&id) {
            id = next_epoch(id);
        }
        id
    }

    fn try_evict(&mut self, key: EvictableKey, now_ms: i64) -> bool {
        let Some(&(last_used_ms, least_used)) = self.by_last_use.first() else { return false };
        let evicted = if now_ms - last_used_ms > MIN_EVICTION_MS {
            least_used
        } else {
            let (is_privileged, ..) = key;
            let evictable =
                if is_privileged { &self.evictable_by_privileged } else { &self.evictable_by_all };
            match evictable.first() {
                Some(least) if *least <= key => least.2,
                _ => return false,
            }
        };
        self.remove(evicted);
        self.evictions += 1;
        true
    }

    fn remove(&mut self, session_id: i32) {
        let Some(session) = self.sessions.remove(&session_id) else { return };
        self.by_last_use.remove(&(session.last_used_ms, session_id));
        let key = session.evictable_key(session_id);
        self.evictable_by_all.remove(&key);
        self.evictable_by_privileged.remove(&key);
        self.partitions -= session.cached_len;
    }

    /// Notes the time and the number of partitions of a session that is used now.
    fn touch(&mut self, session_id: i32, now_ms: i64) {
        let Some(session) = self.sessions.get_mut(&session_id) else { return };
        self.by_last_use.remove(&(session.last_used_ms, session_id));
        session.last_used_ms = now_ms;
        self.by_last_use.insert((now_ms, session_id));

        let old_key = session.evictable_key(session_id);
        self.partitions -= session.cached_len;
        session.cached_len = session.partitions.len();
        self.partitions += session.cached_len;
        let new_key = session.evictable_key(session_id);
        let is_old = now_ms - session.created_ms > MIN_EVICTION_MS;
        self.evictable_by_privileged.remove(&old_key);
        self.evictable_by_all.remove(&old_key);
        if is_old || !session.is_privileged {
            self.evictable_by_privileged.insert(new_key);
        }
        if is_old {
            self.evictable_by_all.insert(new_key);
        }
    }
}

fn all_of(requests: Vec<PartitionRequest>) -> Partitions {
    let mut partitions = Partitions::with_capacity(requests.len());
    for request in requests {
        partitions.insert(request);
    }
    partitions
}

/// Selects the partitions that have changed since the last response. If the session was removed
/// meanwhile, the response is made from the partitions of the fetch.
fn finish_incremental(
    fetch: SessionFetch,
    session_id: i32,
    session: Option<&mut FetchSession>,
    results: &[PartitionResult],
) -> SessionAnswer {
    let mut changed = Vec::new();
    for ((slot, partition), (at, result)) in
        fetch.partitions.slots_in_order().zip(results.iter().enumerate())
    {
        if partition.must_answer(result) {
            changed.push((at, slot));
        }
    }
    // If the session was removed, another session may have got its id.
    let session = session.filter(|session| Arc::ptr_eq(&session.partitions, &fetch.partitions));
    // Drops the other reference to the partitions, so that `make_mut` does not copy them.
    drop(fetch);
    if let Some(session) = session.filter(|_| !changed.is_empty()) {
        let partitions = Arc::make_mut(&mut session.partitions);
        for (at, slot) in &changed {
            partitions.get_mut(*slot).was_told(&results[*at]);
            if results[*at].records_len > 0 {
                partitions.move_to_end(*slot);
            }
        }
    }
    let answered = changed.into_iter().map(|(at, _)| at).collect();
    SessionAnswer { session_id, error: None, answered }
}

impl FetchSession {
    fn evictable_key(&self, session_id: i32) -> EvictableKey {
        (self.is_privileged, self.cached_len, session_id)
    }

    fn update(&mut self, request: &SessionRequest, name_of: &dyn Fn(TopicId) -> Option<Arc<str>>) {
        let is_same = request.partitions.is_empty() && request.forgotten.is_empty();
        if is_same && !self.partitions.has_unresolved() {
            return;
        }
        let partitions = Arc::make_mut(&mut self.partitions);
        for wanted in &request.partitions {
            partitions.insert(wanted.clone());
        }
        for Forgotten { topic, topic_id, partition } in &request.forgotten {
            partitions.remove(*topic_id, topic.as_ref(), *partition);
        }
        if partitions.has_unresolved() {
            partitions.resolve(name_of);
        }
    }
}

impl SessionPartition {
    fn must_answer(&self, result: &PartitionResult) -> bool {
        result.records_len > 0
            || result.is_error
            || result.is_redirect
            || self.high_watermark != result.high_watermark
            || self.log_start_offset != result.log_start_offset
    }

    fn was_told(&mut self, result: &PartitionResult) {
        self.high_watermark = if result.is_error { -1 } else { result.high_watermark };
        self.log_start_offset = result.log_start_offset;
    }
}

#[cfg(test)]
mod tests;
