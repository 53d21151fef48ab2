//! Crashes, restarts and disk faults. No acknowledged record may be lost, duplicated or reordered.
//! `CRASH_SECONDS` bounds the loops of kills (default 15, and 12 during compaction).

mod compacted;
mod crowd;
mod damage;
mod disks;
mod flips;
mod groups;
mod kept;
mod load;
mod moves;
mod scale;
#[path = "../shared/mod.rs"]
#[allow(dead_code, reason = "each test program uses a part")]
mod shared;
mod slow;

use std::{
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use load::{Load, Random, Spec, check};
use parking_lot::{Mutex, MutexGuard};
use shared::process::Site;

/// The topics and their configs: segments roll often, and one topic flushes each batch.
const TOPICS: [(&str, &[(&str, &str)]); 2] = [
    ("rolling", &[("segment.ms", "150"), ("index.interval.bytes", "500")]),
    ("flushed", &[("flush.messages", "1"), ("segment.ms", "400")]),
];
const PARTITIONS: i32 = 3;

/// Lets one test run at a time, because each of them keeps the machine busy. Held for the whole
/// test.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock()
}

/// Reads a number from an environment variable. `None` if it is unset or no number.
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|it| it.parse().ok())
}

/// Returns the end of a loop of kills and its random generator, and prints the seed.
fn loop_of_kills() -> (Instant, Random) {
    let until = Instant::now() + Duration::from_secs(number("CRASH_SECONDS").unwrap_or(15));
    let seed = load::now_ms() as u64;
    println!("seed {seed}");
    (until, Random::new(seed))
}

fn create_topics(site: &Site) {
    let process = site.start();
    let mut client = process.client();
    for (topic, configs) in TOPICS {
        assert_eq!(client.create_topic(topic, PARTITIONS, configs).expect("answered"), 0);
    }
    process.stop();
}

/// The producers: for each partition, an idempotent one, and plain ones with acks=1 and acks=all.
fn specs() -> Vec<Spec> {
    let mut specs = Vec::new();
    for (topic, _) in TOPICS {
        for partition in 0..PARTITIONS {
            for (idempotent, acks) in [(true, -1), (false, 1), (false, -1)] {
                let number = specs.len();
                specs.push(Spec { number, topic, partition, idempotent, acks });
            }
        }
    }
    specs
}

#[test]
fn kills_under_load_lose_nothing() {
    let _alone = alone();
    let (until, mut random) = loop_of_kills();
    let site = Site::new(&[]);
    create_topics(&site);
    let load = Load::start(site.address, specs());
    let mut kills = 0;
    while Instant::now() < until {
        let process = site.start();
        thread::sleep(Duration::from_millis(100 + random.below(500)));
        check(&mut process.client(), &load.specs, &load.acknowledged);
        process.kill();
        kills += 1;
    }
    let process = site.start();
    let (specs, acknowledged) = load.finish();
    check(&mut process.client(), &specs, &acknowledged);
    println!("{kills} kills, {} records acknowledged", acknowledged.len());
    assert!(acknowledged.len() > 100, "there was a load");
    process.stop();
}

#[test]
fn a_stop_under_load_is_clean() {
    let _alone = alone();
    let site = Site::new(&[]);
    create_topics(&site);
    let process = site.start();
    let load = Load::start(site.address, specs());
    thread::sleep(Duration::from_millis(800));
    let (status, took) = process.terminate();
    println!("stopped under load in {took:?}");
    assert_eq!(status.code(), Some(0), "a clean stop");
    let marker = site.log_dir().join(".kafka_cleanshutdown");
    assert!(marker.exists(), "the marker of a clean stop is there");
    let process = site.start();
    assert!(!process.log().contains("log recovered"), "nothing is recovered: {}", process.log());
    assert!(!marker.exists(), "the marker is gone while it runs");
    let refused = load.refused.load(Ordering::SeqCst);
    let (specs, acknowledged) = load.finish();
    check(&mut process.client(), &specs, &acknowledged);
    println!("{} records acknowledged, {refused} batches refused", acknowledged.len());
    process.stop();
}

#[test]
fn a_thousand_partitions_start_and_stop_at_once() {
    let _alone = alone();
    let site = Site::new(&[]);
    let process = site.start();
    let mut client = process.client();
    let asked = Instant::now();
    assert_eq!(client.create_topic("many", 1000, &[]).expect("answered"), 0);
    println!("1000 partitions created in {:?}", asked.elapsed());
    for partition in 0..1000 {
        let batch = load::batch(&[(0, partition as u64)], 100, None);
        let offset = client.produce(("many", partition), 1, &batch).expect("answered");
        assert_eq!(offset, Ok(0));
    }
    println!("resident with 1000 partitions: {} KiB", process.rss_kib());
    let (status, took) = process.terminate();
    assert!(status.success(), "a clean stop");
    println!("1000 unflushed logs closed in {took:?}");
    for round in ["a clean stop", "kill -9"] {
        let mut process = site.spawn();
        let ready = process.wait_ready().expect("it starts");
        println!("1000 partitions answered {ready:?} after the start, after {round}");
        let mut client = process.client();
        for partition in [0, 499, 999] {
            assert_eq!(load::read_all(&mut client, ("many", partition)).len(), 1);
        }
        if round == "a clean stop" {
            process.kill();
            continue;
        }
        let (status, took) = process.terminate();
        assert!(status.success(), "a clean stop");
        println!("1000 flushed logs closed in {took:?}");
    }
}

#[test]
fn a_second_process_is_refused() {
    let _alone = alone();
    let site = Site::new(&[]);
    let process = site.start();
    let other = Site::at(&site.dir.join("other"), &[]).with_log_dirs(&["../data"]);
    std::fs::create_dir_all(&other.dir).expect("a directory for its log");
    let mut second = other.spawn();
    let status = second.wait_ended();
    assert!(!status.success(), "the second process is refused");
    let log = second.log();
    let last = log.lines().last().unwrap_or_default();
    assert!(last.contains("is in use by another process"), "it says why: {log}");
    assert!(process.client().api_versions().is_ok(), "the first goes on");
    process.stop();
}
