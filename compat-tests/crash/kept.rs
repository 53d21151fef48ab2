//! State that must survive kill -9: deletions and retention.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{
    alone, load,
    shared::{client::Client, process::Site},
};

pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn fill(client: &mut Client, topic: &str, records: u64) {
    for n in 0..records {
        let batch = load::batch(&[(0, n)], 1000, None);
        assert_eq!(client.produce((topic, 0), -1, &batch).expect("answered"), Ok(n as i64));
    }
}

#[test]
fn deleted_records_stay_deleted() {
    let _alone = alone();
    let site = Site::new(&[]);
    let mut process = site.start();
    let mut client = process.client();
    assert_eq!(client.create_topic("cut", 1, &[]).expect("answered"), 0);
    fill(&mut client, "cut", 20);
    for before in [5, 13, 20] {
        let low = client.delete_records(("cut", 0), before).expect("answered");
        assert_eq!(low, Ok(before));
        process.kill();
        process = site.start();
        client = process.client();
        let fetched = client.fetch(("cut", 0), before).expect("answered");
        assert_eq!((fetched.log_start, fetched.high_watermark), (before, 20));
    }
    process.stop();
    let process = site.start();
    assert_eq!(process.client().fetch(("cut", 0), 20).expect("answered").log_start, 20);
    process.stop();
}

/// Waits until retention has moved the log start offset. Returns the new one.
fn moved_start(client: &mut Client, topic: &str) -> i64 {
    until("old segments are deleted", || {
        let start = client.fetch((topic, 0), 0).expect("answered");
        let start = if start.code == 1 { latest_start(client, topic) } else { start.log_start };
        (start > 0).then_some(start)
    })
}

/// Returns the log start offset, from a fetch at the end of the log. (The error of a fetch below
/// the log start offset does not contain it.)
fn latest_start(client: &mut Client, topic: &str) -> i64 {
    client.fetch((topic, 0), 200).expect("answered").log_start
}

#[test]
fn retention_deletes_whole_segments() {
    let _alone = alone();
    let site = Site::new(&[
        "log.retention.check.interval.ms=100",
        "log.initial.task.delay.ms=100",
        "log.segment.delete.delay.ms=200",
    ]);
    let process = site.start();
    let mut client = process.client();
    // An idle machine writes all records within 20 ms, so segments must roll fast.
    let by_size = [("segment.ms", "2"), ("retention.bytes", "20000")];
    let by_time = [("segment.ms", "2"), ("retention.ms", "300")];
    assert_eq!(client.create_topic("by-size", 1, &by_size).expect("answered"), 0);
    assert_eq!(client.create_topic("by-time", 1, &by_time).expect("answered"), 0);
    fill(&mut client, "by-size", 200);
    fill(&mut client, "by-time", 200);
    let start = moved_start(&mut client, "by-size");
    assert!(start < 200, "the newest stay");
    let left = load_from(&mut client, "by-size");
    assert_eq!(left.first().map(|(offset, _)| *offset), Some(start));
    until("all that is old goes", || {
        let fetched = client.fetch(("by-time", 0), 200).expect("answered");
        (fetched.log_start == 200).then_some(())
    });
    let dir = site.log_dir().join("by-time-0");
    until("files of deleted segments are removed", || {
        let mut names = fs::read_dir(&dir).expect("a directory").filter_map(|it| it.ok());
        let left = names.any(|it| it.file_name().to_string_lossy().ends_with(".deleted"));
        (!left).then_some(())
    });
    process.kill();
    let process = site.start();
    let mut client = process.client();
    assert_eq!(client.fetch(("by-time", 0), 200).expect("answered").log_start, 200);
    assert!(latest_start(&mut client, "by-size") >= start, "what is deleted stays so");
    process.stop();
}

fn load_from(client: &mut Client, topic: &str) -> Vec<(i64, Vec<u8>)> {
    let start = latest_start(client, topic);
    load::read_from(client, (topic, 0), start)
}

#[test]
fn topic_is_recreated_under_load() {
    let _alone = alone();
    let site = Site::new(&["log.segment.delete.delay.ms=50"]);
    let mut process = site.start();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let write = || {
            let mut client = process.client();
            let mut n = 0;
            while !stop.load(Ordering::SeqCst) {
                n += 1;
                let batch = load::batch(&[(1, n)], 3000, None);
                if let Err(code) = client.produce(("again", 0), -1, &batch).expect("answered") {
                    assert!([3, 6].contains(&code), "error {code}");
                }
            }
        };
        let writers = [scope.spawn(write), scope.spawn(write)];
        let mut client = process.client();
        let configs = [("segment.ms", "5"), ("flush.messages", "1")];
        for round in 0..20 {
            assert_eq!(client.create_topic("again", 1, &configs).expect("answered"), 0);
            thread::sleep(Duration::from_millis(30));
            let fetched = client.fetch(("again", 0), 0).expect("answered");
            assert_eq!((fetched.code, fetched.log_start), (0, 0), "round {round}");
            assert_eq!(client.delete_topic("again").expect("answered"), 0);
        }
        stop.store(true, Ordering::SeqCst);
        for writer in writers {
            writer.join().expect("it was answered");
        }
    });
    let log = process.log();
    assert!(!log.contains("offline") && !log.contains("panicked"), "no disk has failed: {log}");
    let mut client = process.client();
    assert_eq!(client.create_topic("again", 1, &[]).expect("answered"), 0);
    fill(&mut client, "again", 3);
    process.kill();
    process = site.start();
    assert_eq!(load::read_all(&mut process.client(), ("again", 0)).len(), 3);
    until("deleted partitions are removed", || {
        let mut names = fs::read_dir(site.log_dir()).expect("a directory").filter_map(|it| it.ok());
        let left = names.any(|it| it.file_name().to_string_lossy().ends_with("-delete"));
        (!left).then_some(())
    });
    process.stop();
}

#[test]
fn a_start_after_a_kill_reads_the_last_segment_only() {
    let _alone = alone();
    let site = Site::new(&["log.flush.offset.checkpoint.interval.ms=100"]);
    let process = site.start();
    let mut client = process.client();
    let small = [("segment.bytes", "1048576")];
    assert_eq!(client.create_topic("long", 1, &small).expect("answered"), 0);
    for n in 0..80 {
        let batch = load::batch(&[(0, n)], 100_000, None);
        assert_eq!(client.produce(("long", 0), 1, &batch).expect("answered"), Ok(n as i64));
    }
    thread::sleep(Duration::from_millis(500));
    process.kill();
    let process = site.start();
    let checked: u64 = until("the start tells what it has read", || {
        let log = process.log();
        let (mib, _) = log.split_once("1 logs, ")?.1.split_once(" MiB checked")?;
        mib.parse().ok()
    });
    println!("{checked} MiB of 8 read after kill -9");
    assert!(checked < 2, "the tail only: {}", process.log());
    assert_eq!(load::read_all(&mut process.client(), ("long", 0)).len(), 80);
    process.stop();
}
