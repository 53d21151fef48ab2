//! Types for the parts of the metadata besides topics: brokers, controllers, configurations and
//! quotas.

use std::{collections::BTreeMap, sync::Arc};

use super::records::{RegisterBrokerRecord, RegisterControllerRecord};

/// A broker's current registration: its registration record with all later changes applied.
pub type BrokerImage = RegisterBrokerRecord;
/// A controller's registration.
pub type ControllerImage = RegisterControllerRecord;
/// The entity of a quota: pairs of type and name, sorted. A null name means the default.
pub type QuotaEntity = Vec<(String, Option<String>)>;

/// The keys that are set on a resource, with their values.
pub type Config = BTreeMap<String, String>;

/// The type of a resource that has a configuration (Kafka's `ConfigResource.Type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i8)]
pub enum ConfigResourceType {
    Topic = 2,
    Broker = 4,
    BrokerLogger = 8,
    ClientMetrics = 16,
    Group = 32,
}

impl ConfigResourceType {
    pub fn from_id(id: i8) -> Option<Self> {
        Some(match id {
            2 => Self::Topic,
            4 => Self::Broker,
            8 => Self::BrokerLogger,
            16 => Self::ClientMetrics,
            32 => Self::Group,
            _ => return None,
        })
    }

    pub fn id(self) -> i8 {
        self as i8
    }
}

/// A resource that has a configuration. The name of a broker is its id; an empty name means the
/// default of all brokers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConfigResource {
    pub kind: ConfigResourceType,
    pub name: Arc<str>,
}

impl ConfigResource {
    pub fn new(kind: ConfigResourceType, name: impl Into<Arc<str>>) -> Self {
        Self { kind, name: name.into() }
    }

    pub fn topic(name: impl Into<Arc<str>>) -> Self {
        Self::new(ConfigResourceType::Topic, name)
    }

    pub fn broker(id: i32) -> Self {
        Self::new(ConfigResourceType::Broker, id.to_string())
    }

    pub fn default_broker() -> Self {
        Self::new(ConfigResourceType::Broker, "")
    }
}
