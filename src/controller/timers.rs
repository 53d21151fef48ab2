//! The controller's periodic tasks: it fences brokers whose session times out, elects preferred
//! leaders, and elects leaders of partitions that have none. The two elections are scheduled only
//! after a change that may concern leaders, so an idle controller does not wake up for them.

use super::{
    Context, Decision,
    events::Cause,
    leadership::{self, in_order},
    partition_change::{Election, PartitionChange},
};
use crate::metadata::{MetadataRecord, topics::NO_LEADER};

/// The most elections of one run (Kafka's `ReplicationControlManager.MAX_ELECTIONS_PER_IMBALANCE`).
const MAX_ELECTIONS: usize = 1_000;

/// Runs one periodic task that is due, and returns its cause and its decision; `None` if none is
/// due. The caller must apply the records to the image before it calls this again.
pub(super) fn due(cx: &mut Context<'_>) -> Option<(Cause, Decision<()>)> {
    let (now_ms, settings) = (cx.now_ms, cx.settings);
    if let Some(id) = cx.volatile.stale(now_ms, settings.broker_session_timeout_ms) {
        cx.volatile.end_session(id);
        let broker = cx.image.broker(id).filter(|broker| !broker.fenced);
        let records = broker.map(|broker| leadership::fenced(cx, broker)).unwrap_or_default();
        let cause = Cause::fault("session_timeout", id);
        return Some((cause, Decision { records, response: () }));
    }
    let is_due = |at: Option<i64>| at.is_some_and(|at| at <= now_ms);
    if is_due(cx.volatile.balance_at) {
        let (records, left) = balance(cx);
        cx.volatile.balance_at = again(&records, left, now_ms, settings.balance_interval_ms);
        return Some((Cause::request("preferred_leader"), Decision { records, response: () }));
    }
    if is_due(cx.volatile.unclean_at) {
        let (records, left) = elect_unclean(cx);
        let interval = Some(settings.unclean_interval_ms);
        cx.volatile.unclean_at = again(&records, left, now_ms, interval);
        return Some((Cause::request("unclean_election"), Decision { records, response: () }));
    }
    None
}

/// Schedules the elections if the records of a decision may concern leaders. The task calls it
/// after each decision.
pub fn arm(cx: &mut Context<'_>, records: &[MetadataRecord]) {
    use MetadataRecord as R;
    let concerns_leaders = |record: &R| {
        matches!(
            record,
            R::Partition(_) | R::PartitionChange(_) | R::BrokerRegistrationChange(_) | R::Config(_)
        )
    };
    if !records.iter().any(concerns_leaders) {
        return;
    }
    let (now_ms, settings) = (cx.now_ms, cx.settings);
    if let Some(interval) = settings.balance_interval_ms {
        cx.volatile.balance_at.get_or_insert(now_ms + interval);
    }
    cx.volatile.unclean_at.get_or_insert(now_ms + settings.unclean_interval_ms);
}

/// When an election runs next: at once if this run reached `MAX_ELECTIONS`, after the interval if
/// partitions are left, and otherwise not.
fn again(
    records: &[MetadataRecord],
    left: bool,
    now_ms: i64,
    interval: Option<i64>,
) -> Option<i64> {
    match records.len() >= MAX_ELECTIONS {
        true => Some(now_ms),
        false => interval.filter(|_| left).map(|interval| now_ms + interval),
    }
}

/// Elects preferred leaders. The second value says whether some partition had another leader.
fn balance(cx: &Context<'_>) -> (Vec<MetadataRecord>, bool) {
    if cx.settings.balance_interval_ms.is_none() {
        return (Vec::new(), false);
    }
    elections(cx, Election::Preferred, |state| {
        state.replicas.first().is_some_and(|preferred| *preferred != state.leader)
    })
}

/// Elects leaders of partitions that have none, in topics that allow unclean elections. The second
/// value says whether there was such a partition.
fn elect_unclean(cx: &Context<'_>) -> (Vec<MetadataRecord>, bool) {
    elections(cx, Election::Unclean, |state| state.leader == NO_LEADER)
}

/// Runs an election on each partition for which `concerned` is true, up to `MAX_ELECTIONS`.
fn elections(
    cx: &Context<'_>,
    election: Election,
    concerned: impl Fn(&crate::metadata::PartitionImage) -> bool,
) -> (Vec<MetadataRecord>, bool) {
    let (mut records, mut left) = (Vec::new(), false);
    for topic in in_order(cx.image) {
        if election == Election::Unclean && !cx.allows_unclean_election(&topic.name) {
            continue;
        }
        let partitions = topic.partitions.iter().zip(0..);
        for (_, at) in partitions.filter(|(state, _)| concerned(state)) {
            left = true;
            let Some(mut change) = PartitionChange::new(cx, topic, at) else { continue };
            change.election = election;
            records.extend(change.build().map(MetadataRecord::from));
            if records.len() >= MAX_ELECTIONS {
                return (records, true);
            }
        }
    }
    (records, left)
}
