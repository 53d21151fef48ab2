//! Producers that record which appends were acknowledged, and the check that finds them in the log.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use sordini::records::{Batch, BatchBuilder, BatchOptions, Record};

use super::shared::client::Client;

/// Number of batches that an idempotent producer has in flight.
const IN_FLIGHT: usize = 4;
/// Error codes after which a producer retries: UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE,
/// NOT_LEADER_OR_FOLLOWER, REQUEST_TIMED_OUT, KAFKA_STORAGE_ERROR.
pub const RETRIABLE: [i16; 5] = [3, 5, 6, 7, 56];

/// A record: the number of its producer, and its own number among that producer's records.
type Id = (usize, u64);

/// The offset of each acknowledged record.
#[derive(Default)]
pub struct Acknowledged(Mutex<HashMap<Id, i64>>);

impl Acknowledged {
    pub fn note(&self, producer: usize, first: u64, count: u64, base_offset: i64) {
        let mut all = self.0.lock();
        for n in 0..count {
            let before = all.insert((producer, first + n), base_offset + n as i64);
            assert_eq!(before, None, "a record is acknowledged once");
        }
    }

    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    fn of(&self, producers: &[Spec]) -> HashMap<Id, i64> {
        let all = self.0.lock();
        let is_of = |(producer, _): &Id| producers.iter().any(|it| it.number == *producer);
        all.iter().filter(|(id, _)| is_of(id)).map(|(id, offset)| (*id, *offset)).collect()
    }
}

/// What one producer writes, and where to.
#[derive(Clone, Debug)]
pub struct Spec {
    pub number: usize,
    pub topic: &'static str,
    pub partition: i32,
    pub idempotent: bool,
    pub acks: i16,
}

/// A xorshift generator of random numbers.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64
}

/// Builds a batch with one record per id, whose key is the id. `producer` is the producer id, epoch
/// and base sequence. `size` is the length of each value in bytes.
pub fn batch(ids: &[Id], size: usize, producer: Option<(i64, i16, i32)>) -> Batch {
    let mut options = BatchOptions::default();
    if let Some((id, epoch, sequence)) = producer {
        options.producer_id = id;
        options.producer_epoch = epoch;
        options.base_sequence = sequence;
    }
    let mut builder = BatchBuilder::new(options);
    let padding = vec![b'.'; size];
    for (producer, n) in ids {
        let key = format!("{producer}:{n}");
        builder.append(now_ms(), Some(key.as_bytes()), Some(&padding), &[]);
    }
    builder.build()
}

pub fn id_of(key: &[u8]) -> Id {
    let text = std::str::from_utf8(key).expect("a key of ours");
    let (producer, n) = text.split_once(':').expect("a key of ours");
    (producer.parse().expect("a number"), n.parse().expect("a number"))
}

/// Running producers, one thread each.
pub struct Load {
    pub specs: Vec<Spec>,
    pub acknowledged: Arc<Acknowledged>,
    pub refused: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn start(address: SocketAddr, specs: Vec<Spec>) -> Self {
        let acknowledged = Arc::new(Acknowledged::default());
        let stop = Arc::new(AtomicBool::new(false));
        let refused = Arc::new(AtomicU64::new(0));
        let spawn = |spec: &Spec| {
            let mut producer = Producer {
                spec: spec.clone(),
                address,
                acknowledged: Arc::clone(&acknowledged),
                refused: Arc::clone(&refused),
                stop: Arc::clone(&stop),
                random: Random::new(spec.number as u64 + 1),
                next: 0,
            };
            thread::spawn(move || match producer.spec.idempotent {
                true => producer.run_idempotent(),
                false => producer.run_plain(),
            })
        };
        let threads = specs.iter().map(spawn).collect();
        Self { specs, acknowledged, refused, stop, threads }
    }

    /// Stops the producers and waits for them. A broker must be running, because idempotent
    /// producers retry until all their batches are acknowledged.
    pub fn finish(self) -> (Vec<Spec>, Arc<Acknowledged>) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().expect("no producer has failed");
        }
        (self.specs, self.acknowledged)
    }
}

struct Producer {
    spec: Spec,
    address: SocketAddr,
    acknowledged: Arc<Acknowledged>,
    refused: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    random: Random,
    next: u64,
}

impl Producer {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn next_ids(&mut self) -> Vec<Id> {
        let count = 1 + self.random.below(4);
        let ids = (0..count).map(|n| (self.spec.number, self.next + n)).collect();
        self.next += count;
        ids
    }

    fn connect(&self) -> io::Result<Client> {
        Client::connect(self.address).inspect_err(|_| thread::sleep(Duration::from_millis(5)))
    }

    fn to(&self) -> (&'static str, i32) {
        (self.spec.topic, self.spec.partition)
    }

    /// Sends each batch once, one at a time.
    fn run_plain(&mut self) {
        let mut client = None;
        while !self.is_stopped() {
            let Some(connected) = client.as_mut() else {
                client = self.connect().ok();
                continue;
            };
            let ids = self.next_ids();
            let batch = batch(&ids, self.random.below(3000) as usize, None);
            thread::sleep(Duration::from_millis(self.random.below(20)));
            match Client::produce(connected, self.to(), self.spec.acks, &batch) {
                Ok(Ok(base)) => self.acknowledged.note(ids[0].0, ids[0].1, ids.len() as u64, base),
                Ok(Err(code)) => self.note_refusal(code),
                Err(_) => client = None,
            }
        }
    }

    fn note_refusal(&self, code: i16) {
        assert!(RETRIABLE.contains(&code), "{:?}: error {code}", self.spec);
        self.refused.fetch_add(1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(20));
    }

    /// Keeps [`IN_FLIGHT`] batches in flight and retries each one until it is acknowledged.
    fn run_idempotent(&mut self) {
        let mut waiting: VecDeque<(Vec<Id>, Batch)> = VecDeque::new();
        let mut identity = None;
        while !self.is_stopped() || !waiting.is_empty() {
            // After an error, the loop connects again and resends.
            let _ = self.send_and_repeat(&mut waiting, &mut identity);
        }
    }

    fn send_and_repeat(
        &mut self,
        waiting: &mut VecDeque<(Vec<Id>, Batch)>,
        identity: &mut Option<(i64, i16)>,
    ) -> io::Result<()> {
        let mut client = self.connect()?;
        let (id, epoch) = match *identity {
            Some(known) => known,
            None => *identity.insert(client.init_producer_id()?),
        };
        let mut sent = 0;
        loop {
            while waiting.len() < IN_FLIGHT && !self.is_stopped() {
                let sequence = self.next as i32;
                let ids = self.next_ids();
                let size = self.random.below(3000) as usize;
                waiting.push_back((ids.clone(), batch(&ids, size, Some((id, epoch, sequence)))));
            }
            for (_, batch) in waiting.iter().skip(sent) {
                client.send_produce(self.to(), self.spec.acks, batch)?;
                sent += 1;
            }
            if waiting.is_empty() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(self.random.below(10)));
            match client.receive_produce()? {
                Ok(base) => {
                    let (ids, _) = waiting.pop_front().expect("one was sent");
                    sent -= 1;
                    self.acknowledged.note(ids[0].0, ids[0].1, ids.len() as u64, base);
                }
                // The batches in flight behind it are out of order now. A new connection resends
                // all.
                Err(code) => {
                    self.note_refusal(code);
                    return Ok(());
                }
            }
        }
    }
}

/// Reads a partition from offset 0 to the high watermark. Returns offset and key of each record.
pub fn read_all(client: &mut Client, from: (&str, i32)) -> Vec<(i64, Vec<u8>)> {
    read_from(client, from, 0)
}

/// As [`read_all`], from an offset on. Offsets have no gap.
pub fn read_from(client: &mut Client, from: (&str, i32), start: i64) -> Vec<(i64, Vec<u8>)> {
    let (mut found, mut next) = (Vec::new(), start);
    read_records(client, from, start, |record| {
        assert_eq!(record.offset, next, "{from:?}: offsets have no gap");
        found.push((record.offset, record.key.expect("a key").to_vec()));
        next += 1;
    });
    found
}

/// Reads a partition from an offset to the high watermark, and calls `take` with each record.
pub fn read_records(
    client: &mut Client,
    from: (&str, i32),
    start: i64,
    mut take: impl FnMut(Record),
) {
    let mut next = start;
    loop {
        let fetched = client.fetch(from, next).expect("a fetch is answered");
        assert_eq!(fetched.code, 0, "{from:?} is readable at {next}");
        if next >= fetched.high_watermark {
            return;
        }
        let mut bytes = fetched.records;
        let before = next;
        while let Ok(batch) = Batch::split_first(&mut bytes) {
            batch.verify_crc().expect("the CRC fits");
            assert!(batch.header.last_offset() >= next, "{from:?}: a batch before {next}");
            let records = batch.records(1 << 24).expect("not compressed");
            let records = records.map(|record| record.expect("a whole record"));
            for record in records.filter(|record| record.offset >= before) {
                assert!(record.offset >= next, "{from:?}: {} after {next}", record.offset);
                next = record.offset + 1;
                take(record);
            }
            next = batch.header.last_offset() + 1;
        }
        assert!(next > before, "{from:?}: nothing at {next} of {}", fetched.high_watermark);
    }
}

/// Checks that every record that was acknowledged before the call is at its offset, that no record
/// is there twice, and that the records of each producer are in order.
pub fn check(client: &mut Client, specs: &[Spec], acknowledged: &Acknowledged) {
    let mut partitions: Vec<(&str, i32)> =
        specs.iter().map(|spec| (spec.topic, spec.partition)).collect();
    partitions.sort_unstable();
    partitions.dedup();
    for partition in partitions {
        let here: Vec<Spec> = specs
            .iter()
            .filter(|spec| (spec.topic, spec.partition) == partition)
            .cloned()
            .collect();
        let known = acknowledged.of(&here);
        let mut found: HashMap<Id, i64> = HashMap::new();
        let mut last: HashMap<usize, u64> = HashMap::new();
        for (offset, key) in read_all(client, partition) {
            let id = id_of(&key);
            let before = found.insert(id, offset);
            assert_eq!(before, None, "{partition:?}: {id:?} is there twice, again at {offset}");
            let previous = last.insert(id.0, id.1);
            assert!(
                previous.is_none_or(|it| it < id.1),
                "{partition:?}: {id:?} after {previous:?}"
            );
        }
        for (id, offset) in known {
            let at = found.get(&id).copied();
            assert_eq!(at, Some(offset), "{partition:?}: {id:?} was acknowledged");
        }
    }
}
