use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};

use super::{Partition, return_partitions};
use crate::base::TopicId;

const MEMBERS: usize = 4;

/// Partitions with former owners and owners.
fn partitions() -> impl Strategy<Value = Vec<(Option<usize>, usize)>> {
    vec((proptest::option::weighted(0.8, 0..MEMBERS), 0..MEMBERS), 0..16)
}

fn counts(partitions: &[Partition]) -> BTreeMap<Option<usize>, usize> {
    let mut counts = BTreeMap::new();
    for partition in partitions {
        *counts.entry(partition.owner).or_default() += 1;
    }
    counts
}

proptest! {
    #[test]
    fn return_leaves_no_member_that_lost_one_and_got_another(owners in partitions()) {
        let topic = TopicId::nil();
        let partition = |(index, (former_owner, owner))| {
            Partition { topic, index, former_owner, owner: Some(owner) }
        };
        let mut partitions: Vec<_> = (0..).zip(owners.iter().copied()).map(partition).collect();
        let before = counts(&partitions);
        return_partitions(&mut partitions);
        prop_assert_eq!(counts(&partitions), before);
        for member in (0..MEMBERS).map(Some) {
            let is_former = |partition: &&Partition| partition.former_owner == member;
            let is_owner = |partition: &&Partition| partition.owner == member;
            let lost = partitions.iter().filter(|p| is_former(p) && !is_owner(p)).count();
            let gained = partitions.iter().filter(|p| !is_former(p) && is_owner(p)).count();
            prop_assert!(lost == 0 || gained == 0, "{partitions:?}");
        }
        for (partition, (former_owner, owner)) in partitions.iter().zip(owners) {
            prop_assert!(former_owner != Some(owner) || partition.owner == Some(owner));
        }
    }
}
