//! The progress of a round, as its caller sees it.

use std::ops::ControlFlow;

use super::{super::DeletedSegment, CleanError};

/// Receives the progress of a round. It can slow the round down, and end it.
pub trait Pace {
    /// Called after `bytes` were read or written. It may sleep. `Break` aborts the round.
    fn passed(&mut self, bytes: u64) -> ControlFlow<()>;
    /// Called once all keys are mapped, before the first segment is rewritten.
    fn mapped(&mut self) {}
    /// Called after segments were replaced durably. The callee removes their files after
    /// `file_delete_delay_ms`.
    fn replaced(&mut self, old: Vec<DeletedSegment>);
}

/// Reports bytes that were read or written. Fails if the round is to be aborted.
pub(super) fn pass(pace: &mut dyn Pace, bytes: u64) -> Result<(), CleanError> {
    match pace.passed(bytes) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(CleanError::Aborted),
    }
}
