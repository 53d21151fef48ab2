//! What all clients of the simulation share: channels, known leaders and coordinators.

use std::{collections::BTreeMap, future::poll_fn, sync::Arc, time::Duration};

use kafka_protocol::protocol::Request;
use sordini::peers::{self, Address, Channel, Network};
use tokio::time::{sleep, timeout};

use crate::{
    history::{Place, SharedHistory},
    leaders::Leader,
    network::SimNetwork,
    node::BROKER_PORT,
    random::Rng,
    requests,
    wire::ClientEvent,
};

const TIMEOUT: Duration = Duration::from_millis(3_000);
const REST: Duration = Duration::from_millis(100);
const CONNECT_MAX: Duration = Duration::from_millis(1_000);
/// The types of coordinators.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// A client on the clients' machine, with one channel per broker.
pub struct Client {
    pub name: String,
    pub rng: Rng,
    pub history: SharedHistory,
    pub network: SimNetwork,
    nodes: usize,
    channels: BTreeMap<Address, Arc<dyn Channel>>,
    /// The known leader of each partition, with its leader epoch.
    leaders: BTreeMap<Place, (Address, i32)>,
    /// The newest known leader epoch of each partition.
    epochs: BTreeMap<Place, i32>,
    /// Known coordinators by type and key.
    coordinators: BTreeMap<(i8, String), Address>,
    /// The broker that did not respond last. `any_broker` avoids it.
    silent: Option<Address>,
}

impl Client {
    pub fn new(
        name: String,
        network: SimNetwork,
        nodes: usize,
        seed: u64,
        history: SharedHistory,
    ) -> Self {
        Self {
            name,
            rng: Rng::new(seed),
            history,
            network,
            nodes,
            channels: BTreeMap::new(),
            leaders: BTreeMap::new(),
            epochs: BTreeMap::new(),
            coordinators: BTreeMap::new(),
            silent: None,
        }
    }

    /// Returns a random broker, but not the one that did not respond last.
    pub fn any_broker(&mut self) -> Address {
        loop {
            let id = self.rng.between(1, self.nodes as u64);
            let broker = Address { host: format!("n{id}"), port: BROKER_PORT };
            if self.silent.as_ref() != Some(&broker) {
                return broker;
            }
        }
    }

    /// Sends a request and waits for the response. `None` if the connection fails or no response
    /// arrives within [`TIMEOUT`]. Then the client also forgets what it knew the broker to lead.
    pub async fn ask<R: Request>(
        &mut self,
        to: &Address,
        version: i16,
        request: &R,
    ) -> Option<R::Response> {
        let channel = match self.channels.get(to) {
            Some(channel) => Arc::clone(channel),
            None => {
                let channel = self.network.channel(to);
                self.channels.insert(to.clone(), Arc::clone(&channel));
                channel
            }
        };
        let answer = peers::send(&*channel, version, request, TIMEOUT).await.ok();
        if answer.is_none() {
            self.silent = Some(to.clone());
            self.leaders.retain(|_, (leader, _)| leader != to);
            self.coordinators.retain(|_, coordinator| coordinator != to);
        }
        answer
    }

    /// Waits for `REST`, up to half of it less or more.
    pub async fn rest(&mut self) {
        sleep(REST.mul_f64(self.rng.between(50, 150) as f64 / 100.0)).await;
    }

    /// Returns the leader of a partition and its epoch. Asks brokers until one returns a leader.
    pub async fn leader(&mut self, place: &Place) -> (Address, i32) {
        loop {
            if let Some(leader) = self.leaders.get(place) {
                return leader.clone();
            }
            for (partition, leader) in self.look_up(&place.0).await.unwrap_or_default() {
                // Like stock clients, ignore a leader epoch that is older than the known one.
                let place = (place.0.clone(), partition);
                let newest = self.epochs.entry(place.clone()).or_default();
                if leader.epoch >= *newest {
                    *newest = leader.epoch;
                    self.leaders.insert(place, (leader.address, leader.epoch));
                }
            }
            if !self.leaders.contains_key(place) {
                self.rest().await;
            }
        }
    }

    pub fn forget_leader(&mut self, place: &Place) {
        self.leaders.remove(place);
    }

    /// Asks one random broker for the leaders of a topic. `None` without a response.
    pub async fn look_up(&mut self, topic: &str) -> Option<Vec<(i32, Leader)>> {
        let request = requests::metadata(topic).with_allow_auto_topic_creation(false);
        let broker = self.any_broker();
        let answer = self.ask(&broker, 9, &request).await?;
        let address = |id: i32| {
            let found = answer.brokers.iter().find(|it| it.node_id.0 == id)?;
            Some(Address { host: found.host.to_string(), port: found.port as u16 })
        };
        let partitions = answer.topics.iter().flat_map(|it| &it.partitions);
        let led = partitions.filter_map(|it| {
            let leader = Leader { address: address(it.leader_id.0)?, epoch: it.leader_epoch };
            Some((it.partition_index, leader))
        });
        Some(led.collect())
    }

    /// Returns the coordinator of a group. Asks brokers until one returns it.
    pub async fn coordinator(&mut self, group: &str) -> Address {
        self.coordinator_of(GROUP, group).await
    }

    /// Returns the coordinator of a transactional id. Asks brokers until one returns it.
    pub async fn transaction_coordinator(&mut self, id: &str) -> Address {
        self.coordinator_of(TRANSACTION, id).await
    }

    async fn coordinator_of(&mut self, key_type: i8, key: &str) -> Address {
        let place = (key_type, key.to_owned());
        loop {
            if let Some(known) = self.coordinators.get(&place) {
                return known.clone();
            }
            let broker = self.any_broker();
            let request = requests::find_coordinator(key).with_key_type(key_type);
            let answer = self.ask(&broker, 4, &request).await;
            let found = answer.and_then(|it| it.coordinators.into_iter().next());
            match found {
                Some(it) if it.error_code == 0 => {
                    let address = Address { host: it.host.to_string(), port: it.port as u16 };
                    self.coordinators.insert(place.clone(), address);
                }
                _ => self.rest().await,
            }
        }
    }

    /// Forgets all coordinators.
    pub fn forget_coordinator(&mut self) {
        self.coordinators.clear();
    }

    /// Sends a request on a connection of its own, which is closed at once. The request arrives
    /// `after_us` microseconds later, as from a connection that broke while the request was in
    /// flight. Does nothing if the broker accepts no connection within [`CONNECT_MAX`].
    pub async fn send_late<R: Request>(
        &mut self,
        to: &Address,
        version: i16,
        request: &R,
        after_us: u64,
    ) {
        let mut end = self.network.open(to);
        let accepted = poll_fn(|cx| end.poll_event(cx));
        if let Ok(ClientEvent::Accepted) = timeout(CONNECT_MAX, accepted).await {
            end.send(peers::encode(version, request).expect("it is well formed"));
            end.hold_back(after_us);
        }
    }
}
