//! Ten thousand partitions on one node: create, produce, kill, start, fetch. Also checks that a
//! long start reports its progress. Prints the time of each step.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, getrlimit};
use sordini::records::Batch;

use super::{
    alone, load,
    shared::{client::Client, process::Site},
};

const TOPICS: usize = 20;
const PARTITIONS: i32 = 500;
/// Required limit of open files: one per partition, and some more.
const FILES: u64 = 11_000;

fn topic(number: usize) -> String {
    format!("scale-{number}")
}

/// All partitions: topic, partition index, and a unique number.
fn partitions() -> impl Iterator<Item = (String, i32, u64)> {
    (0..TOPICS).flat_map(|number| {
        (0..PARTITIONS).map(move |partition| {
            (topic(number), partition, number as u64 * PARTITIONS as u64 + partition as u64)
        })
    })
}

/// Sends an HTTP GET. Returns status and body, or `None` if there is no response.
pub fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let body = answer.split_once("\r\n\r\n")?.1.to_owned();
    Some((status, body))
}

fn value(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find(|line| line.split(' ').next() == Some(name));
    let value = line.and_then(|line| line.rsplit(' ').next());
    value.unwrap_or_else(|| panic!("{name} is exported: {metrics}")).parse().expect("a number")
}

/// Polls `/health` until the broker is ready. Returns the earlier responses.
fn watch(address: SocketAddr, stop: Arc<AtomicBool>) -> thread::JoinHandle<Vec<String>> {
    thread::spawn(move || {
        let mut said = Vec::new();
        while !stop.load(Ordering::SeqCst) {
            match get(address, "/health") {
                Some((503, body)) => said.push(body),
                Some((status, body)) => {
                    assert_eq!(status, 200, "{body}");
                    return said;
                }
                None => {}
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("the broker never said that it serves: {said:?}");
    })
}

fn produce_to_all(client: &mut Client) {
    let all: Vec<_> = partitions().collect();
    for some in all.chunks(100) {
        for (topic, partition, number) in some {
            let batch = load::batch(&[(0, *number)], 100, None);
            client.send_produce((topic, *partition), 1, &batch).expect("sent");
        }
        for (topic, partition, _) in some {
            let produced = client.receive_produce().expect("answered");
            assert_eq!(produced, Ok(0), "{topic}-{partition} takes its first record");
        }
    }
}

fn fetch_from_all(client: &mut Client) {
    for (topic, partition, number) in partitions() {
        let mut fetched = client.fetch((&topic, partition), 0).expect("answered");
        assert_eq!((fetched.code, fetched.high_watermark), (0, 1), "{topic}-{partition}");
        let batch = Batch::split_first(&mut fetched.records).expect("a batch");
        let record = batch.records(1 << 20).expect("not compressed").next().expect("a record");
        let key = record.expect("it is whole").key.expect("a key");
        assert_eq!(load::id_of(&key), (0, number), "{topic}-{partition} has its own record");
    }
}

#[test]
fn ten_thousand_partitions_survive_a_kill() {
    let _alone = alone();
    if getrlimit(Resource::Nofile).maximum.is_some_and(|limit| limit < FILES) {
        println!("skipped: fewer than {FILES} files may be open");
        return;
    }
    let unused = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let http = unused.local_addr().expect("it has an address");
    drop(unused);
    let site = Site::new(&[&format!("http.listener={http}")]);
    let process = site.start();
    let mut client = process.client();
    let since = Instant::now();
    for number in 0..TOPICS {
        let code = client.create_topic(&topic(number), PARTITIONS, &[]).expect("answered");
        assert_eq!(code, 0, "a topic is made");
    }
    println!("10,000 partitions created in {:?}", since.elapsed());
    let since = Instant::now();
    produce_to_all(&mut client);
    println!("produced to all in {:?}, resident {} KiB", since.elapsed(), process.rss_kib());
    process.kill();

    let mut process = site.spawn();
    let gave_up = Arc::new(AtomicBool::new(false));
    let watcher = watch(http, Arc::clone(&gave_up));
    let ready = process.wait_ready();
    let ready = ready.unwrap_or_else(|status| panic!("it has ended ({status}): {}", process.log()));
    println!("answered {ready:?} after the start, after kill -9");
    thread::sleep(Duration::from_millis(50));
    gave_up.store(true, Ordering::SeqCst);
    let said = watcher.join().expect("it saw the broker ready");
    check_progress(&said, http, &process.log());

    let since = Instant::now();
    fetch_from_all(&mut process.client());
    println!("fetched from all in {:?}, resident {} KiB", since.elapsed(), process.rss_kib());
    process.kill();
}

/// Checks that `/health` reported the logs that were still to be opened, and that the metrics and
/// the log agree with it.
fn check_progress(said: &[String], http: SocketAddr, log: &str) {
    let number = |body: &str, name: &str| {
        let object: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(object["status"], "starting", "{body}");
        object[name].as_u64().unwrap_or_else(|| panic!("{name} in {body}"))
    };
    let remaining: Vec<u64> = said.iter().map(|body| number(body, "logs_remaining")).collect();
    let opening: Vec<u64> =
        remaining.iter().copied().filter(|left| (1..10_000).contains(left)).collect();
    assert!(opening.len() > 1, "the recovery could be watched: {remaining:?}");
    assert!(opening.is_sorted_by(|a, b| a >= b), "fewer and fewer remain: {opening:?}");
    let (status, metrics) = get(http, "/metrics").expect("it answers");
    assert_eq!(status, 200);
    assert_eq!(value(&metrics, "kafka_server_ready"), 1.0);
    assert!(value(&metrics, "kafka_log_recovery_logs") >= 10_000.0);
    assert_eq!(value(&metrics, "kafka_log_recovery_logs_remaining"), 0.0);
    let bytes = value(&metrics, "kafka_log_recovery_bytes_total");
    assert!(bytes >= 10_000.0 * 160.0, "each log's record was checked: {bytes} bytes");
    for stage in ["log_dirs", "metadata", "logs", "register"] {
        let name = format!("kafka_server_startup_seconds{{stage=\"{stage}\"}}");
        let seconds = value(&metrics, &name);
        println!("  {stage}: {seconds:.3} s");
        assert!(seconds > 0.0 && seconds < 60.0, "{name}");
    }
    assert!(log.contains("ready in "), "the log sums it up: {log}");
}
