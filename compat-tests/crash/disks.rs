//! Full disks, and log directories that fail.

use std::{
    fs,
    io::{self, Write},
    net::TcpListener,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use super::{
    alone,
    load::{self, Acknowledged, Spec},
    scale::get,
    shared::{
        client::Client,
        process::{Process, Site},
    },
};

const KAFKA_STORAGE_ERROR: i16 = 56;
const LEADER_NOT_AVAILABLE: i16 = 5;

/// A mounted tmpfs of 12 MB. Dropping it unmounts it.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn small(at: &'a Path) -> Self {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=12m", "tmpfs"]).arg(at);
        let is_mounted = mount.output().is_ok_and(|output| output.status.success());
        assert!(is_mounted, "a tmpfs cannot be mounted");
        Self(at)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).output();
    }
}

/// Writes a file that uses all free space.
fn fill_up(path: &Path) {
    let mut file = fs::File::create(path).expect("a name needs no room");
    for size in [4096, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

struct Writer {
    acknowledged: Acknowledged,
    next: u64,
}

impl Writer {
    /// Produces one record of 20 kB.
    fn write(&mut self, client: &mut Client) -> io::Result<Result<i64, i16>> {
        let n = self.next;
        self.next += 1;
        let batch = load::batch(&[(0, n)], 20_000, None);
        let answer = client.produce(("full", 0), -1, &batch)?;
        Ok(answer.inspect(|base| self.acknowledged.note(0, n, 1, *base)))
    }
}

#[test]
#[ignore = "mounts a file system: scripts/test runs it"]
fn full_disk_returns_storage_error_and_recovers() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let _mounted = Mounted::small(dir.path());
    let ballast = dir.path().join("ballast");
    fs::write(&ballast, vec![0; 6 << 20]).expect("there is room yet");
    let site = Site::at(dir.path(), &[]);
    let process = site.start();
    let mut client = process.client();
    let rolls = [("segment.ms", "50")];
    assert_eq!(client.create_topic("full", 1, &rolls).expect("answered"), 0);
    let mut writer = Writer { acknowledged: Acknowledged::default(), next: 0 };
    let refused = (0..2000).find_map(|_| match writer.write(&mut client) {
        Ok(answer) => answer.err(),
        Err(error) => panic!("{error}: {}", process.log()),
    });
    assert_eq!(refused, Some(KAFKA_STORAGE_ERROR), "a full disk is a storage error");
    for _ in 0..20 {
        let answer = writer.write(&mut client).unwrap_or_else(|_| panic!("{}", process.log()));
        assert_eq!(answer, Err(KAFKA_STORAGE_ERROR), "still full: {}", process.log());
    }
    let specs = [Spec { number: 0, topic: "full", partition: 0, idempotent: false, acks: -1 }];
    load::check(&mut client, &specs, &writer.acknowledged);

    // The metadata log is on the same disk. At some point it cannot append any more.
    let filler = dir.path().join("filler");
    fill_up(&filler);
    let create = |client: &mut Client, n: usize| {
        client.create_topic(&format!("more-{n}"), 1, &[]).expect("answered")
    };
    let codes: Vec<i16> = (0..300).map(|n| create(&mut client, n)).collect();
    assert!(codes.iter().any(|code| *code != 0), "topics cannot be made for ever");
    let expected = |code: &i16| [0, KAFKA_STORAGE_ERROR].contains(code);
    assert!(codes.iter().all(expected), "a full disk is a storage error: {codes:?}");
    let made = codes.iter().filter(|code| **code == 0).count();
    println!("{made} topics made on a full disk");
    load::check(&mut client, &specs, &writer.acknowledged);

    fs::remove_file(&filler).expect("it is there");
    fs::remove_file(&ballast).expect("it is there");
    let room_since = Instant::now();
    while writer.write(&mut client).expect("answered").is_err() {
        assert!(room_since.elapsed() < Duration::from_secs(20), "it goes on: {}", process.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("writes go on {:?} after there is room", room_since.elapsed());
    for _ in 0..20 {
        assert!(writer.write(&mut client).expect("answered").is_ok(), "there is room");
    }
    load::check(&mut client, &specs, &writer.acknowledged);
    assert_eq!(create(&mut client, 999), 0, "topics can be made again: {}", process.log());
    let made = (0..300).filter(|n| codes[*n] == 0).chain([999]);
    for topic in made.map(|n| format!("more-{n}")) {
        let batch = load::batch(&[(0, 0)], 100, None);
        let since = Instant::now();
        while client.produce((&topic, 0), -1, &batch).expect("answered").is_err() {
            assert!(since.elapsed() < Duration::from_secs(20), "{topic}: {}", process.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    process.kill();
    let process = site.start();
    load::check(&mut process.client(), &specs, &writer.acknowledged);
    process.stop();
}

#[test]
#[ignore = "mounts a file system: scripts/test runs it"]
fn broker_starts_on_full_disk() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a temporary directory");
    // The process's own log file is not on the small file system.
    let small = dir.path().join("small");
    fs::create_dir(&small).expect("a directory");
    let _mounted = Mounted::small(&small);
    let site = Site::at(dir.path(), &[]).with_log_dirs(&["small/data"]);
    let process = site.start();
    let mut client = process.client();
    let rolls = [("segment.ms", "50")];
    assert_eq!(client.create_topic("full", 1, &rolls).expect("answered"), 0);
    let mut writer = Writer { acknowledged: Acknowledged::default(), next: 0 };
    for _ in 0..100 {
        writer.write(&mut client).expect("answered").expect("there is room");
    }
    let filler = small.join("filler");
    fill_up(&filler);
    while writer.write(&mut client).expect("answered").is_ok() {}
    let last = small.join("last");
    fill_up(&last);
    let refused = client.delete_records(("full", 0), 10).expect("answered");
    assert_eq!(refused, Err(KAFKA_STORAGE_ERROR), "what is not kept is not promised");
    let specs = [Spec { number: 0, topic: "full", partition: 0, idempotent: false, acks: -1 }];
    process.kill();

    for end in ["kill -9", "a clean stop"] {
        let process = site.start();
        let mut client = process.client();
        load::check(&mut client, &specs, &writer.acknowledged);
        // A start may remove an index, which frees space for a few records.
        let refused = (0..200).find_map(|_| writer.write(&mut client).expect("answered").err());
        assert_eq!(refused, Some(KAFKA_STORAGE_ERROR), "before {end}: {}", process.log());
        let code = client.create_topic("more", 1, &[]).expect("answered");
        println!("a topic on a full disk, before {end}: {code}");
        if end == "kill -9" {
            process.kill();
        } else {
            process.terminate();
        }
    }
    let process = site.start();
    let mut client = process.client();
    load::check(&mut client, &specs, &writer.acknowledged);
    fs::remove_file(&filler).expect("it is there");
    fs::remove_file(&last).expect("it is there");
    let room_since = Instant::now();
    while writer.write(&mut client).expect("answered").is_err() {
        assert!(room_since.elapsed() < Duration::from_secs(20), "it goes on: {}", process.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    load::check(&mut client, &specs, &writer.acknowledged);
    assert_eq!(client.delete_records(("full", 0), 10).expect("answered"), Ok(10));
    assert_eq!(client.create_topic("later", 1, &[]).expect("answered"), 0);
    process.stop();
    let process = site.start();
    let start = process.client().fetch(("full", 0), 10).expect("answered").log_start;
    assert_eq!(start, 10, "what was deleted stays so");
    process.stop();
}

/// The partitions of topic `spread` in a log directory.
fn partitions_in(site: &Site, dir: &str) -> Vec<i32> {
    let names = fs::read_dir(site.dir.join(dir)).expect("a log directory");
    let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut found: Vec<i32> = names
        .filter_map(|name| name.strip_prefix("spread-").and_then(|index| index.parse().ok()))
        .collect();
    found.sort_unstable();
    found
}

fn produce(client: &mut Client, partition: i32, n: u64) -> Result<i64, i16> {
    let batch = load::batch(&[(0, n)], 100, None);
    client.produce(("spread", partition), -1, &batch).expect("answered")
}

#[test]
fn a_failed_log_directory_takes_only_its_own_partitions() {
    let _alone = alone();
    let site = Site::new(&[]).with_log_dirs(&["first", "second"]);
    let process = site.start();
    let mut client = process.client();
    let rolls = [("segment.ms", "50")];
    assert_eq!(client.create_topic("spread", 4, &rolls).expect("answered"), 0);
    for partition in 0..4 {
        assert_eq!(produce(&mut client, partition, 0), Ok(0));
    }
    let (staying, failing) = (partitions_in(&site, "first"), partitions_in(&site, "second"));
    assert_eq!((staying.len(), failing.len()), (2, 2), "new partitions are spread");

    let kept = site.dir.join("kept");
    fs::rename(site.dir.join("second"), &kept).expect("the disk goes away");
    std::thread::sleep(Duration::from_millis(60));
    // One of its partitions rolls a segment and detects the failure. That takes both offline.
    let answers: Vec<_> = failing.iter().map(|it| produce(&mut client, *it, 1)).collect();
    assert_eq!(answers, [Err(KAFKA_STORAGE_ERROR); 2], "{}", process.log());
    for partition in &staying {
        assert_eq!(produce(&mut client, *partition, 1), Ok(1), "the others go on");
        assert_eq!(load::read_all(&mut client, ("spread", *partition)).len(), 2);
    }
    for partition in &failing {
        let fetched = client.fetch(("spread", *partition), 0).expect("answered");
        assert_eq!(fetched.code, KAFKA_STORAGE_ERROR, "and cannot be read");
    }
    assert_told_offline(&process, &failing);
    assert_eq!(client.create_topic("later", 2, &[]).expect("answered"), 0);
    for partition in 0..2 {
        let batch = load::batch(&[(0, 0)], 100, None);
        let answer = client.produce(("later", partition), -1, &batch).expect("answered");
        assert_eq!(answer, Ok(0), "new partitions go where they can");
    }
    process.stop();

    // Starts without the directory. Its partitions must not be recreated in another one.
    fs::write(site.dir.join("second"), "in the way").expect("a file");
    let process = site.start();
    let mut client = process.client();
    for partition in &failing {
        assert_eq!(produce(&mut client, *partition, 1), Err(KAFKA_STORAGE_ERROR));
    }
    for partition in &staying {
        assert_eq!(produce(&mut client, *partition, 2), Ok(2));
    }
    assert_told_offline(&process, &failing);
    process.stop();

    fs::remove_file(site.dir.join("second")).expect("the file is there");
    fs::rename(&kept, site.dir.join("second")).expect("the disk is back");
    let process = site.start();
    let mut client = process.client();
    for partition in 0..4 {
        let expected = if staying.contains(&partition) { 3 } else { 1 };
        assert_eq!(load::read_all(&mut client, ("spread", partition)).len(), expected);
        assert_eq!(produce(&mut client, partition, 3), Ok(expected as i64), "all are back");
    }
    process.stop();
}

/// Two of four partitions are on a full disk. The node is alive and serves the others, but it is
/// not ready.
#[test]
#[ignore = "mounts a file system: scripts/test runs it"]
fn a_full_disk_of_some_partitions_is_not_ready() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let full = dir.path().join("second");
    fs::create_dir(&full).expect("a directory");
    let _mounted = Mounted::small(&full);
    let unused = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let http = unused.local_addr().expect("it has an address");
    drop(unused);
    let listener = format!("http.listener={http}");
    let site = Site::at(dir.path(), &[&listener]).with_log_dirs(&["first", "second"]);
    let process = site.start();
    let mut client = process.client();
    assert_eq!(client.create_topic("spread", 4, &[]).expect("answered"), 0);
    for partition in 0..4 {
        assert_eq!(produce(&mut client, partition, 0), Ok(0));
    }
    let ask = |path: &str| {
        let (code, body) = get(http, path).expect("it answers");
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        (code, body)
    };
    let is_ready = || ask("/readyz").0 == 200;
    let since = Instant::now();
    while !is_ready() {
        assert!(since.elapsed() < Duration::from_secs(10), "{:?}", ask("/readyz"));
    }
    assert_eq!(ask("/health"), (200, serde_json::json!({ "status": "ok" })));

    let failing = partitions_in(&site, "second");
    assert_eq!(failing.len(), 2, "new partitions are spread");
    fill_up(&full.join("filler"));
    for partition in &failing {
        // More than fits into the last page of the file.
        let batch = load::batch(&[(0, 1)], 20_000, None);
        let answer = client.produce(("spread", *partition), -1, &batch).expect("answered");
        assert_eq!(answer, Err(KAFKA_STORAGE_ERROR));
    }
    let names: Vec<_> = failing.iter().map(|it| format!("spread-{it}")).collect();
    let reasons = serde_json::json!([
        { "reason": "partitions_refuse_writes", "count": 2, "partitions": names },
    ]);
    let (code, body) = ask("/readyz");
    assert_eq!((code, &body["status"], &body["reasons"]), (503, &"not_ready".into(), &reasons));
    let (code, body) = ask("/health");
    assert_eq!((code, &body["status"], &body["reasons"]), (200, &"degraded".into(), &reasons));
    assert_eq!(ask("/livez").0, 200, "a restart makes no room");

    fs::remove_file(full.join("filler")).expect("it is there");
    for partition in &failing {
        assert_eq!(produce(&mut client, *partition, 2), Ok(1), "{}", process.log());
    }
    assert_eq!(ask("/readyz").0, 200, "what is written again is no reason any more");
    process.stop();
}

#[test]
fn delete_records_fails_if_checkpoint_cannot_be_written() {
    let _alone = alone();
    let site = Site::new(&[]).with_log_dirs(&["first", "second"]);
    let process = site.start();
    let mut client = process.client();
    assert_eq!(client.create_topic("spread", 4, &[]).expect("answered"), 0);
    for partition in 0..4 {
        for n in 0..3 {
            assert_eq!(produce(&mut client, partition, n), Ok(n as i64));
        }
    }
    let (staying, failing) = (partitions_in(&site, "first"), partitions_in(&site, "second"));
    let in_the_way = site.dir.join("second/log-start-offset-checkpoint.tmp");
    fs::create_dir(in_the_way).expect("nothing is there yet");
    let refused = client.delete_records(("spread", failing[0]), 2).expect("answered");
    assert_eq!(refused, Err(KAFKA_STORAGE_ERROR), "a crash would bring them back");
    let kept = client.delete_records(("spread", staying[0]), 2).expect("answered");
    assert_eq!(kept, Ok(2), "the other directory has its checkpoint");
    let fetched = client.fetch(("spread", failing[1]), 0).expect("answered");
    assert_eq!(fetched.code, KAFKA_STORAGE_ERROR, "the directory has failed");
    process.stop();
}

/// Waits until metadata has the partitions offline. The controller learns of it a little later.
fn assert_told_offline(process: &Process, failing: &[i32]) {
    let expected: Vec<_> = (0..4)
        .map(|index| match failing.contains(&index) {
            true => (index, -1, LEADER_NOT_AVAILABLE, 1),
            false => (index, 1, 0, 0),
        })
        .collect();
    let since = Instant::now();
    loop {
        let metadata = process.client().metadata("spread").expect("answered");
        let partitions = metadata.topics[0].partitions.iter();
        let mut told: Vec<_> = partitions
            .map(|it| {
                let offline = it.offline_replicas.len();
                (it.partition_index, it.leader_id.0, it.error_code, offline)
            })
            .collect();
        told.sort_unstable();
        if told == expected {
            return;
        }
        assert!(
            since.elapsed() < Duration::from_secs(10),
            "{told:?}, not {expected:?}: {}",
            process.log()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn without_any_log_directory_the_process_ends() {
    let _alone = alone();
    let site = Site::new(&[]);
    let metadata = format!("metadata.log.dir={}", site.dir.join("metadata").display());
    let site = Site::at(&site.dir, &[&metadata]);
    let mut process = site.start();
    let mut client = process.client();
    let rolls = [("segment.ms", "50")];
    assert_eq!(client.create_topic("spread", 1, &rolls).expect("answered"), 0);
    assert_eq!(produce(&mut client, 0, 0), Ok(0));
    fs::rename(site.log_dir(), site.dir.join("gone")).expect("the disk goes away");
    std::thread::sleep(Duration::from_millis(60));
    let batch = load::batch(&[(0, 1)], 100, None);
    // The connection may close before the response.
    let answer = client.produce(("spread", 0), -1, &batch);
    assert!(!matches!(answer, Ok(Ok(_))), "nothing is acknowledged");
    let status = process.wait_ended();
    assert_eq!(status.code(), Some(1), "as Kafka's process ends");
    let log = process.log();
    assert!(log.contains("all log directories have failed"), "it says why: {log}");
}
