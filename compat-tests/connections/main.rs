//! Tests of connections, over TCP to a broker in this process: pipelining, long polls, connection
//! limits, idle connections, and controlled shutdown.

mod broker;
mod cold_reads;
#[path = "../shared/mod.rs"]
#[allow(dead_code, reason = "each test program uses a part")]
mod shared;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use broker::{batch, runtime, start, start_with};
use shared::client::{Client, Reply};

const TOPIC: &str = "t";
/// How long to wait for a response that must not come.
const BRIEFLY: Duration = Duration::from_millis(300);

fn ask(client: &mut Client) {
    client.send_api_versions().expect("is sent");
}

fn is_answered(client: &mut Client) -> bool {
    client.receive_api_versions().is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_leave_in_the_order_of_requests() {
    let broker = start(&[]).await;
    let mut client = broker.client_with_topic();
    // Responses to later requests must wait for the response of the waiting fetch.
    client.send_fetch((TOPIC, 0), 0, 300).expect("is sent");
    for _ in 0..70 {
        ask(&mut client);
    }
    // The client checks the correlation ids.
    assert_eq!(client.receive_fetch().expect("answered").code, 0);
    for _ in 0..70 {
        assert!(is_answered(&mut client));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_fetch_is_woken_by_what_it_waits_for() {
    let broker = start(&[]).await;
    let mut producer = broker.client_with_topic();
    let mut consumer = broker.client();
    let began = Instant::now();
    consumer.send_fetch((TOPIC, 0), 0, 8_000).expect("is sent");
    tokio::time::sleep(Duration::from_millis(100)).await;
    producer.send_produce((TOPIC, 0), -1, &batch(b"news")).expect("is sent");
    let produced = producer.receive_produce().expect("answered");
    assert_eq!(produced, Ok(0));
    let fetched = consumer.receive_fetch().expect("answered");
    assert!(fetched.records.windows(4).any(|window| window == b"news"));
    assert!(began.elapsed() < Duration::from_secs(4), "woken late: {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_finds_nothing_waits_as_long_as_it_said() {
    let broker = start(&[]).await;
    let mut client = broker.client_with_topic();
    let began = Instant::now();
    client.send_fetch((TOPIC, 0), 0, 400).expect("is sent");
    let fetched = client.receive_fetch().expect("answered");
    assert!(began.elapsed() >= Duration::from_millis(400));
    assert_eq!(fetched.high_watermark, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn acks_0_has_no_reply_and_an_error_closes() {
    let broker = start(&[("auto.create.topics.enable", "false")]).await;
    let mut client = broker.client_with_topic();
    client.send_produce((TOPIC, 0), 0, &batch(b"x")).expect("is sent");
    ask(&mut client);
    assert!(is_answered(&mut client));
    client.send_fetch((TOPIC, 0), 0, 0).expect("is sent");
    let fetched = client.receive_fetch().expect("answered");
    assert_eq!(fetched.high_watermark, 1);
    client.send_produce(("missing", 0), 0, &batch(b"x")).expect("is sent");
    assert!(client.is_closed(), "there is no other way to tell");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_are_closed_and_waiting_ones_are_not() {
    let broker = start(&[("connections.max.idle.ms", "300")]).await;
    let mut idle = broker.client();
    let mut waiting = broker.client_with_topic();
    waiting.send_fetch((TOPIC, 0), 0, 1_200).expect("is sent");
    let began = Instant::now();
    assert!(idle.is_closed());
    assert!(began.elapsed() < Duration::from_secs(3));
    assert!(waiting.receive_fetch().is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_from_one_address_is_closed_above_its_limit() {
    let limits = [("max.connections.per.ip", "5")];
    let broker = start(&limits).await;
    let mut flood: Vec<_> = (0..300).map(|_| broker.client()).collect();
    for client in &mut flood[..5] {
        ask(client);
        assert!(is_answered(client));
    }
    assert!(flood[5..].iter_mut().all(Client::is_closed));
    assert_eq!(broker.server.open_connections(), 5);
    flood.remove(0);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut next = broker.client();
    ask(&mut next);
    assert!(is_answered(&mut next));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_above_max_connections_waits_for_places() {
    let limits = [("max.connections", "20")];
    let broker = start(&limits).await;
    let mut flood: Vec<_> = (0..300).map(|_| broker.client()).collect();
    flood.iter_mut().for_each(ask);
    assert!(flood[..20].iter_mut().all(is_answered));
    assert_eq!(flood[20].read(BRIEFLY), Reply::Silence, "it is neither closed nor answered");
    assert_eq!(broker.server.open_connections(), 20);
    // Each closed connection makes room for the next waiting one.
    let mut waiting = flood.split_off(20);
    for (gone, next) in flood.into_iter().zip(&mut waiting) {
        drop(gone);
        assert!(is_answered(next));
    }
    let mut answered = waiting.drain(..20).collect::<std::collections::VecDeque<_>>();
    for mut next in waiting {
        drop(answered.pop_front());
        assert!(is_answered(&mut next));
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
    let mut clients = [(); 3].map(|()| broker.client());
    for client in &mut clients {
        ask(client);
        assert!(is_answered(client));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ask(&mut clients[0]);
    assert!(is_answered(&mut clients[0]));
    let mut other = Client::connect(internal).expect("connects");
    ask(&mut other);
    assert!(is_answered(&mut other), "it does not wait");
    assert!(clients[1].is_closed(), "the one idle for the longest time goes");
    for client in [&mut clients[0], &mut other] {
        ask(client);
        assert!(is_answered(client), "the others stay");
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
            let mut client =
                Client::connect(SocketAddr::new(ip, broker.address.port())).expect("connects");
            ask(&mut client);
            assert!(is_answered(&mut client), "{address} of {listener}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_above_the_limit_close_the_connection() {
    let broker = start(&[("socket.request.max.bytes", "1000")]).await;
    let mut client = broker.client();
    client.write(&1001_i32.to_be_bytes()).expect("is sent");
    assert!(client.is_closed());
    let mut client = broker.client();
    ask(&mut client);
    assert!(is_answered(&mut client));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_connections_and_releases_the_data() {
    let broker = start(&[]).await;
    let mut client = broker.client_with_topic();
    client.send_fetch((TOPIC, 0), 0, 60_000).expect("is sent");
    tokio::time::sleep(Duration::from_millis(100)).await;
    broker.server.stop().await.expect("stops");
    assert!(client.is_closed());
    assert!(broker.data.path().join(".kafka_cleanshutdown").exists());
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
    let mut client = broker.client();
    ask(&mut client);
    assert!(is_answered(&mut client));
    // Blocks both workers, as if each of them waited for a disk.
    let blocked: Vec<_> =
        (0..2).map(|_| data.spawn(async { std::thread::sleep(Duration::from_secs(3)) })).collect();
    std::thread::sleep(Duration::from_millis(200));
    let began = Instant::now();
    let mut to_controller = Client::connect(controller.1).expect("connects");
    ask(&mut to_controller);
    assert!(is_answered(&mut to_controller));
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
    ask(&mut client);
    assert_eq!(client.read(BRIEFLY), Reply::Silence, "a worker was free");
    data.block_on(async {
        for task in blocked {
            task.await.expect("ends");
        }
    });
    data.block_on(broker.server.stop()).expect("stops");
}
