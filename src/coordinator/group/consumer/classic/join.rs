//! JoinGroup of a classic member (Kafka's `classicGroupJoinToConsumerGroup`).

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    base::{TopicId, config::MigrationPolicy, kafka_uuid},
    coordinator::group::{
        GroupError, Groups, TimerKey, Turn,
        consumer::{
            downgrade::ReplacingMember,
            member::{MemberState, Subscription},
            messages::{Refusal, TopicsSnapshot},
            state::ConsumerGroup,
            update::{FoundMember, MemberUpdate, successor_of},
            values::{ClassicMemberMetadata, ClassicProtocol, KEY_TEXT_MAX},
        },
        consumer_protocol::{self, ConsumerProtocolSubscription, TopicPartitions},
        messages::{JoinReply, JoinRequest},
        state::{CONSUMER_PROTOCOL, ClassicGroup},
    },
};

impl Turn<'_> {
    /// A classic member joins a consumer group with members, or joins it again.
    pub(in crate::coordinator::group) fn join_as_classic_member(
        &mut self,
        groups: &mut Groups,
        group: &ConsumerGroup,
        request: &JoinRequest,
    ) -> JoinReply {
        self.try_join(groups, group, request).unwrap_or_else(|Refusal { error, message }| {
            tracing::debug!(group = &*request.group, %error, message, "classic member refused");
            JoinReply::refused(Arc::default(), error)
        })
    }

    fn try_join(
        &mut self,
        groups: &mut Groups,
        group: &ConsumerGroup,
        request: &JoinRequest,
    ) -> Result<JoinReply, Refusal> {
        let is_unknown = request.member_id.is_empty();
        let member_id: Arc<str> = match is_unknown {
            true => kafka_uuid::encode(request.fresh_id).into(),
            false => request.member_id.clone(),
        };
        self.check_classic_join(group, &member_id, request)?;
        if is_unknown && request.instance_id.is_none() && request.requires_known_member_id {
            return Ok(JoinReply::refused(member_id, GroupError::MemberIdRequired));
        }
        let topics = self.known_topics()?;
        let member = find_member(group, &member_id, request)?;
        let subscription = decode_subscription(request)?;
        let owned = with_ids(&subscription.owned_partitions, topics);
        let ids = (&request.group, &member_id);
        let mut update = MemberUpdate::new(ids, group, topics, member, Some(&owned));
        let updated = updated(&update.old.subscription, request, &subscription);
        let names_changed = update.set_subscription(updated);
        let group_update = self.update_group(groups, &mut update, names_changed)?;
        let downgraded = self.downgraded_by(&update, request);
        // If the target assignment is out of date, a downgraded group rebalances as a classic one.
        let rebalances = group.target_epoch < group_update.epoch;
        if downgraded.is_none() || !rebalances {
            let (target_epoch, target) = self.update_target(&mut update, group_update.epoch);
            update.reconcile(target_epoch, &target, group_update.subscription_changed)?;
        }
        self.check_record_sizes(&request.group, &update.changes)?;

        let MemberUpdate { new, changes, .. } = &mut update;
        let (generation, changes) = (new.current.epoch, std::mem::take(changes));
        self.write_changes(&request.group, changes);
        match downgraded {
            Some(classic) => {
                let joining = replacing_member(&update, request);
                self.become_classic(groups, group, classic, joining, rebalances);
            }
            None => {
                self.keep_live(groups, &request.group, group_update);
                self.set_joined_timers(&update, request);
            }
        }
        Ok(JoinReply {
            error: None,
            generation,
            protocol_type: Some(CONSUMER_PROTOCOL.into()),
            protocol_name: request.protocols.first().map(|(name, _)| name.clone()),
            leader: Arc::default(),
            skip_assignment: false,
            member_id,
            members: Vec::new(),
        })
    }

    /// The classic group that the group becomes if the member takes the place of the last one that
    /// uses the consumer protocol.
    fn downgraded_by(&self, update: &MemberUpdate, request: &JoinRequest) -> Option<ClassicGroup> {
        let joining = replacing_member(update, request)?;
        self.downgraded(update.group_id, update.group, &BTreeSet::new(), Some(joining))
    }

    /// Checks that the group accepts classic members, has room for this one, and that the member
    /// supports an assignor that all other classic members support.
    fn check_classic_join(
        &self,
        group: &ConsumerGroup,
        member_id: &str,
        request: &JoinRequest,
    ) -> Result<(), Refusal> {
        if self.config.consumer.migration_policy == MigrationPolicy::Disabled {
            let message = "Classic members cannot join because the group migration is disabled.";
            return Err(Refusal::new(GroupError::InconsistentGroupProtocol, message));
        }
        self.check_consumer_group_size(group, member_id)?;
        let is_supported = |name: &str| group.is_supported_by_classic_members(name);
        if *request.protocol_type != *CONSUMER_PROTOCOL
            || !request.protocols.iter().any(|(name, _)| is_supported(name))
        {
            let message = "The protocols of the member are not supported.";
            return Err(Refusal::new(GroupError::InconsistentGroupProtocol, message));
        }
        if member_id.len() > KEY_TEXT_MAX {
            let message = "The member id does not fit in the key of a record.";
            return Err(Refusal::new(GroupError::UnknownServerError, message));
        }
        Ok(())
    }

    /// Restarts the member's session, and starts the time in which it must send SyncGroup.
    fn set_joined_timers(&mut self, update: &MemberUpdate, request: &JoinRequest) {
        self.cancel_replaced_timers(update);
        let (group, member) = (update.group_id.clone(), update.member_id.clone());
        self.cancel_timer(TimerKey::MemberJoin { group: group.clone(), member: member.clone() });
        // A member has a rebalance timer only if it used the consumer protocol before, or since the
        // shard was loaded.
        let (old, new) = (&update.old.current, &update.new.current);
        if new.state != MemberState::UnrevokedPartitions || new.epoch != old.epoch {
            self.cancel_rebalance_timer(&group, &member);
        }
        self.restart_session_of(&group, &member, request.session_timeout_ms);
        let timeout_ms = request.rebalance_timeout_ms.max(0);
        self.set_timer(TimerKey::MemberSync { group, member }, i64::from(timeout_ms));
    }
}

/// The member as the one that takes the place of the static member with its instance id.
fn replacing_member<'a>(
    update: &'a MemberUpdate,
    request: &JoinRequest,
) -> Option<ReplacingMember<'a>> {
    let replaced = update.group.static_member(request.instance_id.as_deref()?)?;
    let subscription = &*update.new.subscription;
    Some(ReplacingMember { replaced, id: update.member_id, subscription })
}

/// The member of a JoinGroup as it is in the group, or a new one. A static member without an id
/// takes the place of the one with its instance id.
fn find_member<'a>(
    group: &'a ConsumerGroup,
    member_id: &Arc<str>,
    request: &JoinRequest,
) -> Result<FoundMember<'a>, Refusal> {
    let known = || group.member(member_id).cloned().unwrap_or_default();
    let Some(instance_id) = &request.instance_id else { return Ok((known(), None)) };
    let holder = group.static_member(instance_id);
    match holder.and_then(|id| Some((id, group.member(id)?))) {
        None if request.member_id.is_empty() => Ok((known(), None)),
        None => Err(Refusal::new(GroupError::UnknownMemberId, "The instance id is unknown.")),
        Some((id, holder)) if request.member_id.is_empty() => Ok((successor_of(holder), Some(id))),
        Some((id, holder)) if id == member_id => Ok((holder.clone(), None)),
        Some(_) => Err(Refusal::new(GroupError::FencedInstanceId, "Another member replaced it.")),
    }
}

/// Decodes the subscription of the member's first assignor. Its others have the same one.
fn decode_subscription(request: &JoinRequest) -> Result<ConsumerProtocolSubscription, Refusal> {
    let metadata = request.protocols.first().map(|(_, metadata)| metadata.clone());
    consumer_protocol::decode(metadata.unwrap_or_default()).map_err(|error| {
        let message = format!("The subscription of the member is malformed: {error}.");
        Refusal { error: GroupError::UnknownServerError, message }
    })
}

/// Partitions by topic id. Topics that do not exist are left out.
fn with_ids(owned: &[TopicPartitions], topics: &TopicsSnapshot) -> Vec<(TopicId, Vec<i32>)> {
    let with_id = |of_topic: &TopicPartitions| {
        let topic = topics.topics.get(of_topic.topic.as_str())?;
        Some((topic.id, of_topic.partitions.clone()))
    };
    owned.iter().filter_map(with_id).collect()
}

/// The subscription with what the request has.
fn updated(
    old: &Subscription,
    request: &JoinRequest,
    sent: &ConsumerProtocolSubscription,
) -> Subscription {
    let protocols = request.protocols.iter().map(|(name, metadata)| ClassicProtocol {
        name: name.to_string(),
        metadata: metadata.clone(),
    });
    let rack_id = sent.rack_id.as_deref().filter(|rack_id| !rack_id.is_empty());
    Subscription {
        instance_id: request.instance_id.clone().or_else(|| old.instance_id.clone()),
        rack_id: rack_id.map(Into::into).or_else(|| old.rack_id.clone()),
        client_id: request.client_id.clone(),
        client_host: request.client_host.clone(),
        topic_names: sent.topics.iter().map(|topic| topic.as_str().into()).collect(),
        // A classic member resolves regular expressions itself.
        topic_regex: Some(Arc::default()),
        rebalance_timeout_ms: match request.rebalance_timeout_ms {
            -1 => old.rebalance_timeout_ms,
            timeout_ms => timeout_ms,
        },
        assignor: old.assignor.clone(),
        classic: Some(ClassicMemberMetadata {
            session_timeout_ms: request.session_timeout_ms,
            supported_protocols: protocols.collect(),
        }),
    }
}
