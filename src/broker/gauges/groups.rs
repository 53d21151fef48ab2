//! Metrics of groups: members, state, and lag in offsets and in seconds.

use std::{
    collections::{BTreeSet, HashMap},
    time::Instant,
};

use crate::{
    base::{TopicId, TopicPartition},
    coordinator::group::{consumer::state::GroupState, messages::GroupSurvey, state::State},
    partition::{Partition, PartitionTable, View},
    telemetry::{Kind, Labels, Scrape},
};

/// Numbers of pending operations of all groups together.
#[derive(Default, PartialEq, Eq, Debug)]
pub struct Parked {
    pub rebalances: usize,
    pub sessions: usize,
}

/// Collects the metrics of groups in one scrape.
pub struct GroupGauges<'a> {
    pub partitions: &'a PartitionTable,
    pub record_times: &'a mut RecordTimes,
    pub now_ms: i64,
}

/// A group's committed offset in a partition, with its lag.
struct Position {
    labels: Labels,
    committed: i64,
    /// `None` if this broker has no replica of the partition.
    lag: Option<i64>,
    /// `None` if it is unknown, or could not be looked up in time.
    lag_seconds: Option<f64>,
}

impl GroupGauges<'_> {
    pub fn collect(&mut self, mut surveys: Vec<GroupSurvey>, scrape: &mut Scrape) -> Parked {
        surveys.sort_unstable_by(|a, b| a.group.cmp(&b.group));
        collect_groups(&surveys, scrape);
        let positions: Vec<_> = surveys
            .iter()
            .flat_map(|survey| survey.offsets.iter().map(|(place, at)| (&survey.group, place, *at)))
            .map(|(group, place, committed)| self.position(group, place, committed))
            .collect();
        collect_positions(&positions, scrape);
        surveys.iter().fold(Parked::default(), |parked, survey| Parked {
            rebalances: parked.rebalances + survey.parked,
            sessions: parked.sessions + survey.sessions,
        })
    }

    fn position(&mut self, group: &str, place: &TopicPartition, committed: i64) -> Position {
        let index = place.partition.to_string();
        let labels = [("consumergroup", group), ("topic", &place.topic), ("partition", &index)];
        let labels = Labels::new(&labels);
        let mut position = Position { labels, committed, lag: None, lag_seconds: None };
        let Some(topic) = self.partitions.topic(&place.topic) else { return position };
        let Ok(partition) = topic.partition(place.partition) else { return position };
        let view = partition.view();
        position.lag = Some((view.high_watermark - committed).max(0));
        position.lag_seconds = self.lag_seconds(topic.id, &partition, &view, committed);
        position
    }

    /// The age in seconds of the first record that the group has not consumed, or 0 if there is
    /// none. `None` if it is unknown.
    fn lag_seconds(
        &mut self,
        topic: TopicId,
        partition: &Partition,
        view: &View,
        committed: i64,
    ) -> Option<f64> {
        // Records that retention has deleted do not count.
        let first = committed.max(view.log.log_start());
        if first >= view.high_watermark {
            return Some(0.0);
        }
        let key = (topic, partition.id.partition, first);
        let made_ms = self.record_times.get(key, partition, view)?;
        Some((self.now_ms - made_ms).max(0) as f64 / 1000.0)
    }
}

/// Collects members and states of the groups.
fn collect_groups(surveys: &[GroupSurvey], scrape: &mut Scrape) {
    let name = "kafka_consumergroup_members";
    let mut family = scrape.family(name, "Members of the group", Kind::Gauge);
    for survey in surveys {
        family.sample(&[("consumergroup", &survey.group)], survey.members as f64);
    }
    let name = "kafka_consumergroup_state";
    let mut family = scrape.family(name, "1 for the state that the group is in", Kind::Gauge);
    for survey in surveys {
        family.sample(&[("consumergroup", &survey.group), ("state", survey.state)], 1.0);
    }
    let mut family = scrape.family("kafka_server_groups", "Groups by state", Kind::Gauge);
    // Groups of both protocols can be empty or stable.
    let states = State::ALL.map(State::name).into_iter();
    let states: BTreeSet<_> = states.chain(GroupState::ALL.map(GroupState::name)).collect();
    for state in states {
        let count = surveys.iter().filter(|survey| survey.state == state).count();
        family.sample(&[("state", state)], count as f64);
    }
}

/// Collects committed offsets and lags of the groups.
fn collect_positions(positions: &[Position], scrape: &mut Scrape) {
    type Gauge = fn(&Position) -> Option<f64>;
    const GAUGES: [(&str, &str, Gauge); 3] = [
        ("kafka_consumergroup_current_offset", "The offset that the group has committed", |it| {
            Some(it.committed as f64)
        }),
        (
            "kafka_consumergroup_lag",
            "Offsets that consumers may read and the group has not",
            |it| it.lag.map(|lag| lag as f64),
        ),
        (
            "kafka_consumergroup_lag_seconds",
            "Age of the first record that the group has not consumed; 0 without lag",
            |it| it.lag_seconds,
        ),
    ];
    for (name, help, value) in GAUGES {
        let mut family = scrape.family(name, help, Kind::Gauge);
        for position in positions {
            if let Some(value) = value(position) {
                family.sample_of(&position.labels, value);
            }
        }
    }
}

/// A partition, by its topic's id, and an offset in it.
type Place = (TopicId, i32, i64);

/// A cache of the timestamps of records at committed offsets. An offset that was looked up for the
/// previous scrape is not looked up again. Entries that a scrape does not use are dropped.
#[derive(Default)]
pub struct RecordTimes {
    before: HashMap<Place, Option<i64>>,
    now: HashMap<Place, Option<i64>>,
    /// No record is looked up after this time, because disks may be slow. The next scrape continues
    /// with the missing ones.
    deadline: Option<Instant>,
}

impl RecordTimes {
    /// Begins a scrape that looks nothing up after `deadline`.
    pub fn begin(&mut self, deadline: Instant) {
        self.before = std::mem::take(&mut self.now);
        self.deadline = Some(deadline);
    }

    fn get(&mut self, place: Place, partition: &Partition, view: &View) -> Option<i64> {
        let known = self.now.get(&place).or_else(|| self.before.get(&place)).copied();
        let made_ms = match known {
            Some(made_ms) => made_ms,
            None if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                return None;
            }
            None => match view.log.timestamp_at(place.2, view.high_watermark) {
                Ok(made_ms) => made_ms,
                Err(error) => {
                    tracing::debug!(partition = %partition.id, %error, "no lag in seconds");
                    return None;
                }
            },
        };
        self.now.insert(place, made_ms);
        made_ms
    }
}
