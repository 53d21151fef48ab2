//! Fuzzes the request decoder of every API, with the shape check before it, for `FUZZ_SECONDS`
//! (default 10). No bytes may make a decoder panic or allocate more than `shape::memory_limit`.
//! `FUZZ_SEED` repeats a run.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;
use sordini::{
    base::random::Random,
    handlers::{self, Entry, TABLE},
    protocol::shape::{
        memory_limit,
        sample::{Sample, Width},
    },
};

/// The system's allocator, with a count of the live and peak bytes of each thread.
struct Counting;

thread_local! {
    static LIVE_BYTES: Cell<isize> = const { Cell::new(0) };
    static PEAK_BYTES: Cell<isize> = const { Cell::new(0) };
}

fn account(bytes: isize) {
    let live = LIVE_BYTES.get() + bytes;
    LIVE_BYTES.set(live);
    PEAK_BYTES.set(PEAK_BYTES.get().max(live));
}

// SAFETY: every call goes unchanged to the system's allocator. The counts are in cells that need
// no allocation and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        account(layout.size() as isize);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        account(-(layout.size() as isize));
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // During a reallocation, both the old and the new block may exist.
        account(size as isize);
        account(-(layout.size() as isize));
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn varint(mut value: u32) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// Changes one length of the sample, and sometimes inserts bytes that fit the new length.
fn change_length(sample: &mut Sample, random: &mut Random) {
    let length = sample.lengths[random.below(sample.lengths.len())];
    let small = random.below(20_000) as i32;
    let value =
        [i32::MAX, i32::MIN, -1, -2, 0x7fff, 0x8000, 0, 1, 2, small, small][random.below(11)];
    let (bytes, width) = match length.width {
        Width::I16 => ((value as i16).to_be_bytes().to_vec(), 2),
        Width::I32 => (value.to_be_bytes().to_vec(), 4),
        Width::Varint if random.below(8) == 0 => (vec![0x80; 1 + random.below(9)], 1),
        Width::Varint => (varint(value as u32), 1),
    };
    let end = (length.at + width).min(sample.body.len());
    sample.body.splice(length.at..end, bytes.clone());
    if value == small {
        // Elements without content: empty strings and arrays, no tagged fields.
        let filling = vec![random.below(2) as u8; random.below(4 * small as usize + 1)];
        let at = length.at + bytes.len();
        sample.body.splice(at..at, filling);
    }
}

fn mutate(sample: &mut Sample, random: &mut Random) {
    let len = sample.body.len();
    let at = random.below(len);
    match random.below(8) {
        0..4 if !sample.lengths.is_empty() => change_length(sample, random),
        _ if len == 0 => sample.body.push(random.next_u64() as u8),
        4 => sample.body[at] = random.next_u64() as u8,
        5 => sample.body[at] ^= 1 << random.below(8),
        6 => sample.body.truncate(at),
        _ => {
            let piece = sample.body[at..(at + random.below(64)).min(len)].to_vec();
            sample.body.splice(at..at, piece);
        }
    }
}

/// Decodes a body. Returns whether that succeeded, and the peak of bytes allocated during it.
fn peak_of(entry: &Entry, version: i16, body: Bytes) -> (bool, usize) {
    let before = LIVE_BYTES.get();
    PEAK_BYTES.set(before);
    let decoded = (entry.try_decode)(version, body).is_ok();
    (decoded, (PEAK_BYTES.get() - before) as usize)
}

#[test]
fn no_bytes_make_a_decoder_panic_or_allocate_beyond_its_limit() {
    /// Allowance in bytes for an error and its text.
    const SMALL_CHANGE: usize = 4096;

    let from_env = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let seed = from_env("FUZZ_SEED").unwrap_or(clock.as_nanos() as u64);
    let until = Instant::now() + Duration::from_secs(from_env("FUZZ_SECONDS").unwrap_or(10));
    println!("FUZZ_SEED={seed}");
    let mut random = Random::new(seed);
    let (mut tried, mut passed, mut peak_max) = (0u64, 0u64, 0);
    while Instant::now() < until {
        for entry in TABLE {
            let row = entry.row;
            let version = row.min + random.below((row.max - row.min) as usize + 1) as i16;
            let mut sample = match random.below(2) {
                0 => Sample::small(row.key, version),
                _ => Sample::random(row.key, version, random.next_u64()),
            };
            for _ in 0..random.below(4) {
                mutate(&mut sample, &mut random);
                // The change may have moved or cut lengths. Keep only those inside the body.
                sample.lengths.retain(|length| length.at + 4 < sample.body.len());
            }
            let limit = memory_limit(sample.body.len()) + SMALL_CHANGE;
            let body = Bytes::from(sample.body);
            let (decoded, peak) = peak_of(entry, version, body.clone());
            assert!(
                peak <= limit,
                "{} {version}: {peak} bytes for {} of {:?}...",
                row.name,
                body.len(),
                &body[..body.len().min(200)],
            );
            (tried, passed) = (tried + 1, passed + u64::from(decoded));
            peak_max = peak_max.max(peak);
        }
    }
    println!("{tried} requests, {passed} decoded, {peak_max} bytes at most");
    assert!(passed > 0 && passed < tried, "both well-formed and malformed requests were tried");
}

/// Tests requests near the memory limit: the decoder allocates at most what the shape check counts,
/// and at least nine tenths of it.
#[test]
fn shape_check_counts_what_decoder_allocates() {
    let topics = |count: usize| {
        let mut body = (count as i32).to_be_bytes().to_vec();
        for topic in 0..count {
            body.extend([0, 5]);
            body.extend(format!("{topic:05}").bytes());
        }
        Bytes::from(body)
    };
    let entry = handlers::find(ApiKey::Metadata).expect("in the table");
    let try_with = |count| {
        let body = topics(count);
        let limit = memory_limit(body.len());
        let (decoded, peak) = peak_of(entry, 1, body);
        (decoded, peak, limit)
    };
    let (decoded, peak, limit) = try_with(18_000);
    assert!(decoded && peak <= limit && peak > limit * 9 / 10, "{peak} of {limit}");
    let (decoded, peak, _) = try_with(19_000);
    assert!(!decoded && peak < 4096, "refused before anything is reserved: {peak}");
}
