//! Group commit: one fdatasync at a time, and one more if somebody asked meanwhile.

use std::sync::atomic::{AtomicU8, Ordering};

const IDLE: u8 = 0;
const RUNNING: u8 = 1;
const RUNNING_AND_ASKED: u8 = 2;

#[derive(Default)]
pub struct FlushGate(AtomicU8);

impl FlushGate {
    /// Asks for a flush; true if the caller is to run it.
    pub fn request(&self) -> bool {
        let next = |state| Some(if state == IDLE { RUNNING } else { RUNNING_AND_ASKED });
        let before = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        before == Ok(IDLE)
    }

    /// Ends one flush; true if another is to follow.
    pub fn finish(&self) -> bool {
        let next = |state| Some(if state == RUNNING_AND_ASKED { RUNNING } else { IDLE });
        let before = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        before == Ok(RUNNING_AND_ASKED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_during_a_flush_share_one_more() {
        let gate = FlushGate::default();
        assert!(gate.request());
        assert!(!gate.request());
        assert!(!gate.request());
        assert!(gate.finish());
        assert!(!gate.finish());
        assert!(gate.request());
    }
}
