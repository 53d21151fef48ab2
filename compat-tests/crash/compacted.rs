//! Kills while the cleaner never rests. Each key keeps a value that is not older than its last
//! acknowledged one, and so does each committed offset.

use std::{
    collections::HashMap,
    fs, io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use kafka_protocol::messages::{
    DeleteGroupsRequest, IncrementalAlterConfigsRequest, OffsetCommitRequest, OffsetFetchRequest,
};
use parking_lot::Mutex;
use sordini::records::{Batch, BatchBuilder, BatchOptions};

use super::{
    alone,
    kept::until,
    load::{RETRIABLE, Random, now_ms, read_records},
    number,
    shared::{
        client::{Client, Code},
        process::Site,
        requests,
    },
};

const TOPIC: &str = "compacted";
const PARTITIONS: i32 = 2;
const OFFSETS_TOPIC: &str = "__consumer_offsets";
const GROUPS: u64 = 6;
/// Number of keys of each writer. Most writes are of the first [`HOT_KEYS`], so that old values go.
/// The others are seldom replaced, so that the loss of any part of the log is seen.
const KEYS: u64 = 200;
const HOT_KEYS: u64 = 15;
/// One write of this number is of any key.
const ANY_KEY_EVERY: u64 = 16;
/// One write of this number is a tombstone, or deletes the group.
const TOMBSTONE_EVERY: u64 = 8;
/// A reader that takes longer than this may miss a tombstone after it has read the value before it.
const DELETE_RETENTION: Duration = Duration::from_millis(1000);
/// Bound of the records that stay: the last one of each key, and those of the active segments.
const KEPT_MAX: usize = 1600;
/// How long a kill waits for a replacement of segments.
const REPLACEMENT_MAX: Duration = Duration::from_millis(300);
const SEED: u64 = 15;
/// Error codes of a coordinator that is not ready: COORDINATOR_LOAD_IN_PROGRESS,
/// COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR.
const COORDINATOR_NOT_READY: [Code; 3] = [14, 15, 16];
/// The group to delete does not exist.
const GROUP_ID_NOT_FOUND: Code = 69;

#[derive(Clone, Copy, Debug)]
struct Write {
    key: u64,
    is_tombstone: bool,
    is_acknowledged: bool,
    /// The offset of the record, if it is acknowledged and the response says it.
    offset: Option<i64>,
}

/// All writes of one writer, by number. No other writer has its keys, so the log has them in this
/// order.
#[derive(Default)]
struct History(Mutex<Vec<Write>>);

impl History {
    /// Adds a write that is about to be sent. Returns its number.
    fn add(&self, key: u64, is_tombstone: bool) -> usize {
        let mut writes = self.0.lock();
        writes.push(Write { key, is_tombstone, is_acknowledged: false, offset: None });
        writes.len() - 1
    }

    fn acknowledge(&self, n: usize, offset: Option<i64>) {
        let write = &mut self.0.lock()[n];
        (write.is_acknowledged, write.offset) = (true, offset);
    }

    fn acknowledged(&self) -> usize {
        self.0.lock().iter().filter(|write| write.is_acknowledged).count()
    }

    /// The number of the last acknowledged write of each key.
    fn last_acknowledged(&self) -> HashMap<u64, usize> {
        let writes = self.0.lock();
        let acknowledged = writes.iter().enumerate().filter(|(_, write)| write.is_acknowledged);
        acknowledged.map(|(n, write)| (write.key, n)).collect()
    }

    /// Checks what a reader found for a key: `acknowledged` is its last write that was acknowledged
    /// before the reader started.
    fn check(&self, key: u64, acknowledged: Option<usize>, found: Option<usize>) {
        let writes = self.0.lock();
        let first = acknowledged.unwrap_or(0);
        let mut later = (first..writes.len()).filter(|n| writes[*n].key == key);
        let is_allowed = match found {
            Some(found) => later.any(|n| n == found),
            None => acknowledged.is_none() || later.any(|n| writes[n].is_tombstone),
        };
        assert!(is_allowed, "key {key}: {acknowledged:?} was acknowledged, {found:?} is found");
    }

    /// Checks one record that a reader found.
    fn check_record(&self, record: &Found) {
        let write = self.0.lock().get(record.n).copied();
        let write = write.unwrap_or_else(|| panic!("{record:?} was not sent"));
        assert_eq!(
            (write.key, write.is_tombstone),
            (record.key, record.is_tombstone),
            "{record:?}"
        );
        assert!(write.offset.is_none_or(|it| it == record.offset), "{record:?} was {write:?}");
    }
}

/// A record that a reader found: write `n` of `writer`.
#[derive(Debug)]
struct Found {
    offset: i64,
    writer: usize,
    key: u64,
    n: usize,
    is_tombstone: bool,
}

/// Reads a partition from the start to the high watermark. Compaction leaves gaps.
fn read_all(client: &mut Client, partition: i32) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    read_records(client, (TOPIC, partition), 0, |record| {
        let key = text(record.key.as_deref());
        let (writer, key) = key.split_once(':').expect("a key of ours");
        let n = record.headers.first().expect("a header of ours");
        found.push(Found {
            offset: record.offset,
            writer: writer.parse().expect("a number"),
            key: key.parse().expect("a number"),
            n: text(n.1.as_deref()).parse().expect("a number"),
            is_tombstone: record.value.is_none(),
        });
    });
    found
}

fn text(bytes: Option<&[u8]>) -> &str {
    std::str::from_utf8(bytes.expect("it is there")).expect("text of ours")
}

/// Checks a partition against the histories of its writers. Returns the number of records.
fn check_partition(client: &mut Client, partition: i32, histories: &[Arc<History>]) -> usize {
    let is_here = |writer: usize| partition_of(writer) == partition;
    let (acknowledged, found) = loop {
        let acknowledged: Vec<_> = histories.iter().map(|it| it.last_acknowledged()).collect();
        let since = Instant::now();
        let found = read_all(client, partition);
        if since.elapsed() < DELETE_RETENTION {
            break (acknowledged, found);
        }
    };
    let mut last: HashMap<(usize, u64), usize> = HashMap::new();
    let mut last_of_writer: HashMap<usize, usize> = HashMap::new();
    for record in &found {
        assert!(is_here(record.writer), "{record:?} in partition {partition}");
        histories[record.writer].check_record(record);
        let before = last_of_writer.insert(record.writer, record.n);
        assert!(before.is_none_or(|it| it < record.n), "{record:?} after {before:?}");
        last.insert((record.writer, record.key), record.n);
    }
    for writer in (0..histories.len()).filter(|it| is_here(*it)) {
        for key in 0..KEYS {
            let acknowledged = acknowledged[writer].get(&key).copied();
            histories[writer].check(key, acknowledged, last.get(&(writer, key)).copied());
        }
    }
    found.len()
}

/// Two writers for each partition.
fn partition_of(writer: usize) -> i32 {
    writer as i32 % PARTITIONS
}

fn is_idempotent(writer: usize) -> bool {
    writer as i32 / PARTITIONS == 0
}

/// A producer with acks=all and one batch in flight.
struct Writer {
    number: usize,
    address: SocketAddr,
    history: Arc<History>,
    stop: Arc<AtomicBool>,
    random: Random,
    identity: Option<(i64, i16)>,
    /// The batch in flight, and the number of its first write.
    in_flight: Option<(usize, Batch)>,
}

impl Writer {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Writes until the stop. An idempotent writer sends a batch again until it is acknowledged.
    fn run(mut self) {
        while !self.is_stopped() || self.in_flight.is_some() {
            if self.write_until_error().is_err() {
                thread::sleep(Duration::from_millis(5));
            }
            if !is_idempotent(self.number) {
                self.in_flight = None;
            }
        }
    }

    fn write_until_error(&mut self) -> io::Result<()> {
        let mut client = Client::connect(self.address)?;
        if is_idempotent(self.number) && self.identity.is_none() {
            self.identity = Some(client.init_producer_id()?);
        }
        while !self.is_stopped() || self.in_flight.is_some() {
            let in_flight = self.in_flight.take();
            let (first, batch) = &*self.in_flight.insert(in_flight.unwrap_or_else(|| {
                next_batch(self.number, &self.history, &mut self.random, self.identity)
            }));
            thread::sleep(Duration::from_millis(self.random.below(8)));
            match client.produce((TOPIC, partition_of(self.number)), -1, batch)? {
                Ok(base) => {
                    for delta in 0..batch.header.record_count as usize {
                        self.history.acknowledge(first + delta, Some(base + delta as i64));
                    }
                    self.in_flight = None;
                }
                Err(code) => {
                    assert!(RETRIABLE.contains(&code), "writer {}: error {code}", self.number);
                    return Err(io::Error::other("refused"));
                }
            }
        }
        Ok(())
    }
}

/// Builds the next batch of a writer. The number of each write is in a header of its record,
/// because a tombstone has no value.
fn next_batch(
    writer: usize,
    history: &History,
    random: &mut Random,
    identity: Option<(i64, i16)>,
) -> (usize, Batch) {
    let count = 1 + random.below(4);
    let mut next = || {
        let keys = if random.below(ANY_KEY_EVERY) == 0 { KEYS } else { HOT_KEYS };
        (random.below(keys), random.below(TOMBSTONE_EVERY) == 0)
    };
    let writes: Vec<_> = (0..count).map(|_| next()).collect();
    let numbers: Vec<_> = writes.iter().map(|(key, dies)| history.add(*key, *dies)).collect();
    let mut options = BatchOptions::default();
    if let Some((id, epoch)) = identity {
        (options.producer_id, options.producer_epoch) = (id, epoch);
        options.base_sequence = numbers[0] as i32;
    }
    let mut builder = BatchBuilder::new(options);
    let padding = vec![b'.'; random.below(300) as usize];
    for ((key, is_tombstone), n) in writes.iter().zip(&numbers) {
        let (key, n) = (format!("{writer}:{key}"), n.to_string());
        let value = (!is_tombstone).then_some(padding.as_slice());
        builder.append(
            now_ms(),
            Some(key.as_bytes()),
            value,
            &[(b"n".as_slice(), Some(n.as_bytes()))],
        );
    }
    (numbers[0], builder.build())
}

/// Commits offsets of groups and deletes groups. The committed offset is the number of the write.
fn commit(address: SocketAddr, history: &History, stop: &AtomicBool) {
    let mut random = Random::new(SEED);
    let mut client = None;
    while !stop.load(Ordering::SeqCst) {
        let Some(connected) = client.as_mut() else {
            client = Client::connect(address).ok();
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        let key = random.below(GROUPS);
        let is_tombstone = random.below(TOMBSTONE_EVERY) == 0;
        let n = history.add(key, is_tombstone);
        let code = match is_tombstone {
            true => delete_group(connected, key),
            false => commit_offset(connected, key, n),
        };
        match code {
            Ok(0) => history.acknowledge(n, None),
            Ok(code) if is_tombstone && code == GROUP_ID_NOT_FOUND => history.acknowledge(n, None),
            Ok(code) => assert!(COORDINATOR_NOT_READY.contains(&code), "group {key}: error {code}"),
            Err(_) => client = None,
        }
    }
}

fn group(key: u64) -> String {
    format!("group-{key}")
}

fn commit_offset(client: &mut Client, key: u64, n: usize) -> io::Result<Code> {
    let request = requests::commit_offset(&group(key), (TOPIC, 0), n as i64, "");
    let answer = client.call::<OffsetCommitRequest>(8, &request)?;
    Ok(answer.topics[0].partitions[0].error_code)
}

fn delete_group(client: &mut Client, key: u64) -> io::Result<Code> {
    let names = vec![requests::group_id(&group(key))];
    let request = DeleteGroupsRequest::default().with_groups_names(names);
    Ok(client.call(2, &request)?.results[0].error_code)
}

/// Checks the committed offset of each group against the history of the commits.
fn check_groups(client: &mut Client, history: &History) {
    for key in 0..GROUPS {
        let acknowledged = history.last_acknowledged().get(&key).copied();
        let committed = until("the coordinator is ready", || {
            let request = requests::committed_offset(&group(key), (TOPIC, 0));
            let answer = client.call::<OffsetFetchRequest>(8, &request).expect("answered");
            let group = &answer.groups[0];
            let is_ready = !COORDINATOR_NOT_READY.contains(&group.error_code);
            is_ready.then(|| group.topics[0].partitions[0].committed_offset)
        });
        history.check(key, acknowledged, usize::try_from(committed).ok());
    }
}

/// The running writers and the committer.
struct Load {
    histories: Vec<Arc<History>>,
    commits: Arc<History>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(address: SocketAddr) -> Self {
        let (commits, stop) = (Arc::<History>::default(), Arc::<AtomicBool>::default());
        let (mut histories, mut threads) = (Vec::new(), Vec::new());
        for number in 0..2 * PARTITIONS as usize {
            let (history, stop) = (Arc::<History>::default(), Arc::clone(&stop));
            histories.push(Arc::clone(&history));
            let random = Random::new(SEED + number as u64);
            let (identity, in_flight) = (None, None);
            let writer = Writer { number, address, history, stop, random, identity, in_flight };
            threads.push(thread::spawn(|| writer.run()));
        }
        let (its_commits, its_stop) = (Arc::clone(&commits), Arc::clone(&stop));
        threads.push(thread::spawn(move || commit(address, &its_commits, &its_stop)));
        Self { histories, commits, stop, threads }
    }

    /// Checks all partitions and groups. Returns the number of records.
    fn check(&self, client: &mut Client) -> usize {
        check_groups(client, &self.commits);
        (0..PARTITIONS).map(|it| check_partition(client, it, &self.histories)).sum()
    }

    /// Stops the writers and waits for them. A broker must be running.
    fn finish(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().expect("no writer has failed");
        }
    }
}

fn create_topics(site: &Site) {
    let process = site.start();
    let mut client = process.client();
    let retention = DELETE_RETENTION.as_millis().to_string();
    let configs = [
        ("cleanup.policy", "compact"),
        ("internal.segment.bytes", "20000"),
        ("delete.retention.ms", &retention),
    ];
    assert_eq!(client.create_topic(TOPIC, PARTITIONS, &configs).expect("answered"), 0);
    for key in 0..GROUPS {
        until("the offsets topic is made", || {
            (client.find_coordinator(&group(key)).expect("answered") == 0).then_some(())
        });
    }
    let small = Some("4000");
    let request =
        requests::alter_config(requests::TOPIC, OFFSETS_TOPIC, "internal.segment.bytes", small);
    let answer = client.call::<IncrementalAlterConfigsRequest>(1, &request).expect("answered");
    assert_eq!(answer.responses[0].error_code, 0);
    process.stop();
}

/// Whether the records of a segment of the topic are in a `*.swap` file only, because the old
/// segment is already put aside.
fn is_replacing(site: &Site) -> bool {
    (0..PARTITIONS).any(|partition| {
        let dir = site.log_dir().join(format!("{TOPIC}-{partition}"));
        let files = fs::read_dir(dir).into_iter().flatten().filter_map(|it| it.ok());
        let mut paths = files.map(|it| it.path());
        paths.any(|it| {
            it.to_string_lossy().ends_with(".log.swap") && !it.with_extension("").exists()
        })
    })
}

/// Waits until a segment is replaced, or for some time.
fn wait_for_replacement(site: &Site) {
    let since = Instant::now();
    while !is_replacing(site) && since.elapsed() < REPLACEMENT_MAX {}
}

/// The sum of the first dirty offsets of a topic's partitions.
fn first_dirty_offsets(site: &Site, topic: &str) -> i64 {
    let file = site.log_dir().join("cleaner-offset-checkpoint");
    let text = fs::read_to_string(file).expect("a checkpoint of the cleaner");
    let lines = text.lines().filter_map(|line| line.strip_prefix(topic)?.rsplit_once(' '));
    lines.map(|(_, offset)| offset.parse::<i64>().expect("an offset")).sum()
}

#[test]
fn kills_during_compaction_lose_no_last_value() {
    let _alone = alone();
    let site = Site::new(&[
        "log.cleaner.backoff.ms=1",
        "log.cleaner.min.cleanable.ratio=0",
        "log.segment.delete.delay.ms=20",
    ]);
    create_topics(&site);
    let mut load = Load::start(site.address);
    let mut random = Random::new(SEED);
    let end = Instant::now() + Duration::from_secs(number("CRASH_SECONDS").unwrap_or(12));
    let (mut kills, mut during_replacement) = (0, 0);
    while Instant::now() < end {
        let process = site.start();
        load.check(&mut process.client());
        thread::sleep(Duration::from_millis(100 + random.below(500)));
        if random.below(4) > 0 {
            wait_for_replacement(&site);
        }
        process.kill();
        kills += 1;
        during_replacement += usize::from(is_replacing(&site));
    }
    let process = site.start();
    load.finish();
    let mut client = process.client();
    let finished = Instant::now();
    let kept = until("old values are removed", || {
        let kept = load.check(&mut client);
        (kept < KEPT_MAX).then_some(kept)
    });
    let took = finished.elapsed();
    let written: usize = load.histories.iter().map(|it| it.acknowledged()).sum();
    let commits = load.commits.acknowledged();
    println!(
        "{kills} kills, {during_replacement} with records in *.swap files only; {written} records \
         and {commits} commits acknowledged; {kept} records are left after {took:?}"
    );
    assert!(written > 2 * KEPT_MAX && commits > 100, "there was a load");
    assert!(first_dirty_offsets(&site, OFFSETS_TOPIC) > 0, "{OFFSETS_TOPIC} is compacted");
    process.stop();
}
