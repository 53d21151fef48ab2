//! Metrics of this broker's state: its partitions, the groups and the transactions that it
//! coordinates, its log directories. Names are those of kafka_exporter if it has the metric.

mod groups;
mod partitions;
#[cfg(test)]
mod tests;
mod transactions;

use std::{collections::HashSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use self::groups::{GroupGauges, RecordTimes};
use super::Broker;
use crate::{
    base::environment::now_ms,
    metadata::TopicImage,
    partition::PartitionTable,
    telemetry::{Kind, Scrape, SurveyResult},
};

/// The longest time that a scrape waits for coordinator shards, which may wait for a disk, and the
/// longest time that it looks up records. Values that are not ready in time are left out.
const WAIT_MAX: Duration = Duration::from_secs(1);

impl Broker {
    /// Registers the collectors of this broker's metrics.
    pub fn add_gauges(self: &Arc<Self>) {
        // Weak, because the broker owns its metrics: a cycle of references would leak both.
        let broker = Arc::downgrade(self);
        self.metrics.add_collector(Box::new(move |scrape| {
            if let Some(broker) = broker.upgrade() {
                partitions::collect(&broker.replicas.partitions, scrape);
                collect_topics(
                    broker.metadata().topics.iter(),
                    &broker.replicas.partitions,
                    scrape,
                );
                broker.collect_own(scrape);
            }
        }));
        let broker = Arc::downgrade(self);
        let record_times = Arc::new(Mutex::new(RecordTimes::default()));
        self.metrics.add_survey(Box::new(move || {
            let (broker, record_times) = (broker.clone(), Arc::clone(&record_times));
            Box::pin(async move {
                let Some(broker) = broker.upgrade() else {
                    let nothing: SurveyResult = Box::new(|_| {});
                    return nothing;
                };
                let deadline = Instant::now() + WAIT_MAX;
                let surveys = broker.coordinators.groups.survey(deadline).await;
                let survey = broker.coordinators.transactions.survey(deadline).await;
                let write: SurveyResult = Box::new(move |scrape| {
                    transactions::collect_survey(&survey, scrape);
                    let mut record_times = record_times.lock();
                    record_times.begin(std::time::Instant::now() + WAIT_MAX);
                    let mut gauges = GroupGauges {
                        partitions: &broker.replicas.partitions,
                        record_times: &mut record_times,
                        now_ms: now_ms(),
                    };
                    let parked = gauges.collect(surveys, scrape);
                    broker.metrics.purgatory.set_groups(parked.rebalances, parked.sessions);
                });
                write
            })
        }));
    }

    fn collect_own(&self, scrape: &mut Scrape) {
        transactions::collect_counters(self.coordinators.transactions.counters(), scrape);
        let offline_dirs =
            self.replicas.lock_dirs().dirs().iter().filter(|dir| dir.is_offline()).count();
        let (sessions, evictions) = {
            let cache = self.sessions.lock();
            (cache.len(), cache.evictions())
        };
        self.cleaner.collect(scrape);
        let (name, help) = ("kafka_log_offline_dirs", "Log directories that have failed");
        scrape.gauge(name, help, &[], offline_dirs as f64);
        let (name, help) =
            ("kafka_server_replica_max_lag", "Records that replicas are behind, at most");
        scrape.gauge(name, help, &[], self.replicas.replication.max_lag() as f64);
        let (name, help) = ("kafka_server_fetch_sessions", "Incremental fetch sessions");
        scrape.gauge(name, help, &[], sessions as f64);
        let name = "kafka_server_fetch_session_evictions_total";
        scrape.counter(name, "Fetch sessions evicted for new ones", &[], evictions as f64);
    }
}

/// Collects metrics of the topics in metadata, whether or not their logs could be opened.
fn collect_topics<'a>(
    topics: impl Iterator<Item = &'a Arc<TopicImage>>,
    table: &PartitionTable,
    scrape: &mut Scrape,
) {
    let mut topics: Vec<_> = topics.collect();
    topics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let mut family = scrape.family("kafka_topic_partitions", "Partitions", Kind::Gauge);
    let mut offline = 0;
    for topic in topics {
        family.sample(&[("topic", &topic.name)], topic.partitions.len() as f64);
        let unusable = table.topic_by_id(topic.id).map(|here| here.offline());
        let unusable: HashSet<i32> = unusable.into_iter().flatten().collect();
        let numbered = (0..).zip(&topic.partitions);
        offline += numbered
            .filter(|(index, partition)| partition.leader < 0 || unusable.contains(index))
            .count();
    }
    let name = "kafka_server_offline_partitions";
    let help = "Partitions without a leader, or whose log here cannot be used";
    scrape.gauge(name, help, &[], offline as f64);
}
