//! Replicas that move between log directories while the broker is killed or a directory fails.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use kafka_protocol::messages::{
    AlterReplicaLogDirsRequest, IncrementalAlterConfigsRequest,
    alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic},
};

use super::{
    PARTITIONS, TOPICS, alone, create_topics,
    load::{self, Load, check},
    loop_of_kills,
    shared::{
        client::Client,
        process::{Process, Site},
        requests::{self, text, topic_name},
    },
    specs,
};

const OFFSET_OUT_OF_RANGE: i16 = 1;
const KAFKA_STORAGE_ERROR: i16 = 56;
const DIRS: [&str; 2] = ["first", "second"];
const RATE: &str = "replica.alter.log.dirs.io.max.bytes.per.second";
const TIMEOUT: Duration = Duration::from_secs(30);

/// Requests the move of a replica to a log directory. Returns the error code.
fn alter(client: &mut Client, (topic, index): (&str, i32), dir: &Path) -> std::io::Result<i16> {
    let topic = AlterReplicaLogDirTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(vec![index]);
    let dir = AlterReplicaLogDir::default()
        .with_path(text(&dir.display().to_string()))
        .with_topics(vec![topic]);
    let answer = client.call(2, &AlterReplicaLogDirsRequest::default().with_dirs(vec![dir]))?;
    Ok(answer.results[0].partitions[0].error_code)
}

/// Sets or (with `None`) removes the throttle of moves, in bytes per second.
fn limit(client: &mut Client, rate: Option<&str>) {
    let request = requests::alter_config(requests::BROKER, "1", RATE, rate);
    let answer = client.call::<IncrementalAlterConfigsRequest>(1, &request).expect("answered");
    assert_eq!(answer.responses[0].error_code, 0);
}

/// Partition directories whose names start with `prefix`, each with the index of its log directory.
fn found(site: &Site, prefix: &str) -> Vec<(usize, String)> {
    let in_dir = |(at, dir): (usize, &&str)| {
        let names = fs::read_dir(site.dir.join(dir)).into_iter().flatten();
        let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter(|name| name.starts_with(prefix)).map(|name| (at, name)).collect::<Vec<_>>()
    };
    DIRS.iter().enumerate().flat_map(in_dir).collect()
}

fn wait(what: &str, is_so: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < TIMEOUT, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A partition whose first records are deleted (DeleteRecords) again and again. Deleted records
/// must never reappear.
struct DeletedPrefix {
    start: i64,
    end: i64,
}

impl DeletedPrefix {
    const PARTITION: (&'static str, i32) = ("cut", 0);

    fn check(&mut self, client: &mut Client) {
        let fetched = client.fetch(Self::PARTITION, self.start - 1).expect("answered");
        assert_eq!(fetched.code, OFFSET_OUT_OF_RANGE, "a deleted record reappeared");
        for _ in 0..3 {
            let batch = load::batch(&[(0, self.end as u64)], 100, None);
            let offset = client.produce(Self::PARTITION, -1, &batch).expect("answered");
            assert_eq!(offset, Ok(self.end), "nothing is lost");
            self.end += 1;
        }
        // The request may fail. Only a successful response moves the expected start.
        if let Ok(Ok(start)) = client.delete_records(Self::PARTITION, self.start + 2) {
            self.start = start;
        }
    }
}

#[test]
fn replicas_that_move_under_kills_lose_nothing() {
    let _alone = alone();
    let (until, mut random) = loop_of_kills();
    let site = Site::new(&["file.delete.delay.ms=100"]).with_log_dirs(&DIRS);
    create_topics(&site);
    let mut prefix = DeletedPrefix { start: 1, end: 0 };
    {
        let process = site.start();
        let mut client = process.client();
        assert_eq!(client.create_topic(DeletedPrefix::PARTITION.0, 1, &[]).expect("answered"), 0);
        let batch = load::batch(&[(0, 0), (0, 1)], 100, None);
        assert_eq!(client.produce(DeletedPrefix::PARTITION, -1, &batch).expect("answered"), Ok(0));
        assert_eq!(client.delete_records(DeletedPrefix::PARTITION, 1).expect("answered"), Ok(1));
        prefix.end = 2;
        process.kill();
    }
    let load = Load::start(site.address, specs());
    let (mut kills, mut moves) = (0, 0);
    while Instant::now() < until {
        let process = site.start();
        let mut client = process.client();
        let ends = Instant::now() + Duration::from_millis(100 + random.below(600));
        prefix.check(&mut client);
        while Instant::now() < ends {
            let topic = TOPICS[random.below(2) as usize].0;
            let of_load = (topic, random.below(PARTITIONS as u64) as i32);
            let partition = if random.below(4) == 0 { DeletedPrefix::PARTITION } else { of_load };
            let dir = site.dir.join(DIRS[random.below(2) as usize]);
            assert_eq!(alter(&mut client, partition, &dir).expect("answered"), 0);
            moves += 1;
            thread::sleep(Duration::from_millis(random.below(30)));
        }
        check(&mut client, &load.specs, &load.acknowledged);
        process.kill();
        kills += 1;
    }
    let process = site.start();
    let (specs, acknowledged) = load.finish();
    check(&mut process.client(), &specs, &acknowledged);
    prefix.check(&mut process.client());
    println!("{kills} kills, {moves} moves, {} records acknowledged", acknowledged.len());
    assert!(acknowledged.len() > 100 && moves > kills, "there was a load");
    wait("moves end, and leave nothing", || {
        let all = found(&site, "").into_iter().filter(|(_, name)| name.contains("-future"));
        all.count() == 0
    });
    let strays = found(&site, "").into_iter().filter(|(_, name)| name.contains("-stray")).count();
    println!("{strays} stray directories");
    process.stop();
}

/// Starts a broker with one partition whose move is throttled to a stop. Returns the source and
/// target directories, too.
fn start_throttled_move(site: &Site) -> (Process, &'static str, &'static str) {
    let process = site.start();
    let mut client = process.client();
    assert_eq!(client.create_topic("moving", 1, &[]).expect("answered"), 0);
    for n in 0..4 {
        let batch = load::batch(&[(0, n)], 900_000, None);
        assert_eq!(client.produce(("moving", 0), -1, &batch).expect("answered"), Ok(n as i64));
    }
    let current = found(site, "moving-0")[0].0;
    let (here, there) = (DIRS[current], DIRS[1 - current]);
    limit(&mut client, Some("1"));
    assert_eq!(alter(&mut client, ("moving", 0), &site.dir.join(there)).expect("answered"), 0);
    wait("the copy has begun", || process.log().contains("replica move started"));
    thread::sleep(Duration::from_millis(300));
    (process, here, there)
}

fn read_and_write(client: &mut Client, end: i64) {
    assert_eq!(load::read_all(client, ("moving", 0)).len() as i64, end);
    let batch = load::batch(&[(0, end as u64)], 100, None);
    assert_eq!(client.produce(("moving", 0), -1, &batch).expect("answered"), Ok(end));
}

#[test]
fn failed_target_directory_cancels_moves() {
    let _alone = alone();
    let site = Site::new(&[]).with_log_dirs(&DIRS);
    let (process, _, there) = start_throttled_move(&site);
    let mut client = process.client();
    let gone = site.dir.join("gone");
    fs::rename(site.dir.join(there), &gone).expect("the disk goes away");
    limit(&mut client, None);
    wait("it is noticed", || process.log().contains("taking it offline"));
    read_and_write(&mut client, 4);
    let refused = alter(&mut client, ("moving", 0), &site.dir.join(there)).expect("answered");
    assert_eq!(refused, KAFKA_STORAGE_ERROR);
    process.kill();

    fs::rename(&gone, site.dir.join(there)).expect("the disk is back");
    let process = site.start();
    wait("the move continues", || lies_in(&site, there));
    read_and_write(&mut process.client(), 5);
    process.stop();
}

/// Whether the replica is in this log directory and no future replica exists.
fn lies_in(site: &Site, dir: &str) -> bool {
    let at = DIRS.iter().position(|it| *it == dir).expect("is one of them");
    let all = found(site, "moving-0");
    let is_over = all.iter().all(|(_, name)| !name.ends_with("-future"));
    is_over && all.contains(&(at, "moving-0".to_owned()))
}

#[test]
fn failed_source_directory_takes_moving_replica_offline() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let metadata = format!("metadata.log.dir={}", dir.path().join("metadata").display());
    let site = Site::at(dir.path(), &[&metadata]).with_log_dirs(&DIRS);
    let (process, here, there) = start_throttled_move(&site);
    let mut client = process.client();
    let gone = site.dir.join("gone");
    fs::rename(site.dir.join(here), &gone).expect("the disk goes away");
    limit(&mut client, None);
    wait("it is noticed", || process.log().contains("taking it offline"));
    let batch = load::batch(&[(0, 4)], 100, None);
    let refused = client.produce(("moving", 0), -1, &batch).expect("answered");
    assert_eq!(refused, Err(KAFKA_STORAGE_ERROR), "the future replica must not serve");
    process.kill();

    // The future replica may lack acknowledged records, so it must not replace a missing replica.
    fs::write(site.dir.join(here), "in the way").expect("a file");
    let process = site.start();
    let refused = process.client().produce(("moving", 0), -1, &batch).expect("answered");
    assert_eq!(refused, Err(KAFKA_STORAGE_ERROR), "{}", process.log());
    process.kill();
    fs::remove_file(site.dir.join(here)).expect("the file is there");
    fs::rename(&gone, site.dir.join(here)).expect("the disk is back");
    let process = site.start();
    wait("the move continues", || lies_in(&site, there));
    read_and_write(&mut process.client(), 4);
    process.stop();

    // The replica is in both directories, as after a crash between the two renames.
    let [from, to] = [there, here].map(|dir| site.dir.join(dir).join("moving-0"));
    fs::create_dir(&to).expect("the name is free");
    for entry in fs::read_dir(&from).expect("it is there").flatten() {
        fs::copy(entry.path(), to.join(entry.file_name())).expect("is copied");
    }
    let process = site.start();
    read_and_write(&mut process.client(), 5);
    let names = found(&site, "moving-0");
    assert!(lies_in(&site, there) && !to.exists(), "where metadata has it: {names:?}");
    assert!(names.iter().any(|(_, name)| name.ends_with("-stray")), "{names:?}");
    process.stop();

    // Only a future replica is left, in the directory that metadata names for the replica.
    let copy = from.with_file_name("moving-0.0123456789abcdef0123456789abcdef-future");
    fs::rename(&from, &copy).expect("the name is free");
    let process = site.start();
    read_and_write(&mut process.client(), 6);
    assert!(lies_in(&site, there), "{:?}", found(&site, "moving-0"));
    process.stop();
}
