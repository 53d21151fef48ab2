//! Registration of brokers and controllers (Kafka's `ClusterControlManager`).

use uuid::Uuid;

use super::{
    Context, ControllerError, Decision,
    features::{METADATA_VERSION, SUPPORTED},
    leadership,
};
use crate::{
    base::planted_bugs::{Bug, has_bug},
    metadata::{BrokerImage, MetadataRecord, records::*},
};

/// The registration request that a broker sends when it starts.
#[derive(Debug, Clone, PartialEq)]
pub struct Registration {
    pub broker_id: i32,
    /// Random id of the process. Each start of a broker has another one.
    pub incarnation_id: Uuid,
    pub endpoints: Vec<BrokerEndpoint>,
    pub features: Vec<BrokerFeature>,
    pub rack: Option<String>,
    pub log_dirs: Vec<Uuid>,
    /// Epoch of the broker's previous incarnation if it stopped cleanly on these disks; -1
    /// otherwise.
    pub previous_broker_epoch: i64,
}

impl Default for Registration {
    fn default() -> Self {
        Self {
            broker_id: -1,
            incarnation_id: Uuid::nil(),
            endpoints: Vec::new(),
            features: own_features(),
            rack: None,
            log_dirs: Vec::new(),
            previous_broker_epoch: -1,
        }
    }
}

/// The features and levels that this version of the broker supports.
pub fn own_features() -> Vec<BrokerFeature> {
    let feature = |feature: super::SupportedFeature| BrokerFeature {
        name: feature.name.into(),
        min_supported_version: feature.min,
        max_supported_version: feature.max,
    };
    SUPPORTED.map(feature).into()
}

const DUPLICATE: &str = "Another broker is registered with that broker id. If the broker was \
                         recently restarted this should self-resolve once the heartbeat manager \
                         expires the broker's session.";

/// Registers a broker as fenced, and returns its epoch, which is the offset of its registration
/// record. If the same incarnation registers again, it keeps its epoch and its state.
pub fn register(
    cx: &mut Context<'_>,
    registration: &Registration,
) -> Decision<Result<i64, ControllerError>> {
    if let Err(why) = check(cx, registration) {
        return Decision { records: Vec::new(), response: Err(why) };
    }
    let id = registration.broker_id;
    let known = cx.image.broker(id);
    let same = known.filter(|it| it.incarnation_id == registration.incarnation_id);
    let mut records = match same {
        Some(_) => Vec::new(),
        None if has_bug(Bug::MissingFence) => Vec::new(),
        None => {
            let was_clean =
                known.is_some_and(|known| known.broker_epoch == registration.previous_broker_epoch);
            leadership::restarted(cx, id, was_clean)
        }
    };
    let offset = cx.image.offset + 1 + records.len() as i64;
    let broker_epoch = same.map_or(offset, |same| same.broker_epoch);
    if same.is_none() {
        cx.volatile.register(id, broker_epoch);
    }
    records.push(record(registration, same.map(AsRef::as_ref), broker_epoch));
    Decision { records, response: Ok(broker_epoch) }
}

fn record(
    registration: &Registration,
    same: Option<&BrokerImage>,
    broker_epoch: i64,
) -> MetadataRecord {
    RegisterBrokerRecord {
        broker_id: registration.broker_id,
        incarnation_id: registration.incarnation_id,
        broker_epoch,
        end_points: registration.endpoints.clone(),
        features: registration.features.clone(),
        rack: registration.rack.clone(),
        fenced: same.is_none_or(|same| same.fenced),
        in_controlled_shutdown: same.is_some_and(|same| same.in_controlled_shutdown),
        log_dirs: registration.log_dirs.clone(),
        ..RegisterBrokerRecord::default()
    }
    .into()
}

fn check(cx: &Context<'_>, registration: &Registration) -> Result<(), ControllerError> {
    check_former(cx, registration)?;
    check_dirs(cx, registration)?;
    check_features(cx, registration)
}

/// Checks that the broker's previous incarnation is gone, which means that it has no session. If
/// this controller has received no heartbeat from it, its session is ignored if the new incarnation
/// has one of its log directories, because a running process would hold the lock of that directory.
fn check_former(cx: &Context<'_>, registration: &Registration) -> Result<(), ControllerError> {
    let (id, incarnation_id) = (registration.broker_id, registration.incarnation_id);
    let former = cx.image.broker(id).filter(|it| it.incarnation_id != incarnation_id);
    let Some(former) = former else { return Ok(()) };
    let timeout_ms = cx.settings.broker_session_timeout_ms;
    let lives = cx.volatile.has_session(id, former.broker_epoch, cx.now_ms, timeout_ms);
    let has_dirs = registration.log_dirs.iter().any(|dir| former.log_dirs.contains(dir));
    let may_be_there = lives && (cx.volatile.has_heard_of(id) || !has_dirs);
    match may_be_there && !has_bug(Bug::MissingFence) {
        true => Err(ControllerError::DuplicateBrokerRegistration(DUPLICATE.into())),
        false => Ok(()),
    }
}

fn check_dirs(cx: &Context<'_>, registration: &Registration) -> Result<(), ControllerError> {
    let refuse = |why: String| Err(ControllerError::InvalidRegistration(why));
    let dirs = &registration.log_dirs;
    if dirs.is_empty() {
        return refuse("No directories specified in request".into());
    }
    // The first hundred ids are Kafka's own (`DirectoryId.reserved`).
    if dirs.iter().any(|dir| dir.as_u128() < 100) {
        return refuse("Reserved directory ID in request".into());
    }
    if dirs.iter().enumerate().any(|(at, dir)| dirs[..at].contains(dir)) {
        return refuse("Duplicate directory ID in request".into());
    }
    let others = cx.image.brokers.values().filter(|it| it.broker_id != registration.broker_id);
    for other in others {
        if let Some(dir) = dirs.iter().find(|dir| other.log_dirs.contains(dir)) {
            return refuse(format!(
                "Broker {} is already registered with directory {dir}",
                other.broker_id
            ));
        }
    }
    Ok(())
}

/// Checks that the broker supports the level of every feature. A feature that it does not name must
/// be at level 0.
fn check_features(cx: &Context<'_>, registration: &Registration) -> Result<(), ControllerError> {
    let supported = &registration.features;
    let check = |name: &str, min: i16, max: i16| {
        let finalized = cx.image.feature(name);
        if (min..=max).contains(&finalized) {
            return Ok(());
        }
        Err(ControllerError::UnsupportedVersion(format!(
            "Unable to register because the broker does not support finalized version {finalized} \
             of {name}. The broker wants a version between {min} and {max}, inclusive."
        )))
    };
    for feature in supported {
        check(&feature.name, feature.min_supported_version, feature.max_supported_version)?;
    }
    let is_named = |name: &str| supported.iter().any(|feature| feature.name == name);
    if !is_named(METADATA_VERSION) {
        let why = "Request features do not contain 'metadata.version'";
        return Err(ControllerError::InvalidRegistration(why.into()));
    }
    let mut unnamed = cx.image.features.keys().filter(|name| !is_named(name));
    unnamed.try_for_each(|name| check(name, 0, 0))
}

/// Removes a broker from the metadata. Its partitions elect other leaders.
pub fn unregister(cx: &mut Context<'_>, broker_id: i32) -> Decision<Result<(), ControllerError>> {
    match cx.image.broker(broker_id) {
        Some(broker) => {
            cx.volatile.forget(broker_id);
            Decision { records: leadership::unregistered(cx, broker), response: Ok(()) }
        }
        None => Decision {
            records: Vec::new(),
            response: Err(ControllerError::BrokerIdNotRegistered(format!(
                "Broker ID {broker_id} is not currently registered"
            ))),
        },
    }
}

/// Fences a broker whose process is known to have ended, without waiting for its session to time
/// out. `epoch` is the broker epoch of the ended process; `None` means the current one.
pub fn gone(cx: &mut Context<'_>, broker_id: i32, epoch: Option<i64>) -> Decision<()> {
    let broker = cx.image.broker(broker_id);
    let broker = broker.filter(|it| epoch.is_none_or(|epoch| epoch == it.broker_epoch));
    let Some(broker) = broker else { return Decision { records: Vec::new(), response: () } };
    cx.volatile.end_session(broker_id);
    let records = match broker.fenced {
        true => Vec::new(),
        false => leadership::fenced(cx, broker),
    };
    Decision { records, response: () }
}
