//! How a follower handles entries that the leader sends.

use std::{sync::atomic::Ordering, time::Duration};

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
        self.hear_of(&request.vote, raft);
        let wait = self.inner.config.timeouts.answer() / 4;
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
            self.hear();
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
    /// but a full disk may have room later. Returns false if this takes longer than `wait`. Fails
    /// if the disk is full.
    async fn make_room(&self, entries: &[Entry], wait: Duration) -> Result<bool, QuorumError> {
        if entries.is_empty() {
            return Ok(true);
        }
        let size = self.storage.missing_bytes(entries);
        let room = async { if size > 0 { self.storage.reserve(size).await } else { Ok(()) } };
        let Ok(room) = timeout(wait, room).await else { return Ok(false) };
        self.has_no_room.store(room.is_err(), Ordering::Relaxed);
        room.map(|()| true).map_err(QuorumError::NoRoom)
    }
}
