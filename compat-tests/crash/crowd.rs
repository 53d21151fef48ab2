//! A thousand simultaneous connections, and what they leave behind.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{
    alone,
    load::{self, Acknowledged, Spec},
    shared::{
        client::Client,
        process::{Process, Site},
    },
};

const CROWD: usize = 1000;
const PARTITIONS: i32 = 10;
const TOPIC: &str = "crowd";
/// Allowed resident memory of an open connection in KiB, for its buffers and its task.
const EACH_KIB: u64 = 64;
/// How often all connections are opened and closed.
const ROUNDS: u64 = 16;
/// Allowed growth in KiB after all connections are closed. The allocator keeps some free memory.
const LEFT_KIB: u64 = 32 << 10;

fn allow_files() {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, all).expect("up to the maximum is allowed");
    assert!(limit.maximum.is_none_or(|most| most > 2 * CROWD as u64), "files: {limit:?}");
}

fn partition_of(number: usize) -> i32 {
    number as i32 % PARTITIONS
}

/// Lets each client produce a record and fetch it. All clients send before the first one receives.
fn produce_and_fetch(crowd: &mut [Client], acknowledged: &Acknowledged, round: u64) {
    for (number, client) in crowd.iter_mut().enumerate() {
        let batch = load::batch(&[(number, round)], 2000, None);
        client.send_produce((TOPIC, partition_of(number)), -1, &batch).expect("is sent");
    }
    let mut offsets = Vec::new();
    for (number, client) in crowd.iter_mut().enumerate() {
        let offset = client.receive_produce().expect("answered").expect("acknowledged");
        acknowledged.note(number, round, 1, offset);
        offsets.push(offset);
    }
    for (number, client) in crowd.iter_mut().enumerate() {
        client.send_fetch((TOPIC, partition_of(number)), offsets[number], 0).expect("is sent");
    }
    for (number, client) in crowd.iter_mut().enumerate() {
        let fetched = client.receive_fetch().expect("answered");
        assert_eq!(fetched.code, 0, "{number} reads what it wrote");
        assert!(!fetched.records.is_empty(), "{number} reads what it wrote");
    }
}

/// Closes all connections. A quarter of them closes in the middle of a frame, a quarter while a
/// fetch waits, a quarter after new records complete its waiting fetch, and a quarter while idle.
fn leave_in_all_ways(mut crowd: Vec<Client>, process: &Process, ends: &[i64], round: u64) {
    let quarter = crowd.len() / 4;
    for client in &mut crowd[..quarter] {
        client.write(&[0, 0, 1, 0, 0, 1, 0, 12]).expect("is sent");
    }
    for (number, client) in crowd.iter_mut().enumerate().skip(quarter).take(2 * quarter) {
        let partition = partition_of(number);
        let end = ends[partition as usize];
        client.send_fetch((TOPIC, partition), end, 20_000).expect("is sent");
    }
    let mut waiting = crowd.split_off(2 * quarter);
    let idle = waiting.split_off(quarter);
    drop(crowd);
    let mut writer = process.client();
    for partition in 0..PARTITIONS {
        let batch = load::batch(&[(CROWD, round)], 10, None);
        writer.produce((TOPIC, partition), -1, &batch).expect("answered").expect("taken");
    }
    for client in &mut waiting {
        let fetched = client.receive_fetch().expect("woken");
        assert!(!fetched.records.is_empty(), "by what it waited for");
    }
    drop(idle);
}

fn files(process: &Process) -> usize {
    fs::read_dir(format!("/proc/{}/fd", process.id())).expect("it runs").count()
}

#[test]
fn a_thousand_connections_are_served_and_leave_nothing_behind() {
    let _alone = alone();
    allow_files();
    let site = Site::new(&["socket.listen.backlog.size=1024"]);
    let process = site.start();
    let mut client = process.client();
    assert_eq!(client.create_topic(TOPIC, PARTITIONS, &[]).expect("answered"), 0);
    let acknowledged = Acknowledged::default();
    let specs: Vec<Spec> = (0..CROWD)
        .map(|number| {
            let partition = partition_of(number);
            Spec { number, topic: TOPIC, partition, idempotent: false, acks: -1 }
        })
        .collect();
    let (files_before, rss_before) = (files(&process), process.rss_kib());
    let mut left = Vec::new();
    for round in 0..ROUNDS {
        let began = Instant::now();
        let mut crowd: Vec<_> = (0..CROWD).map(|_| process.client()).collect();
        produce_and_fetch(&mut crowd, &acknowledged, round);
        let rss = process.rss_kib();
        let each = rss.saturating_sub(rss_before) as f64 / CROWD as f64;
        println!(
            "round {round}: {CROWD} connections answered in {:?}, {each:.1} KiB resident each",
            began.elapsed()
        );
        assert!(each <= EACH_KIB as f64, "{each:.1} KiB each");
        assert!(files(&process) >= files_before + CROWD, "all are open at once");
        let ends: Vec<i64> = (0..PARTITIONS)
            .map(|it| client.fetch((TOPIC, it), 0).expect("answered").high_watermark)
            .collect();
        leave_in_all_ways(crowd, &process, &ends, round);
        let since = Instant::now();
        while files(&process) > files_before + PARTITIONS as usize {
            assert!(since.elapsed() < Duration::from_secs(10), "{} files", files(&process));
            thread::sleep(Duration::from_millis(10));
        }
        left.push(process.rss_kib());
    }
    println!("resident {rss_before} KiB before, {left:?} KiB after each round");
    let grown = left[left.len() - 1].saturating_sub(rss_before);
    assert!(grown <= LEFT_KIB, "{grown} KiB stay");
    // What a connection leaves behind would grow in every round. What the allocator keeps grows in
    // the first ones, and in some later ones.
    let late = left[left.len() / 2..].windows(2).map(|two| two[1] as i64 - two[0] as i64);
    let mut growth: Vec<i64> = late.collect();
    growth.sort_unstable();
    let median = growth[growth.len() / 2];
    assert!(median < CROWD as i64, "a KiB is left of each in most late rounds: {left:?}");
    check(&mut client, &specs, &acknowledged);
    process.stop();
}

/// Does [`load::check`], and also allows the records that completed the waiting fetches.
fn check(client: &mut Client, specs: &[Spec], acknowledged: &Acknowledged) {
    let mut all = specs.to_vec();
    let extra =
        |partition| Spec { number: CROWD, topic: TOPIC, partition, idempotent: false, acks: -1 };
    all.extend((0..PARTITIONS).map(extra));
    load::check(client, &all, acknowledged);
}
