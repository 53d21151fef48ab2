use super::*;
use std::collections::HashMap;
use std::sync::{atomic::AtomicUsize, mpsc};
use std::time::{Duration, Instant};

/// Parses the text format strictly. Returns the value of each sample and the type of each family.
fn parse(text: &str) -> (HashMap<String, f64>, HashMap<String, String>) {
    let (mut samples, mut types) = (HashMap::new(), HashMap::new());
    let mut helped = "";
    assert!(text.ends_with('\n'));
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helped = help.split_once(' ').unwrap().0;
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, helped, "each family has a help before its type");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(types.insert(name.to_string(), kind.to_string()).is_none(), "{name} twice");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix).filter(|name| types.contains_key(*name)))
            .unwrap_or(name);
        assert_eq!(family, helped, "samples follow their family's head: {line}");
        assert!(family.starts_with("kafka_") || family.starts_with("process_"), "{line}");
        if let Some((_, labels)) = series.split_once('{') {
            check_labels(labels.strip_suffix('}').unwrap());
        }
        let value = value.replace("Inf", "inf").parse().unwrap();
        assert!(samples.insert(series.to_string(), value).is_none(), "{series} twice");
    }
    (samples, types)
}

fn check_labels(mut labels: &str) {
    loop {
        let (name, value) = labels.split_once("=\"").unwrap();
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
        let mut escaped = false;
        let end = value.find(|character| {
            let ends = character == '"' && !escaped;
            escaped = character == '\\' && !escaped;
            ends
        });
        match &value[end.unwrap() + 1..] {
            "" => return,
            rest => labels = rest.strip_prefix(',').unwrap(),
        }
    }
}

#[test]
fn counts_show() {
    let metrics = Metrics::new();
    metrics.api(0).answered(100, 50, Duration::from_millis(2));
    metrics.api(0).answered(1, 2, Duration::from_millis(700));
    metrics.api(1).requests.increment(1);
    for code in [0, 3, 3, 6, -1, 999] {
        metrics.api(0).error(code);
    }
    let (samples, types) = parse(&metrics.render(vec![]));
    let produce = |family: &str| samples[&format!("kafka_server_{family}{{api=\"Produce\"}}")];
    assert_eq!(produce("requests_total"), 2.0);
    assert_eq!(produce("request_bytes_total"), 101.0);
    assert_eq!(produce("response_bytes_total"), 52.0);
    assert_eq!(produce("request_seconds_count"), 2.0);
    assert!((produce("request_seconds_sum") - 0.702).abs() < 1e-9);
    let bucket = |bound: &str| {
        samples[&format!("kafka_server_request_seconds_bucket{{api=\"Produce\",le=\"{bound}\"}}")]
    };
    assert_eq!((bucket("0.001"), bucket("0.0025"), bucket("0.5")), (0.0, 1.0, 1.0));
    assert_eq!((bucket("1"), bucket("+Inf")), (2.0, 2.0));
    let error = |name: &str| {
        let labels = format!("{{api=\"Produce\",error=\"{name}\"}}");
        samples.get(&format!("kafka_server_request_errors_total{labels}")).copied()
    };
    assert_eq!(error("UNKNOWN_TOPIC_OR_PARTITION"), Some(2.0));
    assert_eq!(error("NOT_LEADER_OR_FOLLOWER"), Some(1.0));
    assert_eq!(error("UNKNOWN_SERVER_ERROR"), Some(2.0));
    assert_eq!(error("NONE"), None);
    assert_eq!(samples["kafka_server_requests_total{api=\"Fetch\"}"], 1.0);
    assert_eq!(types["kafka_server_request_seconds"], "histogram");
}

#[test]
fn keys_off_the_wire_share_one_series() {
    let metrics = Metrics::new();
    for key in [-1, i16::MIN, i16::MAX, 127, 200] {
        metrics.api(key).requests.increment(1);
    }
    let (samples, _) = parse(&metrics.render(vec![]));
    assert_eq!(samples["kafka_server_requests_total{api=\"Unknown\"}"], 5.0);
    let series = samples.keys().filter(|name| name.starts_with("kafka_server_requests_total"));
    assert_eq!(series.count(), 1);
}

#[test]
fn topics_come_and_go() {
    let metrics = Metrics::new();
    let topic = metrics.topic("orders");
    topic.bytes_in.increment(1 << 40);
    topic.messages_in.increment(7);
    metrics.topic("orders").messages_in.increment(1);
    metrics.topic("other").produced(100, 3);
    metrics.topic("other").produce_requests.increment(2);
    metrics.topic("other").failed_fetch_requests.increment(1);
    let (samples, _) = parse(&metrics.render(vec![]));
    assert_eq!(samples["kafka_topic_bytes_in_total{topic=\"orders\"}"], (1_u64 << 40) as f64);
    assert_eq!(samples["kafka_topic_messages_in_total{topic=\"orders\"}"], 8.0);
    let other = |family: &str| samples[&format!("kafka_topic_{family}_total{{topic=\"other\"}}")];
    assert_eq!((other("bytes_in"), other("messages_in"), other("bytes_out")), (100.0, 3.0, 0.0));
    assert_eq!((other("produce_requests"), other("failed_produce_requests")), (2.0, 0.0));
    assert_eq!((other("fetch_requests"), other("failed_fetch_requests")), (0.0, 1.0));
    metrics.remove_topic("orders");
    topic.bytes_in.increment(1);
    let text = metrics.render(vec![]);
    assert!(!text.contains("orders") && text.contains("other"));
}

#[test]
fn connections() {
    let metrics = Metrics::new();
    for _ in 0..3 {
        metrics.connections.opened();
    }
    metrics.connections.closed(CloseReason::Idle);
    let (samples, _) = parse(&metrics.render(vec![]));
    assert_eq!(samples["kafka_server_connections"], 2.0);
    assert_eq!(samples["kafka_server_connections_accepted_total"], 3.0);
    assert_eq!(samples["kafka_server_connections_closed_total{reason=\"idle\"}"], 1.0);
    assert_eq!(samples["kafka_server_connections_closed_total{reason=\"shutdown\"}"], 0.0);
    for (at, (reason, _)) in CloseReason::ALL.iter().enumerate() {
        assert_eq!(*reason as usize, at);
    }
}

#[test]
fn collectors_write_what_they_compute() {
    let metrics = Metrics::new();
    for partition in ["0", "1"] {
        metrics.add_collector(Box::new(move |scrape| {
            let labels = [("topic", "a\"b\\c\nd"), ("partition", partition)];
            scrape.gauge("kafka_log_size_bytes", "Bytes\nof a log", &labels, 12.5);
            scrape.counter("kafka_log_rolls_total", "Segments rolled", &labels, 3.0);
        }));
    }
    metrics.add_collector(Box::new(|scrape| {
        scrape.family("kafka_nothing", "Not shown", Kind::Gauge);
        scrape.gauge("kafka_endless", "Infinity", &[], f64::INFINITY);
    }));
    let text = metrics.render(vec![]);
    let (samples, types) = parse(&text);
    let labels = r#"{topic="a\"b\\c\nd",partition="1"}"#;
    assert_eq!(samples[&format!("kafka_log_size_bytes{labels}")], 12.5);
    assert_eq!(types["kafka_log_rolls_total"], "counter");
    assert!(text.contains("# HELP kafka_log_size_bytes Bytes\\nof a log\n"));
    assert!(!text.contains("kafka_nothing"));
    assert_eq!(samples["kafka_endless"], f64::INFINITY);
}

#[tokio::test]
async fn surveys_are_asked_before_the_rendering() {
    let metrics = Metrics::new();
    metrics.add_survey(Box::new(|| {
        Box::pin(async {
            tokio::task::yield_now().await;
            let write: SurveyResult =
                Box::new(|scrape| scrape.gauge("kafka_asked", "Asked", &[], 7.0));
            write
        })
    }));
    for _ in 0..2 {
        let (samples, _) = parse(&metrics.scrape().await.expect("renders"));
        assert_eq!(samples["kafka_asked"], 7.0);
    }
}

/// If a scrape takes too long, Prometheus closes it and starts another. Threads must not pile up.
#[tokio::test]
async fn scrapes_occupy_few_threads_while_a_collector_hangs() {
    let metrics = Metrics::new();
    let (began, (release, released)) = (Arc::new(AtomicUsize::new(0)), mpsc::channel::<()>());
    let (counted, released) = (Arc::clone(&began), Mutex::new(released));
    metrics.add_collector(Box::new(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        // Ends when the sender is dropped.
        let _ = released.lock().recv();
    }));
    let hanging = |count| {
        let metrics = Arc::clone(&metrics);
        async move {
            for _ in 0..count {
                let scrape = tokio::time::timeout(Duration::from_millis(100), metrics.scrape());
                assert!(scrape.await.is_err(), "the collector hangs");
            }
        }
    };
    hanging(RENDERINGS_AT_ONCE).await;
    // On a busy machine, a thread may start after its scrape has timed out.
    let deadline = Instant::now() + Duration::from_secs(20);
    while began.load(Ordering::Relaxed) < RENDERINGS_AT_ONCE {
        assert!(Instant::now() < deadline, "a rendering did not start");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    hanging(3).await;
    assert_eq!(began.load(Ordering::Relaxed), RENDERINGS_AT_ONCE);
    drop(release);
    metrics.scrape().await.expect("renders once the collector ends");
}

#[test]
fn what_is_parked_counts_until_it_is_dropped() {
    let metrics = Metrics::new();
    let size = |operation: &str| {
        let (samples, _) = parse(&metrics.render(vec![]));
        samples[&format!("kafka_server_purgatory_size{{operation=\"{operation}\"}}")]
    };
    assert_eq!(size("Produce"), 0.0);
    let parked = [metrics.purgatory.park_produce(), metrics.purgatory.park_produce()];
    let fetch = metrics.purgatory.park_fetch();
    metrics.purgatory.set_groups(3, 4);
    assert_eq!((size("Produce"), size("Fetch")), (2.0, 1.0));
    assert_eq!((size("Rebalance"), size("Heartbeat")), (3.0, 4.0));
    drop(parked);
    drop(fetch);
    assert_eq!((size("Produce"), size("Fetch")), (0.0, 0.0));
}

#[test]
fn other_handles() {
    let metrics = Metrics::new();
    let counter = metrics.counter("kafka_log_flushes_total", "Flushes", &[("dir", "/d 1")]);
    counter.increment(2);
    metrics.gauge("kafka_server_tasks", "Running", &[("kind", "any")]).set(4);
    let flush = metrics.histogram("kafka_log_wait_seconds", "Time to wait", &[("dir", "x")]);
    flush.observe(Duration::from_millis(3));
    let (samples, types) = parse(&metrics.render(vec![]));
    assert_eq!(samples["kafka_log_flushes_total{dir=\"/d 1\"}"], 2.0);
    assert_eq!(samples["kafka_server_tasks{kind=\"any\"}"], 4.0);
    assert_eq!(samples["kafka_log_wait_seconds_bucket{dir=\"x\",le=\"0.005\"}"], 1.0);
    assert_eq!(types["kafka_log_wait_seconds"], "histogram");
}

#[test]
fn the_process_shows() {
    let (samples, _) = parse(&Metrics::new().render(vec![]));
    assert_eq!(
        samples[concat!("kafka_server_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}")],
        1.0
    );
    assert!(samples["process_resident_memory_bytes"] > 100_000.0);
    assert!(samples["process_virtual_memory_bytes"] > samples["process_resident_memory_bytes"]);
    assert!(samples["process_open_fds"] >= 3.0);
    assert!(samples["process_max_fds"] >= samples["process_open_fds"]);
    assert!(samples["process_threads"] >= 1.0);
    assert!(samples["process_cpu_seconds_total"] >= 0.0);
    let started = samples["process_start_time_seconds"];
    let now = crate::base::environment::now_ms() as f64 / 1000.0;
    assert!((0.0..3600.0).contains(&(now - started + 1.0)), "{started} is not long before {now}");
}
