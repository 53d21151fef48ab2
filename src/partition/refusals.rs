//! The record of appends that a partition's log refuses, mostly because the disk is full.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use super::{AppendError, Appended};

const NONE: i64 = i64::MIN;

/// The time of the last append in milliseconds if the log refused it, otherwise `NONE`.
pub struct Refusals(AtomicI64);

impl Default for Refusals {
    fn default() -> Self {
        Self(AtomicI64::new(NONE))
    }
}

impl Refusals {
    /// Records the result of an append at `now_ms`.
    pub fn note(&self, appended: &Result<Appended, AppendError>, now_ms: i64) {
        match appended {
            Err(AppendError::Log(error)) if error.is_refusal() => self.0.store(now_ms, Relaxed),
            Ok(_) if self.0.load(Relaxed) != NONE => self.0.store(NONE, Relaxed),
            _ => {}
        }
    }

    /// Whether the last append was refused, at or after `since_ms`.
    pub fn any_since(&self, since_ms: i64) -> bool {
        let at_ms = self.0.load(Relaxed);
        at_ms != NONE && at_ms >= since_ms
    }
}
