//! The hash of the metadata of a group's topics (KIP-1101). A new hash begins a new group epoch.

use std::{collections::BTreeMap, sync::Arc};

use super::messages::TopicsSnapshot;
use crate::coordinator::group::metadata_hash::group_hash;

/// The hash for these topics. Topics that do not exist do not count.
pub fn metadata_hash<'t>(
    subscribed: impl IntoIterator<Item = &'t Arc<str>>,
    topics: &TopicsSnapshot,
) -> i64 {
    let hash_of = |name: &'t Arc<str>| Some((&**name, topics.topics.get(name)?.hash));
    let hashes: BTreeMap<&str, i64> = subscribed.into_iter().filter_map(hash_of).collect();
    group_hash(&hashes)
}
