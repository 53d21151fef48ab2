//! How a cluster begins whose log directories nobody has formatted: which id it gets, and whether
//! this node founds it or joins one.

use std::{path::Path, time::Duration};

use kafka_protocol::messages::DescribeClusterRequest;
use tokio::time::sleep;
use tracing::{info, warn};
use uuid::Uuid;

use crate::{
    base::{
        config::{BrokerConfig, Listener},
        world::new_uuid,
    },
    log::id_text,
    peers::{self, Address, Network},
};

/// The endpoint type of controllers (KIP-919).
const CONTROLLERS: i8 = 2;
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// How often it is said that nobody answers.
const TOLD_EVERY: u32 = 50;

/// The id of the cluster that directories without one become part of.
pub(super) async fn new_cluster_id(settings: &BrokerConfig, network: &dyn Network) -> String {
    let is_formatted = |dir: &Path| dir.join("meta.properties").exists();
    if settings.log_dirs.iter().any(|dir| is_formatted(dir)) || founds_alone(settings) {
        return id_text::encode(new_uuid());
    }
    let voters = &settings.cluster.controller_quorum_voters;
    if voters.is_empty() {
        return ask_for_id(settings, network).await;
    }
    // Voters that are configured found the cluster together, and have nobody to ask: all of them
    // come to the same id by themselves.
    let names: Vec<String> =
        voters.iter().map(|it| format!("{}@{}:{}", it.id, it.host, it.port)).collect();
    id_text::encode(Uuid::new_v5(&Uuid::NAMESPACE_URL, names.join(",").as_bytes()))
}

/// Whether this node is a quorum of one until others are added: it alone is configured, or it is the
/// first of the bootstrap servers, or no other controller could reach it.
pub(super) fn founds_alone(settings: &BrokerConfig) -> bool {
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
    let servers = &settings.cluster.controller_quorum_bootstrap_servers;
    let request = DescribeClusterRequest::default().with_endpoint_type(CONTROLLERS);
    for round in 0u32.. {
        for (host, port) in servers.iter().filter(|(host, port)| !is_own(settings, host, *port)) {
            let channel = network.channel(&Address { host: host.clone(), port: *port });
            match peers::send(&*channel, 1, &request, ASK_TIMEOUT).await {
                Ok(answer) if answer.error_code == 0 => return answer.cluster_id.to_string(),
                Ok(answer) => warn!(host, port, code = answer.error_code, "no cluster id"),
                Err(error) if round.is_multiple_of(TOLD_EVERY) => {
                    info!(%error, "waiting for a controller that tells the cluster's id");
                }
                Err(_) => {}
            }
        }
        sleep(ASK_AGAIN).await;
    }
    unreachable!("the rounds do not end")
}
