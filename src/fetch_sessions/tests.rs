//! Tests of fetch sessions, one per rule. Tests that exist in Kafka's `FetchSessionTest` have its
//! names.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const FOO: Uuid = Uuid::from_u128(1);
const BAR: Uuid = Uuid::from_u128(2);

fn names(id: TopicId) -> Option<Arc<str>> {
    match id {
        FOO => Some("foo".into()),
        BAR => Some("bar".into()),
        _ => None,
    }
}

fn no_names(_: TopicId) -> Option<Arc<str>> {
    None
}

fn named(topic: &str, partition: i32) -> PartitionRequest {
    PartitionRequest {
        topic: Some(topic.into()),
        topic_id: Uuid::nil(),
        partition,
        fetch_offset: 0,
        log_start_offset: -1,
        max_bytes: 100,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
    }
}

fn by_id(topic_id: TopicId, topic: Option<&str>, partition: i32) -> PartitionRequest {
    PartitionRequest { topic: topic.map(Into::into), topic_id, ..named("", partition) }
}

fn request(session_id: i32, epoch: i32, partitions: Vec<PartitionRequest>) -> SessionRequest {
    SessionRequest {
        session_id,
        epoch,
        uses_topic_ids: partitions.iter().any(|p| !p.topic_id.is_nil()),
        is_from_follower: false,
        partitions,
        forgotten: Vec::new(),
    }
}

fn partitions_of(topic: &str, count: i32) -> Vec<PartitionRequest> {
    (0..count).map(|partition| named(topic, partition)).collect()
}

/// A result without records.
const QUIET: PartitionResult = PartitionResult {
    is_error: false,
    high_watermark: 10,
    log_start_offset: 0,
    records_len: 0,
    is_redirect: false,
};
const RECORDS: PartitionResult = PartitionResult { records_len: 100, ..QUIET };
const ERROR: PartitionResult =
    PartitionResult { is_error: true, high_watermark: -1, log_start_offset: -1, ..QUIET };

struct Cache {
    cache: SessionCache,
    now_ms: i64,
    next_id: i32,
}

impl Cache {
    fn new(slots_max: usize) -> Self {
        Self { cache: SessionCache::new(slots_max), now_ms: 0, next_id: 100 }
    }

    fn begin(&mut self, request: SessionRequest) -> Result<SessionFetch, SessionError> {
        self.next_id += 1;
        self.cache.begin(request, &names, self.now_ms, self.next_id)
    }

    fn finish(&mut self, fetch: SessionFetch, results: &[PartitionResult]) -> SessionAnswer {
        self.cache.finish(fetch, results, self.now_ms)
    }

    fn fetch(
        &mut self,
        request: SessionRequest,
        results: &[PartitionResult],
    ) -> Result<SessionAnswer, SessionError> {
        let fetch = self.begin(request)?;
        Ok(self.finish(fetch, results))
    }

    /// Creates a session with `count` partitions without records, and returns its id.
    fn session(&mut self, count: i32) -> i32 {
        let request = request(0, INITIAL_EPOCH, partitions_of("foo", count));
        let answer = self.fetch(request, &vec![QUIET; count as usize]).expect("begins");
        answer.session_id
    }

    fn follower_session(&mut self, count: i32) -> i32 {
        let request = SessionRequest {
            is_from_follower: true,
            ..request(0, INITIAL_EPOCH, partitions_of("foo", count))
        };
        self.fetch(request, &vec![QUIET; count as usize]).expect("begins").session_id
    }

    fn has(&self, session_id: i32) -> bool {
        self.cache.sessions.contains_key(&session_id)
    }
}

fn order(fetch: &SessionFetch) -> Vec<(String, i32)> {
    let name = |p: &SessionPartition| p.request.topic.as_deref().unwrap_or("?").to_owned();
    fetch.partitions().map(|p| (name(p), p.request.partition)).collect()
}

fn indexes(fetch: &SessionFetch) -> Vec<i32> {
    fetch.partitions().map(|p| p.request.partition).collect()
}

#[test]
fn new_session_id() {
    let mut cache = SessionCache::new(10);
    let mut ids = Vec::new();
    // The same random number several times, 0, and the largest number.
    for new_id in [7, 7, 7, 0, i32::MAX, i32::MAX] {
        let request = request(0, INITIAL_EPOCH, partitions_of("foo", 1));
        let fetch = cache.begin(request, &names, 0, new_id).expect("begins");
        ids.push(cache.finish(fetch, &[QUIET], 0).session_id);
    }
    assert_eq!(ids, [7, 8, 9, 1, i32::MAX, 2]);
}

#[test]
fn next_epochs() {
    assert_eq!(next_epoch(INITIAL_EPOCH), 1);
    assert_eq!(next_epoch(1), 2);
    assert_eq!(next_epoch(i32::MAX), 1);
    assert_eq!(next_epoch(FINAL_EPOCH), FINAL_EPOCH);
}

#[test]
fn session_cache() {
    let mut cache = Cache::new(3);
    let sizes = [10, 20, 30].map(|size| cache.session(size));
    assert_eq!(cache.cache.cached_partitions(), 60);
    assert_eq!(cache.session(40), INVALID_SESSION_ID, "all are too young to go");
    assert!(sizes.iter().all(|id| cache.has(*id)));
    assert_eq!(cache.cache.evictions(), 0);
}

#[test]
fn resize_cached_sessions() {
    let mut cache = Cache::new(2);
    let id = cache.session(2);
    assert_eq!(cache.cache.cached_partitions(), 2);
    let grown = request(id, 1, vec![named("bar", 0), named("bar", 1), named("foo", 0)]);
    cache.fetch(grown, &[QUIET; 4]).expect("in session");
    assert_eq!(cache.cache.cached_partitions(), 4);
    let other = cache.session(3);
    assert_eq!(cache.cache.cached_partitions(), 7);
    let shrunk = SessionRequest { forgotten: vec![forget("foo", 1)], ..request(id, 2, vec![]) };
    cache.fetch(shrunk, &[QUIET; 3]).expect("in session");
    assert_eq!(cache.cache.cached_partitions(), 6);
    cache.fetch(request(other, FINAL_EPOCH, vec![]), &[]).expect("closes");
    assert_eq!((cache.cache.len(), cache.cache.cached_partitions()), (1, 3));
}

fn forget(topic: &str, partition: i32) -> Forgotten {
    Forgotten { topic: Some(topic.into()), topic_id: Uuid::nil(), partition }
}

/// Kafka's testCachedLeaderEpoch and testLastFetchedEpoch: the session remembers the request for a
/// partition, and a new request replaces all of it.
#[test]
fn cached_request_of_a_partition() {
    let mut cache = Cache::new(1);
    let epochs = |fetch: &SessionFetch| -> Vec<_> {
        let of = |p: &SessionPartition| {
            (p.request.current_leader_epoch, p.request.last_fetched_epoch, p.request.fetch_offset)
        };
        fetch.partitions().map(of).collect()
    };
    let first = PartitionRequest {
        current_leader_epoch: 5,
        last_fetched_epoch: 4,
        fetch_offset: 10,
        ..named("foo", 0)
    };
    let full = request(0, INITIAL_EPOCH, vec![first, named("foo", 1)]);
    let id = cache.fetch(full, &[QUIET; 2]).expect("begins").session_id;

    let same = cache.begin(request(id, 1, vec![])).expect("in session");
    assert_eq!(epochs(&same), [(5, 4, 10), (-1, -1, 0)]);
    cache.finish(same, &[QUIET; 2]);

    let newer = PartitionRequest {
        current_leader_epoch: 6,
        last_fetched_epoch: -1,
        fetch_offset: 20,
        ..named("foo", 0)
    };
    let changed = cache.begin(request(id, 2, vec![newer])).expect("in session");
    assert_eq!(epochs(&changed), [(6, -1, 20), (-1, -1, 0)]);
}

#[test]
fn fetch_requests() {
    let mut cache = Cache::new(10);
    let not_found = cache.begin(request(1234, 5, partitions_of("foo", 1)));
    assert_eq!(not_found.err(), Some(SessionError::NotFound(1234)));
    // Id 0 never names a session.
    let none = cache.begin(request(INVALID_SESSION_ID, 1, partitions_of("foo", 1)));
    assert_eq!(none.err(), Some(SessionError::NotFound(0)));

    let sessionless = request(0, FINAL_EPOCH, partitions_of("foo", 2));
    let answer = cache.fetch(sessionless, &[QUIET; 2]).expect("begins");
    assert_eq!((answer.session_id, answer.answered), (INVALID_SESSION_ID, vec![0, 1]));
    assert!(cache.cache.is_empty());

    let id = cache.session(2);
    let wrong = cache.begin(request(id, 6, vec![]));
    assert_eq!(wrong.err(), Some(SessionError::InvalidEpoch));
    cache.fetch(request(id, 1, vec![]), &[QUIET; 2]).expect("epoch 1");
    let again = cache.begin(request(id, 1, vec![]));
    assert_eq!(again.err(), Some(SessionError::InvalidEpoch));
    cache.fetch(request(id, 2, vec![]), &[QUIET; 2]).expect("epoch 2");

    // A full fetch that names a session closes it and creates another.
    let full = request(id, INITIAL_EPOCH, partitions_of("foo", 2));
    let other = cache.fetch(full, &[QUIET; 2]).expect("begins").session_id;
    assert!(!cache.has(id) && cache.has(other));
    // A request with the final epoch closes the session and creates none.
    let closing = request(other, FINAL_EPOCH, partitions_of("bar", 1));
    let answer = cache.fetch(closing, &[QUIET]).expect("begins");
    assert_eq!((answer.session_id, answer.answered), (INVALID_SESSION_ID, vec![0]));
    assert!(cache.cache.is_empty());
}

#[test]
fn incremental_fetch_session() {
    let mut cache = Cache::new(10);
    let full = request(0, INITIAL_EPOCH, partitions_of("foo", 2));
    let answer = cache.fetch(full, &[QUIET; 2]).expect("begins");
    assert_eq!(answer.answered, [0, 1], "a full answer has all partitions");

    let id = answer.session_id;
    let mut changed = request(id, 1, vec![named("bar", 0)]);
    changed.forgotten = vec![forget("foo", 0)];
    let fetch = cache.begin(changed).expect("in session");
    assert!(fetch.is_incremental());
    assert_eq!(order(&fetch), [("foo".to_owned(), 1), ("bar".to_owned(), 0)]);
    let answer = cache.finish(fetch, &[QUIET; 2]);
    assert_eq!((answer.session_id, answer.answered), (id, vec![1]), "only what is new");
}

/// Kafka's testFetchSessionWithUnknownIdOldRequestVersion and the two tests of a switch between
/// names and ids.
#[test]
fn sessions_keep_to_one_way_of_naming_topics() {
    let mut cache = Cache::new(10);
    let with_names = cache.session(1);
    let mut newer = request(with_names, 1, vec![by_id(FOO, Some("foo"), 0)]);
    assert_eq!(cache.begin(newer.clone()).err(), Some(SessionError::TopicIdMismatch));
    newer.partitions.clear();
    assert_eq!(cache.begin(newer).err(), Some(SessionError::TopicIdMismatch));

    let full = request(0, INITIAL_EPOCH, vec![by_id(FOO, Some("foo"), 0)]);
    let with_ids = cache.fetch(full, &[QUIET]).expect("begins").session_id;
    let older = request(with_ids, 1, vec![]);
    assert_eq!(cache.begin(older).err(), Some(SessionError::TopicIdMismatch));
    assert!(cache.has(with_names) && cache.has(with_ids), "a mismatch closes nothing");
}

#[test]
fn resolve_unknown_partitions() {
    let mut cache = Cache::new(10);
    let full = request(0, INITIAL_EPOCH, vec![by_id(FOO, None, 0), by_id(BAR, Some("bar"), 0)]);
    let answer = cache.fetch(full, &[ERROR, QUIET]).expect("begins");
    let id = answer.session_id;

    let next = |epoch| SessionRequest { uses_topic_ids: true, ..request(id, epoch, vec![]) };
    let unknown = cache.cache.begin(next(1), &no_names, 0, 1).expect("in session");
    assert_eq!(order(&unknown), [("?".to_owned(), 0), ("bar".to_owned(), 0)]);
    cache.finish(unknown, &[ERROR, QUIET]);

    let known = cache.begin(next(2)).expect("in session");
    assert_eq!(order(&known), [("foo".to_owned(), 0), ("bar".to_owned(), 0)]);
    assert_eq!(cache.finish(known, &[QUIET, QUIET]).answered, [0], "the error has gone");
    // The session remembers the name.
    let still = cache.cache.begin(next(3), &no_names, 0, 1).expect("in session");
    assert_eq!(order(&still)[0].0, "foo");
}

#[test]
fn to_forget_partitions() {
    for starts_resolved in [true, false] {
        let mut cache = Cache::new(10);
        let foo = by_id(FOO, starts_resolved.then_some("foo"), 0);
        let full = request(0, INITIAL_EPOCH, vec![foo, by_id(BAR, Some("bar"), 0)]);
        let id = cache.fetch(full, &[QUIET; 2]).expect("begins").session_id;
        for ends_resolved in [true, false] {
            let mut forgetting = request(id, 1, vec![]);
            forgetting.uses_topic_ids = true;
            let topic = ends_resolved.then(|| "foo".into());
            forgetting.forgotten = vec![Forgotten { topic, topic_id: FOO, partition: 0 }];
            if ends_resolved {
                let fetch = cache.begin(forgetting).expect("in session");
                assert_eq!(order(&fetch), [("bar".to_owned(), 0)]);
                cache.finish(fetch, &[QUIET]);
            } else {
                forgetting.epoch = 2;
                let fetch = cache.begin(forgetting).expect("what is not there can be forgotten");
                assert_eq!(fetch.len(), 1);
            }
        }
    }
}

#[test]
fn update_and_generate_response_data() {
    let mut cache = Cache::new(10);
    let id = cache.session(6);
    let fetch = cache.begin(request(id, 1, vec![])).expect("in session");
    let results = [
        QUIET,
        RECORDS,
        PartitionResult { high_watermark: 11, ..QUIET },
        PartitionResult { log_start_offset: 5, ..QUIET },
        ERROR,
        PartitionResult { is_redirect: true, ..QUIET },
    ];
    assert_eq!(cache.finish(fetch, &results).answered, [1, 2, 3, 4, 5]);

    // The same results again. Partition 1 has moved to the end, because its records were sent.
    let fetch = cache.begin(request(id, 2, vec![])).expect("in session");
    assert_eq!(indexes(&fetch), [0, 2, 3, 4, 5, 1]);
    let results = [
        QUIET,
        PartitionResult { high_watermark: 11, ..QUIET },
        PartitionResult { log_start_offset: 5, ..QUIET },
        ERROR,
        QUIET,
        QUIET,
    ];
    assert_eq!(cache.finish(fetch, &results).answered, [3], "an error is told each time");

    let fetch = cache.begin(request(id, 3, vec![])).expect("in session");
    let mut after = results;
    after[3] = QUIET;
    assert_eq!(cache.finish(fetch, &after).answered, [3], "and its end too");
}

#[test]
fn diverging_epoch() {
    let mut cache = Cache::new(10);
    let id = cache.session(2);
    let diverging = PartitionResult { is_redirect: true, ..QUIET };
    for epoch in 1..4 {
        let answer = cache.fetch(request(id, epoch, vec![]), &[diverging, QUIET]);
        assert_eq!(answer.expect("in session").answered, [0], "told until it ends");
    }
}

/// A repeated request of the same epoch fails. The next request makes the first one's response an
/// error.
#[test]
fn two_requests_of_a_session_at_once() {
    let mut cache = Cache::new(10);
    let id = cache.session(2);
    let first = cache.begin(request(id, 1, vec![])).expect("in session");
    assert_eq!(cache.begin(request(id, 1, vec![])).err(), Some(SessionError::InvalidEpoch));
    let second = cache.begin(request(id, 2, vec![named("bar", 0)])).expect("in session");
    assert_eq!((first.len(), second.len()), (2, 3), "the first keeps its partitions");
    let late = cache.finish(first, &[RECORDS; 2]);
    assert_eq!((late.session_id, late.error), (id, Some(SessionError::InvalidEpoch)));
    assert!(late.answered.is_empty());
    assert_eq!(cache.finish(second, &[RECORDS; 3]).answered, [0, 1, 2]);
}

#[test]
fn a_session_that_is_gone_is_answered_once_more() {
    let mut cache = Cache::new(10);
    let id = cache.session(2);
    let fetch = cache.begin(request(id, 1, vec![])).expect("in session");
    cache.begin(request(id, FINAL_EPOCH, vec![])).expect("closes");
    // The response must not change another session with the same id.
    cache.next_id = id - 1;
    let full = request(0, INITIAL_EPOCH, partitions_of("bar", 1));
    assert_eq!(cache.fetch(full, &[QUIET]).expect("begins").session_id, id);
    cache.begin(request(id, 1, vec![])).expect("in session");
    let answer = cache.finish(fetch, &[QUIET, RECORDS]);
    assert_eq!((answer.session_id, answer.error, answer.answered), (id, None, vec![1]));
}

#[test]
fn fetch_session_expiration() {
    let mut cache = Cache::new(2);
    let first = cache.session(2);
    cache.now_ms = 1;
    let second = cache.session(2);
    cache.now_ms = 500;
    cache.fetch(request(first, 1, vec![]), &[QUIET; 2]).expect("in session");
    // The second session has been idle for the longest time without eviction.
    cache.now_ms = 1 + MIN_EVICTION_MS;
    assert_eq!(cache.session(1), INVALID_SESSION_ID);
    cache.now_ms += 1;
    let third = cache.session(1);
    assert_ne!(third, INVALID_SESSION_ID, "idle sessions go whatever their size");
    assert!(cache.has(first) && !cache.has(second) && cache.has(third));
    assert_eq!(cache.cache.evictions(), 1);
    let gone = cache.begin(request(second, 1, vec![]));
    assert_eq!(gone.err(), Some(SessionError::NotFound(second)));
}

/// A larger new session evicts an old session that is in use. A smaller one does not.
#[test]
fn old_sessions_go_for_larger_ones() {
    let mut cache = Cache::new(2);
    let [small, large] = [2, 4].map(|size| cache.session(size));
    cache.now_ms = MIN_EVICTION_MS - 1;
    for (id, len) in [(small, 2), (large, 4)] {
        cache.fetch(request(id, 1, vec![]), &vec![QUIET; len]).expect("in session");
    }
    cache.now_ms = MIN_EVICTION_MS + 1;
    for (id, len) in [(small, 2), (large, 4)] {
        cache.fetch(request(id, 2, vec![]), &vec![QUIET; len]).expect("in session");
    }
    assert_eq!(cache.session(1), INVALID_SESSION_ID);
    let newer = cache.session(3);
    assert!(!cache.has(small) && cache.has(large) && cache.has(newer));
}

#[test]
fn privileged_session_handling() {
    let mut cache = Cache::new(2);
    let consumer = cache.session(20);
    let follower = cache.follower_session(1);
    assert_eq!(cache.session(30), INVALID_SESSION_ID, "consumers evict no young session");
    // Followers' sessions evict those of consumers at any age and size, but not each other.
    let second = cache.follower_session(1);
    assert!(!cache.has(consumer) && cache.has(follower) && cache.has(second));
    assert_eq!(cache.follower_session(40), INVALID_SESSION_ID);
    // Larger sessions of followers evict old sessions of followers. Those of consumers do not.
    cache.now_ms = MIN_EVICTION_MS;
    for id in [follower, second] {
        cache.fetch(request(id, 1, vec![]), &[QUIET]).expect("in session");
    }
    cache.now_ms = MIN_EVICTION_MS + 1;
    for id in [follower, second] {
        cache.fetch(request(id, 2, vec![]), &[QUIET]).expect("in session");
    }
    assert_eq!(cache.session(50), INVALID_SESSION_ID);
    assert_ne!(cache.follower_session(2), INVALID_SESSION_ID);
    assert_eq!(cache.cache.len(), 2);
}

#[test]
fn zero_size_fetch_session() {
    let mut cache = Cache::new(10);
    let id = cache.session(2);
    let mut emptied = request(id, 1, vec![]);
    emptied.forgotten = vec![forget("foo", 0), forget("foo", 1)];
    let answer = cache.fetch(emptied, &[]).expect("in session");
    assert_eq!((answer.session_id, answer.answered.len()), (INVALID_SESSION_ID, 0));
    assert!(!cache.has(id));
    assert_eq!(cache.cache.cached_partitions(), 0);
}

#[test]
fn no_slots_no_sessions() {
    let mut cache = Cache::new(0);
    assert_eq!(cache.session(1), INVALID_SESSION_ID);
}

#[test]
fn deprioritizes_partitions_with_records_only() {
    let mut cache = Cache::new(10);
    let id = cache.session(3);
    let mut epoch = 0;
    let mut next = |cache: &mut Cache, results: [PartitionResult; 3]| {
        epoch += 1;
        let fetch = cache.begin(request(id, epoch, vec![])).expect("in session");
        let order = indexes(&fetch);
        cache.finish(fetch, &results);
        order
    };
    let moved = PartitionResult { high_watermark: 20, ..QUIET };
    assert_eq!(next(&mut cache, [moved, QUIET, QUIET]), [0, 1, 2]);
    assert_eq!(next(&mut cache, [RECORDS, RECORDS, QUIET]), [0, 1, 2], "no records, no move");
    assert_eq!(next(&mut cache, [RECORDS, QUIET, QUIET]), [2, 0, 1]);
    assert_eq!(next(&mut cache, [QUIET, QUIET, QUIET]), [0, 1, 2]);
}

#[test]
fn a_partition_named_twice_is_read_once() {
    let mut cache = Cache::new(10);
    let twice = PartitionRequest { fetch_offset: 9, ..named("foo", 0) };
    let wanted = vec![named("foo", 0), named("foo", 1), twice];
    let fetch = cache.begin(request(0, FINAL_EPOCH, wanted)).expect("begins");
    let read: Vec<_> =
        fetch.partitions().map(|p| (p.request.partition, p.request.fetch_offset)).collect();
    assert_eq!(read, [(0, 9), (1, 0)], "at its first place, with what was asked last");
}

/// Consecutive requests of a session change its partitions in place.
#[test]
fn a_quiet_session_copies_nothing() {
    let mut cache = Cache::new(10);
    let id = cache.session(3);
    let place = |cache: &Cache| Arc::as_ptr(&cache.cache.sessions[&id].partitions);
    let before = place(&cache);
    for epoch in 1..5 {
        let changed = PartitionResult { high_watermark: i64::from(epoch) + 10, ..RECORDS };
        let wanted = request(id, epoch, vec![named("foo", 1)]);
        cache.fetch(wanted, &[changed, QUIET, QUIET]).expect("in session");
        assert_eq!(place(&cache), before);
    }
}

proptest! {
    /// Compares the order with that of a vector: new partitions are added at the end, and
    /// partitions with records move there.
    #[test]
    fn partitions_keep_the_order_of_a_vector(
        steps in prop::collection::vec((0..3u8, 0..12i32), 0..200),
    ) {
        let mut partitions = Partitions::with_capacity(4);
        let mut model: Vec<i32> = Vec::new();
        let topic: Arc<str> = "foo".into();
        for (step, partition) in steps {
            let at = model.iter().position(|known| *known == partition);
            match (step, at) {
                (0, None) => {
                    partitions.insert(named("foo", partition));
                    model.push(partition);
                }
                (0, Some(_)) => partitions.insert(named("foo", partition)),
                (1, at) => {
                    partitions.remove(Uuid::nil(), Some(&topic), partition);
                    at.map(|at| model.remove(at));
                }
                (_, None) => {}
                (_, Some(at)) => {
                    let slot = partitions.slots_in_order().nth(at).map(|(slot, _)| slot);
                    partitions.move_to_end(slot.expect("as many as in the model"));
                    let moved = model.remove(at);
                    model.push(moved);
                }
            }
            let order: Vec<i32> = partitions.iter().map(|p| p.request.partition).collect();
            prop_assert_eq!(&order, &model);
            prop_assert_eq!(partitions.len(), model.len());
        }
    }
}
