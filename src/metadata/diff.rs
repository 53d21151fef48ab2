//! Computes the changes between two images, for a node that loads a snapshot.

use std::{collections::BTreeMap, sync::Arc};

use super::{Change, Image, PartitionChange, QuotaEntity, snapshot::sorted_topics};

/// The changes that lead from `old` to `new`, for a node that has `old` and receives a snapshot
/// instead of the records in between.
pub fn diff(old: &Image, new: &Image) -> Vec<Change> {
    let mut out = Vec::new();
    diff_features(old, new, &mut out);
    diff_brokers(old, new, &mut out);
    for id in changed_keys(&old.controllers, &new.controllers) {
        out.push(Change::ControllerRegistered { id });
    }
    diff_topics(old, new, &mut out);
    diff_configs(old, new, &mut out);
    diff_quotas(old, new, &mut out);
    if old.producer_ids != new.producer_ids {
        out.push(Change::ProducerIdsChanged { next: new.next_producer_id() });
    }
    for id in changed_keys(&old.acls, &new.acls) {
        out.push(Change::AclsChanged { id });
    }
    for (user, mechanism) in changed_keys(&old.scram, &new.scram) {
        out.push(Change::ScramChanged { user, mechanism });
    }
    for id in changed_keys(&old.delegation_tokens, &new.delegation_tokens) {
        out.push(Change::DelegationTokenChanged { id });
    }
    out
}

/// The keys whose values differ, or that only one of the maps has, in order.
fn changed_keys<K: Ord + Clone, V: PartialEq>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
) -> Vec<K> {
    let gone = old.keys().filter(|key| !new.contains_key(key));
    let changed = new.iter().filter(|(key, value)| old.get(key) != Some(value));
    let mut keys: Vec<K> = gone.chain(changed.map(|(key, _)| key)).cloned().collect();
    keys.sort();
    keys
}

fn diff_features(old: &Image, new: &Image, out: &mut Vec<Change>) {
    for name in changed_keys(&old.features, &new.features) {
        let (old, new) = (old.feature(&name), new.feature(&name));
        out.push(Change::FeatureChanged { name, old, new });
    }
}

fn diff_brokers(old: &Image, new: &Image, out: &mut Vec<Change>) {
    for id in changed_keys(&old.brokers, &new.brokers) {
        match (old.broker(id).cloned(), new.broker(id).cloned()) {
            (old, Some(new)) => out.push(Change::BrokerChanged { id, old, new }),
            (Some(old), None) => out.push(Change::BrokerUnregistered { id, old }),
            (None, None) => {}
        }
    }
}

fn diff_topics(old: &Image, new: &Image, out: &mut Vec<Change>) {
    for topic in sorted_topics(old) {
        if new.topic_by_id(topic.id).is_none() {
            out.push(Change::TopicDeleted { topic: topic.clone() });
        }
    }
    for topic in sorted_topics(new) {
        let (id, name) = (topic.id, topic.name.clone());
        let before = old.topic_by_id(id);
        if before.is_none() {
            out.push(Change::TopicCreated { id, name: name.clone() });
        }
        if before.is_some_and(|before| Arc::ptr_eq(before, topic)) {
            continue;
        }
        for (at, new) in topic.partitions.iter().enumerate() {
            let partition = at as i32;
            let (name, new) = (name.clone(), new.clone());
            match before.and_then(|before| before.partitions.get(at)) {
                Some(old) if *old == new => {}
                Some(old) => {
                    let old = old.clone();
                    let change = PartitionChange { id, name, partition, old, new };
                    out.push(Change::PartitionChanged(Box::new(change)));
                }
                None => out.push(Change::PartitionAdded { id, name, partition, new }),
            }
        }
    }
}

fn diff_configs(old: &Image, new: &Image, out: &mut Vec<Change>) {
    let mut resources: Vec<_> = old.configs.iter().chain(new.configs.iter()).collect();
    resources.sort_by_key(|(resource, _)| *resource);
    resources.dedup_by_key(|(resource, _)| *resource);
    for (resource, _) in resources {
        let (before, after) = (old.config(resource), new.config(resource));
        for key in changed_keys(before, after) {
            let (old, new) = (before.get(&key).cloned(), after.get(&key).cloned());
            out.push(Change::ConfigChanged { resource: resource.clone(), key, old, new });
        }
    }
}

fn diff_quotas(old: &Image, new: &Image, out: &mut Vec<Change>) {
    let none = BTreeMap::new();
    for entity in changed_keys(&old.quotas, &new.quotas) {
        let values = |image: &'_ Image, entity: &QuotaEntity| image.quotas.get(entity).cloned();
        let before = values(old, &entity).unwrap_or_else(|| none.clone());
        let after = values(new, &entity).unwrap_or_else(|| none.clone());
        for key in changed_keys(&before, &after) {
            let new = after.get(&key).copied();
            out.push(Change::QuotaChanged { entity: entity.clone(), key, new });
        }
    }
}
