//! The settings that make a node part of a cluster: its roles, the quorum, and replication.

use super::{ConfigError, Values, host_and_port};

/// An entry of `controller.quorum.voters`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuorumVoter {
    pub id: i32,
    pub host: String,
    pub port: u16,
}

/// The typed view of the cluster's settings. Names are Kafka's with `_` for `.`.
#[derive(Clone, PartialEq, Debug)]
pub struct ClusterConfig {
    /// From `process.roles`.
    pub is_broker: bool,
    pub is_controller: bool,
    /// Sorted by id. Empty if the voters are in the metadata log itself.
    pub controller_quorum_voters: Vec<QuorumVoter>,
    /// Pairs of host and port.
    pub controller_quorum_bootstrap_servers: Vec<(String, u16)>,
    pub controller_quorum_auto_join_enable: bool,
    pub controller_quorum_election_timeout_ms: i32,
    pub controller_quorum_fetch_timeout_ms: i32,
    pub controller_quorum_request_timeout_ms: i32,

    pub broker_heartbeat_interval_ms: i32,
    pub broker_session_timeout_ms: i32,
    pub initial_broker_registration_timeout_ms: i32,
    pub controlled_shutdown_enable: bool,
    pub request_timeout_ms: i32,

    pub replica_lag_time_max_ms: i64,
    pub replica_socket_timeout_ms: i32,
    pub replica_fetch_max_bytes: i32,
    pub replica_fetch_wait_max_ms: i32,
    pub replica_fetch_backoff_ms: i32,
    pub replica_fetch_min_bytes: i32,
    pub replica_fetch_response_max_bytes: i32,
    pub num_replica_fetchers: i32,
    pub replica_selector_class: Option<String>,
    /// Bytes per second of throttled replicas. `None`: no limit.
    pub leader_replication_throttled_rate: Option<i64>,
    pub follower_replication_throttled_rate: Option<i64>,
    pub replica_alter_log_dirs_io_max_bytes_per_second: Option<i64>,

    pub auto_leader_rebalance_enable: bool,
    pub leader_imbalance_check_interval_seconds: i64,
    pub unclean_leader_election_enable: bool,
}

impl ClusterConfig {
    pub(super) fn from_values(values: &Values) -> Self {
        let roles = values.list("process.roles").unwrap_or_default();
        let has = |role: &str| roles.iter().any(|it| it == role);
        let servers = values.list("controller.quorum.bootstrap.servers").unwrap_or_default();
        let address = |entry: &String| host_and_port(entry).map(|(h, p)| (h.to_owned(), p));
        Self {
            is_broker: has("broker"),
            is_controller: has("controller"),
            controller_quorum_voters: voters(values),
            controller_quorum_bootstrap_servers: servers.iter().filter_map(address).collect(),
            controller_quorum_auto_join_enable: values.bool("controller.quorum.auto.join.enable"),
            controller_quorum_election_timeout_ms: values
                .i32("controller.quorum.election.timeout.ms"),
            controller_quorum_fetch_timeout_ms: values.i32("controller.quorum.fetch.timeout.ms"),
            controller_quorum_request_timeout_ms: values
                .i32("controller.quorum.request.timeout.ms"),
            broker_heartbeat_interval_ms: values.i32("broker.heartbeat.interval.ms"),
            broker_session_timeout_ms: values.i32("broker.session.timeout.ms"),
            initial_broker_registration_timeout_ms: values
                .i32("initial.broker.registration.timeout.ms"),
            controlled_shutdown_enable: values.bool("controlled.shutdown.enable"),
            request_timeout_ms: values.i32("request.timeout.ms"),
            replica_lag_time_max_ms: values.i64("replica.lag.time.max.ms"),
            replica_socket_timeout_ms: values.i32("replica.socket.timeout.ms"),
            replica_fetch_max_bytes: values.i32("replica.fetch.max.bytes"),
            replica_fetch_wait_max_ms: values.i32("replica.fetch.wait.max.ms"),
            replica_fetch_backoff_ms: values.i32("replica.fetch.backoff.ms"),
            replica_fetch_min_bytes: values.i32("replica.fetch.min.bytes"),
            replica_fetch_response_max_bytes: values.i32("replica.fetch.response.max.bytes"),
            num_replica_fetchers: values.i32("num.replica.fetchers"),
            replica_selector_class: values.text("replica.selector.class").map(str::to_owned),
            leader_replication_throttled_rate: values.long("leader.replication.throttled.rate"),
            follower_replication_throttled_rate: values.long("follower.replication.throttled.rate"),
            replica_alter_log_dirs_io_max_bytes_per_second: values
                .long("replica.alter.log.dirs.io.max.bytes.per.second"),
            auto_leader_rebalance_enable: values.bool("auto.leader.rebalance.enable"),
            leader_imbalance_check_interval_seconds: values
                .i64("leader.imbalance.check.interval.seconds"),
            unclean_leader_election_enable: values.bool("unclean.leader.election.enable"),
        }
    }

    /// Checks the rules for the node's roles (Kafka's `KafkaConfig.validateValues`).
    pub(super) fn check(&self, node_id: i32, has_controllers: bool) -> Result<(), ConfigError> {
        let refuse = |why: String| Err(ConfigError::requirement(why));
        let voters = &self.controller_quorum_voters;
        let is_voter = voters.iter().any(|voter| voter.id == node_id);
        let quorum_is_known =
            !voters.is_empty() || !self.controller_quorum_bootstrap_servers.is_empty();
        if !self.is_controller {
            if is_voter {
                return refuse(format!(
                    "If process.roles contains just the 'broker' role, the node id {node_id} must \
                     not be included in the set of voters controller.quorum.voters={}",
                    ids(voters)
                ));
            }
            if has_controllers {
                return refuse(
                    "controller.listener.names must not contain a value appearing in the \
                     'listeners' configuration when running KRaft with just the broker role"
                        .to_owned(),
                );
            }
            if !quorum_is_known {
                return refuse(
                    "If using process.roles, either controller.quorum.bootstrap.servers must \
                     contain the set of bootstrap controllers or controller.quorum.voters must \
                     contain a parseable set of controllers."
                        .to_owned(),
                );
            }
            return Ok(());
        }
        if !voters.is_empty() && !is_voter {
            return refuse(format!(
                "If process.roles contains the 'controller' role, the node id {node_id} must be \
                 included in the set of voters controller.quorum.voters={}",
                ids(voters)
            ));
        }
        // A node without others needs no listener for other controllers.
        if (voters.len() > 1 || !self.is_broker) && !has_controllers {
            return refuse(
                "controller.listener.names must contain at least one value appearing in the \
                 'listeners' configuration when running the KRaft controller role"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

/// The ids as Kafka prints a set.
fn ids(voters: &[QuorumVoter]) -> String {
    let ids: Vec<String> = voters.iter().map(|voter| voter.id.to_string()).collect();
    format!("Set({})", ids.join(", "))
}

fn voters(values: &Values) -> Vec<QuorumVoter> {
    let entries = values.list("controller.quorum.voters").unwrap_or_default();
    let voter = |entry: &String| {
        let (id, address) = entry.split_once('@')?;
        let (host, port) = host_and_port(address)?;
        Some(QuorumVoter { id: id.parse().ok()?, host: host.to_owned(), port })
    };
    let mut voters: Vec<QuorumVoter> = entries.iter().filter_map(voter).collect();
    voters.sort_by_key(|voter| voter.id);
    voters
}
