//! Bugs that a simulation plants, to prove that its checks find them. Only builds with the feature
//! `simulation` can have them.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A follower does not send its leader the epoch of its last record, so that it keeps records
    /// that the leader lacks.
    SkipTruncation,
    /// An append is acknowledged before the in-sync replicas have it.
    EarlyAck,
    /// A leader leaves a replica out of the ISR before the controller has removed it.
    StaleIsr,
    /// A process registers although its predecessor's session lives, and keeps the leaderships that
    /// the predecessor had.
    MissingFence,
    /// Appends are not woken when their replica no longer leads.
    LostWaiter,
}

#[cfg(any(test, feature = "simulation"))]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug in all code that this thread runs.
#[cfg(any(test, feature = "simulation"))]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether the bug is planted.
#[cfg(any(test, feature = "simulation"))]
pub fn has_bug(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Always false: this build cannot plant a bug.
#[cfg(not(any(test, feature = "simulation")))]
pub const fn has_bug(_: Bug) -> bool {
    false
}
