//! The broker's metrics. Counters and gauges that exist as long as the broker are handles of the
//! `metrics` crate, from a recorder of this broker. Metrics of topics, which come and go, and
//! latencies, which must be cheap, are atomics in this module. A scrape writes these, and what
//! collectors compute.
//!
//! Names begin with `kafka_` and end with the unit and `_total`. Those with `process_` are the
//! names that all Prometheus client libraries use. Collectors use the names of kafka_exporter where
//! it has one (`kafka_topic_partition_current_offset`, ...).

mod api;
mod histogram;
mod process;
mod purgatory;
mod scrape;

pub use api::ApiMetrics;
pub use histogram::Histogram;
pub use purgatory::{Parked, PurgatoryMetrics};
pub use scrape::{Family, Kind, Labels, Scrape};

use ::metrics::{Counter, Gauge, Key, KeyName, Label, Level, Metadata, Recorder};
use api::ApiTable;
use futures_core::future::BoxFuture;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;

/// Most scrapes that are rendered at the same time, each on a thread.
const RENDERINGS_AT_ONCE: usize = 2;

/// A function that writes metric families at each scrape. It runs on a blocking thread and may
/// block briefly, but must not wait for another scrape.
pub type Collector = Box<dyn Fn(&mut Scrape) + Send + Sync>;

/// A function that asks other tasks before a scrape is rendered, and returns what writes the
/// results. It must end by itself, because the scrape waits for it.
pub type Survey = Box<dyn Fn() -> BoxFuture<'static, SurveyResult> + Send + Sync>;
pub type SurveyResult = Box<dyn FnOnce(&mut Scrape) + Send>;

/// All metrics of one broker.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    apis: ApiTable,
    pub connections: ConnectionMetrics,
    pub purgatory: PurgatoryMetrics,
    /// Time to make a log durable (Kafka's `LogFlushRateAndTimeMs`).
    pub log_flush_seconds: Arc<Histogram>,
    /// Topics by name, so that a scrape lists them in order.
    topics: RwLock<BTreeMap<Arc<str>, Arc<TopicMetrics>>>,
    histograms: Mutex<Vec<RegisteredHistogram>>,
    collectors: Mutex<Vec<Arc<Collector>>>,
    surveys: Mutex<Vec<Arc<Survey>>>,
    /// One permit for each rendering that may run.
    renderings: Arc<Semaphore>,
}

struct RegisteredHistogram {
    name: &'static str,
    help: &'static str,
    labels: Vec<(&'static str, String)>,
    histogram: Arc<Histogram>,
}

/// A counter.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn increment(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Traffic of one topic's partitions on this broker.
#[derive(Debug, Default)]
pub struct TopicMetrics {
    /// Bytes of batches appended.
    pub bytes_in: Count,
    /// Bytes of batches fetched by consumers.
    pub bytes_out: Count,
    pub messages_in: Count,
    pub produce_requests: Count,
    pub fetch_requests: Count,
    pub failed_produce_requests: Count,
    pub failed_fetch_requests: Count,
}

impl TopicMetrics {
    /// Counts a batch that a produce request has appended.
    pub fn produced(&self, bytes: u64, records: u64) {
        self.bytes_in.increment(bytes);
        self.messages_in.increment(records);
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The client closed it.
    Client,
    /// Idle for `connections.max.idle.ms`.
    Idle,
    /// Over `max.connections` or another limit of connections.
    Limit,
    /// The client sent an invalid request.
    Protocol,
    /// The network failed.
    Io,
    Shutdown,
}

impl CloseReason {
    const ALL: [(Self, &str); 6] = [
        (Self::Client, "client"),
        (Self::Idle, "idle"),
        (Self::Limit, "limit"),
        (Self::Protocol, "protocol"),
        (Self::Io, "io"),
        (Self::Shutdown, "shutdown"),
    ];
}

/// Counts of client connections.
pub struct ConnectionMetrics {
    open: Gauge,
    accepted: Counter,
    closed: [Counter; CloseReason::ALL.len()],
}

impl ConnectionMetrics {
    fn new(registry: &Registry) -> Self {
        let (name, help) = ("kafka_server_connections_closed_total", "Connections closed");
        Self {
            open: registry.gauge("kafka_server_connections", "Open connections", &[]),
            accepted: registry.counter(
                "kafka_server_connections_accepted_total",
                "Connections accepted",
                &[],
            ),
            closed: CloseReason::ALL
                .map(|(_, reason)| registry.counter(name, help, &[("reason", reason)])),
        }
    }

    pub fn opened(&self) {
        self.accepted.increment(1);
        self.open.increment(1);
    }

    pub fn closed(&self, reason: CloseReason) {
        self.closed[reason as usize].increment(1);
        self.open.decrement(1);
    }
}

/// Registers handles with the recorder.
struct Registry<'a>(&'a PrometheusRecorder);

impl Registry<'_> {
    fn counter(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)]) -> Counter {
        self.0.describe_counter(KeyName::from_const_str(name), None, help.into());
        self.0.register_counter(&key(name, labels), &METADATA)
    }

    fn gauge(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)]) -> Gauge {
        self.0.describe_gauge(KeyName::from_const_str(name), None, help.into());
        self.0.register_gauge(&key(name, labels), &METADATA)
    }
}

/// The recorder requires metadata and ignores it.
const METADATA: Metadata<'static> = Metadata::new("sordini", Level::INFO, None);

fn key(name: &'static str, labels: &[(&str, &str)]) -> Key {
    let labels = labels.iter().map(|(name, value)| Label::new(name.to_string(), value.to_string()));
    Key::from_parts(name, labels.collect::<Vec<_>>())
}

impl Metrics {
    /// Creates independent metrics. Nothing global is set, so a process can have several.
    pub fn new() -> Arc<Metrics> {
        let recorder = PrometheusBuilder::new().build_recorder();
        let build = Registry(&recorder).gauge(
            "kafka_server_build_info",
            "Version of the broker, in a label",
            &[("version", env!("CARGO_PKG_VERSION"))],
        );
        build.set(1);
        let log_flush_seconds = Arc::new(Histogram::default());
        let log_flush = RegisteredHistogram {
            name: "kafka_log_flush_seconds",
            help: "Time to make a log durable",
            labels: vec![],
            histogram: Arc::clone(&log_flush_seconds),
        };
        Arc::new(Metrics {
            handle: recorder.handle(),
            apis: ApiTable::new(),
            connections: ConnectionMetrics::new(&Registry(&recorder)),
            purgatory: PurgatoryMetrics::new(&Registry(&recorder)),
            topics: RwLock::default(),
            log_flush_seconds,
            histograms: Mutex::new(vec![log_flush]),
            collectors: Mutex::default(),
            surveys: Mutex::default(),
            renderings: Arc::new(Semaphore::new(RENDERINGS_AT_ONCE)),
            recorder,
        })
    }

    /// The handles of an API, created at the first call. All keys that Kafka does not have share
    /// one set.
    pub fn api(&self, api_key: i16) -> &ApiMetrics {
        self.apis.get(api_key, &Registry(&self.recorder))
    }

    /// The counters of a topic. The caller keeps them while one of the topic's partitions is open.
    pub fn topic(&self, name: &str) -> Arc<TopicMetrics> {
        if let Some(topic) = self.topics.read().get(name) {
            return Arc::clone(topic);
        }
        let mut topics = self.topics.write();
        Arc::clone(topics.entry(name.into()).or_default())
    }

    /// Removes the series of a deleted topic.
    pub fn remove_topic(&self, name: &str) {
        self.topics.write().remove(name);
    }

    /// Creates a counter that exists as long as the broker. The name must end in `_total`.
    pub fn counter(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&str, &str)],
    ) -> Counter {
        Registry(&self.recorder).counter(name, help, labels)
    }

    /// Creates a gauge that exists as long as the broker.
    pub fn gauge(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)]) -> Gauge {
        Registry(&self.recorder).gauge(name, help, labels)
    }

    /// Creates a histogram of durations that exists as long as the broker. The name must end in
    /// `_seconds`.
    pub fn histogram(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
    ) -> Arc<Histogram> {
        let histogram = Arc::new(Histogram::default());
        let labels = labels.iter().map(|(name, value)| (*name, value.to_string())).collect();
        let registered =
            RegisteredHistogram { name, help, labels, histogram: Arc::clone(&histogram) };
        self.histograms.lock().push(registered);
        histogram
    }

    /// Calls `collector` at each scrape, after those added before it.
    pub fn add_collector(&self, collector: Collector) {
        let collector = Arc::new(collector);
        self.collectors.lock().push(collector);
    }

    /// Calls `survey` at each scrape, before the collectors.
    pub fn add_survey(&self, survey: Survey) {
        self.surveys.lock().push(Arc::new(survey));
    }

    /// Returns all series in the text format of Prometheus, version 0.0.4. Rendering takes
    /// milliseconds, and collectors may read files, so rendering runs on a blocking thread. If
    /// collectors hang, later scrapes wait without a thread of their own.
    pub async fn scrape(self: &Arc<Self>) -> Result<String, tokio::task::JoinError> {
        let permit = Arc::clone(&self.renderings).acquire_owned().await;
        let surveys = self.surveys.lock().clone();
        let mut results = Vec::with_capacity(surveys.len());
        for survey in surveys {
            results.push(survey().await);
        }
        let metrics = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            // If the caller stops waiting, the thread is still in use until the rendering ends.
            let _permit = permit;
            metrics.render(results)
        })
        .await
    }

    fn render(&self, surveys: Vec<SurveyResult>) -> String {
        let mut scrape = Scrape::default();
        self.apis.collect(&mut scrape);
        self.collect_topics(&mut scrape);
        self.collect_histograms(&mut scrape);
        process::collect(&mut scrape);
        // Cloned, so that the lock is not held while collectors run. A collector may add another
        // one.
        let collectors = self.collectors.lock().clone();
        for collector in collectors {
            collector(&mut scrape);
        }
        for write in surveys {
            write(&mut scrape);
        }
        let mut text = self.handle.render();
        scrape.write_to(&mut text);
        text
    }

    fn collect_histograms(&self, scrape: &mut Scrape) {
        let histograms = self.histograms.lock();
        for RegisteredHistogram { name, help, labels, histogram } in histograms.iter() {
            let labels: Vec<_> = labels.iter().map(|(name, value)| (*name, &value[..])).collect();
            scrape.histogram(name, help, &labels, histogram);
        }
    }

    fn collect_topics(&self, scrape: &mut Scrape) {
        type Field = fn(&TopicMetrics) -> &Count;
        const FIELDS: [(&str, &str, Field); 7] = [
            ("bytes_in_total", "Bytes of record batches appended", |topic| &topic.bytes_in),
            ("bytes_out_total", "Bytes of record batches fetched", |topic| &topic.bytes_out),
            ("messages_in_total", "Records appended", |topic| &topic.messages_in),
            ("produce_requests_total", "Produce requests, per partition of the topic", |topic| {
                &topic.produce_requests
            }),
            ("fetch_requests_total", "Fetch requests, per partition of the topic", |topic| {
                &topic.fetch_requests
            }),
            ("failed_produce_requests_total", "Produce requests refused", |topic| {
                &topic.failed_produce_requests
            }),
            ("failed_fetch_requests_total", "Fetch requests refused", |topic| {
                &topic.failed_fetch_requests
            }),
        ];
        let topics = self.topics.read();
        for (name, help, field) in FIELDS {
            let name = format!("kafka_topic_{name}");
            let mut family = scrape.family(&name, help, Kind::Counter);
            for (topic, metrics) in topics.iter() {
                family.sample(&[("topic", topic)], field(metrics).get() as f64);
            }
        }
    }
}

#[cfg(test)]
mod tests;
