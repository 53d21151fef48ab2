//! Bugs that a simulation plants, to prove that its checks find them. Only builds with the feature
//! `simulation` can have them.

/// A bug that a simulation can plant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A follower does not send its leader the epoch of its last record, so that it keeps records
    /// that the leader lacks.
    SkipTruncation,
    /// An append is acknowledged before all in-sync replicas have it.
    EarlyAck,
    /// A leader treats a replica as out of the ISR before the controller has removed it.
    StaleIsr,
    /// A broker registers although the session of its previous process is still active, and keeps
    /// the leaderships of that process.
    MissingFence,
    /// Appends that wait are not completed when their replica is no longer the leader.
    LostWaiter,
    /// A coordinator answers before the records of its decision are committed.
    EarlyCoordinatorAnswer,
    /// The last stable offset no longer waits for a transaction once its marker is appended, before
    /// the marker is committed.
    EarlyStableOffset,
    /// A marker counts as written when the request to write it fails.
    LostMarker,
    /// A partition accepts a marker of an older coordinator epoch than the last one.
    OldCoordinatorMarker,
    /// A group coordinator leaves out the offsets in transactions.
    LostPendingOffset,
    /// A consumer group assigns a partition that another member must still revoke.
    AssignBeforeRevoke,
    /// A heartbeat of a consumer group is answered before its records are committed.
    EarlyHeartbeatAnswer,
    /// A consumer group that is deleted leaves its offsets to the next group with the same id.
    KeptGroupOffsets,
    /// In transaction version 2, EndTxn with an older producer epoch ends the open transaction.
    LateEndTxn,
    /// A follower keeps no state of producers.
    NoProducerState,
    /// Compaction replaces segments by a new one that was not synced.
    UnsyncedSwap,
    /// Compaction maps the keys of aborted records, which then hide committed ones.
    AbortedInMap,
    /// Compaction drops the batch with the last sequence of a producer if none of its records stays.
    ForgottenSequence,
    /// Compaction drops the last batch of a round if none of its records stays.
    ForgottenRoundEnd,
    /// A replaced segment still opens its files by the names that the new segment has.
    ReopenedByOldName,
    /// The first dirty offset passes segments that a round has not replaced yet.
    EarlyFirstDirty,
}

#[cfg(any(test, feature = "simulation"))]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug in all code that this thread runs, or removes it.
#[cfg(any(test, feature = "simulation"))]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// The bug that is planted in the code that this thread runs.
#[cfg(any(test, feature = "simulation"))]
pub fn planted() -> Option<Bug> {
    PLANTED.get()
}

/// Whether the bug is planted.
#[cfg(any(test, feature = "simulation"))]
pub fn has_bug(bug: Bug) -> bool {
    planted() == Some(bug)
}

/// Always false: this build cannot plant a bug.
#[cfg(not(any(test, feature = "simulation")))]
pub const fn has_bug(_: Bug) -> bool {
    false
}
