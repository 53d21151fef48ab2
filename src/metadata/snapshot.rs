//! Converts an image to the records of a snapshot, in Kafka's order (features, brokers and
//! controllers, topics, configurations, quotas, producer ids, ACLs, SCRAM, tokens).

use std::sync::Arc;

use super::{
    Image, MetadataRecord, TopicImage,
    entities::{BrokerImage, Config, ConfigResource},
    records::*,
};

impl Image {
    /// Records that yield this image if they are applied to an empty one, except for its offset,
    /// epoch and timestamp.
    pub fn records(&self) -> Vec<MetadataRecord> {
        let mut out = Vec::new();
        self.feature_records(&mut out);
        out.extend(self.brokers.values().map(|broker| BrokerImage::clone(broker).into()));
        let controllers = self.controllers.values();
        out.extend(
            controllers.map(|controller| RegisterControllerRecord::clone(controller).into()),
        );
        self.topic_records(&mut out);
        self.config_records(&mut out);
        self.quota_records(&mut out);
        if self.producer_ids.next_producer_id > 0 {
            out.push(self.producer_ids.clone().into());
        }
        out.extend(self.acls.values().map(|acl| acl.clone().into()));
        out.extend(self.scram.values().map(|credential| credential.clone().into()));
        out.extend(self.delegation_tokens.values().map(|token| token.clone().into()));
        out
    }

    /// `metadata.version` comes first, because the other records depend on it.
    fn feature_records(&self, out: &mut Vec<MetadataRecord>) {
        let mut features: Vec<_> = self.features.iter().collect();
        features.sort_by_key(|(name, _)| *name != "metadata.version");
        for (name, &feature_level) in features {
            out.push(FeatureLevelRecord { name: name.clone(), feature_level }.into());
        }
    }

    fn topic_records(&self, out: &mut Vec<MetadataRecord>) {
        for topic in sorted_topics(self) {
            let name = topic.name.to_string();
            out.push(TopicRecord { name, topic_id: topic.id }.into());
            let partitions = topic.partitions.iter().enumerate();
            out.extend(partitions.map(|(at, state)| state.to_record(topic.id, at as i32).into()));
        }
    }

    fn config_records(&self, out: &mut Vec<MetadataRecord>) {
        for (resource, config) in sorted_configs(self) {
            out.extend(config.iter().map(|(name, value)| {
                MetadataRecord::from(ConfigRecord {
                    resource_type: resource.kind.id(),
                    resource_name: resource.name.to_string(),
                    name: name.clone(),
                    value: Some(value.clone()),
                })
            }));
        }
    }

    fn quota_records(&self, out: &mut Vec<MetadataRecord>) {
        for (entity, values) in self.quotas.iter() {
            out.extend(values.iter().map(|(key, &value)| {
                let parts = entity.iter().cloned();
                let part = |(entity_type, entity_name)| EntityData { entity_type, entity_name };
                MetadataRecord::from(ClientQuotaRecord {
                    entity: parts.map(part).collect(),
                    key: key.clone(),
                    value,
                    remove: false,
                })
            }));
        }
    }
}

pub(super) fn sorted_topics(image: &Image) -> Vec<&Arc<TopicImage>> {
    let mut topics: Vec<_> = image.topics.iter().collect();
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    topics
}

fn sorted_configs(image: &Image) -> Vec<(&ConfigResource, &Arc<Config>)> {
    let mut configs: Vec<_> = image.configs.iter().collect();
    configs.sort_by_key(|(resource, _)| *resource);
    configs
}
