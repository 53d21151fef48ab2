//! Tests of connections, over TCP to a broker in this process: pipelining, long polls, connection
//! limits, idle connections, and controlled shutdown.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        ApiVersionsRequest, ApiVersionsResponse, CreateTopicsRequest, CreateTopicsResponse,
        FetchRequest, FetchResponse, ProduceRequest, ProduceResponse, RequestHeader, TopicName,
        create_topics_request::CreatableTopic,
        fetch_request::{FetchPartition, FetchTopic},
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::{Decodable, Encodable, HeaderVersion, StrBytes},
};
use rustix::io::Errno;
use sordini::{
    base::config::Config,
    log::faulty::{FaultyDisk, Operation},
    records::{BatchBuilder, BatchOptions},
    server::{Environment, Server},
};
use tokio::runtime::{Builder, Handle, Runtime};

const TOPIC: &str = "t";

/// A running broker. Its data directory is removed when it is dropped.
struct Broker {
    server: Server,
    address: SocketAddr,
    _data: tempfile::TempDir,
}

async fn start(settings: &[(&str, &str)]) -> Broker {
    start_with(settings, Handle::current()).await
}

/// Starts a broker whose quorum runs on the runtime `control`.
async fn start_with(settings: &[(&str, &str)], control: Handle) -> Broker {
    start_in(settings, Environment::real(control)).await
}

async fn start_in(settings: &[(&str, &str)], environment: Environment) -> Broker {
    let data = tempfile::tempdir().expect("a directory");
    let mut properties: BTreeMap<String, String> = BTreeMap::from([
        ("node.id".to_owned(), "1".to_owned()),
        ("process.roles".to_owned(), "broker,controller".to_owned()),
        ("controller.listener.names".to_owned(), "CONTROLLER".to_owned()),
        ("controller.quorum.bootstrap.servers".to_owned(), "127.0.0.1:1".to_owned()),
        ("listeners".to_owned(), "PLAINTEXT://127.0.0.1:0".to_owned()),
        ("http.listener".to_owned(), "none".to_owned()),
        ("log.dirs".to_owned(), data.path().display().to_string()),
    ]);
    properties.extend(settings.iter().map(|(key, value)| ((*key).into(), (*value).into())));
    let config = Config::new(properties, "localhost").expect("a valid configuration");
    let server = Server::start_in(config, environment, |_| ()).await.expect("starts");
    let address = server.addresses()[0].1;
    Broker { server, address, _data: data }
}

/// A blocking client that can pipeline: it sends without waiting and reads one response at a time.
struct Client(TcpStream);

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("is set");
        Self(stream)
    }

    fn send<R: Encodable + HeaderVersion>(&mut self, key: i16, version: i16, id: i32, request: &R) {
        let mut frame = BytesMut::from(&[0; 4][..]);
        let header = RequestHeader::default()
            .with_request_api_key(key)
            .with_request_api_version(version)
            .with_correlation_id(id);
        header.encode(&mut frame, R::header_version(version)).expect("encodes");
        request.encode(&mut frame, version).expect("encodes");
        let size = (frame.len() - 4) as u32;
        frame[..4].copy_from_slice(&size.to_be_bytes());
        self.0.write_all(&frame).expect("is sent");
    }

    fn frame(&mut self) -> std::io::Result<Bytes> {
        let mut size = [0; 4];
        self.0.read_exact(&mut size)?;
        let mut frame = vec![0; u32::from_be_bytes(size) as usize];
        self.0.read_exact(&mut frame)?;
        Ok(frame.into())
    }

    /// Reads the next response. Returns its correlation id and its body.
    fn reply<R: Decodable + HeaderVersion>(&mut self, version: i16) -> (i32, R) {
        let mut frame = self.frame().expect("a reply");
        let id = frame.get_i32();
        if R::header_version(version) == 1 {
            assert_eq!(frame.get_u8(), 0, "no tagged fields in the header");
        }
        (id, R::decode(&mut frame, version).expect("decodes"))
    }

    fn is_closed(&mut self) -> bool {
        match self.frame() {
            Ok(_) => false,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }

    fn ask(&mut self) {
        self.send(18, 0, 1, &api_versions());
    }

    fn is_answered(&mut self) -> bool {
        self.frame().is_ok()
    }

    fn create_topic(&mut self) {
        let topic = CreatableTopic::default()
            .with_name(TopicName(StrBytes::from_static_str(TOPIC)))
            .with_num_partitions(1)
            .with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(5000);
        self.send(19, 5, 1, &request);
        let (_, response) = self.reply::<CreateTopicsResponse>(5);
        assert_eq!(response.topics[0].error_code, 0);
    }
}

fn runtime(workers: usize) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(workers).enable_all().build().expect("a runtime")
}

fn api_versions() -> ApiVersionsRequest {
    ApiVersionsRequest::default()
}

fn produce(topic: &'static str, acks: i16, value: &[u8]) -> ProduceRequest {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(1_000, None, Some(value), &[]);
    let mut records = Vec::new();
    builder.build().write_to(&mut records);
    let partition =
        PartitionProduceData::default().with_index(0).with_records(Some(records.into()));
    let topic = TopicProduceData::default()
        .with_name(TopicName(StrBytes::from_static_str(topic)))
        .with_partition_data(vec![partition]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(5000).with_topic_data(vec![topic])
}

fn fetch(offset: i64, max_wait_ms: i32) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(0)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default()
        .with_topic(TopicName(StrBytes::from_static_str(TOPIC)))
        .with_partitions(vec![partition]);
    FetchRequest::default()
        .with_max_wait_ms(max_wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_leave_in_the_order_of_requests() {
    let broker = start(&[]).await;
    let mut client = Client::connect(broker.address);
    client.create_topic();
    // Responses to later requests must wait for the response of the waiting fetch.
    client.send(1, 11, 10, &fetch(0, 300));
    for id in 11..80 {
        client.send(18, 0, id, &api_versions());
    }
    let (id, response) = client.reply::<FetchResponse>(11);
    assert_eq!((id, response.error_code), (10, 0));
    for expected in 11..80 {
        let (id, response) = client.reply::<ApiVersionsResponse>(0);
        assert_eq!((id, response.error_code), (expected, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_fetch_is_woken_by_what_it_waits_for() {
    let broker = start(&[]).await;
    let mut producer = Client::connect(broker.address);
    producer.create_topic();
    let mut consumer = Client::connect(broker.address);
    let began = Instant::now();
    consumer.send(1, 11, 1, &fetch(0, 8_000));
    tokio::time::sleep(Duration::from_millis(100)).await;
    producer.send(0, 7, 2, &produce(TOPIC, -1, b"news"));
    let (_, produced) = producer.reply::<ProduceResponse>(7);
    assert_eq!(produced.responses[0].partition_responses[0].base_offset, 0);
    let (_, fetched) = consumer.reply::<FetchResponse>(11);
    let records = fetched.responses[0].partitions[0].records.as_ref().expect("records");
    assert!(records.windows(4).any(|window| window == b"news"));
    assert!(began.elapsed() < Duration::from_secs(4), "woken late: {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_finds_nothing_waits_as_long_as_it_said() {
    let broker = start(&[]).await;
    let mut client = Client::connect(broker.address);
    client.create_topic();
    let began = Instant::now();
    client.send(1, 11, 1, &fetch(0, 400));
    let (_, fetched) = client.reply::<FetchResponse>(11);
    assert!(began.elapsed() >= Duration::from_millis(400));
    assert_eq!(fetched.responses[0].partitions[0].high_watermark, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn acks_0_has_no_reply_and_an_error_closes() {
    let broker = start(&[("auto.create.topics.enable", "false")]).await;
    let mut client = Client::connect(broker.address);
    client.create_topic();
    client.send(0, 7, 2, &produce(TOPIC, 0, b"x"));
    client.send(18, 0, 3, &api_versions());
    assert_eq!(client.reply::<ApiVersionsResponse>(0).0, 3);
    client.send(1, 11, 4, &fetch(0, 0));
    let (_, fetched) = client.reply::<FetchResponse>(11);
    assert_eq!(fetched.responses[0].partitions[0].high_watermark, 1);
    client.send(0, 7, 5, &produce("missing", 0, b"x"));
    assert!(client.is_closed(), "there is no other way to tell");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_are_closed_and_waiting_ones_are_not() {
    let broker = start(&[("connections.max.idle.ms", "300")]).await;
    let mut idle = Client::connect(broker.address);
    let mut waiting = Client::connect(broker.address);
    waiting.create_topic();
    waiting.send(1, 11, 1, &fetch(0, 1_200));
    let began = Instant::now();
    assert!(idle.is_closed());
    assert!(began.elapsed() < Duration::from_secs(3));
    assert_eq!(waiting.reply::<FetchResponse>(11).0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_from_one_address_is_closed_above_its_limit() {
    let limits = [("max.connections.per.ip", "5")];
    let broker = start(&limits).await;
    let mut flood: Vec<_> = (0..300).map(|_| Client::connect(broker.address)).collect();
    for client in &mut flood[..5] {
        client.ask();
        assert!(client.is_answered());
    }
    assert!(flood[5..].iter_mut().all(Client::is_closed));
    assert_eq!(broker.server.open_connections(), 5);
    flood.remove(0);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut next = Client::connect(broker.address);
    next.ask();
    assert!(next.is_answered());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_above_max_connections_waits_for_places() {
    let limits = [("max.connections", "20")];
    let broker = start(&limits).await;
    let mut flood: Vec<_> = (0..300).map(|_| Client::connect(broker.address)).collect();
    flood.iter_mut().for_each(Client::ask);
    assert!(flood[..20].iter_mut().all(Client::is_answered));
    let brief = Some(Duration::from_millis(300));
    flood[20].0.set_read_timeout(brief).expect("is set");
    assert!(!flood[20].is_closed(), "it is neither closed nor answered");
    assert_eq!(broker.server.open_connections(), 20);
    flood[20].0.set_read_timeout(Some(Duration::from_secs(10))).expect("is set");
    // Each closed connection makes room for the next waiting one.
    let mut waiting = flood.split_off(20);
    for (gone, next) in flood.into_iter().zip(&mut waiting) {
        drop(gone);
        assert!(next.is_answered());
    }
    let mut answered = waiting.drain(..20).collect::<std::collections::VecDeque<_>>();
    for mut next in waiting {
        drop(answered.pop_front());
        assert!(next.is_answered());
        answered.push_back(next);
    }
}

/// Opens up to `count` connections to a broker with `max.connections=1`. Returns how many of them
/// the kernel established; all but one wait in the backlog of the listening socket.
async fn connections_that_come_up(settings: &[(&str, &str)], count: usize) -> usize {
    let mut all = vec![("max.connections", "1")];
    all.extend(settings);
    let broker = start(&all).await;
    let connect = || TcpStream::connect_timeout(&broker.address, Duration::from_millis(500)).ok();
    let connected: Vec<_> = (0..count).map_while(|_| connect()).collect();
    connected.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_connections_does_not_wait_to_be_accepted() {
    let limit = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("the limit");
    let count = limit.trim().parse::<usize>().expect("a number").min(800);
    assert_eq!(connections_that_come_up(&[], count).await, count);
    let few = connections_that_come_up(&[("socket.listen.backlog.size", "5")], 20).await;
    assert!((5..20).contains(&few), "{few} with the backlog that was asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_reach_each_other_above_max_connections() {
    let broker = start(&[
        ("listeners", "PLAINTEXT://127.0.0.1:0,INTERNAL://127.0.0.1:0"),
        ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT"),
        ("inter.broker.listener.name", "INTERNAL"),
        ("max.connections", "3"),
    ])
    .await;
    let internal = broker.server.addresses()[1].1;
    let mut clients = [(); 3].map(|()| Client::connect(broker.address));
    for client in &mut clients {
        client.ask();
        assert!(client.is_answered());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    clients[0].ask();
    assert!(clients[0].is_answered());
    let mut other = Client::connect(internal);
    other.ask();
    assert!(other.is_answered(), "it does not wait");
    assert!(clients[1].is_closed(), "the one idle for the longest time goes");
    for client in [&mut clients[0], &mut other] {
        client.ask();
        assert!(client.is_answered(), "the others stay");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_without_a_host_is_of_both_families() {
    for host in ["", "0.0.0.0"] {
        let listener = format!("PLAINTEXT://{host}:0");
        let advertised = ("advertised.listeners", "PLAINTEXT://localhost:9092");
        let broker = start(&[("listeners", &listener), advertised]).await;
        let addresses = match broker.address.is_ipv6() {
            true => vec!["127.0.0.1", "::1"],
            false => vec!["127.0.0.1"],
        };
        assert!(std::net::TcpListener::bind("[::1]:0").is_err() || addresses.len() == 2);
        for address in addresses {
            let ip: std::net::IpAddr = address.parse().expect("an address");
            let mut client = Client::connect(SocketAddr::new(ip, broker.address.port()));
            client.ask();
            assert!(client.is_answered(), "{address} of {listener}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_above_the_limit_close_the_connection() {
    let broker = start(&[("socket.request.max.bytes", "1000")]).await;
    let mut client = Client::connect(broker.address);
    client.0.write_all(&1001_i32.to_be_bytes()).expect("is sent");
    assert!(client.is_closed());
    let mut client = Client::connect(broker.address);
    client.send(18, 0, 1, &api_versions());
    assert_eq!(client.reply::<ApiVersionsResponse>(0).0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_connections_and_releases_the_data() {
    let broker = start(&[]).await;
    let mut client = Client::connect(broker.address);
    client.create_topic();
    client.send(1, 11, 1, &fetch(0, 60_000));
    tokio::time::sleep(Duration::from_millis(100)).await;
    broker.server.stop().await.expect("stops");
    assert!(client.is_closed());
    assert!(broker._data.path().join(".kafka_cleanshutdown").exists());
}

#[test]
fn controller_and_probes_answer_while_no_worker_of_data_is_free() {
    let (data, control) = (runtime(2), runtime(1));
    let unused = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").expect("a port"));
    let [controller, http] = unused.map(|it| it.local_addr().expect("has one").to_string());
    let listeners = format!("PLAINTEXT://127.0.0.1:0,CONTROLLER://{controller}");
    let settings = [
        ("listeners", listeners.as_str()),
        ("controller.quorum.bootstrap.servers", controller.as_str()),
        ("http.listener", http.as_str()),
    ];
    let broker = data.block_on(start_with(&settings, control.handle().clone()));
    let addresses = broker.server.addresses();
    let controller = addresses.iter().find(|(name, _)| name == "CONTROLLER").expect("listens");
    let mut client = Client::connect(broker.address);
    client.ask();
    assert!(client.is_answered());
    // Blocks both workers, as if each of them waited for a disk.
    let blocked: Vec<_> =
        (0..2).map(|_| data.spawn(async { std::thread::sleep(Duration::from_secs(3)) })).collect();
    std::thread::sleep(Duration::from_millis(200));
    let began = Instant::now();
    let mut to_controller = Client::connect(controller.1);
    to_controller.ask();
    assert!(to_controller.is_answered());
    for path in ["/livez", "/readyz", "/health", "/metrics"] {
        let mut probe = TcpStream::connect(&http).expect("connects");
        probe.set_read_timeout(Some(Duration::from_secs(10))).expect("is set");
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        probe.write_all(request.as_bytes()).expect("is sent");
        let mut answer = String::new();
        probe.read_to_string(&mut answer).expect("is answered");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    client.ask();
    client.0.set_read_timeout(Some(Duration::from_millis(300))).expect("is set");
    assert!(!client.is_answered(), "a worker was free");
    data.block_on(async {
        for task in blocked {
            task.await.expect("ends");
        }
    });
    data.block_on(broker.server.stop()).expect("stops");
}

/// A disk whose cold reads a test can block. Dropping it releases them, so that no thread hangs.
struct HeldReads(FaultyDisk);

impl Drop for HeldReads {
    fn drop(&mut self) {
        self.0.allow_cold_reads(None);
    }
}

/// Number of batches: more than a segment caches positions for.
const BATCHES: i64 = 40;

/// Drops the topic's files from the (simulated) page cache, and blocks all reads from the disk.
fn make_cold(disk: &FaultyDisk) {
    disk.allow_cold_reads(Some(0));
    disk.drop_from_cache(is_of_topic);
}

fn is_of_topic(path: &Path) -> bool {
    path.parent().is_some_and(|dir| dir.ends_with("t-0"))
}

/// Runs a test against a broker whose connections share one worker, on a disk in memory.
fn with_one_worker(test: impl FnOnce(&FaultyDisk, SocketAddr)) {
    let (data, control) = (runtime(1), runtime(1));
    let held = HeldReads(FaultyDisk::default());
    let environment = Environment {
        disk: Arc::new(held.0.clone()),
        ..Environment::real(control.handle().clone())
    };
    let broker = data.block_on(start_in(&[], environment));
    let mut client = Client::connect(broker.address);
    client.create_topic();
    for offset in 0..BATCHES {
        client.send(0, 7, 1, &produce(TOPIC, -1, b"cold"));
        let (_, produced) = client.reply::<ProduceResponse>(7);
        assert_eq!(produced.responses[0].partition_responses[0].base_offset, offset);
    }
    test(&held.0, broker.address);
    drop(held);
    // The shutdown fails if the test made the disk fail.
    let _ = data.block_on(broker.server.stop());
}

fn wait_for_a_cold_read(disk: &FaultyDisk) {
    let began = Instant::now();
    while disk.waiting_cold_reads() == 0 {
        assert!(began.elapsed() < Duration::from_secs(10), "nothing reads from the disk");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_fetch_that_waits_for_the_disk_delays_no_other_connection() {
    with_one_worker(|disk, address| {
        let (mut consumer, mut other) = (Client::connect(address), Client::connect(address));
        // The segment reads the position of the first batch from the disk. That of the last one
        // is cached.
        for (offset, max_wait_ms) in [(0, 0), (0, 100), (BATCHES - 1, 0)] {
            make_cold(disk);
            consumer.send(1, 11, 1, &fetch(offset, max_wait_ms).with_min_bytes(1 << 20));
            wait_for_a_cold_read(disk);
            other.ask();
            assert!(other.is_answered(), "the worker waits for the disk");
            disk.allow_cold_reads(None);
            let (_, fetched) = consumer.reply::<FetchResponse>(11);
            let partition = &fetched.responses[0].partitions[0];
            assert_eq!((partition.error_code, partition.high_watermark), (0, BATCHES));
            let records = partition.records.as_ref().expect("records");
            let count = records.windows(4).filter(|window| window == b"cold").count();
            assert_eq!(count as i64, BATCHES - offset);
        }
    });
}

#[test]
fn a_fetch_of_what_the_disk_cannot_read_is_a_storage_error() {
    const KAFKA_STORAGE_ERROR: i16 = 56;
    with_one_worker(|disk, address| {
        let (mut consumer, mut other) = (Client::connect(address), Client::connect(address));
        disk.fail_files(Some(|operation, path| {
            (operation == Operation::Read && is_of_topic(path)).then_some(Errno::IO)
        }));
        make_cold(disk);
        consumer.send(1, 11, 1, &fetch(0, 0));
        wait_for_a_cold_read(disk);
        // A second read would block, and the worker with it.
        disk.allow_cold_reads(Some(1));
        let (_, fetched) = consumer.reply::<FetchResponse>(11);
        assert_eq!(fetched.responses[0].partitions[0].error_code, KAFKA_STORAGE_ERROR);
        other.ask();
        assert!(other.is_answered(), "the worker waits for the disk");
    });
}
