//! Start of a node whose log directories are not formatted: the cluster id that it uses, and
//! whether it founds a cluster or joins one.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use kafka_protocol::messages::DescribeClusterRequest;
use tokio::time::sleep;
use tracing::{info, warn};
use uuid::Uuid;

use super::raft_transport::{PeerLeader, PeerTransport};
use crate::{
    base::{
        config::{BrokerConfig, Listener, QuorumVoter},
        environment::new_uuid,
        kafka_uuid,
    },
    log::{Disk, LogDirs, dirs::metadata_log},
    metadata::MetadataRecord,
    peers::{self, Address, Network},
    quorum::{self, Endpoint, Observe, QuorumConfig, QuorumError, Timeouts, Voter},
};

/// The endpoint type of controllers (KIP-919).
const CONTROLLERS: i8 = 2;
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// After how many rounds without a cluster id the state is logged again.
const TOLD_EVERY: u32 = 50;

/// The cluster id for log directories without a format. Waits until another node answers, unless
/// this node founds the cluster alone or the configured voters determine the id.
pub(super) async fn new_cluster_id(
    settings: &BrokerConfig,
    disk: &dyn Disk,
    network: &dyn Network,
) -> String {
    let is_formatted = |dir: &Path| disk.len(&dir.join("meta.properties")).is_ok();
    let mut dirs = settings.log_dirs.iter().chain([&settings.metadata_log_dir]);
    if dirs.any(|dir| is_formatted(dir)) || founds_alone(settings) {
        return kafka_uuid::encode(new_uuid());
    }
    let voters = &settings.cluster.controller_quorum_voters;
    // The controllers that a broker joins may be Apache Kafka's, and their cluster may exist
    // already, so the id cannot be derived.
    if voters.is_empty() || !settings.cluster.is_controller {
        return ask_for_id(settings, network).await;
    }
    // Configured voters found the cluster together. Each derives the same id from the list of
    // voters, so that none has to be first.
    let names: Vec<String> =
        voters.iter().map(|it| format!("{}@{}:{}", it.id, it.host, it.port)).collect();
    kafka_uuid::encode(Uuid::new_v5(&Uuid::NAMESPACE_URL, names.join(",").as_bytes()))
}

/// Whether this node is a quorum of one until other voters are added: it is the only configured
/// voter, or the first of the bootstrap servers, or it has no controller listener.
fn founds_alone(settings: &BrokerConfig) -> bool {
    let cluster = &settings.cluster;
    let first = cluster.controller_quorum_bootstrap_servers.first();
    cluster.is_controller
        && match cluster.controller_quorum_voters.len() {
            0 if settings.controller_listeners.is_empty() => true,
            0 => first.is_none_or(|(host, port)| is_own(settings, host, *port)),
            voters => voters == 1,
        }
}

fn is_own(settings: &BrokerConfig, host: &str, port: u16) -> bool {
    let listens = |it: &Listener| {
        let is_here = it.host.is_empty() || it.host == "0.0.0.0" || it.host == "::";
        it.port == port && (it.host == host || is_here && is_this_machine(settings, host))
    };
    let all = [&settings.controller_listeners, &settings.advertised_controller_listeners];
    all.into_iter().flatten().any(listens)
}

fn is_this_machine(settings: &BrokerConfig, host: &str) -> bool {
    host == "localhost" || host == settings.host_name || host == "127.0.0.1" || host == "::1"
}

async fn ask_for_id(settings: &BrokerConfig, network: &dyn Network) -> String {
    let cluster = &settings.cluster;
    let servers = cluster.controller_quorum_bootstrap_servers.iter();
    let servers = servers.map(|(host, port)| (host, *port));
    let voters = cluster.controller_quorum_voters.iter().map(|voter| (&voter.host, voter.port));
    let others: Vec<_> =
        servers.chain(voters).filter(|(host, port)| !is_own(settings, host, *port)).collect();
    let request = DescribeClusterRequest::default().with_endpoint_type(CONTROLLERS);
    for round in 0u32.. {
        for (host, port) in others.iter().copied() {
            let channel = network.channel(&Address { host: host.clone(), port });
            match peers::send(&*channel, 1, &request, ASK_TIMEOUT).await {
                Ok(answer) if answer.error_code == 0 => return answer.cluster_id.to_string(),
                // Controllers of Apache Kafka refuse this below metadata.version 3.7-IV0.
                Ok(answer) if round.is_multiple_of(TOLD_EVERY) => warn!(
                    host,
                    port,
                    code = answer.error_code,
                    "the controller does not return the cluster id: format the log directories \
                    with kafka-storage"
                ),
                Err(error) if round.is_multiple_of(TOLD_EVERY) => {
                    info!(%error, "waiting for a controller that returns the cluster id");
                }
                Ok(_) | Err(_) => {}
            }
        }
        sleep(ASK_AGAIN).await;
    }
    unreachable!("the rounds do not end")
}

/// The configuration of the quorum on this node. The node is a configured voter, or the founder of
/// a quorum whose log names the voters, or an observer until it is added as a voter.
pub(super) fn quorum_config(
    settings: &BrokerConfig,
    log_dirs: &LogDirs,
    network: &Arc<dyn Network>,
) -> io::Result<QuorumConfig> {
    let cluster = &settings.cluster;
    let dir = metadata_log(&settings.metadata_log_dir);
    let directory_id = log_dirs.metadata_dir_id();
    let configured: Vec<_> =
        cluster.controller_quorum_voters.iter().map(|it| configured(settings, it)).collect();
    let alone = QuorumConfig::alone(settings.node_id, dir);
    let voters = match configured.is_empty() {
        false => configured.clone(),
        true if !founds_alone(settings) => Vec::new(),
        // Without a controller listener, no other voter can join.
        true if settings.controller_listeners.is_empty() => alone.voters.clone(),
        true if log_dirs.disk().len(&bootstrap_checkpoint(settings)).is_ok() => Vec::new(),
        true => {
            let own = own_voter(settings, directory_id);
            quorum::found(&**log_dirs.disk(), &alone.dir, &own)?;
            vec![own]
        }
    };
    let servers = cluster.controller_quorum_bootstrap_servers.iter();
    let servers = servers.map(|(host, port)| endpoint(settings, host, *port));
    let bootstrap: Vec<_> =
        servers.chain(configured.iter().flat_map(|it| it.endpoints.clone())).collect();
    let client = Arc::new(PeerLeader::new(Arc::clone(network)));
    let observe = Observe { client, bootstrap, directory_id };
    Ok(QuorumConfig {
        cluster_id: log_dirs.cluster_id().to_owned(),
        disk: Arc::clone(log_dirs.disk()),
        voters,
        transport: Arc::new(PeerTransport::new(Arc::clone(network))),
        timeouts: Timeouts {
            election_ms: cluster.controller_quorum_election_timeout_ms.max(1) as u64,
            fetch_ms: cluster.controller_quorum_fetch_timeout_ms.max(1) as u64,
        },
        observe: (!observe.bootstrap.is_empty()).then_some(observe),
        seed: new_uuid().as_u64_pair().0,
        ..alone
    })
}

/// The path of the file that `kafka-storage format` writes for a new cluster. If it exists, the
/// tool has also written the initial voters to the metadata log, or this node waits until it is
/// added as a voter.
fn bootstrap_checkpoint(settings: &BrokerConfig) -> PathBuf {
    settings.metadata_log_dir.join("bootstrap.checkpoint")
}

/// The bootstrap records that `kafka-storage format` wrote for a new cluster, if it was used.
pub(super) fn bootstrap_records(
    settings: &BrokerConfig,
    disk: &dyn Disk,
) -> Result<Option<Vec<MetadataRecord>>, QuorumError> {
    let path = bootstrap_checkpoint(settings);
    if disk.len(&path).is_err() {
        return Ok(None);
    }
    quorum::read_checkpoint(disk, &path).map(Some)
}

fn endpoint(settings: &BrokerConfig, host: &str, port: u16) -> Endpoint {
    let name = settings.controller_listeners.first().map(|it| it.name.as_str());
    let name = name.unwrap_or("CONTROLLER").to_owned();
    Endpoint { name, host: host.to_owned(), port }
}

/// A voter from `controller.quorum.voters`. It has no directory id.
fn configured(settings: &BrokerConfig, voter: &QuorumVoter) -> Voter {
    Voter::new(voter.id, Uuid::nil(), endpoint(settings, &voter.host, voter.port))
}

fn own_voter(settings: &BrokerConfig, directory_id: Uuid) -> Voter {
    let told = settings.advertised_controller_listeners.iter();
    let endpoint =
        |it: &Listener| Endpoint { name: it.name.clone(), host: it.host.clone(), port: it.port };
    let endpoints = told.map(endpoint).collect();
    Voter { id: settings.node_id, directory_id, endpoints, ..Voter::default() }
}
