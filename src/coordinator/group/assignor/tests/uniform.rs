use super::{Assignor, assign, input};

#[track_caller]
fn check(topics: &str, members: &str, assignment: &str) {
    assert_eq!(assign(Assignor::Uniform, &input(topics, members)), assignment);
}

#[test]
fn each_new_topic_is_spread_over_the_members() {
    check("a=3 b=3", "m1: a b / m2: a b", "m1: a0 a2 b1 / m2: a1 b0 b2");
    check("a=2", "m1: a / m2: a / m3: a", "m1: a0 / m2: a1 / m3:");
    check("a=2 b=1", "m1: a b", "m1: a0 a1 b0");
}

#[test]
fn new_partitions_go_to_the_members_with_the_fewest() {
    let members = "m1: a b | a0 a1 / m2: a b | a2 / m3: a b | b0";
    check("a=4 b=3", members, "m1: a0 a1 b2 / m2: a2 a3 / m3: b0 b1");
}

#[test]
fn new_member_takes_as_few_partitions_as_balance_needs() {
    check("a=6", "m1: a | a0 a1 a2 a3 a4 a5 / m2: a", "m1: a0 a1 a2 / m2: a3 a4 a5");
    let members = "m1: a | a0 a1 a2 / m2: a | a3 a4 a5 / m3: a";
    check("a=6", members, "m1: a0 a1 / m2: a3 a4 / m3: a2 a5");
    // Balanced already.
    check("a=2", "m1: a | a0 / m2: a | a1 / m3: a", "m1: a0 / m2: a1 / m3:");
}

#[test]
fn members_keep_their_partitions_when_another_leaves() {
    // `m2` had a2 and a3.
    check("a=6", "m1: a | a0 a1 / m3: a | a4 a5", "m1: a0 a1 a2 / m3: a3 a4 a5");
}

#[test]
fn member_with_more_keeps_the_extra_partition() {
    check("a=3", "m1: a | a0 / m2: a | a1 a2", "m1: a0 / m2: a1 a2");
    check("a=5", "m1: a | a0 / m2: a | a1 a2 a3 a4", "m1: a0 a4 / m2: a1 a2 a3");
}

#[test]
fn partitions_leave_members_that_no_longer_subscribe() {
    let members = "m1: a | a0 b0 / m2: a b | a1 b1";
    check("a=2 b=2", members, "m1: a0 a1 / m2: b0 b1");
    // No member subscribes to `b`.
    check("a=2 b=2", "m1: a | a0 b0 / m2: a | a1 b1", "m1: a0 / m2: a1");
}

#[test]
fn invalid_former_assignments_are_ignored() {
    // `x` does not exist, a2 and a-1 are out of range, and m2 has a partition of m1.
    let members = "m1: a | a-1 a0 a2 x0 / m2: a x | a0 a2147483647 a1 x1";
    check("a=2", members, "m1: a0 / m2: a1");
    // The list is not sorted and has a duplicate.
    check("a=4", "m1: a | a3 a0 a3 / m2: a | a1", "m1: a0 a3 / m2: a1 a2");
}

#[test]
fn scarce_topics_are_assigned_first() {
    // If `a` were first, m2 would have partitions of both topics.
    check("a=4 b=3", "m1: a / m2: a b", "m1: a0 a1 a2 a3 / m2: b0 b1 b2");
}

#[test]
fn member_with_most_partitions_gives_those_that_others_can_take() {
    // m1 has partitions of `a`, `b` and `c`. No other member subscribes to `c`.
    let members = "m1: a b c | a0 a1 b0 b1 c0 c1 c2 / m2: a / m3: b";
    let assignment = "m1: c0 c1 c2 / m2: a0 a1 / m3: b0 b1";
    check("a=2 b=2 c=3", members, assignment);
}

#[test]
fn neighbours_in_a_chain_of_subscriptions_differ_by_one() {
    // Moving one partition of each topic would be better, but no single one is.
    let members = "m1: a | a0 / m2: a b | a1 b0 / m3: b | b1 b2 b3";
    check("a=2 b=4", members, "m1: a0 / m2: a1 b0 / m3: b1 b2 b3");
    let members = "m1: a | a0 / m2: a b | a1 b0 / m3: b | b1 b2 b3 b4";
    check("a=2 b=5", members, "m1: a0 a1 / m2: b0 b4 / m3: b1 b2 b3");
}

#[test]
fn exchanged_partition_returns_to_its_former_owner() {
    // m1 gets a0 and a4 first. It then has to give up a partition of `a`, because only m1 can take
    // `b`. It keeps a5, and a4 goes to m2 instead.
    let members = "m1: a b | a5 / m2: a | a1 a2 a3";
    check("a=6 b=2", members, "m1: a0 a5 b0 b1 / m2: a1 a2 a3 a4");
}
