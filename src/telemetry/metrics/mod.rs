//! The broker's metrics. Counters and gauges that live as long as the broker are `metrics` handles
//! of a recorder of its own; what comes and goes (topics) and what must be quick (latencies) are
//! atomics here, written at a scrape like what collectors compute.
//!
//! Names: prefix `kafka_`, units and `_total` last; `process_` as every Prometheus client library
//! names them. Collectors follow kafka_exporter where it has a name for the thing
//! (`kafka_topic_partition_current_offset`, ...).

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
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::sync::Semaphore;

/// Threads that renderings may occupy.
const RENDERINGS_AT_ONCE: usize = 2;

/// Writes families at a scrape. It may block a little, but must not wait for a scrape.
pub type Collector = Box<dyn Fn(&mut Scrape) + Send + Sync>;

/// Asks other tasks before a scrape is rendered, and gives what is to be written then. It must end
/// by itself, for the scrape waits for it.
pub type Survey = Box<dyn Fn() -> Pin<Box<dyn Future<Output = SurveyResult> + Send>> + Send + Sync>;
pub type SurveyResult = Box<dyn FnOnce(&mut Scrape) + Send>;

/// All metrics of one broker.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    apis: ApiTable,
    pub connections: ConnectionMetrics,
    pub purgatory: PurgatoryMetrics,
    /// Time that a log takes to be made durable (Kafka's `LogFlushRateAndTimeMs`).
    pub log_flush_seconds: Arc<Histogram>,
    /// By name, so that a scrape lists them in order.
    topics: RwLock<BTreeMap<Arc<str>, Arc<TopicMetrics>>>,
    histograms: Mutex<Vec<RegisteredHistogram>>,
    collectors: Mutex<Vec<Arc<Collector>>>,
    surveys: Mutex<Vec<Arc<Survey>>>,
    /// Held by each rendering.
    renderings: Arc<Semaphore>,
}

struct RegisteredHistogram {
    name: &'static str,
    help: &'static str,
    labels: Vec<(&'static str, String)>,
    histogram: Arc<Histogram>,
}

/// A count that only rises.
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

/// What one topic's partitions on this broker took in and gave out.
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
    /// Counts a batch appended for a produce request.
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
    /// Over `max.connections` or one of its kin.
    Limit,
    /// The client sent what cannot be understood.
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

/// The clients' connections.
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

/// The recorder asks for it and does not look at it.
const METADATA: Metadata<'static> = Metadata::new("sordini", Level::INFO, None);

fn key(name: &'static str, labels: &[(&str, &str)]) -> Key {
    let labels = labels.iter().map(|(name, value)| Label::new(name.to_string(), value.to_string()));
    Key::from_parts(name, labels.collect::<Vec<_>>())
}

impl Metrics {
    /// Metrics of their own: nothing global is set, so there can be several.
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

    /// The handles of an API, made when they are first asked for. Keys that Kafka does not have
    /// share one.
    pub fn api(&self, api_key: i16) -> &ApiMetrics {
        self.apis.get(api_key, &Registry(&self.recorder))
    }

    /// The handles of a topic; to be kept while one of its partitions is open.
    pub fn topic(&self, name: &str) -> Arc<TopicMetrics> {
        if let Some(topic) = self.topics.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Arc::clone(topic);
        }
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(topics.entry(name.into()).or_default())
    }

    /// Ends a deleted topic's series.
    pub fn remove_topic(&self, name: &str) {
        self.topics.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// A counter that lives as long as the broker. The name ends in `_total`.
    pub fn counter(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&str, &str)],
    ) -> Counter {
        Registry(&self.recorder).counter(name, help, labels)
    }

    /// A gauge that lives as long as the broker.
    pub fn gauge(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)]) -> Gauge {
        Registry(&self.recorder).gauge(name, help, labels)
    }

    /// A histogram of durations that lives as long as the broker. The name ends in `_seconds`.
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
        self.histograms.lock().unwrap_or_else(PoisonError::into_inner).push(registered);
        histogram
    }

    /// Has `collector` asked at each scrape, after those added before it.
    pub fn add_collector(&self, collector: Collector) {
        let collector = Arc::new(collector);
        self.collectors.lock().unwrap_or_else(PoisonError::into_inner).push(collector);
    }

    /// Has `survey` asked at each scrape, before the collectors.
    pub fn add_survey(&self, survey: Survey) {
        self.surveys.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(survey));
    }

    /// All series in Prometheus' text format, version 0.0.4. Rendering many series takes
    /// milliseconds, and collectors may read files, so neither runs on a worker. Where a disk hangs,
    /// scrapes wait for those before them, and each occupies no thread of its own.
    pub async fn scrape(self: &Arc<Self>) -> Result<String, tokio::task::JoinError> {
        let permit = Arc::clone(&self.renderings).acquire_owned().await;
        let surveys = self.surveys.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut results = Vec::with_capacity(surveys.len());
        for survey in surveys {
            results.push(survey().await);
        }
        let metrics = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            // The caller may give up, but the thread is occupied until the rendering ends.
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
        // Cloned, so that a collector may take its time, or add another, without holding the lock.
        let collectors = self.collectors.lock().unwrap_or_else(PoisonError::into_inner).clone();
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
        let histograms = self.histograms.lock().unwrap_or_else(PoisonError::into_inner);
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
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
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
