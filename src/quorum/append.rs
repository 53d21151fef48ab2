//! What a follower does with the leader's entries.

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
    /// Takes entries of the leader's. `None`: the leader is accepted, and the disk has not written the
    /// entries yet.
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
            // The leader is followed meanwhile, and sends the entries again.
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
    /// Sets room aside for what the leader sent. A write that fails would end Raft; where a disk is
    /// full now, there may be room later. False if the disk takes longer than `wait`.
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
