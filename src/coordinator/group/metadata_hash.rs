//! The metadata hash of a group (KIP-1101). It changes when the subscribed topics change: their
//! ids, partitions, or the racks of their replicas.
//!
//! The group's record contains the hash. All brokers must compute the same value, because a
//! coordinator that computes another one rebalances the group. The values are those of Kafka's
//! `Utils.computeTopicHash` and `Utils.computeGroupHash`.

use std::{borrow::Borrow, collections::BTreeMap};

use twox_hash::XxHash3_64;

use crate::base::TopicId;

/// The version of the topic hash.
const MAGIC: u8 = 0;

/// The hash of a topic. `partitions` has an entry for each partition, in the order of their
/// indexes: the racks of its replicas' registered brokers, in any order and with duplicates.
/// Brokers without a rack are left out.
///
/// The hash of a group leaves out topics that do not exist.
pub fn topic_hash<R: AsRef<str>>(id: TopicId, name: &str, partitions: &[Vec<R>]) -> i64 {
    let (most_significant, least_significant) = id.as_u64_pair();
    let mut input = Input::default();
    input.bytes(&[MAGIC]);
    input.bytes(&most_significant.to_le_bytes());
    input.bytes(&least_significant.to_le_bytes());
    input.text(name);
    input.count(partitions.len());
    for (index, racks) in partitions.iter().enumerate() {
        input.count(index);
        let mut racks: Vec<Vec<u16>> =
            racks.iter().map(|rack| rack.as_ref().encode_utf16().collect()).collect();
        // Java orders texts by their UTF-16 units.
        racks.sort_unstable();
        for rack in racks {
            input.count(rack.len());
            input.utf16(rack);
        }
    }
    input.hash()
}

/// The hash of a group: of the topic hashes of the subscribed topics that exist, by topic name. 0
/// if there are none.
pub fn group_hash<N: Borrow<str>>(topics: &BTreeMap<N, i64>) -> i64 {
    if topics.is_empty() {
        return 0;
    }
    let mut input = Input::default();
    for hash in topics.values() {
        input.bytes(&hash.to_le_bytes());
    }
    input.hash()
}

/// What is hashed, in the encoding of the library hash4j.
#[derive(Default)]
struct Input(Vec<u8>);

impl Input {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// A Java `int`. Java's collections have no more elements than that.
    fn count(&mut self, count: usize) {
        self.bytes(&(count as u32).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.utf16(text.encode_utf16());
    }

    fn utf16(&mut self, units: impl IntoIterator<Item = u16>) {
        let mut count = 0;
        for unit in units {
            self.bytes(&unit.to_le_bytes());
            count += 1;
        }
        self.count(count);
    }

    fn hash(&self) -> i64 {
        XxHash3_64::oneshot(&self.0).cast_signed()
    }
}

#[cfg(test)]
mod tests;
