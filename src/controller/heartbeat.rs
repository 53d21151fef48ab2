//! Heartbeats of brokers: fencing, unfencing and controlled shutdown
//! (`BrokerHeartbeatManager.calculateNextBrokerState`).

use uuid::Uuid;

use super::{Context, ControllerError, Decision, events::Cause, leadership};
use crate::metadata::BrokerImage;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Heartbeat {
    pub broker_id: i32,
    pub broker_epoch: i64,
    /// Offset up to which the broker has applied the metadata log.
    pub current_metadata_offset: i64,
    pub want_fence: bool,
    pub want_shut_down: bool,
    pub offline_log_dirs: Vec<Uuid>,
    /// `None` from brokers that do not support cordoned directories (KIP-1066).
    pub cordoned_log_dirs: Option<Vec<Uuid>>,
}

impl Heartbeat {
    /// The cause to log for the changes that this heartbeat leads to.
    pub(super) fn cause(&self) -> Cause {
        let id = self.broker_id;
        match (self.want_shut_down, self.want_fence, self.offline_log_dirs.is_empty()) {
            (true, ..) => Cause::broker("controlled_shutdown", id),
            (_, true, _) => Cause::fault("requested_by_broker", id),
            (.., false) => Cause::fault("log_directory_failure", id),
            _ => Cause::broker("heartbeat", id),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartbeatReply {
    /// Whether the broker has applied its own registration.
    pub is_caught_up: bool,
    pub is_fenced: bool,
    pub should_shut_down: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Fenced,
    Unfenced,
    ShuttingDown,
    ShutDownNow,
}

/// Returns the registered broker, or `StaleBrokerEpoch` if the broker is not registered or has
/// another epoch.
pub fn check_epoch<'a>(
    cx: &Context<'a>,
    id: i32,
    epoch: i64,
) -> Result<&'a BrokerImage, ControllerError> {
    let broker = cx.image.broker(id).ok_or_else(|| {
        let why = format!("No broker registration found for broker id {id}");
        ControllerError::StaleBrokerEpoch(why)
    })?;
    if broker.broker_epoch != epoch {
        let known = broker.broker_epoch;
        let why = format!("Expected broker epoch {known}, but got broker epoch {epoch}");
        return Err(ControllerError::StaleBrokerEpoch(why));
    }
    Ok(broker)
}

/// Renews the broker's session, and decides whether it is fenced, unfenced or shut down. Fails with
/// `StaleBrokerEpoch` if the heartbeat is from another incarnation.
pub fn process(
    cx: &mut Context<'_>,
    beat: &Heartbeat,
) -> Decision<Result<HeartbeatReply, ControllerError>> {
    let id = beat.broker_id;
    let broker = match check_epoch(cx, id, beat.broker_epoch) {
        Ok(broker) => broker,
        Err(error) => return Decision { records: Vec::new(), response: Err(error) },
    };
    cx.volatile.renew_session(id, beat.broker_epoch, cx.now_ms);
    let current = match (cx.volatile.is_shutting_down(id), broker.fenced) {
        (true, _) => State::ShuttingDown,
        (false, true) => State::Fenced,
        (false, false) => State::Unfenced,
    };
    // A broker's epoch is the offset of its registration.
    let is_caught_up = beat.current_metadata_offset >= broker.broker_epoch;
    let next = next_state(cx, current, beat, is_caught_up);
    let mut records = match next {
        next if next == current => Vec::new(),
        State::Fenced | State::ShutDownNow if broker.fenced => Vec::new(),
        State::Fenced | State::ShutDownNow => leadership::fenced(cx, broker),
        State::Unfenced => leadership::unfenced(cx, broker),
        State::ShuttingDown => leadership::shutting_down(cx, broker),
    };
    let is_fenced = matches!(next, State::Fenced | State::ShutDownNow);
    cx.volatile.applied(id, beat.current_metadata_offset, is_fenced);
    records.extend(leadership::directories_offline(cx, broker, &beat.offline_log_dirs));
    let cordoned = beat.cordoned_log_dirs.as_ref();
    records.extend(leadership::directories_cordoned(broker, cordoned));
    match next {
        State::ShuttingDown => {
            cx.volatile.begin_shutdown(id, cx.image.offset + records.len() as i64);
        }
        // The broker stops on purpose, so its next incarnation may register at once.
        State::ShutDownNow => cx.volatile.end_session(id),
        State::Fenced | State::Unfenced => {}
    }
    let should_shut_down = next == State::ShutDownNow;
    let response = Ok(HeartbeatReply { is_caught_up, is_fenced, should_shut_down });
    Decision { records, response }
}

/// Whether a broker is registered with one of the directories.
fn lists_any(cx: &Context<'_>, broker: i32, dirs: &[Uuid]) -> bool {
    let broker = cx.image.broker(broker);
    broker.is_some_and(|broker| dirs.iter().any(|dir| broker.log_dirs.contains(dir)))
}

/// The next state of a broker. A broker in controlled shutdown may stop once it leads no partition
/// and all other active brokers have applied the records that moved its leaderships.
fn next_state(cx: &Context<'_>, current: State, beat: &Heartbeat, is_caught_up: bool) -> State {
    let id = beat.broker_id;
    match current {
        State::Fenced if beat.want_shut_down => State::ShutDownNow,
        // Unfencing can elect the broker leader of partitions in the directories that this
        // heartbeat reports as failed. So this heartbeat removes the directories, and the next one
        // unfences.
        State::Fenced if lists_any(cx, id, &beat.offline_log_dirs) => State::Fenced,
        State::Fenced if !beat.want_fence && is_caught_up => State::Unfenced,
        State::Fenced => State::Fenced,
        State::Unfenced => match (beat.want_fence, beat.want_shut_down) {
            (true, true) => State::ShutDownNow,
            (true, false) => State::Fenced,
            (false, false) => State::Unfenced,
            (false, true) if leadership::leads_any(cx.image, id) => State::ShuttingDown,
            (false, true) => State::ShutDownNow,
        },
        State::ShuttingDown | State::ShutDownNow => {
            let must_see = cx.volatile.shutdown_offset(id).unwrap_or(i64::MAX);
            let all_saw = cx.volatile.lowest_active_offset(cx.image) >= must_see;
            if all_saw && !leadership::leads_any(cx.image, id) {
                State::ShutDownNow
            } else {
                State::ShuttingDown
            }
        }
    }
}
