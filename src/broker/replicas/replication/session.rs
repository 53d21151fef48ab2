//! The client side of an incremental fetch session (KIP-227): a request contains only partitions
//! that have changed since the previous request. The rules are those of Kafka's
//! `FetchSessionHandler`.

use std::collections::BTreeMap;

use crate::{base::TopicId, fetch_sessions::next_epoch, partition::FetchPosition};

/// A partition by topic id and index, as in requests and responses.
pub type Key = (TopicId, i32);

/// A fetcher's session with a leader.
#[derive(Debug, Default)]
pub struct FetchSession {
    /// The session id, or 0 without a session.
    id: i32,
    /// The epoch of the next request. A request with epoch 0 contains all partitions.
    epoch: i32,
    /// The positions in the session, as of the last request.
    asked: BTreeMap<Key, FetchPosition>,
}

/// The session fields and partitions of a Fetch request.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    pub id: i32,
    pub epoch: i32,
    pub asks: Vec<(Key, FetchPosition)>,
    pub forgotten: Vec<Key>,
}

impl FetchSession {
    /// The request after which the session contains exactly the `wanted` positions.
    pub fn request(&mut self, wanted: BTreeMap<Key, FetchPosition>) -> Request {
        let is_full = self.epoch == 0;
        let is_news =
            |(key, ask): &(&Key, &FetchPosition)| is_full || self.asked.get(key) != Some(*ask);
        let asks = wanted.iter().filter(is_news).map(|(key, ask)| (*key, *ask)).collect();
        let mut forgotten = Vec::new();
        if !is_full {
            forgotten.extend(self.asked.keys().filter(|key| !wanted.contains_key(key)));
        }
        self.asked = wanted;
        Request { id: self.id, epoch: self.epoch, asks, forgotten }
    }

    /// The position that the last request asked for, if it contained the partition.
    pub fn asked(&self, key: &Key) -> Option<FetchPosition> {
        self.asked.get(key).copied()
    }

    /// Notes a successful response with its session id, which is 0 if the leader has no session.
    pub fn answered(&mut self, id: i32) {
        match id {
            0 => (self.id, self.epoch) = (0, 0),
            _ if self.epoch == 0 => (self.id, self.epoch) = (id, 1),
            _ => self.epoch = next_epoch(self.epoch),
        }
    }

    /// Notes a failed request. The next request starts a new session. It also closes the current
    /// one, unless the leader does not have it (`is_session_known` is false).
    pub fn failed(&mut self, is_session_known: bool) {
        self.epoch = 0;
        if !is_session_known {
            self.id = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Key = (TopicId::from_u128(1), 0);
    const B: Key = (TopicId::from_u128(1), 1);

    fn at(offset: i64) -> FetchPosition {
        FetchPosition { offset, log_start: 0, leader_epoch: 3, last_epoch: 2 }
    }

    #[test]
    fn requests_name_what_has_changed() {
        let mut session = FetchSession::default();
        let all = [(A, at(5)), (B, at(7))];
        let first = session.request(all.into());
        let expected = Request { id: 0, epoch: 0, asks: all.to_vec(), forgotten: Vec::new() };
        assert_eq!(first, expected);
        session.answered(9);
        let second = session.request([(A, at(6)), (B, at(7))].into());
        let expected = Request { id: 9, epoch: 1, asks: vec![(A, at(6))], forgotten: Vec::new() };
        assert_eq!(second, expected);
        session.answered(9);
        let third = session.request([(B, at(7))].into());
        let expected = Request { id: 9, epoch: 2, asks: Vec::new(), forgotten: vec![A] };
        assert_eq!(third, expected);
        assert_eq!((session.asked(&A), session.asked(&B)), (None, Some(at(7))));
    }

    #[test]
    fn a_session_that_failed_begins_anew() {
        let mut session = FetchSession::default();
        session.request([(A, at(5))].into());
        session.answered(9);
        session.request([(A, at(6))].into());
        session.failed(true);
        let again = session.request([(A, at(6))].into());
        let all = vec![(A, at(6))];
        assert_eq!(again, Request { id: 9, epoch: 0, asks: all.clone(), forgotten: Vec::new() });
        session.failed(false);
        let again = session.request([(A, at(6))].into());
        assert_eq!(again, Request { id: 0, epoch: 0, asks: all, forgotten: Vec::new() });
        session.answered(0);
        assert_eq!(session.request([(A, at(6))].into()).epoch, 0, "the leader keeps no session");
    }
}
