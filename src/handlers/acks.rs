//! The wait until appended records are acknowledged.

use std::sync::Arc;

use super::{ErrorCode, errors};
use crate::{
    base::planted_bugs::{Bug, has_bug},
    partition::{Acks, Appended, Partition},
};

/// Records that this broker has appended as leader.
pub struct AckWait {
    partition: Arc<Partition>,
    end_offset: i64,
    leadership_generation: u64,
    acks: Acks,
}

impl AckWait {
    /// `None` if the records are acknowledged already.
    pub fn new(partition: Arc<Partition>, appended: &Appended, acks: Acks) -> Option<Self> {
        let end_offset = appended.last_offset + 1;
        let leadership_generation = appended.leadership_generation;
        let must_wait = match acks {
            Acks::All => !partition.has_committed(end_offset, leadership_generation),
            Acks::Leader => appended.flush_due,
        };
        must_wait.then_some(Self { partition, end_offset, leadership_generation, acks })
    }

    /// Waits until the records are acknowledged, and returns `None`, or until they cannot be any
    /// more, and returns the reason.
    pub async fn refused(&self) -> Option<ErrorCode> {
        if has_bug(Bug::EarlyAck) {
            return None;
        }
        let (partition, end, leadership_generation) =
            (&self.partition, self.end_offset, self.leadership_generation);
        let committed = match self.acks {
            Acks::All => partition.wait_committed(end, leadership_generation).await,
            Acks::Leader => partition.wait_durable(end, leadership_generation).await,
        };
        let view = partition.view();
        match committed {
            false => Some(errors::not_committed(view.role)),
            // The records are committed, but the ISR is now smaller than `min.insync.replicas`.
            true if self.acks == Acks::All && view.isr.maximal < view.isr.min => {
                Some(ErrorCode::NotEnoughReplicasAfterAppend)
            }
            true => None,
        }
    }
}
