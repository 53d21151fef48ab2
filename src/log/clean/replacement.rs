//! Replaces segments by the one that compaction has written for them
//! (Kafka's `LocalLog.replaceSegments`).
//!
//! The steps change only names and pointers, because producers wait for them. Between two of them,
//! the caller syncs the directory without the log:
//! 1. [`Log::announce`] renames the new files from `*.cleaned` to `*.swap`. From here on, a start
//!    after a crash completes the replacement.
//! 2. [`Log::replace`] renames the old files to `*.deleted` and puts the new segment in their place.
//! 3. [`Log::complete`] gives the new files their final names.
//!
//! Without the syncs, a crash of the machine could keep a later rename and lose an earlier one: the
//! old files could be gone without the new ones, or old segments could be beside the new one.

use std::{ops::Range, sync::Arc};

use super::{
    super::{DeletedSegment, Log, LogError, segment::Segment},
    CleanError,
};

impl Log {
    /// Renames the files of a complete new segment to `*.swap`. If the log is truncated before
    /// [`Self::replace`], the truncation removes them. Fails if the log was truncated since it had
    /// the given generation.
    ///
    /// Returns deleted segments that have the names which the old ones will get. The caller removes
    /// them before [`Self::replace`].
    pub(super) fn announce(
        &mut self,
        new: &Arc<Segment>,
        old: &[Arc<Segment>],
        generation: u64,
    ) -> Result<Vec<DeletedSegment>, CleanError> {
        if generation != self.generation {
            return Err(CleanError::Aborted);
        }
        self.check_writable()?;
        self.discard_incoming()?;
        self.incoming = Some(new.clone());
        self.dir_changes.made += 1;
        new.files.mark_swap()?;
        Ok(old.iter().flat_map(|it| self.earlier_deleted(it.base_offset)).collect())
    }

    /// Forgets an announced segment. The caller removes its files.
    pub(super) fn withdraw(&mut self, new: &Arc<Segment>) {
        if self.is_announced(new) {
            self.incoming = None;
            self.dir_changes.made += 1;
        }
    }

    /// Removes the files of an announced segment, because it will not replace its old segments.
    pub(in super::super) fn discard_incoming(&mut self) -> Result<(), LogError> {
        match self.incoming.take() {
            Some(segment) => {
                self.dir_changes.made += 1;
                segment.files.remove()
            }
            None => Ok(()),
        }
    }

    fn is_announced(&self, new: &Arc<Segment>) -> bool {
        self.incoming.as_ref().is_some_and(|it| Arc::ptr_eq(it, new))
    }

    /// Puts the announced segment in the place of neighbouring old ones, and renames their files to
    /// `*.deleted`. If the log has been truncated or has deleted some of the old segments, removes
    /// the files of the new one and fails.
    ///
    /// The directory must have been synced after [`Self::announce`].
    pub(super) fn replace(
        &mut self,
        new: &Arc<Segment>,
        old: &[Arc<Segment>],
    ) -> Result<Vec<DeletedSegment>, CleanError> {
        if !self.is_announced(new) {
            // The truncation has removed the files.
            return Err(CleanError::Aborted);
        }
        let Some(place) = self.place_of(old).filter(|_| !self.failed) else {
            self.discard_incoming()?;
            self.check_writable()?;
            return Err(CleanError::Aborted);
        };
        // From here on, only the new files are sure to be complete.
        self.incoming = None;
        let mut deleted = Vec::with_capacity(old.len());
        for segment in old {
            self.put_aside(segment).inspect_err(|_| self.failed = true)?;
            deleted.push(self.note_deleted(segment));
        }
        let before = self.segments[..place.start].iter().cloned();
        let after = self.segments[place.end..].iter().cloned();
        self.segments = before.chain([new.clone()]).chain(after).collect();
        self.unsynced.retain(|(_, it)| !old.iter().any(|old| Arc::ptr_eq(it, old)));
        self.replacements += 1;
        self.drop_passed_snapshots();
        Ok(deleted)
    }

    /// The indexes of neighbouring segments; `None` if one is not in the log any more, or is the
    /// active one.
    fn place_of(&self, old: &[Arc<Segment>]) -> Option<Range<usize>> {
        let start = self.segments.iter().position(|it| Arc::ptr_eq(it, &old[0]))?;
        let place = start..start + old.len();
        let (_, sealed) = self.segments.split_last()?;
        let present = sealed.get(place.clone())?;
        present.iter().zip(old).all(|(a, b)| Arc::ptr_eq(a, b)).then_some(place)
    }

    /// Renames the files of an old segment to `*.deleted`, or removes them if that fails.
    fn put_aside(&self, segment: &Segment) -> Result<(), LogError> {
        // Files of an earlier segment must not be taken for those of this one.
        for earlier in self.earlier_deleted(segment.base_offset) {
            earlier.remove()?;
        }
        segment.files.mark_replaced().or_else(|error| {
            tracing::warn!(%error, "cannot rename a compacted segment, it is removed");
            segment.files.remove()
        })
    }

    /// Gives the files of a new segment their final names, unless the segment is gone already. The
    /// directory must have been synced after [`Self::replace`].
    pub(super) fn complete(&mut self, new: &Arc<Segment>) -> Result<(), CleanError> {
        if self.segments.iter().any(|it| Arc::ptr_eq(it, new)) {
            self.dir_changes.made += 1;
            new.files.mark_live().inspect_err(|_| self.failed = true)?;
        }
        Ok(())
    }
}
