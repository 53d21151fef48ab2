//! The expected hashes are those of Kafka 4.3.1's `Utils.computeTopicHash` and
//! `Utils.computeGroupHash`.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const ONE: TopicId = TopicId::from_u128(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210);
const TWO: TopicId = TopicId::from_u128(0xfedc_ba98_7654_3210_0123_4567_89ab_cdef);

/// Partitions without racks.
fn without_racks(count: usize) -> Vec<Vec<&'static str>> {
    vec![Vec::new(); count]
}

#[test]
fn topic_hashes_are_those_of_kafka() {
    let foo = topic_hash(ONE, "foo", &[vec!["rack0", "rack1"], vec!["rack1", "rack2"]]);
    assert_eq!(foo, 4231092367357902416);
    assert_eq!(topic_hash(TWO, "bär", &without_racks(1)), 3532620784224670114);
    assert_eq!(topic_hash(ONE, "foo", &without_racks(0)), 1328668300865388686);
    assert_eq!(topic_hash(ONE, "plain", &without_racks(12)), 8167398275727870491);
    assert_eq!(topic_hash(TopicId::nil(), "plain", &without_racks(12)), -7406331940097947550);
}

#[test]
fn long_topic_has_the_hash_of_kafka() {
    let racks = ["rack-0", "rack-1", "rack-2"];
    let partitions: Vec<_> = (0..300).map(|at| vec![racks[at % 3], racks[(at + 1) % 3]]).collect();
    assert_eq!(topic_hash(TWO, "many", &partitions), -5826522583469207702);
}

#[test]
fn racks_are_sorted_as_java_does_and_keep_duplicates() {
    let partitions = [vec!["b", "a", "b"], vec!["c", "", "a"]];
    assert_eq!(topic_hash(ONE, "foo", &partitions), -2312229602378287480);
    // UTF-16 has the second rack first, unlike UTF-8.
    assert_eq!(topic_hash(ONE, "t", &[vec!["\u{ff21}", "\u{1f600}"]]), 8327569973646923047);
}

#[test]
fn owned_racks_have_the_same_hash() {
    let owned = [vec!["rack0".to_owned(), "rack1".to_owned()], vec!["rack2".to_owned()]];
    let borrowed = [vec!["rack0", "rack1"], vec!["rack2"]];
    assert_eq!(topic_hash(ONE, "foo", &owned), topic_hash(ONE, "foo", &borrowed));
}

#[test]
fn each_part_of_a_topic_changes_its_hash() {
    let hashes = [
        topic_hash(ONE, "foo", &[vec!["a"], vec!["b"]]),
        topic_hash(TWO, "foo", &[vec!["a"], vec!["b"]]),
        topic_hash(ONE, "fop", &[vec!["a"], vec!["b"]]),
        topic_hash(ONE, "foo", &[vec!["a"], vec!["b"], vec![]]),
        topic_hash(ONE, "foo", &[vec!["b"], vec!["a"]]),
        topic_hash(ONE, "foo", &[vec!["a", "b"], vec![]]),
        topic_hash(ONE, "foo", &[vec!["ab"], vec![]]),
    ];
    let distinct: BTreeSet<_> = hashes.into_iter().collect();
    assert_eq!(distinct.len(), hashes.len());
}

#[test]
fn group_hashes_are_those_of_kafka() {
    assert_eq!(group_hash(&BTreeMap::<&str, i64>::new()), 0);
    let (foo, bar) = (4231092367357902416, 3532620784224670114);
    assert_eq!(group_hash(&BTreeMap::from([("foo", foo)])), -3651539661068893492);
    assert_eq!(group_hash(&BTreeMap::from([("foo", foo), ("bär", bar)])), 6217196813734473909);
    let names: BTreeMap<String, i64> =
        (0..100).map(|at| (format!("topic-{at}"), 1000 - 17 * at)).collect();
    assert_eq!(group_hash(&names), -1662817462944826979);
    let order = [("a", 1), ("a-b", 2), ("a.b", 3), ("a_b", 4), ("B", -5)];
    assert_eq!(group_hash(&BTreeMap::from(order)), -879989465630455897);
}
