//! Changes: the differences between one image and the next. `Image::apply` returns the change of
//! one record, and `diff` the changes between any two images. Brokers act only on
//! changes.

use std::sync::Arc;

use super::{BrokerImage, ConfigResource, PartitionImage, QuotaEntity, TopicImage};
use crate::base::TopicId;

/// A change of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The record changes no state (no-ops, transaction marks).
    Nothing,
    /// The record does not fit the image, for example because its topic does not exist. Kafka's
    /// controller writes no such records.
    Ignored(&'static str),
    /// A topic was created. Its partitions follow as `PartitionAdded`.
    TopicCreated {
        id: TopicId,
        name: Arc<str>,
    },
    /// A topic was deleted, with its configuration. `topic` is its last state.
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
    /// One key of a configuration has changed. `None` means that it is not set.
    ConfigChanged {
        resource: ConfigResource,
        key: String,
        old: Option<String>,
        new: Option<String>,
    },
    /// A broker has registered for the first time or again, or its registration has changed.
    BrokerChanged {
        id: i32,
        old: Option<Arc<BrokerImage>>,
        new: Arc<BrokerImage>,
    },
    BrokerUnregistered {
        id: i32,
        old: Arc<BrokerImage>,
    },
    /// A controller has registered or its registration has changed; after a snapshot, its
    /// registration may also be gone.
    ControllerRegistered {
        id: i32,
    },
    /// The finalized level of a feature has changed. Level 0 means that it is not finalized.
    FeatureChanged {
        name: String,
        old: i16,
        new: i16,
    },
    /// A block of producer ids was allocated. `next` is the first id that is still free.
    ProducerIdsChanged {
        next: i64,
    },
    /// A quota has changed; `None` means that it was removed.
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
    /// The eligible leader replicas of the topic's partitions were cleared; of all topics if
    /// `None`.
    ElrCleared {
        topic: Option<Arc<str>>,
    },
}

/// A partition before and after a change.
#[derive(Clone, Debug, PartialEq)]
pub struct PartitionChange {
    pub id: TopicId,
    pub name: Arc<str>,
    pub partition: i32,
    pub old: PartitionImage,
    pub new: PartitionImage,
}
