//! What metadata describes besides topics: brokers, controllers, and what has configurations or
//! quotas.

use std::{collections::BTreeMap, sync::Arc};

use super::records::{RegisterBrokerRecord, RegisterControllerRecord};

/// A broker's registration as it stands: the record that made it, with all changes since.
pub type BrokerImage = RegisterBrokerRecord;
/// A controller's registration.
pub type ControllerImage = RegisterControllerRecord;
/// The entity of a quota: type and name, sorted; a null name is the default.
pub type QuotaEntity = Vec<(String, Option<String>)>;

pub type Config = BTreeMap<String, String>;

/// What a configuration belongs to (Kafka's `ConfigResource.Type`).
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

/// Something that has a configuration. A broker's name is its id; an empty name is the default of
/// all brokers.
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
