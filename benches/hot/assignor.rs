//! The server-side assignors: a member joins a group of 999 that has 10,000 partitions.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
    sync::Arc,
};

use divan::Bencher;
use sordini::{
    base::TopicId,
    coordinator::group::{
        assignor::{Assignor, AssignorInput, AssignorMember},
        metadata_hash::topic_hash,
    },
};

const MEMBERS: u32 = 1_000;
const TOPICS: u32 = 1_000;
const PARTITIONS: i32 = 10;

/// What the members are subscribed to.
#[derive(Debug, Clone, Copy)]
enum Subscriptions {
    /// All topics.
    Equal,
    /// One of five selections of topics.
    Five,
    /// Each member has a selection of its own.
    Distinct,
}

use Subscriptions::{Distinct, Equal, Five};

/// Selections of half of the topics, or all of them.
fn subscriptions(kind: Subscriptions) -> Vec<Arc<BTreeSet<TopicId>>> {
    let mut state = 1u32;
    let mut random_bit = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 31 == 1
    };
    let mut selection = || {
        let topics = (0..TOPICS).filter(|_| matches!(kind, Equal) || random_bit());
        Arc::new(topics.map(topic).collect())
    };
    let count = match kind {
        Equal => 1,
        Five => 5,
        Distinct => MEMBERS as usize,
    };
    iter::repeat_with(&mut selection).take(count).collect()
}

fn topic(index: u32) -> TopicId {
    // Ids are random in practice. The order of these is not that of the indexes either.
    TopicId::from_u128(u128::from(index.reverse_bits()) << 96)
}

/// The last member has no partitions yet.
fn group(assignor: Assignor, kind: Subscriptions) -> AssignorInput {
    let subscriptions = subscriptions(kind);
    let member = |index: u32| {
        let topics = subscriptions[index as usize % subscriptions.len()].clone();
        let member = AssignorMember { instance_id: None, topics, assigned: Arc::default() };
        (format!("member-{index:04}").into(), member)
    };
    let mut members: BTreeMap<Arc<str>, AssignorMember> = (0..MEMBERS).map(member).collect();
    let (id, joining) = members.pop_last().expect("there are members");
    let topics = (0..TOPICS).map(|index| (topic(index), PARTITIONS)).collect();
    let mut input = AssignorInput { members, topics };
    for (id, assigned) in assignor.assign(&input) {
        input.members.get_mut(&id).expect("a member").assigned = Arc::new(assigned);
    }
    input.members.insert(id, joining);
    input
}

#[divan::bench(sample_count = 20, sample_size = 1, args = [Equal, Five, Distinct])]
fn uniform(bencher: Bencher, kind: Subscriptions) {
    let input = group(Assignor::Uniform, kind);
    bencher.bench_local(|| Assignor::Uniform.assign(&input));
}

#[divan::bench(sample_count = 20, sample_size = 1, args = [Equal, Five, Distinct])]
fn range(bencher: Bencher, kind: Subscriptions) {
    let input = group(Assignor::Range, kind);
    bencher.bench_local(|| Assignor::Range.assign(&input));
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn hash_of_10000_partitions(bencher: Bencher) {
    let partitions = vec![vec!["rack-1", "rack-2", "rack-3"]; 10_000];
    bencher.bench_local(|| topic_hash(topic(1), "topic", &partitions));
}
