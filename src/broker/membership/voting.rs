//! Changes of the voter set that a controller requests for itself (KIP-853, KIP-1186; Kafka's
//! `KafkaRaftClient`). A voter sends its current endpoints to the leader. With
//! `controller.quorum.auto.join.enable`, a controller that is not a voter asks to be added.

use std::{sync::Arc, time::Duration};

use kafka_protocol::{
    messages::{
        RemoveRaftVoterRequest, UpdateRaftVoterRequest,
        update_raft_voter_request::{KRaftVersionFeature, Listener},
    },
    protocol::StrBytes,
};
use tokio::time::sleep;
use tracing::{debug, info};
use uuid::Uuid;

use super::{Broker, ToControllerError};
use crate::{
    metadata::records::BrokerEndpoint,
    protocol::{
        ErrorCode,
        messages::{AddRaftVoterListener, AddRaftVoterRequest},
    },
    quorum::{Endpoint, ReplicaStatus},
};

/// The change that this node requests from the leader.
#[derive(Debug, PartialEq)]
enum VoterIntent {
    Nothing,
    /// This node is not among the voters.
    Add,
    /// The voter entry of this node has the id of a former metadata log directory.
    Remove(Uuid),
    /// The voter entry of this node has outdated endpoints.
    Update,
}

fn intent(
    own: (i32, Uuid),
    endpoints: &[Endpoint],
    voters: &[ReplicaStatus],
    joins: bool,
) -> VoterIntent {
    let (id, directory_id) = own;
    match voters.iter().find(|voter| voter.replica_id == id) {
        None if joins => VoterIntent::Add,
        Some(voter) if voter.directory_id == directory_id => {
            let same = voter.endpoints.len() == endpoints.len()
                && endpoints.iter().all(|it| voter.endpoints.contains(it));
            if same { VoterIntent::Nothing } else { VoterIntent::Update }
        }
        Some(voter) if joins => VoterIntent::Remove(voter.directory_id),
        None | Some(_) => VoterIntent::Nothing,
    }
}

/// Requests the changes that this node's voter entry needs, until it is aborted.
pub(super) async fn keep(broker: Arc<Broker>, endpoints: Vec<BrokerEndpoint>) {
    let endpoint = |it: BrokerEndpoint| Endpoint { name: it.name, host: it.host, port: it.port };
    let endpoints: Vec<_> = endpoints.into_iter().map(endpoint).collect();
    let cluster = &broker.settings().cluster;
    let period = Duration::from_millis(cluster.controller_quorum_fetch_timeout_ms.max(1) as u64);
    // After the timeout the leader may still make the change. The next round checks it.
    let timeout = Duration::from_millis(cluster.controller_quorum_request_timeout_ms.max(1) as u64);
    let joins = cluster.controller_quorum_auto_join_enable;
    let own = (broker.node.id, broker.quorum.directory_id());
    if endpoints.is_empty() || own.1.is_nil() {
        return;
    }
    loop {
        sleep(period).await;
        if broker.quorum.kraft_version() == 0 || broker.quorum.leader().is_none() {
            continue;
        }
        let intent = intent(own, &endpoints, &broker.quorum.status().voters, joins);
        if intent == VoterIntent::Nothing {
            continue;
        }
        // A quorum of Apache Kafka must not get this node as a voter, because it does not speak
        // Kafka's consensus protocol.
        if !broker.quorum.leader_speaks_raft().await {
            debug!("the quorum is Apache Kafka's, this node cannot be a voter of it");
            continue;
        }
        match broker.tell_leader(&intent, own.1, &endpoints, timeout).await {
            Ok(0) => info!(?intent, "the leader changes the voters"),
            Ok(code) => {
                let code = ErrorCode::try_from_code(code);
                debug!(?intent, ?code, "the voters are not changed yet");
            }
            Err(error) => debug!(?intent, %error, "the voters are not changed yet"),
        }
    }
}

impl Broker {
    async fn tell_leader(
        self: &Arc<Self>,
        intent: &VoterIntent,
        directory_id: Uuid,
        endpoints: &[Endpoint],
        timeout: Duration,
    ) -> Result<i16, ToControllerError> {
        let text = |text: &str| StrBytes::from_string(text.to_owned());
        let cluster_id = Some(text(&self.node.cluster_id));
        match intent {
            VoterIntent::Nothing => Ok(0),
            VoterIntent::Add => {
                let listener = |it: &Endpoint| AddRaftVoterListener {
                    name: text(&it.name),
                    host: text(&it.host),
                    port: it.port,
                };
                let request = AddRaftVoterRequest {
                    cluster_id,
                    timeout_ms: timeout.as_millis() as i32,
                    voter_id: self.node.id,
                    voter_directory_id: directory_id,
                    listeners: endpoints.iter().map(listener).collect(),
                    ack_when_committed: false,
                };
                Ok(self.membership.to_controller.send(1, &request, timeout).await?.error_code)
            }
            VoterIntent::Remove(before) => {
                let request = RemoveRaftVoterRequest::default()
                    .with_cluster_id(cluster_id)
                    .with_voter_id(self.node.id)
                    .with_voter_directory_id(*before);
                Ok(self.membership.to_controller.send(0, &request, timeout).await?.error_code)
            }
            VoterIntent::Update => {
                let listener = |it: &Endpoint| {
                    Listener::default()
                        .with_name(text(&it.name))
                        .with_host(text(&it.host))
                        .with_port(it.port)
                };
                let versions = KRaftVersionFeature::default().with_max_supported_version(1);
                let request = UpdateRaftVoterRequest::default()
                    .with_cluster_id(cluster_id)
                    .with_current_leader_epoch(self.quorum.leadership().borrow().epoch)
                    .with_voter_id(self.node.id)
                    .with_voter_directory_id(directory_id)
                    .with_listeners(endpoints.iter().map(listener).collect())
                    .with_k_raft_version_feature(versions);
                Ok(self.membership.to_controller.send(0, &request, timeout).await?.error_code)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_controller_wishes() {
        let directory = Uuid::from_u128;
        let at = |port| Endpoint { name: "C".into(), host: "h".into(), port };
        let voter = ReplicaStatus {
            replica_id: 2,
            directory_id: directory(2),
            log_end_offset: 0,
            last_fetch_ms: 0,
            last_caught_up_ms: 0,
            endpoints: vec![at(1), at(2)],
        };
        let voters = [voter];
        let here = [at(2), at(1)];
        assert_eq!(intent((2, directory(2)), &here, &voters, true), VoterIntent::Nothing);
        assert_eq!(intent((2, directory(2)), &[at(3)], &voters, false), VoterIntent::Update);
        let before = directory(2);
        assert_eq!(intent((2, directory(9)), &here, &voters, true), VoterIntent::Remove(before));
        assert_eq!(intent((2, directory(9)), &here, &voters, false), VoterIntent::Nothing);
        assert_eq!(intent((3, directory(3)), &here, &voters, true), VoterIntent::Add);
        assert_eq!(intent((3, directory(3)), &here, &voters, false), VoterIntent::Nothing);
    }
}
