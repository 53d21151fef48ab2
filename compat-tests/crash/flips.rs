//! Bits that flip in files between two runs. A start must work or say what is wrong, and the broker
//! must not serve an invalid batch after it has recovered the log. `FLIP_ROUNDS` sets the length of
//! the loop, and `FLIP_SEED` repeats one.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use sordini::records::Batch;

use super::{
    alone, damage,
    load::{self, Random},
    number,
    shared::{
        client::Client,
        process::{Process, Site},
    },
};

const NONE: i16 = 0;
const CORRUPT_MESSAGE: i16 = 2;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;

/// The place and offset of a batch in an undamaged file.
struct Written {
    position: usize,
    size: usize,
    offset: i64,
}

fn batches(path: &Path) -> Vec<Written> {
    let mut bytes = Bytes::from(fs::read(path).expect("a log"));
    let (mut found, mut position) = (Vec::new(), 0);
    while let Ok(batch) = Batch::split_first(&mut bytes) {
        let (size, offset) = (batch.size(), batch.header.base_offset);
        found.push(Written { position, size, offset });
        position += size;
    }
    found
}

/// The `.log` files of a partition in the order of their offsets.
fn logs(data: &Path, partition: &str) -> Vec<PathBuf> {
    let all = damage::files(data).into_iter();
    let mut all: Vec<_> = all
        .filter(|file| file.starts_with(partition))
        .filter(|file| file.extension().is_some_and(|it| it == "log"))
        .collect();
    all.sort();
    all
}

/// The flips of one round: each file and the index of the flipped byte.
struct Flips(Vec<(PathBuf, usize)>);

impl Flips {
    fn make(data: &Path, random: &mut Random) -> Self {
        let files = damage::files(data);
        let files: Vec<_> = files.iter().filter(|file| !file.ends_with(".lock")).collect();
        let mut made = Vec::new();
        for _ in 0..1 + random.below(4) {
            let file = files[random.below(files.len() as u64) as usize];
            let path = data.join(file);
            let mut bytes = fs::read(&path).expect("it is there");
            if bytes.is_empty() {
                continue;
            }
            for _ in 0..1 + random.below(3) {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << random.below(8);
                made.push((file.clone(), at));
            }
            fs::write(&path, bytes).expect("it can be written");
        }
        Self(made)
    }

    fn is_hit(&self, start: &str) -> bool {
        self.0.iter().any(|(file, _)| file.starts_with(start))
    }

    fn is_hit_in(&self, file: &Path) -> Option<usize> {
        self.0.iter().filter(|(hit, _)| hit == file).map(|(_, at)| *at).min()
    }

    /// Number of records before the first flip in the partition's logs.
    fn untouched(&self, base: &Path, partition: &str) -> u64 {
        let mut before = 0;
        for log in logs(base, partition) {
            let hit = self.is_hit_in(&log).unwrap_or(usize::MAX);
            for batch in batches(&base.join(&log)) {
                if batch.position + batch.size > hit {
                    return before;
                }
                before += 1;
            }
        }
        before
    }
}

/// Fetches a whole partition and checks the CRC of each batch. Returns the numbers in the records'
/// keys, or the error code.
fn served(client: &mut Client, from: (&str, i32), what: &str) -> Result<Vec<u64>, i16> {
    let (mut keys, mut next) = (Vec::new(), 0);
    loop {
        let fetched = client.fetch(from, next).expect("a fetch is answered");
        if fetched.code != NONE {
            return Err(fetched.code);
        }
        let mut bytes = fetched.records;
        let before = next;
        while let Ok(batch) = Batch::split_first(&mut bytes) {
            batch.verify_crc().unwrap_or_else(|error| panic!("{what}: {from:?} {next}: {error}"));
            for record in batch.records(1 << 24).expect("not compressed") {
                let record = record.expect("a whole record");
                keys.push(load::id_of(&record.key.expect("a key")).1);
            }
            next = batch.header.last_offset() + 1;
        }
        if next >= fetched.high_watermark || next == before {
            assert!(next >= fetched.high_watermark, "{what}: {from:?}: nothing at {next}");
            return Ok(keys);
        }
    }
}

fn check(process: &Process, flips: &Flips, base: &Path, what: &str) {
    let mut client = process.client();
    for topic in ["damaged", "whole"] {
        let partition = format!("{topic}-0");
        let keys = match served(&mut client, (topic, 0), what) {
            Ok(keys) => keys,
            Err(UNKNOWN_TOPIC_OR_PARTITION) if flips.is_hit("__cluster_metadata-0") => continue,
            Err(code) => panic!("{what}: {topic}: error {code}: {}", process.log()),
        };
        let is_stray = flips.is_hit_in(Path::new(&format!("{partition}/partition.metadata")));
        if is_stray.is_some() && keys.is_empty() {
            continue; // It names another topic id now, so it is a stray partition.
        }
        let distinct: BTreeSet<_> = keys.iter().copied().collect();
        assert!(keys.iter().is_sorted(), "{what}: {topic} in order");
        assert_eq!(distinct.len(), keys.len(), "{what}: {topic} once");
        let kept = flips.untouched(base, &partition);
        let expected: Vec<u64> = (0..kept).collect();
        assert!(keys.starts_with(&expected), "{what}: {topic}: {kept} are sound, served {keys:?}");
    }
}

#[test]
fn random_flips_are_survived() {
    let _alone = alone();
    let rounds = number("FLIP_ROUNDS").unwrap_or(30);
    let seed = number("FLIP_SEED").unwrap_or(load::now_ms() as u64);
    // No recovery point is written: a start after this kill checks every byte.
    let site = Site::new(&[]);
    let process = site.start();
    damage::fill(&process);
    process.kill();
    let base = site.dir.join("data");
    let mut refused = 0;
    for round in seed..seed + rounds {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let data = dir.path().join("data");
        damage::copy(&base, &data);
        let flips = Flips::make(&data, &mut Random::new(round));
        let what = format!("FLIP_SEED={round} {:?}", flips.0);
        let site = Site::at(dir.path(), &[]);
        let mut process = site.spawn();
        match process.wait_ready() {
            Ok(_) => check(&process, &flips, &base, &what),
            Err(status) => {
                refused += 1;
                assert!(!status.success(), "{what}: it ends with an error: {status}");
                let log = process.log();
                let last = log.lines().last().unwrap_or_default();
                assert!(last.starts_with("sordini: "), "{what}: it says why: {log}");
                let may = flips.0.iter().any(|(file, _)| damage::may_refuse(file));
                assert!(may, "{what}: it does not start: {log}");
            }
        }
        assert!(!process.log().contains("panicked"), "{what}: {}", process.log());
        process.kill();
    }
    println!("{rounds} rounds from FLIP_SEED={seed}, {refused} refused to start");
}

/// Damages a closed segment that recovery does not read. As in Kafka, the broker serves a batch
/// with a bad CRC and the consumer finds it. Fetching a batch with an impossible size returns
/// CORRUPT_MESSAGE, and batches before and after it stay readable. (If the size reaches past the
/// end of the segment, Kafka skips the rest of the segment silently, and Sordini returns the
/// error.)
#[test]
fn flipped_bits_in_closed_segment_are_served_as_in_kafka() {
    let _alone = alone();
    let site = Site::new(&[]);
    let process = site.start();
    let mut client = process.client();
    let small = [("segment.bytes", "1048576")];
    assert_eq!(client.create_topic("closed", 1, &small).expect("answered"), 0);
    for n in 0..15 {
        let batch = load::batch(&[(0, n)], 150_000, None);
        assert_eq!(client.produce(("closed", 0), 1, &batch).expect("answered"), Ok(n as i64));
    }
    process.stop();
    let log = logs(site.log_dir(), "closed-0").into_iter().next().expect("a first segment");
    let path = site.log_dir().join(log);
    let sound = fs::read(&path).expect("it is there");
    let all = batches(&path);
    assert_eq!(all.len(), 6, "several batches in the first segment");
    let hit = &all[3];
    for (what, at, mask, expected) in [
        ("the records", hit.size - 3, 0x01, NONE),
        ("the CRC", 17, 0x40, NONE),
        ("the leader epoch", 15, 0x01, NONE),
        ("the lowest bit of the length", 11, 0x01, NONE),
        ("the sign of the length", 8, 0x80, CORRUPT_MESSAGE),
        ("the size of the length", 8, 0x10, CORRUPT_MESSAGE),
        ("the magic", 16, 0x04, CORRUPT_MESSAGE),
    ] {
        let mut flipped = sound.clone();
        flipped[hit.position + at] ^= mask;
        fs::write(&path, &flipped).expect("it can be written");
        let process = site.start();
        let mut client = process.client();
        let fetched = client.fetch(("closed", 0), hit.offset).expect("answered");
        assert_eq!(fetched.code, expected, "{what}: {}", process.log());
        if expected == NONE {
            let rest = &flipped[hit.position..];
            assert_eq!(fetched.records, rest, "{what}: the bytes are what the file has");
        }
        let before = client.fetch(("closed", 0), 0).expect("answered");
        assert_eq!((before.code, &before.records[..hit.position]), (NONE, &sound[..hit.position]));
        let next = all.last().expect("a last one").offset + 1;
        let behind = load::read_from(&mut client, ("closed", 0), next);
        assert_eq!(behind.first().map(|(offset, _)| *offset), Some(next), "{what}");
        assert!(!process.log().contains("offline"), "{what}: no disk has failed");
        process.stop();
    }
}
