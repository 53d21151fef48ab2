//! [`Balancer`]: how many partitions each member has, and the moves that even the numbers out.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, binary_heap::PeekMut},
};

use super::PartitionSet;

/// The numbers of partitions of all members, and of each subscription the members in the order of
/// these numbers.
///
/// A set of partitions looks only at the first member of each subscription, so the work does not
/// grow with the number of subscribers.
pub struct Balancer {
    /// By member.
    counts: Vec<usize>,
    /// By member.
    subscription: Vec<usize>,
    /// By subscription: the number of partitions of each member, and the member.
    by_count: Vec<BTreeSet<(usize, usize)>>,
}

/// The member with the fewest partitions in a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Least {
    count: usize,
    member: usize,
    subscription: usize,
}

impl Balancer {
    /// `members` are those of each subscription.
    pub fn new(members: &[Vec<usize>], sets: &[PartitionSet]) -> Self {
        let count = members.iter().map(Vec::len).sum();
        let mut counts = vec![0; count];
        for partition in sets.iter().flat_map(|set| &set.partitions) {
            if let Some(owner) = partition.owner {
                counts[owner] += 1;
            }
        }
        let mut subscription = vec![0; count];
        for (index, members) in members.iter().enumerate() {
            for member in members {
                subscription[*member] = index;
            }
        }
        let sorted = |members: &Vec<usize>| members.iter().map(|m| (counts[*m], *m)).collect();
        let by_count = members.iter().map(sorted).collect();
        Self { counts, subscription, by_count }
    }

    /// Assigns the partitions without an owner, each to the subscriber with the fewest partitions
    /// at that time.
    pub fn assign_unowned(&mut self, set: &mut PartitionSet) {
        let unowned = set.partitions.iter_mut().filter(|partition| partition.owner.is_none());
        let mut unowned = unowned.peekable();
        if unowned.peek().is_none() {
            return;
        }
        let mut receivers = self.receivers(&set.subscriptions);
        for partition in unowned {
            let Some(mut receiver) = receivers.peek_mut() else { return };
            partition.owner = Some(receiver.0.member);
            self.give(&mut receiver.0);
        }
    }

    /// Moves partitions of the set from its owner with the most partitions to its subscriber with
    /// the fewest ones, while these differ by more than 1. Returns whether a partition has moved.
    pub fn balance(&mut self, set: &mut PartitionSet) -> bool {
        let least = set.subscriptions.iter().filter_map(|index| self.least(*index));
        let Some(fewest) = least.map(|least| least.count).min() else { return false };
        let mut owned: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (at, partition) in set.partitions.iter().enumerate() {
            if let Some(owner) = partition.owner
                && self.counts[owner] > fewest + 1
            {
                owned.entry(owner).or_default().push(at);
            }
        }
        if owned.is_empty() {
            return false;
        }
        // A member may be in both heaps, so one of its entries may become outdated. But a giver
        // keeps at least as many partitions as the next giver has, less one. And a receiver had at
        // most as many as the next receiver has. The loop ends before it uses an outdated entry.
        let mut givers: BinaryHeap<(usize, usize)> =
            owned.keys().map(|member| (self.counts[*member], *member)).collect();
        let mut receivers = self.receivers(&set.subscriptions);
        let mut has_moved = false;
        while let (Some(mut giver), Some(mut receiver)) = (givers.peek_mut(), receivers.peek_mut())
            && giver.0 > receiver.0.count + 1
        {
            let Some(at) = owned.get_mut(&giver.1).and_then(Vec::pop) else {
                PeekMut::pop(giver);
                continue;
            };
            set.partitions[at].owner = Some(receiver.0.member);
            giver.0 -= 1;
            self.set_count(giver.1, giver.0);
            self.give(&mut receiver.0);
            has_moved = true;
        }
        has_moved
    }

    /// The member with the fewest partitions of each subscription, the smallest one on top.
    fn receivers(&self, subscriptions: &[usize]) -> BinaryHeap<Reverse<Least>> {
        subscriptions.iter().filter_map(|index| self.least(*index)).map(Reverse).collect()
    }

    fn least(&self, subscription: usize) -> Option<Least> {
        let (count, member) = *self.by_count[subscription].first()?;
        Some(Least { count, member, subscription })
    }

    /// Counts one more partition for a member, and replaces it by the member of its subscription
    /// that now has the fewest ones.
    fn give(&mut self, least: &mut Least) {
        self.set_count(least.member, self.counts[least.member] + 1);
        *least = self.least(least.subscription).unwrap_or(*least);
    }

    fn set_count(&mut self, member: usize, count: usize) {
        let by_count = &mut self.by_count[self.subscription[member]];
        by_count.remove(&(self.counts[member], member));
        by_count.insert((count, member));
        self.counts[member] = count;
    }
}
