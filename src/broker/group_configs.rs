//! The configuration of the group coordinator, from that of this broker, and the configs of single
//! groups, from metadata.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    base::config::{self, BrokerConfig, ConsumerAssignor, ConsumerGroupSettings, Limited},
    coordinator::group::{
        GroupConfig,
        assignor::Assignor,
        config::{Bounded, ConsumerConfig, ConsumerGroupConfig},
    },
    metadata::{Change, Config, ConfigResourceType, Image},
};

/// The configuration of the group coordinator.
pub fn group_config(settings: &BrokerConfig) -> GroupConfig {
    let group = &settings.group;
    GroupConfig {
        min_session_timeout_ms: group.min_session_timeout_ms,
        max_session_timeout_ms: group.max_session_timeout_ms,
        initial_rebalance_delay_ms: group.initial_rebalance_delay_ms,
        max_size: group.max_size.max(0) as usize,
        commit_timeout_ms: group.offsets_commit_timeout_ms.max(1) as u64,
        offset_metadata_max_bytes: group.offset_metadata_max_bytes.max(0) as usize,
        offsets_retention_ms: group.offsets_retention_ms,
        offsets_retention_check_interval_ms: group.offsets_retention_check_interval_ms,
        offsets_topic_num_partitions: group.offsets_topic_num_partitions,
        consumer: consumer_config(&settings.consumer_group),
        ..GroupConfig::default()
    }
}

fn consumer_config(settings: &ConsumerGroupSettings) -> ConsumerConfig {
    let assignors = settings.group_consumer_assignors.iter().map(|assignor| match assignor {
        ConsumerAssignor::Uniform => Assignor::Uniform,
        ConsumerAssignor::Range => Assignor::Range,
    });
    ConsumerConfig {
        session_timeout_ms: bounded(settings.group_consumer_session_timeout_ms),
        heartbeat_interval_ms: bounded(settings.group_consumer_heartbeat_interval_ms),
        assignment_interval_ms: bounded(settings.group_consumer_assignment_interval_ms),
        max_size: settings.group_consumer_max_size.max(0) as usize,
        assignors: assignors.collect(),
        regex_refresh_interval_ms: settings.group_consumer_regex_refresh_interval_ms,
        migration_policy: settings.group_consumer_migration_policy,
    }
}

fn bounded(limited: Limited) -> Bounded {
    let Limited { value, min, max } = limited;
    Bounded { value, min, max }
}

/// The configs of all groups that have any. A new version shares nothing with the last one, because
/// they change rarely and few groups have any.
pub type GroupConfigs = Arc<BTreeMap<Arc<str>, ConsumerGroupConfig>>;

/// The configs of all groups in an image.
pub fn configs_of_groups(image: &Image) -> GroupConfigs {
    let configs = image.configs.iter().filter(|(it, _)| it.kind == ConfigResourceType::Group);
    let configs = configs.map(|(it, config)| (Arc::clone(&it.name), configs_of(config)));
    Arc::new(configs.collect())
}

/// Whether configs of groups are among the changes.
pub fn changes_groups(changes: &[Change]) -> bool {
    changes.iter().any(|change| match change {
        Change::ConfigChanged { resource, .. } => resource.kind == ConfigResourceType::Group,
        _ => false,
    })
}

fn configs_of(configs: &Config) -> ConsumerGroupConfig {
    ConsumerGroupConfig {
        session_timeout_ms: config::group_config(configs, "consumer.session.timeout.ms"),
        heartbeat_interval_ms: config::group_config(configs, "consumer.heartbeat.interval.ms"),
        assignment_interval_ms: config::group_config(configs, "consumer.assignment.interval.ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{MetadataRecord, records::ConfigRecord};

    fn set(kind: ConfigResourceType, group: &str, name: &str, value: Option<&str>) -> ConfigRecord {
        ConfigRecord {
            resource_type: kind.id(),
            resource_name: group.to_owned(),
            name: name.to_owned(),
            value: value.map(str::to_owned),
        }
    }

    #[test]
    fn configs_of_groups_are_those_of_the_image() {
        let mut image = Image::default();
        let mut apply = |kind, group, name, value| {
            let change = image.apply(&MetadataRecord::from(set(kind, group, name, value)));
            (changes_groups(&[change]), configs_of_groups(&image))
        };
        const SESSION: &str = "consumer.session.timeout.ms";
        let group = ConfigResourceType::Group;
        let (changes, configs) = apply(group, "g", SESSION, Some("50000"));
        let expected =
            ConsumerGroupConfig { session_timeout_ms: Some(50_000), ..Default::default() };
        assert_eq!((changes, configs.get("g")), (true, Some(&expected)));
        let (changes, configs) = apply(ConfigResourceType::Topic, "h", "retention.ms", Some("1"));
        assert_eq!((changes, configs.len()), (false, 1));
        let (_, configs) = apply(group, "g", SESSION, Some("x"));
        assert_eq!(configs.get("g"), Some(&ConsumerGroupConfig::default()), "not valid");
        let (changes, configs) = apply(group, "g", SESSION, None);
        assert!(changes && configs.is_empty());
    }
}
