//! How a follower handles entries that the leader sends.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use openraft::{
    Raft,
    raft::{AppendEntriesRequest, AppendEntriesResponse},
};
use tokio::time::timeout;

use super::{
    Inner, Quorum, QuorumError,
    durability::NotDurable,
    messages::MessageError,
    types::{Entry, TypeConfig},
};

impl Quorum {
    /// Appends the leader's entries and returns the response once they are durable. Returns `None`
    /// if the leader is accepted but its entries are not on disk in time; the leader sends them
    /// again. Fails if the disk is full or Raft has stopped.
    pub(super) async fn answer_append(
        &self,
        mut request: AppendEntriesRequest<TypeConfig>,
        raft: &Raft<TypeConfig>,
    ) -> Result<Option<AppendEntriesResponse<i32>>, MessageError> {
        let stopped = |error: &dyn std::fmt::Display| MessageError::Stopped(error.to_string());
        self.record_accepted_leader(&request.vote, raft);
        let wait = self.inner.config.timeouts.response_timeout() / 4;
        let has_room = self.inner.make_room(&request.entries, wait).await;
        let has_room = has_room.map_err(|error| stopped(&error))?;
        if !has_room {
            // The request then counts as a heartbeat, and the leader sends the entries again.
            request.entries.clear();
        }
        let last = request.entries.last().map(|entry| entry.log_id);
        let previous = request.prev_log_id;
        let response = raft.append_entries(request).await.map_err(|error| stopped(&error))?;
        if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
            self.record_leader_contact();
        }
        let (AppendEntriesResponse::Success, Some(last)) = (&response, last) else {
            let lacks_entries = !has_room && response.is_success();
            return Ok((!lacks_entries).then_some(response));
        };
        match self.inner.storage.acknowledge((previous, last), wait).await {
            Ok(durable) => Ok(Some(durable)),
            Err(NotDurable::Yet) => Ok(None),
            Err(replaced) => Err(stopped(&replaced)),
        }
    }
}

impl Inner {
    /// Reserves disk space for the leader's entries. openraft stops for good when a write fails,
    /// but a full disk may have room later. Returns false if this takes longer than `wait`; its
    /// outcome is then noted once the disk returns it. Fails if the disk is full.
    async fn make_room(&self, entries: &[Entry], wait: Duration) -> Result<bool, QuorumError> {
        if entries.is_empty() {
            return Ok(true);
        }
        let size = self.storage.missing_bytes(entries);
        let has_no_room = self.has_no_room.clone();
        let note = move |made: &io::Result<()>| note_room(&has_no_room, made);
        let reserved = async {
            match size {
                0 => Ok(()),
                _ => self.storage.reserve_and_report(size, note.clone()).await,
            }
        };
        let Ok(room) = timeout(wait, reserved).await else { return Ok(false) };
        note(&room);
        room.map(|()| true).map_err(QuorumError::NoRoom)
    }
}

/// Stores whether the disk had no room for the leader's entries. Warns of the first failure.
fn note_room(has_no_room: &AtomicBool, made: &io::Result<()>) {
    let had_no_room = has_no_room.swap(made.is_err(), Ordering::Relaxed);
    if let (false, Err(error)) = (had_no_room, made) {
        tracing::warn!(%error, "the metadata log cannot grow: the leader's entries are refused");
    }
}
