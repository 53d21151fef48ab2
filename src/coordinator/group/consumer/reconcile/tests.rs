//! One case per rule. Partitions are written as `topic-partition`, with `@epoch` for the assignment
//! epoch.

use std::fmt::Write as _;

use super::*;
use MemberState::{Stable, Unknown, UnreleasedPartitions, UnrevokedPartitions};

fn topic(name: &str) -> TopicId {
    TopicId::from_u128(name.as_bytes()[0].into())
}

/// The partitions of a text such as `t-0@5 t-1@6`.
fn with_epochs(text: &str) -> EpochAssignment {
    let mut assignment = EpochAssignment::new();
    for (place, epoch) in text.split_whitespace().map(|word| word.split_once('@').unwrap()) {
        let (name, partition) = place.split_once('-').unwrap();
        let of_topic = assignment.entry(topic(name)).or_default();
        of_topic.insert(partition.parse().unwrap(), epoch.parse().unwrap());
    }
    assignment
}

/// The partitions of a text such as `t-0 t-1`.
fn partitions(text: &str) -> Assignment {
    let mut assignment = Assignment::new();
    for (name, partition) in text.split_whitespace().map(|word| word.split_once('-').unwrap()) {
        assignment.entry(topic(name)).or_default().push(partition.parse().unwrap());
    }
    assignment
}

fn print(assignment: &EpochAssignment) -> String {
    let mut text = String::new();
    for (topic, partitions) in assignment {
        let name = topic.as_u128() as u8 as char;
        for (partition, epoch) in partitions {
            write!(text, " {name}-{partition}@{epoch}").unwrap();
        }
    }
    text
}

fn current(epoch: i32, state: MemberState, assigned: &str, pending: &str) -> CurrentAssignment {
    CurrentAssignment {
        epoch,
        previous_epoch: epoch - 1,
        state,
        assigned: with_epochs(assigned),
        pending_revocation: with_epochs(pending),
    }
}

/// What a case has besides the current assignment. The default is a heartbeat that reports nothing
/// in a group where no other member owns partitions.
#[derive(Default)]
struct Case<'a> {
    target_epoch: i32,
    target: &'a str,
    reported: Option<&'a str>,
    owned_by_others: &'a str,
    /// The topics that the member is not subscribed to.
    unsubscribed: &'a str,
    subscription_changed: bool,
}

impl Case<'_> {
    /// The next assignment as text: epoch, previous epoch, state and partitions.
    fn next(&self, current: &CurrentAssignment) -> String {
        let target = partitions(self.target);
        let reported = self.reported.map(|text| partitions(text).into_iter().collect::<Vec<_>>());
        let others = partitions(self.owned_by_others);
        let owned: Vec<_> = current.owned().collect();
        let is_owned = |topic: TopicId, at: i32| {
            owned.contains(&(topic, at)) || others.get(&topic).is_some_and(|it| it.contains(&at))
        };
        let unsubscribed: Vec<_> = self.unsubscribed.split_whitespace().map(topic).collect();
        let next = Reconciliation {
            current,
            target_epoch: self.target_epoch,
            target: &target,
            subscription_changed: self.subscription_changed,
            reported: reported.as_deref(),
            is_subscribed: &|topic| !unsubscribed.contains(&topic),
            is_owned: &is_owned,
        }
        .next();
        let Ok(next) = next else { return "must rejoin".into() };
        let mut text = format!("{} after {} {:?}", next.epoch, next.previous_epoch, next.state);
        text += &print(&next.assigned);
        if !next.pending_revocation.is_empty() {
            text = text + " revokes" + &print(&next.pending_revocation);
        }
        text
    }
}

#[test]
fn stable_member_keeps_its_assignment_in_the_target_epoch() {
    let member = current(5, Stable, "t-0@3", "");
    let case = Case { target_epoch: 5, target: "t-0 t-1", ..Case::default() };
    assert_eq!(case.next(&member), "5 after 4 Stable t-0@3");
}

#[test]
fn new_member_gets_free_partitions_in_the_target_epoch() {
    let member = CurrentAssignment::default();
    let case = Case { target_epoch: 5, target: "t-0 u-1", ..Case::default() };
    assert_eq!(case.next(&member), "5 after 0 Stable t-0@5 u-1@5");
}

#[test]
fn kept_partitions_keep_their_assignment_epochs() {
    let member = current(5, Stable, "t-0@3 t-1@5", "");
    let case = Case { target_epoch: 6, target: "t-0 t-1 t-2", ..Case::default() };
    assert_eq!(case.next(&member), "6 after 5 Stable t-0@3 t-1@5 t-2@6");
}

#[test]
fn lost_partitions_are_revoked_before_new_ones_are_given() {
    let member = current(5, Stable, "t-0@3 t-1@5", "");
    let case = Case { target_epoch: 6, target: "t-0 t-2", ..Case::default() };
    let expected = "5 after 5 UnrevokedPartitions t-0@3 revokes t-1@5";
    assert_eq!(case.next(&member), expected);
    // The client still reports the lost partition.
    assert_eq!(Case { reported: Some("t-0 t-1"), ..case }.next(&member), expected);
}

#[test]
fn lost_partitions_that_the_client_does_not_own_are_taken_at_once() {
    let member = current(5, Stable, "t-0@3 t-1@5", "");
    let case =
        Case { target_epoch: 6, target: "t-0 t-2", reported: Some("t-0"), ..Case::default() };
    assert_eq!(case.next(&member), "6 after 5 Stable t-0@3 t-2@6");
}

#[test]
fn member_waits_until_it_reports_that_it_has_revoked() {
    let member = current(5, UnrevokedPartitions, "t-0@3", "t-1@5");
    let case = Case { target_epoch: 6, target: "t-0 t-2", ..Case::default() };
    for reported in [None, Some("t-0 t-1"), Some("t-1")] {
        let case = Case { reported, ..case };
        assert_eq!(case.next(&member), "5 after 4 UnrevokedPartitions t-0@3 revokes t-1@5");
    }
    for reported in [Some("t-0"), Some("")] {
        let case = Case { reported, ..case };
        assert_eq!(case.next(&member), "6 after 5 Stable t-0@3 t-2@6");
    }
}

#[test]
fn member_that_has_revoked_may_have_to_revoke_again() {
    let member = current(5, UnrevokedPartitions, "t-0@3 t-2@4", "t-1@5");
    let case =
        Case { target_epoch: 7, target: "t-0", reported: Some("t-0 t-2"), ..Case::default() };
    assert_eq!(case.next(&member), "5 after 5 UnrevokedPartitions t-0@3 revokes t-2@4");
}

#[test]
fn revoked_partition_that_comes_back_is_assigned_again() {
    let member = current(5, UnrevokedPartitions, "t-0@3", "t-1@5");
    let case =
        Case { target_epoch: 7, target: "t-0 t-1", reported: Some("t-0"), ..Case::default() };
    assert_eq!(case.next(&member), "7 after 5 Stable t-0@3 t-1@7");
}

#[test]
fn partitions_of_other_members_are_awaited_in_the_target_epoch() {
    let member = current(5, Stable, "t-0@3", "");
    let case =
        Case { target_epoch: 6, target: "t-0 t-1 t-2", owned_by_others: "t-1", ..Case::default() };
    assert_eq!(case.next(&member), "6 after 5 UnreleasedPartitions t-0@3 t-2@6");
    let case = Case { target: "t-1", reported: Some(""), ..case };
    assert_eq!(case.next(&member), "6 after 5 UnreleasedPartitions");
}

#[test]
fn awaited_partitions_are_given_when_they_are_released() {
    let member = current(6, UnreleasedPartitions, "t-0@3", "");
    let case = Case {
        target_epoch: 6,
        target: "t-0 t-1 t-2",
        owned_by_others: "t-1 t-2",
        ..Case::default()
    };
    assert_eq!(case.next(&member), "6 after 6 UnreleasedPartitions t-0@3");
    let case = Case { owned_by_others: "t-2", ..case };
    assert_eq!(case.next(&member), "6 after 6 UnreleasedPartitions t-0@3 t-1@6");
    let case = Case { owned_by_others: "", ..case };
    assert_eq!(case.next(&member), "6 after 6 Stable t-0@3 t-1@6 t-2@6");
}

#[test]
fn awaiting_member_follows_a_newer_target() {
    let member = current(6, UnreleasedPartitions, "t-0@3 t-1@6", "");
    let case = Case { target_epoch: 7, target: "t-1", ..Case::default() };
    assert_eq!(case.next(&member), "6 after 6 UnrevokedPartitions t-1@6 revokes t-0@3");
}

#[test]
fn topics_that_are_no_longer_subscribed_are_revoked_at_once() {
    let member = current(5, Stable, "t-0@3 u-0@4", "");
    let case = Case {
        target_epoch: 5,
        target: "t-0 u-0",
        unsubscribed: "u",
        subscription_changed: true,
        ..Case::default()
    };
    let expected = "5 after 5 UnrevokedPartitions t-0@3 revokes u-0@4";
    assert_eq!(case.next(&member), expected);
    assert_eq!(Case { reported: Some("t-0"), ..case }.next(&member), "5 after 5 Stable t-0@3");
    let case = Case { reported: None, subscription_changed: false, ..case };
    assert_eq!(case.next(&member), "5 after 4 Stable t-0@3 u-0@4");

    let member = current(5, UnrevokedPartitions, "t-0@3 u-0@4", "u-1@4");
    let case = Case { subscription_changed: true, ..case };
    let expected = "5 after 5 UnrevokedPartitions t-0@3 revokes u-0@4 u-1@4";
    assert_eq!(case.next(&member), expected);
}

#[test]
fn changed_subscription_without_a_lost_topic_changes_nothing() {
    let member = current(5, Stable, "t-0@3", "");
    let case = Case {
        target_epoch: 5,
        target: "t-0",
        unsubscribed: "u",
        subscription_changed: true,
        ..Case::default()
    };
    assert_eq!(case.next(&member), "5 after 4 Stable t-0@3");
}

#[test]
fn target_of_a_topic_that_is_not_subscribed_is_ignored() {
    let member = current(5, Stable, "t-0@3", "");
    let case = Case { target_epoch: 6, target: "t-0 u-0", unsubscribed: "u", ..Case::default() };
    assert_eq!(case.next(&member), "6 after 5 Stable t-0@3");
}

#[test]
fn member_in_an_unknown_state_must_rejoin_without_partitions() {
    let member = current(5, Unknown, "t-0@3", "t-1@3");
    let case = Case { target_epoch: 6, target: "t-0 t-1", ..Case::default() };
    assert_eq!(case.next(&member), "must rejoin");
    assert_eq!(Case { reported: Some("t-0"), ..case }.next(&member), "must rejoin");
    let case = Case { reported: Some(""), ..case };
    assert_eq!(case.next(&member), "6 after 5 Stable t-0@3 t-1@6");
}
