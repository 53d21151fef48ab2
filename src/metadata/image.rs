//! The image: the cluster's metadata at one offset of the metadata log.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use uuid::Uuid;

use super::{
    Change, MetadataRecord, PartitionImage, TopicImage,
    change::PartitionChange,
    entities::{
        BrokerImage, Config, ConfigResource, ConfigResourceType, ControllerImage, QuotaEntity,
    },
    records::*,
    sharded::ShardedMap,
    topics::TopicsImage,
};
use crate::base::TopicId;

/// All metadata at one offset. A clone copies a few pointers, and a change copies only the parts
/// that it changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Offset of the last record in the image; -1 if there is none.
    pub offset: i64,
    /// Leader epoch of that record.
    pub epoch: i32,
    /// When the batch with that record was written, in milliseconds since 1970.
    pub timestamp_ms: i64,
    pub topics: TopicsImage,
    pub configs: ShardedMap<ConfigResource, Arc<Config>>,
    pub brokers: Arc<BTreeMap<i32, Arc<BrokerImage>>>,
    pub controllers: Arc<BTreeMap<i32, Arc<ControllerImage>>>,
    /// Finalized features and their levels, `metadata.version` among them.
    pub features: Arc<BTreeMap<String, i16>>,
    /// The newest record of producer ids. Its broker is the one that the last block was given to.
    pub producer_ids: ProducerIdsRecord,
    pub quotas: Arc<BTreeMap<QuotaEntity, BTreeMap<String, f64>>>,
    /// By user and mechanism.
    pub scram: Arc<BTreeMap<(String, i8), UserScramCredentialRecord>>,
    pub acls: Arc<BTreeMap<Uuid, AccessControlEntryRecord>>,
    pub delegation_tokens: Arc<BTreeMap<String, DelegationTokenRecord>>,
}

impl Default for Image {
    fn default() -> Self {
        Self {
            offset: -1,
            epoch: 0,
            timestamp_ms: -1,
            topics: Default::default(),
            configs: Default::default(),
            brokers: Default::default(),
            controllers: Default::default(),
            features: Default::default(),
            producer_ids: ProducerIdsRecord { broker_id: -1, ..Default::default() },
            quotas: Default::default(),
            scram: Default::default(),
            acls: Default::default(),
            delegation_tokens: Default::default(),
        }
    }
}

impl Image {
    pub fn topic(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topics.get(name)
    }

    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<TopicImage>> {
        self.topics.get_by_id(id)
    }

    pub fn partition(&self, topic: &str, partition: i32) -> Option<&PartitionImage> {
        self.topic(topic)?.partitions.get(usize::try_from(partition).ok()?)
    }

    pub fn broker(&self, id: i32) -> Option<&Arc<BrokerImage>> {
        self.brokers.get(&id)
    }

    /// The keys that are set on the resource, without any defaults.
    pub fn config(&self, resource: &ConfigResource) -> &Config {
        static EMPTY: LazyLock<Config> = LazyLock::new(Config::new);
        self.configs.get(resource).map_or(&EMPTY, |config| config)
    }

    /// The finalized level of a feature; 0 if the feature is not finalized.
    pub fn feature(&self, name: &str) -> i16 {
        self.features.get(name).copied().unwrap_or(0)
    }

    pub fn next_producer_id(&self) -> i64 {
        self.producer_ids.next_producer_id
    }

    /// Applies one record and returns what it changed. The caller sets `offset`, `epoch` and
    /// `timestamp_ms`.
    pub fn apply(&mut self, record: &MetadataRecord) -> Change {
        use MetadataRecord as R;
        match record {
            R::Topic(record) => self.add_topic(record),
            R::Partition(record) => self.add_partition(record),
            R::PartitionChange(record) => self.change_partition(record),
            R::RemoveTopic(record) => self.remove_topic(record),
            R::ClearElr(record) => self.clear_elr(record),
            R::Config(record) => self.set_config(record),
            R::RegisterBroker(record) => self.put_broker(record.clone()),
            R::UnregisterBroker(record) => self.remove_broker(record.broker_id),
            R::BrokerRegistrationChange(record) => self.change_broker(record),
            R::FenceBroker(record) => self.fence(record.id, true),
            R::UnfenceBroker(record) => self.fence(record.id, false),
            R::RegisterController(record) => {
                let id = record.controller_id;
                Arc::make_mut(&mut self.controllers).insert(id, Arc::new(record.clone()));
                Change::ControllerRegistered { id }
            }
            R::FeatureLevel(record) => self.set_feature(record),
            R::ProducerIds(record) => {
                self.producer_ids = record.clone();
                Change::ProducerIdsChanged { next: record.next_producer_id }
            }
            R::ClientQuota(record) => self.set_quota(record),
            R::UserScramCredential(record) => {
                let key = (record.name.clone(), record.mechanism);
                Arc::make_mut(&mut self.scram).insert(key, record.clone());
                Change::ScramChanged { user: record.name.clone(), mechanism: record.mechanism }
            }
            R::RemoveUserScramCredential(record) => {
                let key = (record.name.clone(), record.mechanism);
                Arc::make_mut(&mut self.scram).remove(&key);
                Change::ScramChanged { user: key.0, mechanism: key.1 }
            }
            R::AccessControlEntry(record) => {
                Arc::make_mut(&mut self.acls).insert(record.id, record.clone());
                Change::AclsChanged { id: record.id }
            }
            R::RemoveAccessControlEntry(record) => {
                Arc::make_mut(&mut self.acls).remove(&record.id);
                Change::AclsChanged { id: record.id }
            }
            R::DelegationToken(record) => {
                let id = record.token_id.clone();
                Arc::make_mut(&mut self.delegation_tokens).insert(id.clone(), record.clone());
                Change::DelegationTokenChanged { id }
            }
            R::RemoveDelegationToken(record) => {
                Arc::make_mut(&mut self.delegation_tokens).remove(&record.token_id);
                Change::DelegationTokenChanged { id: record.token_id.clone() }
            }
            R::NoOp(_)
            | R::ZkMigrationState(_)
            | R::BeginTransaction(_)
            | R::EndTransaction(_)
            | R::AbortTransaction(_) => Change::Nothing,
        }
    }

    fn add_topic(&mut self, record: &TopicRecord) -> Change {
        let name: Arc<str> = record.name.as_str().into();
        let id = record.topic_id;
        if self.topics.get(&name).is_some() || self.topics.get_by_id(id).is_some() {
            return Change::Ignored("a topic that exists already");
        }
        self.topics.insert(TopicImage { id, name: name.clone(), partitions: Vec::new() });
        Change::TopicCreated { id, name }
    }

    fn add_partition(&mut self, record: &PartitionRecord) -> Change {
        let (id, partition) = (record.topic_id, record.partition_id);
        let Some(topic) = self.topics.get_mut(id) else {
            return Change::Ignored("a partition of an unknown topic");
        };
        let Ok(at) = usize::try_from(partition) else {
            return Change::Ignored("a partition with a negative number");
        };
        let new = PartitionImage::from(record);
        let name = topic.name.clone();
        if at >= topic.partitions.len() {
            topic.partitions.resize_with(at + 1, PartitionImage::default);
        }
        topic.partitions[at] = new.clone();
        Change::PartitionAdded { id, name, partition, new }
    }

    fn change_partition(&mut self, record: &PartitionChangeRecord) -> Change {
        let (id, partition) = (record.topic_id, record.partition_id);
        let Some(topic) = self.topics.get_mut(id) else {
            return Change::Ignored("a change of an unknown topic");
        };
        let name = topic.name.clone();
        let slot = usize::try_from(partition).ok().and_then(|at| topic.partitions.get_mut(at));
        let Some(slot) = slot else {
            return Change::Ignored("a change of an unknown partition");
        };
        let new = slot.changed_by(record);
        let old = std::mem::replace(slot, new.clone());
        Change::PartitionChanged(Box::new(PartitionChange { id, name, partition, old, new }))
    }

    fn remove_topic(&mut self, record: &RemoveTopicRecord) -> Change {
        let Some(topic) = self.topics.remove(record.topic_id) else {
            return Change::Ignored("the removal of an unknown topic");
        };
        self.configs.remove(&ConfigResource::topic(topic.name.clone()));
        Change::TopicDeleted { topic }
    }

    fn clear_elr(&mut self, record: &ClearElrRecord) -> Change {
        let named = self.topics.get(&record.topic_name).map(|topic| topic.name.clone());
        if named.is_none() && !record.topic_name.is_empty() {
            return Change::Ignored("eligible leader replicas of an unknown topic");
        }
        let ids: Vec<_> = self
            .topics
            .iter()
            .filter(|topic| named.as_ref().is_none_or(|name| *name == topic.name))
            .map(|topic| topic.id)
            .collect();
        for id in ids {
            let partitions = self.topics.get_mut(id).map(|topic| &mut topic.partitions);
            for partition in partitions.into_iter().flatten() {
                partition.elr.clear();
                partition.last_known_elr.clear();
            }
        }
        Change::ElrCleared { topic: named }
    }

    fn set_config(&mut self, record: &ConfigRecord) -> Change {
        let Some(kind) = ConfigResourceType::from_id(record.resource_type) else {
            return Change::Ignored("a configuration of an unknown resource type");
        };
        let resource = ConfigResource::new(kind, record.resource_name.as_str());
        if self.configs.get(&resource).is_none() {
            self.configs.insert(resource.clone(), Default::default());
        }
        let shared = self.configs.get_mut(&resource).expect("put there above");
        let config = Arc::make_mut(shared);
        let old = match &record.value {
            Some(value) => config.insert(record.name.clone(), value.clone()),
            None => config.remove(&record.name),
        };
        if config.is_empty() {
            self.configs.remove(&resource);
        }
        let (key, new) = (record.name.clone(), record.value.clone());
        Change::ConfigChanged { resource, key, old, new }
    }

    fn put_broker(&mut self, broker: BrokerImage) -> Change {
        let id = broker.broker_id;
        let new = Arc::new(broker);
        let old = Arc::make_mut(&mut self.brokers).insert(id, new.clone());
        Change::BrokerChanged { id, old, new }
    }

    fn remove_broker(&mut self, id: i32) -> Change {
        match Arc::make_mut(&mut self.brokers).remove(&id) {
            Some(old) => Change::BrokerUnregistered { id, old },
            None => Change::Ignored("the removal of an unknown broker"),
        }
    }

    fn change_broker(&mut self, record: &BrokerRegistrationChangeRecord) -> Change {
        let Some(old) = self.brokers.get(&record.broker_id) else {
            return Change::Ignored("a change of an unknown broker");
        };
        let mut broker = BrokerImage::clone(old);
        match record.fenced {
            1 => broker.fenced = true,
            -1 => broker.fenced = false,
            _ => {}
        }
        if record.in_controlled_shutdown == 1 {
            broker.in_controlled_shutdown = true;
        }
        if !record.log_dirs.is_empty() {
            broker.log_dirs = record.log_dirs.clone();
        }
        if record.cordoned_log_dirs.is_some() {
            broker.cordoned_log_dirs = record.cordoned_log_dirs.clone();
        }
        self.put_broker(broker)
    }

    fn fence(&mut self, id: i32, fenced: bool) -> Change {
        match self.brokers.get(&id) {
            Some(old) => self.put_broker(BrokerImage { fenced, ..BrokerImage::clone(old) }),
            None => Change::Ignored("the fencing of an unknown broker"),
        }
    }

    fn set_feature(&mut self, record: &FeatureLevelRecord) -> Change {
        let features = Arc::make_mut(&mut self.features);
        let (name, new) = (record.name.clone(), record.feature_level);
        let old = match new {
            0 => features.remove(&name),
            level => features.insert(name.clone(), level),
        };
        Change::FeatureChanged { name, old: old.unwrap_or(0), new }
    }

    fn set_quota(&mut self, record: &ClientQuotaRecord) -> Change {
        let parts = record.entity.iter();
        let mut entity: QuotaEntity =
            parts.map(|part| (part.entity_type.clone(), part.entity_name.clone())).collect();
        entity.sort();
        let quotas = Arc::make_mut(&mut self.quotas);
        let values = quotas.entry(entity.clone()).or_default();
        let new = (!record.remove).then_some(record.value);
        match new {
            Some(value) => values.insert(record.key.clone(), value),
            None => values.remove(&record.key),
        };
        if values.is_empty() {
            quotas.remove(&entity);
        }
        Change::QuotaChanged { entity, key: record.key.clone(), new }
    }
}
