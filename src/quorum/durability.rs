//! Holds back acknowledgements until the entries are durable. `log_thread` makes them durable.
//!
//! openraft 0.9 neither sends heartbeats nor answers votes while it waits for an append. So if
//! other voters have to acknowledge an entry anyway, this node reports its own append to openraft
//! as complete at once. The acknowledgements are held back instead:
//! - A follower sends its response once its copy is durable (`acknowledge`).
//! - A leader passes a follower's response to openraft once the entry is durable on the leader, or
//!   on a majority without it (`release`).
//!
//! openraft therefore counts an entry as committed only once it is durable on a majority. A slow
//! disk delays commits, but not heartbeats.

use std::time::Duration;

use openraft::{LogId, raft::AppendEntriesResponse};
use tokio::time::{Instant, timeout_at};

use super::{
    log::BatchState,
    storage::Storage,
    types::{epoch_of, log_id},
    voters::{self, Membership},
};

/// Why entries cannot be acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum NotDurable {
    #[error("the disk has not written the entries yet")]
    Yet,
    #[error("the entries were replaced by another leader's")]
    Replaced,
}

impl Storage {
    fn state_of(&self, at: LogId<i32>) -> BatchState {
        self.log().state_of((epoch_of(&at), at.index))
    }

    /// Waits until `counts` accepts the state of the entry. Fails with `Yet` at the deadline, and
    /// with `Replaced` if another leader's entry has taken its place.
    async fn wait_until(
        &self,
        at: LogId<i32>,
        deadline: Instant,
        counts: impl Fn(BatchState) -> bool,
    ) -> Result<(), NotDurable> {
        let mut changed = self.thread.changed();
        loop {
            let state = self.state_of(at);
            if state == BatchState::Replaced {
                return Err(NotDurable::Replaced);
            }
            if counts(state) {
                return Ok(());
            }
            if !matches!(timeout_at(deadline, changed.changed()).await, Ok(Ok(()))) {
                return Err(NotDurable::Yet);
            }
        }
    }

    /// Returns a follower's response to entries up to `last`, once they are durable on this node.
    /// If that takes longer than `wait`, the response covers what is durable then, so that the
    /// leader gets a response in time.
    pub async fn acknowledge(
        &self,
        (previous, last): (Option<LogId<i32>>, LogId<i32>),
        wait: Duration,
    ) -> Result<AppendEntriesResponse<i32>, NotDurable> {
        let is_durable = |state| state == BatchState::Durable;
        match self.wait_until(last, Instant::now() + wait, is_durable).await {
            Ok(()) => Ok(AppendEntriesResponse::Success),
            Err(NotDurable::Yet) => {
                partial(previous, self.durable_before(last), last).ok_or(NotDurable::Yet)
            }
            Err(replaced) => Err(replaced),
        }
    }

    /// The last durable entry. `None` also if another leader's entry has replaced the one at `at`:
    /// the leader that sent `at` must get no acknowledgement then.
    fn durable_before(&self, at: LogId<i32>) -> Option<LogId<i32>> {
        let log = self.log();
        let is_replaced = log.state_of((epoch_of(&at), at.index)) == BatchState::Replaced;
        let durable = log.last_durable().filter(|_| !is_replaced);
        durable.map(|(epoch, index)| log_id(epoch, index))
    }

    /// Returns a follower's acknowledgement of entries up to `acknowledged`, once openraft may
    /// count it. If that takes until the deadline, the response covers what may be counted by then.
    pub async fn release(
        &self,
        follower: i32,
        (previous, acknowledged): (Option<LogId<i32>>, LogId<i32>),
        deadline: Instant,
    ) -> Result<AppendEntriesResponse<i32>, NotDurable> {
        // If the entry was replaced, the acknowledgement says nothing about this leader's entries.
        if self.state_of(acknowledged) == BatchState::Replaced {
            return Err(NotDurable::Replaced);
        }
        {
            let mut known = self.acknowledged.lock();
            let newest = known.entry(follower).or_insert(acknowledged);
            *newest = acknowledged.max(*newest);
        }
        self.thread.notify_changed();
        let counts = |state| state == BatchState::Durable || self.others_have(acknowledged);
        match self.wait_until(acknowledged, deadline, counts).await {
            Ok(()) => Ok(AppendEntriesResponse::PartialSuccess(Some(acknowledged))),
            Err(NotDurable::Yet) => {
                let durable = self.durable_before(acknowledged);
                partial(previous, durable, acknowledged).ok_or(NotDurable::Yet)
            }
            Err(replaced) => Err(replaced),
        }
    }

    /// Whether the entry may count before this node's own copy is durable: a majority of each
    /// configuration has it on disk, without this node. Also true for a sole voter, whose `append`
    /// waits for the sync.
    fn others_have(&self, at: LogId<i32>) -> bool {
        let known = self.voter_state();
        let membership: &Membership = known.effective().membership();
        if voters::is_alone(membership, self.node_id()) {
            return true;
        }
        let acknowledged = self.acknowledged.lock();
        let has = |id: &&i32| {
            **id != self.node_id() && acknowledged.get(*id).is_some_and(|newest| *newest >= at)
        };
        let configs = membership.get_joint_config();
        configs.iter().all(|config| config.iter().filter(has).count() * 2 > config.len())
    }
}

/// A partial acknowledgement up to `durable`. `None` if `durable` is before `previous`, because
/// openraft does not accept an acknowledgement below the previous entry.
fn partial(
    previous: Option<LogId<i32>>,
    durable: Option<LogId<i32>>,
    last: LogId<i32>,
) -> Option<AppendEntriesResponse<i32>> {
    let durable = durable.filter(|durable| durable.index < last.index)?;
    let is_ahead = Some(durable) >= previous && Some(durable.index) >= previous.map(|it| it.index);
    is_ahead.then_some(AppendEntriesResponse::PartialSuccess(Some(durable)))
}
