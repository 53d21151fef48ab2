use super::{Assignor, assign, input};

#[track_caller]
fn check(topics: &str, members: &str, assignment: &str) {
    assert_eq!(assign(Assignor::Range, &input(topics, members)), assignment);
}

#[test]
fn topics_are_split_into_ranges() {
    check("a=7", "m1: a / m2: a / m3: a", "m1: a0 a1 a2 / m2: a3 a4 / m3: a5 a6");
    check("a=2", "m1: a / m2: a / m3: a", "m1: a0 / m2: a1 / m3:");
    check("a=4", "m1: a", "m1: a0 a1 a2 a3");
}

#[test]
fn equal_topics_are_co_partitioned() {
    check("a=3 b=3", "m1: a b / m2: a b", "m1: a0 a1 b0 b1 / m2: a2 b2");
    // Members with other subscriptions do not matter if they have none of the topics.
    let members = "m1: a b / m2: c / m3: a b / m4: c d";
    let assignment = "m1: a0 a1 b0 b1 / m2: c0 / m3: a2 b2 / m4: c1 d0";
    check("a=3 b=3 c=2 d=1", members, assignment);
}

#[test]
fn topics_are_split_among_their_subscribers() {
    let members = "m1: a b / m2: b c / m3: a / m4: b";
    let assignment = "m1: a0 a1 b0 / m2: b1 c0 c1 / m3: a2 / m4: b2";
    check("a=3 b=3 c=2", members, assignment);
    // Each topic begins with its first subscriber.
    check("a=1 b=1 c=1", "m1: a b c / m2: a b c", "m1: a0 b0 c0 / m2:");
}

#[test]
fn static_members_come_first_by_instance_id() {
    let members = "m1: a / m2@i2: a / m3: a / m4@i1: a";
    check("a=6", members, "m1: a4 / m2: a2 a3 / m3: a5 / m4: a0 a1");
}

#[test]
fn restarted_static_members_keep_their_partitions() {
    check("a=3", "m1@x: a / m2@y: a", "m1: a0 a1 / m2: a2");
    check("a=3", "m3@y: a / m4@x: a", "m3: a2 / m4: a0 a1");
}

#[test]
fn former_assignments_do_not_matter() {
    check("a=3", "m1: a | a2 / m2: a | a0 a1 x3", "m1: a0 a1 / m2: a2");
}
