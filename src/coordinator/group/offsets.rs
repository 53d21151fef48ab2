//! OffsetCommit and TxnOffsetCommit, OffsetFetch, OffsetDelete, and the deletion of offsets of
//! deleted partitions.

use std::sync::Arc;

use super::{
    Groups, LoggedGroup, Record, Turn,
    consumer::commit::CommitCheck,
    messages::{
        CommitPartition, CommitReply, CommitRequest, CommitTransaction, CommittedTopic,
        DeleteOffsetsRequest, DeletedOffsets, FetchRequest, FetchTopic, FetchedOffset,
        FetchedTopic, GroupError,
    },
    offset_map::CommittedOffset,
    records::OffsetCommitValue,
    state::{ClassicGroup, State},
};
use crate::base::{TopicId, TopicPartition};

/// Whether a group is subscribed to a topic.
type IsSubscribed<'g> = Box<dyn Fn(&str) -> bool + 'g>;

impl<'a> Turn<'a> {
    pub(super) fn commit_offsets(
        &mut self,
        groups: &mut Groups,
        request: CommitRequest,
    ) -> CommitReply {
        let check = self.check_commit(groups, &request)?;
        let expire_timestamp = request.retention_ms.map_or(-1, |ms| self.now_ms.saturating_add(ms));
        let mut records = Vec::new();
        let mut reply = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let (name, id) = (topic.name.clone(), topic.id);
            let checked_id = if id.is_nil() { self.topic_id(&name) } else { id };
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for committed in topic.partitions {
                let partition = committed.partition;
                if self.is_too_large(committed.metadata.as_deref().unwrap_or_default()) {
                    partitions.push((partition, Err(GroupError::OffsetMetadataTooLarge)));
                    continue;
                }
                check.check(checked_id, partition)?;
                partitions.push((partition, Ok(())));
                let value = self.offset_value(committed, id, expire_timestamp);
                let (group, topic) = (request.group.clone(), name.clone());
                records.push(match request.transaction {
                    None => Record::Offset { group, topic, partition, value: Some(value) },
                    Some(CommitTransaction { producer, .. }) => {
                        Record::OffsetInTransaction { producer, group, topic, partition, value }
                    }
                });
            }
            reply.push(CommittedTopic { name, id, partitions });
        }
        if !self.fits_one_batch(&records) {
            return Err(GroupError::UnknownServerError);
        }
        self.out.records.append(&mut records);
        Ok(reply)
    }

    /// Checks that the group accepts the commit. A commit of a classic member renews its session.
    fn check_commit(
        &mut self,
        groups: &mut Groups,
        request: &CommitRequest,
    ) -> Result<CommitCheck<'a>, GroupError> {
        let logged = self.logged;
        match logged.groups.get(&request.group) {
            Some(LoggedGroup::Consumer(group)) => return group.check_commit(request),
            Some(LoggedGroup::Unserved(group)) => {
                group.validate_commit(request)?;
                return Ok(CommitCheck::AllAllowed);
            }
            _ => {}
        }
        match self.group(groups, &request.group) {
            Some(group) => {
                validate_commit(group, request)?;
                let keeps_session =
                    matches!(group.state, State::Stable | State::PreparingRebalance);
                if keeps_session && request.transaction.is_none() {
                    self.renew_session(group, &request.member_id);
                }
            }
            // A simple group is created by its first committed offset.
            None if request.generation < 0 => {
                let group = ClassicGroup::new(request.group.clone(), None);
                validate_commit(&group, request)?;
            }
            None if request.knows_group_id_not_found => return Err(GroupError::GroupIdNotFound),
            None => return Err(GroupError::IllegalGeneration),
        }
        Ok(CommitCheck::AllAllowed)
    }

    /// The id of a topic; nil if the topic is not known.
    fn topic_id(&self, name: &str) -> TopicId {
        let topic = self.cluster.topics.as_ref().and_then(|topics| topics.topics.get(name));
        topic.map_or(TopicId::nil(), |topic| topic.id)
    }

    fn offset_value(
        &self,
        committed: CommitPartition,
        topic_id: TopicId,
        expire_timestamp: i64,
    ) -> OffsetCommitValue {
        // The version with an expiry time has neither leader epoch nor topic id. The record that is
        // applied must equal the one that a replay decodes.
        let expires = expire_timestamp != -1;
        OffsetCommitValue {
            offset: committed.offset,
            leader_epoch: if expires { -1 } else { committed.leader_epoch },
            metadata: committed.metadata.unwrap_or_default(),
            commit_timestamp: self.now_ms,
            expire_timestamp,
            topic_id: if expires { TopicId::nil() } else { topic_id },
        }
    }

    /// Whether the metadata exceeds `offset.metadata.max.bytes`.
    fn is_too_large(&self, metadata: &str) -> bool {
        let limit = self.config.offset_metadata_max_bytes;
        metadata.len() > limit && metadata.encode_utf16().count() > limit
    }

    pub(super) fn fetch_offsets(
        &self,
        request: FetchRequest,
    ) -> Result<Vec<FetchedTopic>, GroupError> {
        if let Some(group) = self.logged.consumer(&request.group) {
            group.check_fetch(&request)?;
        }
        let FetchRequest { group, topics, requires_stable, .. } = request;
        let is_unstable = |topic: &str, partition: i32| {
            requires_stable && self.logged.pending.contains(&group, topic, partition)
        };
        match topics {
            Some(topics) => {
                let fetch = |topic| self.fetch_topic(&group, topic, is_unstable);
                Ok(topics.into_iter().map(fetch).collect())
            }
            None => Ok(self.fetch_all(&group, is_unstable)),
        }
    }

    fn fetch_topic(
        &self,
        group: &str,
        topic: FetchTopic,
        is_unstable: impl Fn(&str, i32) -> bool,
    ) -> FetchedTopic {
        let partitions = topic.partitions.iter().map(|partition| {
            if is_unstable(&topic.name, *partition) {
                return FetchedOffset { is_unstable: true, ..FetchedOffset::none(*partition) };
            }
            let committed = self.logged.offsets.get(group, &topic.name, *partition);
            match committed.filter(|committed| !is_of_another(committed, topic.id)) {
                Some(committed) => fetched(*partition, committed),
                None => FetchedOffset::none(*partition),
            }
        });
        FetchedTopic { partitions: partitions.collect(), name: topic.name, id: topic.id }
    }

    fn fetch_all(&self, group: &str, is_unstable: impl Fn(&str, i32) -> bool) -> Vec<FetchedTopic> {
        let topics = self.logged.offsets.topics(group).map(|(name, partitions)| {
            let fetch = |(partition, committed): (&i32, _)| match is_unstable(name, *partition) {
                true => FetchedOffset { is_unstable: true, ..FetchedOffset::none(*partition) },
                false => fetched(*partition, committed),
            };
            let partitions = partitions.iter().map(fetch).collect();
            FetchedTopic { name: name.clone(), id: TopicId::nil(), partitions }
        });
        topics.collect()
    }

    pub(super) fn delete_offsets(
        &mut self,
        groups: &mut Groups,
        request: &DeleteOffsetsRequest,
    ) -> Result<Vec<DeletedOffsets>, GroupError> {
        let is_subscribed = self.check_delete(groups, &request.group)?;
        let mut deleted = Vec::with_capacity(request.topics.len());
        for (topic, partitions) in &request.topics {
            let subscribed = is_subscribed(topic);
            let mut results = Vec::with_capacity(partitions.len());
            for partition in partitions {
                if subscribed {
                    results.push((*partition, Err(GroupError::GroupSubscribedToTopic)));
                    continue;
                }
                results.push((*partition, Ok(())));
                if self.has_offset(&request.group, topic, *partition) {
                    self.forget_offset(&request.group, topic, *partition);
                }
            }
            deleted.push(DeletedOffsets { topic: topic.clone(), partitions: results });
        }
        Ok(deleted)
    }

    /// Checks that the group accepts the deletion of offsets. Returns whether it is subscribed to a
    /// topic, whose offsets must stay.
    fn check_delete<'g>(
        &self,
        groups: &'g mut Groups,
        id: &Arc<str>,
    ) -> Result<IsSubscribed<'g>, GroupError>
    where
        'a: 'g,
    {
        let logged = self.logged;
        match logged.groups.get(id) {
            Some(LoggedGroup::Consumer(group)) => {
                return Ok(Box::new(|topic| group.is_subscribed_to(topic)));
            }
            Some(LoggedGroup::Unserved(group)) => {
                group.check_commits_offsets()?;
                return Ok(Box::new(|_| false));
            }
            _ => {}
        }
        let group = self.group(groups, id).ok_or(GroupError::GroupIdNotFound)?;
        if group.state != State::Empty && !group.uses_consumer_protocol() {
            return Err(GroupError::NonEmptyGroup);
        }
        Ok(Box::new(|topic| group.is_subscribed_to(topic)))
    }

    /// Whether a partition has a committed offset, or one in an open transaction.
    fn has_offset(&self, group: &str, topic: &str, partition: i32) -> bool {
        self.logged.offsets.get(group, topic, partition).is_some()
            || self.logged.pending.contains(group, topic, partition)
    }

    /// Deletes a committed offset, and those of open transactions, with a tombstone.
    pub(super) fn forget_offset(&mut self, group: &Arc<str>, topic: &Arc<str>, partition: i32) {
        let (group, topic) = (group.clone(), topic.clone());
        self.record(Record::Offset { group, topic, partition, value: None });
    }

    /// Deletes all offsets of a group, committed and in open transactions.
    pub(super) fn forget_offsets(&mut self, group: &Arc<str>) {
        let logged = self.logged;
        for (topic, partitions) in logged.offsets.topics(group) {
            for partition in partitions.keys() {
                self.forget_offset(group, topic, *partition);
            }
        }
        for (topic, partition) in logged.pending.partitions(group) {
            if logged.offsets.get(group, topic, partition).is_none() {
                self.forget_offset(group, topic, partition);
            }
        }
    }

    /// Deletes the offsets of deleted partitions in all groups, committed and in open transactions.
    pub(super) fn forget_partitions(&mut self, gone: &[TopicPartition]) {
        let by_topic = TopicPartition::by_topic(gone);
        let logged = self.logged;
        for (group, topics) in logged.offsets.groups() {
            for (topic, partitions) in topics {
                let gone = by_topic.get(&**topic).into_iter().flatten();
                for partition in gone.filter(|partition| partitions.contains_key(partition)) {
                    self.forget_offset(group, topic, *partition);
                }
            }
        }
        for group in logged.pending.groups() {
            for (topic, partition) in logged.pending.partitions(group) {
                let is_gone = by_topic.get(&**topic).is_some_and(|gone| gone.contains(&partition));
                if is_gone && logged.offsets.get(group, topic, partition).is_none() {
                    self.forget_offset(group, topic, partition);
                }
            }
        }
    }
}

/// Whether the offset was committed for another topic, which had the same name.
fn is_of_another(committed: &CommittedOffset, asked: TopicId) -> bool {
    let known = committed.value.topic_id;
    !known.is_nil() && !asked.is_nil() && known != asked
}

fn fetched(partition: i32, committed: &CommittedOffset) -> FetchedOffset {
    FetchedOffset {
        partition,
        offset: committed.value.offset,
        leader_epoch: committed.value.leader_epoch,
        metadata: committed.value.metadata.clone(),
        is_unstable: false,
    }
}

/// Checks that a commit is allowed. A member must send its generation. A commit without a member is
/// allowed only while the group is empty, or in a transaction, because TxnOffsetCommit has the
/// member only from version 3 on. In a transaction, the group may be between the phases of a
/// rebalance.
fn validate_commit(group: &ClassicGroup, request: &CommitRequest) -> Result<(), GroupError> {
    if request.generation < 0 && group.state == State::Empty {
        return Ok(());
    }
    let is_transactional = request.transaction.is_some();
    let has_identity = !request.member_id.is_empty() || request.instance_id.is_some();
    if request.generation >= 0 || has_identity {
        group.validate_member(&request.member_id, request.instance_id.as_deref())?;
        if request.generation != group.generation {
            return Err(GroupError::IllegalGeneration);
        }
    } else if !is_transactional && group.state != State::Empty {
        return Err(GroupError::UnknownMemberId);
    }
    if !is_transactional && group.state == State::CompletingRebalance {
        // The member has the JoinGroup response of this generation, but no assignment yet.
        return Err(GroupError::RebalanceInProgress);
    }
    Ok(())
}
