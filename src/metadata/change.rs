//! What one record changed. The same changes come from `Image::apply`, record by record, and from
//! `snapshot::diff`, which compares two images; a broker acts on changes alone.

use std::sync::Arc;

use super::{BrokerImage, ConfigResource, PartitionImage, QuotaEntity, TopicImage};
use crate::base::TopicId;

#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The record changes no state (no-ops, transaction marks).
    Nothing,
    /// The record speaks of something that does not exist; Kafka's controller writes none such.
    Ignored(&'static str),
    /// Its partitions follow as `PartitionAdded`.
    TopicCreated {
        id: TopicId,
        name: Arc<str>,
    },
    /// The topic as it was; its configuration went with it.
    TopicDeleted {
        topic: Arc<TopicImage>,
    },
    PartitionAdded {
        id: TopicId,
        name: Arc<str>,
        partition: i32,
        new: PartitionImage,
    },
    PartitionChanged(Box<PartitionChange>),
    /// One key; `None` means that it is not set.
    ConfigChanged {
        resource: ConfigResource,
        key: String,
        old: Option<String>,
        new: Option<String>,
    },
    /// A first registration, a new incarnation, or a change of one.
    BrokerChanged {
        id: i32,
        old: Option<Arc<BrokerImage>>,
        new: Arc<BrokerImage>,
    },
    BrokerUnregistered {
        id: i32,
        old: Arc<BrokerImage>,
    },
    ControllerRegistered {
        id: i32,
    },
    /// Level 0 means that the feature is no longer finalized.
    FeatureChanged {
        name: String,
        old: i16,
        new: i16,
    },
    /// The first producer id that is not handed out yet.
    ProducerIdsChanged {
        next: i64,
    },
    /// `None` removes the quota.
    QuotaChanged {
        entity: QuotaEntity,
        key: String,
        new: Option<f64>,
    },
    ScramChanged {
        user: String,
        mechanism: i8,
    },
    AclsChanged {
        id: uuid::Uuid,
    },
    DelegationTokenChanged {
        id: String,
    },
    /// Eligible leader replicas of the topic's partitions are cleared, of all topics if `None`.
    ElrCleared {
        topic: Option<Arc<str>>,
    },
}

/// A partition before and after.
#[derive(Clone, Debug, PartialEq)]
pub struct PartitionChange {
    pub id: TopicId,
    pub name: Arc<str>,
    pub partition: i32,
    pub old: PartitionImage,
    pub new: PartitionImage,
}
