//! Conversion of a consumer group to a classic group, because its last member of the consumer
//! protocol leaves and members of the classic protocol remain (Kafka's `convertToClassicGroup` and
//! `ClassicGroup.fromConsumerGroup`).

use std::{collections::BTreeSet, sync::Arc};

use super::{delete::tombstones_of, member::Subscription, state::ConsumerGroup};
use crate::coordinator::{
    group::{
        Group, Groups, Record, Turn,
        assignor::Assignment,
        consumer_protocol::{self, ConsumerProtocolAssignment, TopicPartitions},
        state::{ClassicGroup, Member},
    },
    record_value,
};

/// A member of the classic protocol that takes the place of a static member of the consumer
/// protocol.
#[derive(Debug, Clone, Copy)]
pub struct ReplacingMember<'a> {
    /// The member whose place it takes.
    pub replaced: &'a Arc<str>,
    pub id: &'a Arc<str>,
    /// Its subscription, with `classic` set.
    pub subscription: &'a Subscription,
}

impl Turn<'_> {
    /// Makes the group a classic one if only members of the classic protocol are left without
    /// `removed`, and the configuration allows it. A rebalance begins. Returns whether it did.
    pub(super) fn downgrade_if_last(
        &mut self,
        groups: &mut Groups,
        id: &Arc<str>,
        group: &ConsumerGroup,
        removed: &BTreeSet<Arc<str>>,
    ) -> bool {
        let Some(classic) = self.downgraded(id, group, removed, None) else { return false };
        self.become_classic(groups, group, classic, None, true);
        true
    }

    /// Replaces a consumer group by the classic group that it has become. If `joining` takes the
    /// place of a member, the caller has written the records of that.
    pub(super) fn become_classic(
        &mut self,
        groups: &mut Groups,
        group: &ConsumerGroup,
        mut classic: ClassicGroup,
        joining: Option<ReplacingMember>,
        rebalances: bool,
    ) {
        let id = classic.id.clone();
        for member in group.members().keys().chain(joining.map(|joining| joining.id)) {
            self.cancel_member_timers(&id, member);
        }
        let renamed = joining.map(|joining| (joining.replaced, joining.id));
        self.write_changes(&id, tombstones_of(group, renamed));
        self.record(Record::Group { group: id.clone(), value: Some(classic.to_value()) });
        for member in classic.members.values() {
            self.restart_session(&classic, &member.id, member.session_timeout_ms);
        }
        if rebalances {
            self.prepare_rebalance(&mut classic);
        }
        tracing::info!(group = &*id, rebalances, "consumer group became a classic group");
        groups.insert(id, Group::Classic(Box::new(classic)));
    }

    /// The classic group that the group becomes; `None` if it stays a consumer group.
    pub(super) fn downgraded(
        &self,
        id: &Arc<str>,
        group: &ConsumerGroup,
        removed: &BTreeSet<Arc<str>>,
        joining: Option<ReplacingMember>,
    ) -> Option<ClassicGroup> {
        let leaves = |id: &Arc<str>| {
            removed.contains(id) || joining.is_some_and(|joining| joining.replaced == id)
        };
        let kept = group.members().iter().filter(|(id, _)| !leaves(id));
        let kept = kept.map(|(id, member)| (id, &*member.subscription));
        let members = kept.chain(joining.map(|joining| (joining.id, joining.subscription)));
        let members = members.map(|(id, subscription)| Member::classic(id, subscription));
        let members = members.collect::<Option<Vec<_>>>()?;
        let replaces_classic = joining.is_some_and(|joining| {
            group.member(joining.replaced).is_some_and(|member| member.uses_classic_protocol())
        });
        if replaces_classic || !self.may_downgrade(id, members.len()) {
            return None;
        }
        let classic = self.convert(id, group, members, joining);
        if classic.is_none() {
            tracing::error!(
                group = &**id,
                "consumer group stays one: what its members sent when they joined is not valid"
            );
        }
        classic
    }

    fn may_downgrade(&self, group: &str, members: usize) -> bool {
        if members == 0 {
            return false;
        }
        let is_allowed = self.config.consumer.migration_policy.allows_downgrade();
        let fits = members <= self.config.max_size;
        if !is_allowed || !fits {
            tracing::info!(group, is_allowed, fits, "consumer group not downgraded");
        }
        is_allowed && fits
    }

    /// The classic group with these members. `None` if they have no protocol in common, or if a
    /// subscription has no version.
    fn convert(
        &self,
        id: &Arc<str>,
        group: &ConsumerGroup,
        members: Vec<Member>,
        joining: Option<ReplacingMember>,
    ) -> Option<ClassicGroup> {
        let mut classic = ClassicGroup::of_members(id.clone(), group.epoch, members, self.now_ms)?;
        let protocol = classic.protocol_name.clone().unwrap_or_default();
        for member in classic.members.values_mut() {
            let version = consumer_protocol::version_of(&member.metadata(&protocol)).ok()?;
            let joined = joining.filter(|joining| *joining.id == member.id);
            let target = group.target(joined.map_or(&member.id, |joined| joined.replaced));
            member.assignment = record_value::encode(&self.to_classic(&target), version);
        }
        let record = Record::Group { group: id.clone(), value: Some(classic.to_value()) };
        self.fits_one_batch(&[record]).then_some(classic)
    }

    /// The assignment in the form of the classic protocol, without topics that do not exist.
    fn to_classic(&self, target: &Assignment) -> ConsumerProtocolAssignment {
        let topics = self.cluster.topics.as_deref();
        let named = target.iter().filter_map(|(topic_id, partitions)| {
            let topic = topics?.names.get(topic_id)?.to_string();
            Some(TopicPartitions { topic, partitions: partitions.clone() })
        });
        ConsumerProtocolAssignment { assigned_partitions: named.collect(), user_data: None }
    }
}
