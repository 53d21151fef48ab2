//! Features and their levels (Kafka's `FeatureControlManager`), and the first records of a new
//! cluster (`kafka-storage format`).

use super::{Context, ControllerError, Decision};
use crate::metadata::{ConfigResource, ConfigResourceType, MetadataRecord, records::*};

pub const METADATA_VERSION: &str = "metadata.version";
pub const KRAFT_VERSION: &str = "kraft.version";
pub const TRANSACTION_VERSION: &str = "transaction.version";
/// Eligible leader replicas (KIP-966).
pub const ELR: &str = "eligible.leader.replicas.version";

/// A feature and the range of its levels in Kafka 4.3.1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SupportedFeature {
    pub name: &'static str,
    pub min: i16,
    pub max: i16,
}

const fn feature(name: &'static str, min: i16, max: i16) -> SupportedFeature {
    SupportedFeature { name, min, max }
}

/// The supported features. The quorum keeps the level of `kraft.version`; it is never in the
/// feature records of the metadata log.
pub const SUPPORTED: [SupportedFeature; 7] = [
    feature("group.version", 0, 1),
    feature(KRAFT_VERSION, 0, 1),
    feature(METADATA_VERSION, 7, 30),
    feature("share.version", 0, 1),
    feature("streams.version", 0, 1),
    feature(TRANSACTION_VERSION, 0, 2),
    feature(ELR, 0, 1),
];

/// The initial levels of a new cluster, in the order in which Kafka writes them.
const INITIAL: [(&str, i16); 6] = [
    (METADATA_VERSION, 30),
    (ELR, 1),
    ("group.version", 1),
    ("share.version", 1),
    ("streams.version", 1),
    (TRANSACTION_VERSION, 2),
];

/// The first records of a new cluster, as Kafka 4.3.1's active controller writes them: one
/// transaction with the feature levels and with the cluster-wide `min.insync.replicas` that
/// eligible leader replicas need (KIP-966).
pub fn bootstrap(min_insync_replicas: i32) -> Vec<MetadataRecord> {
    let levels = INITIAL.map(|(name, feature_level)| {
        MetadataRecord::from(FeatureLevelRecord { name: name.into(), feature_level })
    });
    bootstrap_with(levels.into(), min_insync_replicas)
}

/// Like [`bootstrap`], with the feature levels that `kafka-storage format` has chosen.
pub fn bootstrap_with(
    features: Vec<MetadataRecord>,
    min_insync_replicas: i32,
) -> Vec<MetadataRecord> {
    let name = Some("Bootstrap records".into());
    let mut records = vec![BeginTransactionRecord { name }.into()];
    let elr = features.iter().any(|record| match record {
        MetadataRecord::FeatureLevel(level) => level.name == ELR && level.feature_level > 0,
        _ => false,
    });
    records.extend(features);
    if elr {
        let value = Some(min_insync_replicas.to_string());
        records.push(
            ConfigRecord {
                resource_type: ConfigResourceType::Broker.id(),
                resource_name: String::new(),
                name: "min.insync.replicas".into(),
                value,
            }
            .into(),
        );
    }
    records.push(EndTransactionRecord::default().into());
    records
}

/// The kind of a feature update: an upgrade, or a downgrade that keeps (safe) or may lose (unsafe)
/// metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpgradeType {
    Unknown,
    Upgrade,
    SafeDowngrade,
    UnsafeDowngrade,
}

impl UpgradeType {
    pub fn from_id(id: i8) -> Self {
        match id {
            1 => Self::Upgrade,
            2 => Self::SafeDowngrade,
            3 => Self::UnsafeDowngrade,
            _ => Self::Unknown,
        }
    }
}

/// The new level of one feature in an UpdateFeatures request.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureUpdate {
    pub name: String,
    pub level: i16,
    pub upgrade: UpgradeType,
}

/// Changes feature levels. If one update is invalid, none is made. An update of `kraft.version` is
/// only checked against its current level (`kraft_version`), because the quorum makes it.
pub fn update(
    cx: &Context<'_>,
    updates: &[FeatureUpdate],
    kraft_version: i16,
) -> Decision<Result<(), ControllerError>> {
    let mut records = Vec::new();
    for update in updates {
        let checked = match update.name == KRAFT_VERSION {
            true => judge_kraft_version(cx, update, kraft_version).map(|()| None),
            false => update_one(cx, update, updates).map(Some),
        };
        match checked {
            Ok(record) => records.extend(record),
            Err(why) => return Decision { records: Vec::new(), response: Err(why) },
        }
    }
    if let Some(update) = updates.iter().find(|update| update.name == ELR) {
        // While the feature was off, the ELRs were not updated, so they may be wrong.
        if update.level != cx.image.feature(ELR) {
            records.push(ClearElrRecord { topic_name: String::new() }.into());
        }
        if update.level > 0 {
            records.extend(one_min_isr(cx));
        }
    }
    Decision { records, response: Ok(()) }
}

/// Sets one `min.insync.replicas` for the cluster and removes it from each broker, because eligible
/// leader replicas need the same value everywhere (KIP-966).
fn one_min_isr(cx: &Context<'_>) -> Vec<MetadataRecord> {
    const NAME: &str = "min.insync.replicas";
    let record = |resource_name: String, value| ConfigRecord {
        resource_type: ConfigResourceType::Broker.id(),
        resource_name,
        name: NAME.into(),
        value,
    };
    let mut records = Vec::new();
    if !cx.image.config(&ConfigResource::default_broker()).contains_key(NAME) {
        let value = Some(cx.settings.min_insync_replicas.to_string());
        records.push(record(String::new(), value).into());
    }
    let set = cx.image.configs.iter().filter(|(resource, config)| {
        let is_broker = resource.kind == ConfigResourceType::Broker && !resource.name.is_empty();
        is_broker && config.contains_key(NAME)
    });
    let mut brokers: Vec<_> = set.map(|(resource, _)| resource.name.to_string()).collect();
    brokers.sort_unstable();
    records.extend(brokers.into_iter().map(|broker| record(broker, None).into()));
    records
}

fn refusal(FeatureUpdate { name, level, .. }: &FeatureUpdate, why: &str) -> ControllerError {
    ControllerError::InvalidUpdateVersion(format!(
        "Invalid update version {level} for feature {name}. {why}"
    ))
}

fn judge_kraft_version(
    cx: &Context<'_>,
    update: &FeatureUpdate,
    current: i16,
) -> Result<(), ControllerError> {
    // No record has the level of `kraft.version`, so these checks take its current level as 0.
    judge_level(cx, update, 0)?;
    match update.level < current {
        true => Err(refusal(update, "Can't downgrade the version of this feature.")),
        false => Ok(()),
    }
}

/// The checks that apply to every feature. `current` is its current level.
fn judge_level(
    cx: &Context<'_>,
    update: &FeatureUpdate,
    current: i16,
) -> Result<(), ControllerError> {
    let FeatureUpdate { name, level, upgrade } = update;
    let why = if *upgrade == UpgradeType::Unknown {
        "The controller does not support the given upgrade type.".into()
    } else if *level < 0 {
        "A feature version cannot be less than 0.".into()
    } else if let Some(why) = why_unsupported(cx, name, *level) {
        why
    } else if *level < current && *upgrade == UpgradeType::Upgrade {
        "Can't downgrade the version of this feature without setting the upgrade type to either \
         safe or unsafe downgrade."
            .into()
    } else if *level > current && *upgrade != UpgradeType::Upgrade {
        "Can't downgrade to a newer version.".into()
    } else {
        return Ok(());
    };
    Err(refusal(update, &why))
}

fn update_one(
    cx: &Context<'_>,
    update: &FeatureUpdate,
    all: &[FeatureUpdate],
) -> Result<MetadataRecord, ControllerError> {
    let FeatureUpdate { name, level, upgrade } = update;
    let current = cx.image.feature(name);
    judge_level(cx, update, current)?;
    if name == METADATA_VERSION && *level < current {
        let why = match upgrade {
            UpgradeType::UnsafeDowngrade => {
                "Unsafe metadata downgrade is not supported in this version."
            }
            _ => {
                "Refusing to perform the requested downgrade because it might delete metadata \
                 information."
            }
        };
        return Err(ControllerError::InvalidUpdateVersion(format!(
            "Unsupported metadata.version downgrade from {current} to {level}. {why}"
        )));
    }
    let proposed = all.iter().find(|other| other.name == METADATA_VERSION);
    let metadata = proposed.map_or(cx.image.feature(METADATA_VERSION), |other| other.level);
    // Eligible leader replicas need metadata.version 4.0-IV1, which is level 23.
    if name == ELR && *level == 1 && metadata < 23 {
        let why =
            format!("{name} could not be set to 1 because it depends on metadata.version level 23");
        return Err(refusal(update, &why));
    }
    Ok(FeatureLevelRecord { name: name.clone(), feature_level: *level }.into())
}

/// Why this controller or a registered broker does not support the level; `None` if all do.
fn why_unsupported(cx: &Context<'_>, name: &str, level: i16) -> Option<String> {
    let node = cx.settings.node_id;
    let Some(known) = SUPPORTED.iter().find(|feature| feature.name == name) else {
        return Some(format!("Local controller {node} does not support this feature."));
    };
    let removes = level == 0 && name != METADATA_VERSION;
    if !removes && !(known.min..=known.max).contains(&level) {
        return Some(format!(
            "Local controller {node} only supports versions {}-{}",
            known.min, known.max
        ));
    }
    cx.image.brokers.values().find_map(|broker| {
        let id = broker.broker_id;
        let supported = broker.features.iter().find(|feature| feature.name == name);
        let (min, max) = supported.map_or((0, 0), |feature| {
            (feature.min_supported_version, feature.max_supported_version)
        });
        if level == 0 || (min..=max).contains(&level) {
            return None;
        }
        Some(match supported {
            None => format!("Broker {id} does not support this feature."),
            Some(_) => format!("Broker {id} only supports versions {min}-{max}"),
        })
    })
}
