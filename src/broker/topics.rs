//! Topics that a broker makes on its own account, and those that are Kafka's own.

use super::{Broker, OFFSETS_TOPIC, TRANSACTION_STATE_TOPIC};
use crate::controller::NewTopic;

/// Whether clients may not produce to the topic (Kafka's `Topic.isInternal`).
pub fn is_internal(name: &str) -> bool {
    name == OFFSETS_TOPIC || name == TRANSACTION_STATE_TOPIC || name == "__share_group_state"
}

impl Broker {
    /// A topic as auto-creation makes it: with the broker's defaults, or as its coordinator needs
    /// it.
    pub fn new_topic(&self, name: String) -> NewTopic {
        if name == OFFSETS_TOPIC {
            return self.offsets_topic();
        }
        let settings = self.settings();
        NewTopic {
            name,
            partitions: settings.num_partitions,
            replication_factor: settings.default_replication_factor as i16,
            ..NewTopic::default()
        }
    }

    /// `__consumer_offsets` (Kafka's `GroupCoordinatorService.groupMetadataTopicConfigs`).
    pub fn offsets_topic(&self) -> NewTopic {
        let settings = self.settings();
        let group = &settings.group;
        let segment_bytes = group.offsets_topic_segment_bytes.to_string();
        let configs = [
            ("cleanup.policy", "compact".to_owned()),
            ("compression.type", "producer".to_owned()),
            ("segment.bytes", segment_bytes),
        ];
        NewTopic {
            name: OFFSETS_TOPIC.to_owned(),
            partitions: group.offsets_topic_num_partitions,
            replication_factor: group.offsets_topic_replication_factor,
            configs: configs.map(|(key, value)| (key.to_owned(), Some(value))).into(),
            ..NewTopic::default()
        }
    }
}
