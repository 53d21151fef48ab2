//! This broker's life in the cluster (Kafka's `BrokerLifecycleManager`): it registers, stays fenced
//! until its metadata is current, sends heartbeats to the active controller, and asks for a
//! controlled shutdown before it stops.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use kafka_protocol::{
    messages::{
        ApiVersionsRequest, BrokerId, BrokerRegistrationRequest, ControllerRegistrationRequest,
        broker_registration_request::{Feature, Listener},
        controller_registration_request as of_controller,
    },
    protocol::StrBytes,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::{Broker, ToControllerError, disconnect_fencing, event_log, voting};
use crate::{
    base::{config::Listener as ListenerConfig, environment::new_uuid},
    controller::{METADATA_VERSION, SUPPORTED, SupportedFeature},
    metadata::{Image, records::BrokerEndpoint},
    protocol::{
        ErrorCode,
        messages::{BrokerHeartbeatRequest, BrokerHeartbeatResponse},
    },
    quorum::Leadership,
};

const NONE: i16 = 0;
/// The first and the longest pause before a failed request is sent again. The pause doubles.
const BACKOFF: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// The interval of heartbeats while this broker is fenced or stopping.
const SOON: Duration = Duration::from_millis(50);
/// The first `metadata.version` in which brokers may cordon log directories (KIP-1066).
const CORDONED_LOG_DIRS: i16 = 30;
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest time that a stop waits for other brokers to take over this broker's partitions.
const SHUTDOWN_MAX: Duration = Duration::from_secs(30);
/// The longest time that a stop waits for a controller. All nodes may be stopping.
const LEADERLESS_MAX: Duration = Duration::from_secs(5);

/// The registration of this process and its heartbeats.
pub struct Lifecycle {
    broker: Arc<Broker>,
    incarnation_id: Uuid,
    endpoints: Vec<BrokerEndpoint>,
    /// The broker epoch, which is the offset of the registration; -1 before it.
    epoch: i64,
}

/// The reason why the controller does not register this broker.
#[derive(Debug, thiserror::Error)]
#[error("the controller does not register this broker: {0}")]
pub struct NotRegistered(String);

/// What a heartbeat asks of the controller.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HeartbeatIntent {
    Serve,
    Stop,
}

impl Lifecycle {
    /// Registers this process. Returns once this broker's metadata contains the registration.
    ///
    /// # Errors
    /// If the controller rejects the registration, or if none accepts it within
    /// `initial.broker.registration.timeout.ms`.
    pub async fn begin(
        broker: Arc<Broker>,
        endpoints: Vec<BrokerEndpoint>,
    ) -> Result<Self, NotRegistered> {
        let mut lifecycle = Self { broker, incarnation_id: new_uuid(), endpoints, epoch: -1 };
        lifecycle.register().await?;
        Ok(lifecycle)
    }

    fn request_timeout(&self) -> Duration {
        let session_ms = self.broker.settings().cluster.broker_session_timeout_ms;
        Duration::from_millis(session_ms.max(2) as u64 / 2)
    }

    async fn register(&mut self) -> Result<(), NotRegistered> {
        let patience = self.broker.settings().cluster.initial_broker_registration_timeout_ms;
        let deadline = Instant::now() + Duration::from_millis(patience.max(0) as u64);
        let mut backoff = BACKOFF;
        loop {
            let request = self.registration();
            let asked =
                self.broker.membership.to_controller.send(4, &request, self.request_timeout());
            let why = match asked.await {
                Ok(answer) if answer.error_code == NONE => {
                    self.epoch = answer.broker_epoch;
                    self.broker.node.applied(self.epoch).await;
                    return Ok(());
                }
                Ok(answer) => {
                    let code = ErrorCode::try_from_code(answer.error_code);
                    match code {
                        // Transient: another controller may accept it, the controller's disk may
                        // have room later, or the session of this broker's previous process may
                        // end.
                        Some(
                            ErrorCode::NotController
                            | ErrorCode::KafkaStorageError
                            | ErrorCode::DuplicateBrokerRegistration
                            | ErrorCode::RequestTimedOut
                            | ErrorCode::UnknownServerError,
                        ) => format!("{code:?}"),
                        Some(ErrorCode::UnsupportedVersion) => {
                            return Err(NotRegistered(self.unsupported_features()));
                        }
                        _ => return Err(NotRegistered(format!("{code:?}"))),
                    }
                }
                Err(error) => error.to_string(),
            };
            debug!(why, "not registered yet");
            if Instant::now() >= deadline {
                return Err(NotRegistered(why));
            }
            sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Names the features of the cluster that this broker does not support, according to its own
    /// metadata, which may be out of date.
    fn unsupported_features(&self) -> String {
        let image = self.broker.metadata();
        let unsupported = image.features.iter().filter_map(|(name, level)| {
            match SUPPORTED.iter().find(|feature| feature.name == name) {
                Some(feature) if (feature.min..=feature.max).contains(level) => None,
                Some(SupportedFeature { min, max, .. }) => {
                    Some(format!("{name} is {level}, this broker supports {min} to {max}"))
                }
                None => Some(format!("{name} is {level}, this broker does not support it")),
            }
        });
        let told: Vec<_> =
            ["UnsupportedVersion".to_owned()].into_iter().chain(unsupported).collect();
        told.join("; ")
    }

    fn registration(&self) -> BrokerRegistrationRequest {
        let text = |text: &str| StrBytes::from_string(text.to_owned());
        let listener = |it: &BrokerEndpoint| {
            Listener::default()
                .with_name(text(&it.name))
                .with_host(text(&it.host))
                .with_port(it.port)
                .with_security_protocol(it.security_protocol)
        };
        let features = SUPPORTED.map(|feature| {
            Feature::default()
                .with_name(StrBytes::from_static_str(feature.name))
                .with_min_supported_version(feature.min)
                .with_max_supported_version(feature.max)
        });
        let rack = self.broker.settings().broker_rack.as_deref().map(text);
        BrokerRegistrationRequest::default()
            .with_broker_id(BrokerId(self.broker.node.id))
            .with_cluster_id(text(&self.broker.node.cluster_id))
            .with_incarnation_id(self.incarnation_id)
            .with_listeners(self.endpoints.iter().map(listener).collect())
            .with_features(features.into())
            .with_rack(rack)
            .with_log_dirs(self.broker.replicas.log_dir_ids(true))
            .with_previous_broker_epoch(self.broker.membership.previous_broker_epoch)
    }

    /// Sends one heartbeat to the active controller.
    async fn heartbeat(
        &self,
        intent: HeartbeatIntent,
    ) -> Result<BrokerHeartbeatResponse, ToControllerError> {
        let cordons = self.broker.metadata().feature(METADATA_VERSION) >= CORDONED_LOG_DIRS;
        let request = BrokerHeartbeatRequest {
            broker_id: self.broker.node.id,
            broker_epoch: self.epoch,
            current_metadata_offset: self.broker.node.applied_offset(),
            // A broker whose disk has no room for new metadata must not lead partitions.
            want_fence: self.broker.quorum.has_no_room(),
            want_shut_down: intent == HeartbeatIntent::Stop,
            offline_log_dirs: self.broker.replicas.log_dir_ids(false),
            cordoned_log_dirs: cordons.then(|| self.broker.replicas.cordoned_log_dir_ids()),
        };
        let version = if cordons { 2 } else { 1 };
        self.broker.membership.to_controller.send(version, &request, self.request_timeout()).await
    }

    /// Whether the error code means that the controller has no registration for this broker's id.
    /// It is false if another process has registered the id: this process then must not do so
    /// again.
    fn is_unknown(&self, code: i16) -> bool {
        let is_refused =
            [ErrorCode::BrokerIdNotRegistered, ErrorCode::StaleBrokerEpoch].map(|it| it.code());
        is_refused.contains(&code) && self.broker.metadata().broker(self.broker.node.id).is_none()
    }

    /// Sends heartbeats until the controller unfences this broker. Registers again if the
    /// controller has lost the registration.
    ///
    /// # Errors
    /// If such a new registration fails.
    pub async fn unfence(&mut self) -> Result<(), NotRegistered> {
        self.broker.replicas.tell_directories().await;
        loop {
            match self.heartbeat(HeartbeatIntent::Serve).await {
                Ok(answer) if answer.error_code == NONE && !answer.is_fenced => {
                    return Ok(());
                }
                Ok(answer) if self.is_unknown(answer.error_code) => self.register().await?,
                Ok(answer) => debug!(code = answer.error_code, "still fenced"),
                Err(error) => debug!(%error, "no heartbeat has come through yet"),
            }
            sleep(BACKOFF).await;
        }
    }

    /// Sends a heartbeat, but only after the controller has answered another request. A broker that
    /// receives no responses must not count as alive, because it can neither follow metadata nor
    /// commit records. Other brokers should then replace it.
    async fn beat(&self) -> Result<BrokerHeartbeatResponse, ToControllerError> {
        let anything = ApiVersionsRequest::default();
        self.broker.membership.to_controller.send(0, &anything, self.request_timeout()).await?;
        self.heartbeat(HeartbeatIntent::Serve).await
    }

    /// Sends heartbeats until the stop signal: every `broker.heartbeat.interval.ms`, and at once if
    /// another controller becomes active, or if a log directory has gone offline or is cordoned.
    /// The new controller can then watch this broker's connection.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Self {
        let mut next = Instant::now();
        let mut backoff = BACKOFF;
        let mut leadership = self.broker.quorum.leadership();
        let mut leader = leadership.borrow_and_update().leader;
        loop {
            let broker = Arc::clone(&self.broker);
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return self,
                () = broker.replicas.dirs_changed() => {}
                () = new_leader(&mut leadership, &mut leader) => backoff = BACKOFF,
                () = sleep_until(next) => {}
            }
            let beat = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return self,
                beat = self.beat() => beat,
                // The previous controller may never answer.
                () = new_leader(&mut leadership, &mut leader) => {
                    (next, backoff) = (Instant::now(), BACKOFF);
                    continue;
                }
            };
            let rest = match beat {
                Ok(answer) if answer.error_code == NONE => {
                    self.broker.heard_controller();
                    backoff = BACKOFF;
                    let interval = self.broker.settings().cluster.broker_heartbeat_interval_ms;
                    match answer.is_fenced {
                        true => SOON,
                        false => Duration::from_millis(interval.max(1) as u64),
                    }
                }
                Ok(answer) if self.is_unknown(answer.error_code) => {
                    warn!(epoch = self.epoch, "broker is not registered, registering again");
                    if let Err(error) = self.register().await {
                        warn!(%error, "registration failed");
                    }
                    SOON
                }
                failed => {
                    match failed {
                        Ok(answer) => debug!(code = answer.error_code, "a heartbeat was refused"),
                        Err(error) => debug!(%error, "a heartbeat failed"),
                    }
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                    backoff
                }
            };
            next = Instant::now() + rest;
        }
    }

    /// Asks the controller for a controlled shutdown, and waits until other brokers lead this
    /// broker's partitions. Gives up without an error after [`SHUTDOWN_MAX`], or if no controller
    /// answers for [`LEADERLESS_MAX`].
    pub async fn shut_down(self) {
        self.broker.membership.stopping.store(true, Ordering::Relaxed);
        self.broker.quorum.expect_loss();
        let asked = timeout(SHUTDOWN_MAX, async {
            let mut heard = Instant::now();
            while heard.elapsed() < LEADERLESS_MAX {
                match self.heartbeat(HeartbeatIntent::Stop).await {
                    Ok(answer) if answer.error_code != NONE => {
                        debug!(code = answer.error_code, "a heartbeat was refused");
                        if self.is_unknown(answer.error_code) {
                            return false;
                        }
                    }
                    Ok(answer) if answer.should_shut_down => return true,
                    Ok(_) => heard = Instant::now(),
                    Err(error) => debug!(%error, "a heartbeat failed"),
                }
                sleep(SOON).await;
            }
            false
        });
        let quorum = &self.broker.quorum;
        match asked.await {
            Ok(true) => info!(epoch = self.epoch, "controlled shutdown complete"),
            // If the whole cluster stops, the last controllers have no majority.
            _ if quorum.leader().is_none() || quorum.has_lost_leader() => {
                info!("no controller for a controlled shutdown, stopping anyway");
            }
            Ok(false) | Err(_) => warn!("controlled shutdown failed, stopping anyway"),
        }
    }
}

/// Waits until a node other than `known` leads the quorum, and stores it in `known`.
async fn new_leader(leadership: &mut watch::Receiver<Leadership>, known: &mut Option<i32>) {
    let is_new = |now: &Leadership| now.leader.is_some() && now.leader != *known;
    match leadership.wait_for(is_new).await.map(|now| now.leader) {
        Ok(leader) => *known = leader,
        Err(_) => std::future::pending().await,
    }
}

/// Spawns the tasks of a node that is a controller: they log elections, watch brokers without a
/// heartbeat connection, update this node's voter entry, and register this controller.
pub fn spawn_controller(
    broker: &Arc<Broker>,
    addresses: &[(String, SocketAddr)],
    tasks: &mut JoinSet<()>,
) {
    tasks.spawn_on(event_log::watch_quorum_leader(Arc::clone(broker)), &broker.node.control);
    tasks.spawn_on(disconnect_fencing::watch_quorum(Arc::clone(broker)), &broker.node.control);
    let endpoints = endpoints(&broker.settings().advertised_controller_listeners, addresses);
    tasks.spawn_on(voting::keep(Arc::clone(broker), endpoints.clone()), &broker.node.control);
    tasks.spawn_on(register_controller(Arc::clone(broker), endpoints), &broker.node.control);
}

/// Registers this controller's endpoints and features with the active controller. Registers again
/// whenever metadata no longer contains this registration. Runs until it is aborted.
async fn register_controller(broker: Arc<Broker>, endpoints: Vec<BrokerEndpoint>) {
    if endpoints.is_empty() {
        return;
    }
    let incarnation_id = new_uuid();
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let listener = |it: &BrokerEndpoint| {
        of_controller::Listener::default()
            .with_name(text(&it.name))
            .with_host(text(&it.host))
            .with_port(it.port)
            .with_security_protocol(it.security_protocol)
    };
    let features = SUPPORTED.map(|feature| {
        of_controller::Feature::default()
            .with_name(StrBytes::from_static_str(feature.name))
            .with_min_supported_version(feature.min)
            .with_max_supported_version(feature.max)
    });
    let id = broker.node.id;
    let request = ControllerRegistrationRequest::default()
        .with_controller_id(id)
        .with_incarnation_id(incarnation_id)
        .with_listeners(endpoints.iter().map(listener).collect())
        .with_features(features.into());
    let is_shown = |image: &Image| {
        image.controllers.get(&id).is_some_and(|it| it.incarnation_id == incarnation_id)
    };
    loop {
        broker.node.metadata_shows(|image| !is_shown(image)).await;
        match broker.membership.to_controller.send(0, &request, REGISTRATION_TIMEOUT).await {
            Ok(answer) if answer.error_code == NONE => {
                // The registration is committed, and reaches this node soon.
                let _ = timeout(REGISTRATION_TIMEOUT, broker.node.metadata_shows(is_shown)).await;
            }
            Ok(answer) => debug!(code = answer.error_code, "this controller is not registered"),
            Err(error) => debug!(%error, "this controller is not registered yet"),
        }
        sleep(SOON).await;
    }
}

/// The endpoints that this node advertises. A port of 0 becomes the port that the system chose.
pub fn endpoints(
    advertised: &[ListenerConfig],
    addresses: &[(String, SocketAddr)],
) -> Vec<BrokerEndpoint> {
    let endpoint = |listener: &ListenerConfig| {
        let bound = addresses.iter().find(|(name, _)| *name == listener.name);
        let port = match (listener.port, bound) {
            (0, Some((_, address))) => address.port(),
            (port, _) => port,
        };
        BrokerEndpoint {
            name: listener.name.clone(),
            host: listener.host.clone(),
            port,
            security_protocol: listener.protocol.id(),
        }
    };
    advertised.iter().map(endpoint).collect()
}
