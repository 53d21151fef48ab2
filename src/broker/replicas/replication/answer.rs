//! Processing of a leader's Fetch response for one partition: append, truncate, or search for the
//! leader's range of offsets.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        BrokerId, ListOffsetsRequest, TopicName,
        fetch_response::PartitionData,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    },
    protocol::StrBytes,
};
use tracing::{debug, error, info, warn};

use super::followed::{Followed, Progress};
use crate::{
    base::{
        environment::now_ms,
        planted_bugs::{Bug, has_bug},
    },
    broker::Replicas,
    partition::{FetchPosition, Fetched, FollowError, Partition, Truncated},
    peers::{self, Channel, PeerError},
    protocol::ErrorCode,
    records::{Batch, BatchError, batch::LOG_OVERHEAD},
};

const LIST_OFFSETS_VERSION: i16 = 7;
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// Prepares the replica to follow in its leader epoch, and truncates it if necessary. Returns the
/// epoch of the last record of its log, or -1 if the log is empty. Returns `None` if the replica is
/// no longer a follower in this epoch, or if its log fails.
pub(super) fn begin(replicas: &Arc<Replicas>, followed: &Followed) -> Option<i32> {
    let partition = &followed.partition;
    let begun = partition.update(|core| {
        let truncated = core.begin_to_follow(followed.leader_epoch)?;
        Ok::<_, FollowError>((truncated, core.log().latest_epoch()))
    });
    match begun {
        Ok((truncated, last_epoch)) => {
            if let Some(truncated) = truncated {
                tell_truncation(partition, truncated);
            }
            let last_epoch = last_epoch.filter(|_| !has_bug(Bug::SkipTruncation));
            Some(last_epoch.unwrap_or(-1))
        }
        Err(error) => {
            tell(replicas, partition, &error);
            None
        }
    }
}

/// The response for a partition, with the position that was requested.
pub(super) struct Answered {
    pub ask: FetchPosition,
    pub data: PartitionData,
}

impl Answered {
    pub fn is_out_of_range(&self) -> bool {
        self.data.error_code == ErrorCode::OffsetOutOfRange.code()
    }

    /// Appends the records, or truncates the log if it diverges from the leader's. Adds the replica
    /// to `to_flush` if its records must be durable before they are acknowledged to the leader.
    pub fn take(
        self,
        replicas: &Arc<Replicas>,
        followed: &mut Followed,
        to_flush: &mut Vec<Arc<Partition>>,
    ) -> Progress {
        let partition = Arc::clone(&followed.partition);
        if self.data.error_code != 0 {
            tell_refusal(&partition, self.data.error_code);
            return Progress::Failed;
        }
        let diverging = &self.data.diverging_epoch;
        if diverging.end_offset >= 0 {
            let at = (diverging.epoch, diverging.end_offset);
            let (ask, now) = (self.ask, now_ms());
            let cut = partition.update(|core| core.truncate_to_diverging(ask, at, now));
            return truncated(replicas, &partition, cut);
        }
        let batches = match batches(self.data.records.unwrap_or_default()) {
            Ok(batches) => batches,
            Err(error) => {
                error!(partition = %partition.id, offset = self.ask.offset, %error,
                    "the leader has sent corrupt records");
                return Progress::Failed;
            }
        };
        let fetched = Fetched {
            leader_epoch: followed.leader_epoch,
            fetch_offset: self.ask.offset,
            batches: &batches,
            high_watermark: self.data.high_watermark,
            log_start: self.data.log_start_offset,
        };
        match partition.append_fetched(&fetched, now_ms()) {
            Ok(appended) => {
                followed.last_epoch = appended.last_epoch.or(followed.last_epoch);
                followed.lag = Some((fetched.high_watermark - appended.log_end).max(0));
                if appended.flush_due {
                    to_flush.push(partition);
                }
                Progress::Went
            }
            Err(error) => {
                tell(replicas, &partition, &error);
                Progress::Failed
            }
        }
    }

    /// Gets the start and end offset of the leader's log (ListOffsets), and moves the replica's log
    /// end into this range: by truncation, or by an empty log at the leader's start. To be called
    /// after OFFSET_OUT_OF_RANGE.
    pub async fn find_range(
        self,
        replicas: &Arc<Replicas>,
        leader_id: i32,
        leader: &dyn Channel,
        followed: &mut Followed,
    ) -> Progress {
        let partition = Arc::clone(&followed.partition);
        let patience = replicas.node.settings().cluster.replica_socket_timeout_ms.max(0) as u64;
        let patience = Duration::from_millis(patience);
        let mut range = [0, 0];
        for (at, which) in [EARLIEST, LATEST].into_iter().enumerate() {
            let request = list_offsets(replicas.node.id, &partition, followed.leader_epoch, which);
            let sent = peers::send(leader, LIST_OFFSETS_VERSION, &request, patience).await;
            match sent.map_err(|error: PeerError| error.to_string()).and_then(|response| {
                let answered = response.topics.first().and_then(|it| it.partitions.first());
                let answered = answered.ok_or("it did not answer the partition")?;
                match answered.error_code {
                    0 => Ok(answered.offset),
                    code => Err(format!("error {code}")),
                }
            }) {
                Ok(offset) => range[at] = offset,
                Err(error) => {
                    warn!(partition = %partition.id, leader = leader_id, %error,
                        "cannot get the offset range of the leader's log");
                    return Progress::Failed;
                }
            }
        }
        let [start, end] = range;
        warn!(partition = %partition.id, offset = self.ask.offset, start, end,
            "the log end of this replica is outside of the leader's log");
        let (ask, now) = (self.ask, now_ms());
        let cut = partition.update(|core| core.truncate_to_range(ask, (start, end), now));
        truncated(replicas, &partition, cut)
    }
}

/// The complete batches of a response. The last batch may be incomplete, and is then ignored.
///
/// # Errors
/// If a batch is corrupt.
fn batches(mut records: Bytes) -> Result<Vec<Batch>, BatchError> {
    let mut batches = Vec::new();
    while !records.is_empty() {
        match Batch::split_first(&mut records) {
            Ok(batch) => {
                batch.verify_crc()?;
                batches.push(batch);
            }
            Err(BatchError::TooShort(_)) => break,
            Err(BatchError::BadLength(length)) if is_cut(length, records.len()) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(batches)
}

/// Whether a batch whose header has this length needs more than the `left` bytes.
fn is_cut(batch_length: i32, left: usize) -> bool {
    usize::try_from(batch_length).is_ok_and(|length| length + LOG_OVERHEAD > left)
}

fn list_offsets(
    node_id: i32,
    partition: &Partition,
    leader_epoch: i32,
    timestamp: i64,
) -> ListOffsetsRequest {
    let asked = ListOffsetsPartition::default()
        .with_partition_index(partition.id.partition)
        .with_current_leader_epoch(leader_epoch)
        .with_timestamp(timestamp);
    let topic = ListOffsetsTopic::default()
        .with_name(TopicName(StrBytes::from_string(partition.id.topic.to_string())))
        .with_partitions(vec![asked]);
    ListOffsetsRequest::default().with_replica_id(BrokerId(node_id)).with_topics(vec![topic])
}

fn truncated(
    replicas: &Arc<Replicas>,
    partition: &Partition,
    cut: Result<Truncated, FollowError>,
) -> Progress {
    match cut {
        Ok(cut) => {
            tell_truncation(partition, cut);
            Progress::Truncated
        }
        Err(error) => {
            tell(replicas, partition, &error);
            match error {
                FollowError::OffsetMismatch { .. } => Progress::Truncated,
                FollowError::NotFollowing(_)
                | FollowError::LogStartPastHighWatermark { .. }
                | FollowError::Log(_) => Progress::Failed,
            }
        }
    }
}

fn tell_truncation(partition: &Partition, cut: Truncated) {
    let Truncated { log_end, log_end_before, below_high_watermark } = cut;
    match below_high_watermark {
        Some(high_watermark) => {
            error!(partition = %partition.id, log_end, log_end_before, high_watermark,
                "truncated below the high watermark: the leader lacks what was committed");
        }
        None => info!(partition = %partition.id, log_end, log_end_before, "truncated"),
    }
}

fn tell(replicas: &Arc<Replicas>, partition: &Partition, error: &FollowError) {
    match error {
        FollowError::NotFollowing(_) => {}
        FollowError::OffsetMismatch { .. } => {
            debug!(partition = %partition.id, %error, "an answer came too late");
        }
        FollowError::LogStartPastHighWatermark { .. } => {
            error!(partition = %partition.id, %error, "the leader's answer is refused");
        }
        FollowError::Log(error) => replicas.on_log_error(partition, error),
    }
}

fn tell_refusal(partition: &Partition, code: i16) {
    use ErrorCode::*;
    let code = ErrorCode::try_from_code(code);
    match code {
        // These are normal for a short time, while the brokers have different metadata.
        Some(
            NotLeaderOrFollower
            | UnknownLeaderEpoch
            | FencedLeaderEpoch
            | UnknownTopicId
            | UnknownTopicOrPartition
            | InconsistentTopicId,
        ) => debug!(partition = %partition.id, ?code, "the leader refuses a fetch"),
        _ => warn!(partition = %partition.id, ?code, "the leader refuses a fetch"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::testing::{batch, bytes_of};

    #[test]
    fn an_answer_may_end_within_a_batch() {
        let (first, second) = (batch(0, 2, 100), batch(2, 1, 50));
        let whole = [bytes_of(&first), bytes_of(&second)].concat();
        for len in 0..=whole.len() {
            let found = batches(Bytes::copy_from_slice(&whole[..len])).expect("is sound");
            let count = [first.size(), whole.len()].iter().filter(|end| **end <= len).count();
            assert_eq!(found, [first.clone(), second.clone()][..count], "{len} bytes");
        }
        let mut damaged = whole.clone();
        damaged[first.size() + 70] ^= 1;
        assert!(matches!(batches(damaged.into()), Err(BatchError::CrcMismatch { .. })));
        let mut damaged = whole;
        damaged[8..12].copy_from_slice(&(-5i32).to_be_bytes());
        assert_eq!(batches(damaged.into()), Err(BatchError::BadLength(-5)));
    }
}
