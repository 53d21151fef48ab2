//! Topics that are created because somebody asked for them (`auto.create.topics.enable`, and the
//! topics of the coordinators). Kafka's `DefaultAutoTopicCreationManager`.

use std::sync::Arc;

use crate::{
    base::config::BrokerConfig,
    broker::{Broker, OFFSETS_TOPIC},
    controller::{ControllerError, NewTopic},
};

/// A topic as it is created without anybody giving its settings.
pub fn new_topic(settings: &BrokerConfig, name: &str) -> NewTopic {
    let name_owned = name.to_owned();
    if name != OFFSETS_TOPIC {
        return NewTopic {
            name: name_owned,
            partitions: settings.num_partitions,
            replication_factor: settings.default_replication_factor as i16,
            ..NewTopic::default()
        };
    }
    let group = &settings.group;
    let config = |key: &str, value: String| (key.to_owned(), Some(value));
    NewTopic {
        name: name_owned,
        partitions: group.offsets_topic_num_partitions,
        replication_factor: group.offsets_topic_replication_factor,
        assignments: Vec::new(),
        configs: vec![
            config("cleanup.policy", "compact".to_owned()),
            config("compression.type", "producer".to_owned()),
            config("segment.bytes", group.offsets_topic_segment_bytes.to_string()),
        ],
    }
}

/// Creates topics and waits until this broker knows them. A topic that is there already is fine.
pub async fn create(broker: &Broker, names: &[&str]) -> Result<(), ControllerError> {
    let settings = broker.settings();
    let topics = names.iter().map(|name| new_topic(&settings, name)).collect();
    let created = broker.controller.create_topics(topics, false).await?;
    broker.applied(created.offset).await;
    for (_, result) in created.value {
        match result {
            Ok(_) | Err(ControllerError::TopicAlreadyExists(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Creates topics without waiting; whoever asked comes again.
pub fn create_later(broker: &Arc<Broker>, names: Vec<String>) {
    let broker = broker.clone();
    tokio::spawn(async move {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        if let Err(error) = create(&broker, &names).await {
            tracing::warn!(%error, ?names, "topics are not auto-created");
        }
    });
}
