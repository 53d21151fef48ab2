//! Automatic creation of topics that clients request (`auto.create.topics.enable`), and of the
//! topics of the coordinators. Kafka's `DefaultAutoTopicCreationManager`.

use std::{collections::HashSet, sync::Arc, time::Duration};

use kafka_protocol::messages::{
    CreateTopicsRequest,
    create_topics_request::{CreatableTopic, CreatableTopicConfig},
};
use tokio::time::{Instant, timeout};

use super::{
    Client, ErrorCode, HandlerError,
    conversions::{str_bytes, topic_name},
    forward,
};
use crate::{
    base::config::Config,
    broker::Broker,
    coordinator::{OFFSETS_TOPIC, TRANSACTIONS_TOPIC},
};

/// How long the controller may take to create topics, and then this broker to apply them.
const PATIENCE: Duration = Duration::from_secs(10);

/// A number of partitions or replicas that the configuration of the controller decides.
const OF_CONTROLLER: i16 = -1;

/// The request for an automatically created topic. If this broker's own configuration does not set
/// a number, the controller decides it.
fn new_topic(config: &Config, name: &str) -> CreatableTopic {
    let topic = CreatableTopic::default().with_name(topic_name(name));
    let (settings, statics) = (&config.broker, config.statics());
    match name {
        OFFSETS_TOPIC => {
            let group = &settings.group;
            topic
                .with_num_partitions(group.offsets_topic_num_partitions)
                .with_replication_factor(group.offsets_topic_replication_factor)
                .with_configs(vec![
                    topic_config("cleanup.policy", "compact"),
                    topic_config("compression.type", "producer"),
                    topic_config("segment.bytes", group.offsets_topic_segment_bytes),
                ])
        }
        TRANSACTIONS_TOPIC => {
            let transaction = &settings.transaction;
            topic
                .with_num_partitions(transaction.transaction_state_log_num_partitions)
                .with_replication_factor(transaction.transaction_state_log_replication_factor)
                .with_configs(vec![
                    topic_config("unclean.leader.election.enable", false),
                    topic_config("compression.type", "uncompressed"),
                    topic_config("cleanup.policy", "compact"),
                    topic_config("min.insync.replicas", transaction.transaction_state_log_min_isr),
                    topic_config("segment.bytes", transaction.transaction_state_log_segment_bytes),
                ])
        }
        _ => {
            let partitions = statics.get("num.partitions").map(|_| settings.num_partitions);
            let factor = statics.get("default.replication.factor");
            let factor = factor.map(|_| settings.default_replication_factor as i16);
            topic
                .with_num_partitions(partitions.unwrap_or(OF_CONTROLLER.into()))
                .with_replication_factor(factor.unwrap_or(OF_CONTROLLER))
        }
    }
}

fn topic_config(key: &str, value: impl ToString) -> CreatableTopicConfig {
    CreatableTopicConfig::default()
        .with_name(str_bytes(key))
        .with_value(Some(str_bytes(&value.to_string())))
}

/// Why topics were not created, or not in time.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error(transparent)]
    NotAnswered(#[from] HandlerError),
    #[error("{0:?}: {1}")]
    Refused(ErrorCode, String),
    #[error("the new topics have not reached the metadata of this broker in time")]
    TimedOut,
}

/// Creates topics on behalf of a client and waits until this broker's metadata has them. A topic
/// that already exists is not an error.
pub async fn create(
    broker: &Arc<Broker>,
    client: Client,
    names: &[&str],
) -> Result<(), CreateError> {
    let config = broker.config();
    let topics = names.iter().map(|name| new_topic(&config, name)).collect();
    let request = CreateTopicsRequest::default().with_topics(topics);
    let deadline = Instant::now() + PATIENCE;
    let answer = forward::ask(Arc::clone(broker), client, 7, request, deadline).await?;
    for topic in answer.topics {
        match ErrorCode::try_from_code(topic.error_code) {
            None | Some(ErrorCode::TopicAlreadyExists) => {}
            Some(code) => {
                let why = topic.error_message.unwrap_or_default();
                return Err(CreateError::Refused(code, why.to_string()));
            }
        }
    }
    let known =
        broker.node.metadata_shows(|image| names.iter().all(|name| image.topic(name).is_some()));
    timeout(PATIENCE, known).await.map_err(|_| CreateError::TimedOut)
}

/// Creates topics on behalf of a client, in the background. The client finds them with a later
/// request. Topics whose creation is in progress are skipped, because clients repeat their request
/// until a topic exists.
pub fn create_later(broker: &Arc<Broker>, client: Client, names: Vec<String>) {
    let Some(creation) = Creation::of(Arc::clone(broker), names) else { return };
    tokio::spawn(async move {
        let names: Vec<&str> = creation.names.iter().map(String::as_str).collect();
        if let Err(error) = create(&creation.broker, client, &names).await {
            let some = &names[..names.len().min(NAMES_TOLD)];
            tracing::warn!(%error, topics = names.len(), ?some, "topics are not auto-created");
        }
    });
}

/// At most this many names are logged, because the client decides how many there are.
const NAMES_TOLD: usize = 5;

/// Topics whose creation is in progress. Once it is dropped, their creation can be requested again,
/// whether it succeeded or not.
struct Creation {
    broker: Arc<Broker>,
    names: Vec<String>,
}

impl Creation {
    /// A creation of the given topics, without those whose creation is in progress. `None` if no
    /// topic is left.
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

/// Removes the names from `names` that are in `in_flight`, and adds the others to `in_flight`.
fn claim(in_flight: &mut HashSet<String>, names: &mut Vec<String>) {
    names.retain(|name| in_flight.insert(name.clone()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::config::{Sources, load};

    #[test]
    fn new_topics_leave_to_the_controller_what_the_broker_does_not_set() {
        let numbers = |overrides: &[(&str, &str)]| {
            let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            let overrides = overrides.iter().map(owned).collect();
            let loaded = load(Sources { overrides, ..Sources::default() }).expect("starts");
            let topic = new_topic(&loaded.config, "t");
            (topic.num_partitions, topic.replication_factor)
        };
        assert_eq!(numbers(&[]), (-1, -1));
        assert_eq!(numbers(&[("num.partitions", "1")]), (1, -1));
        assert_eq!(numbers(&[("default.replication.factor", "2")]), (-1, 2));
    }

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
