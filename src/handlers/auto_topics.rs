//! Topics that are created because somebody asked for them (`auto.create.topics.enable`, and the
//! topics of the coordinators). Kafka's `DefaultAutoTopicCreationManager`.

use std::{collections::HashSet, sync::Arc};

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

/// Creates topics without waiting; whoever asked comes again. What is on its way already is not
/// asked for twice: clients ask for metadata many times over before a topic is there.
pub fn create_later(broker: &Arc<Broker>, names: Vec<String>) {
    let Some(creation) = Creation::of(Arc::clone(broker), names) else { return };
    tokio::spawn(async move {
        let names: Vec<&str> = creation.names.iter().map(String::as_str).collect();
        if let Err(error) = create(&creation.broker, &names).await {
            let some = &names[..names.len().min(NAMES_TOLD)];
            tracing::warn!(%error, topics = names.len(), ?some, "topics are not auto-created");
        }
    });
}

/// A log line does not grow with what a client asks for.
const NAMES_TOLD: usize = 5;

/// Topics that are being created. Dropping it, however that comes about, lets them be asked for
/// again.
struct Creation {
    broker: Arc<Broker>,
    names: Vec<String>,
}

impl Creation {
    /// `None` if all are on their way.
    fn of(broker: Arc<Broker>, mut names: Vec<String>) -> Option<Self> {
        claim(&mut broker.auto_creating(), &mut names);
        if names.is_empty() { None } else { Some(Self { broker, names }) }
    }
}

impl Drop for Creation {
    fn drop(&mut self) {
        let mut in_flight = self.broker.auto_creating();
        for name in &self.names {
            in_flight.remove(name);
        }
    }
}

/// Leaves in `names` what was not in flight, and puts it there.
fn claim(in_flight: &mut HashSet<String>, names: &mut Vec<String>) {
    names.retain(|name| in_flight.insert(name.clone()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_on_its_way_is_not_asked_for_again() {
        let names = |all: &[&str]| all.iter().map(|&it| it.to_owned()).collect::<Vec<_>>();
        let mut in_flight = HashSet::new();
        let mut first = names(&["a", "b"]);
        claim(&mut in_flight, &mut first);
        assert_eq!(first, ["a", "b"]);
        let mut second = names(&["b", "c", "c"]);
        claim(&mut in_flight, &mut second);
        assert_eq!(second, ["c"]);
        claim(&mut in_flight, &mut first);
        assert!(first.is_empty());
    }
}
