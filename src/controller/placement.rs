//! Chooses the brokers for the replicas of new partitions (Kafka's `StripedReplicaPlacer`). Leaders
//! rotate over the racks, and over the brokers of each rack. The replicas of one partition are on
//! different racks as far as possible. Fenced brokers are chosen last and never lead.

use std::collections::BTreeMap;

use super::{ControllerError, random::Random};
use crate::metadata::{BrokerImage, Image};

/// The fenced or the unfenced brokers of a rack, in the order in which partitions get them. Each
/// partition is a round, and begins one broker later than the round before.
#[derive(Default)]
struct Ring {
    brokers: Vec<i32>,
    taken: usize,
    offset: usize,
    round: usize,
}

impl Ring {
    fn start(&mut self, random: &mut Random) {
        if !self.brokers.is_empty() {
            self.brokers.sort_unstable();
            self.offset = random.below(self.brokers.len());
        }
    }

    fn next(&mut self, round: usize) -> Option<i32> {
        if self.brokers.is_empty() {
            return None;
        }
        if self.round != round {
            self.round = round;
            self.taken = 0;
            self.offset = (self.offset + 1) % self.brokers.len();
        }
        if self.taken == self.brokers.len() {
            return None;
        }
        let broker = self.brokers[(self.taken + self.offset) % self.brokers.len()];
        self.taken += 1;
        Some(broker)
    }
}

#[derive(Default)]
struct Rack {
    fenced: Ring,
    unfenced: Ring,
}

impl Rack {
    fn next(&mut self, round: usize) -> Option<i32> {
        self.unfenced.next(round).or_else(|| self.fenced.next(round))
    }
}

struct Racks {
    racks: Vec<Rack>,
    brokers: usize,
    unfenced: usize,
    round: usize,
    offset: usize,
}

impl Racks {
    fn new(image: &Image, random: &mut Random) -> Self {
        let mut racks: BTreeMap<Option<String>, Rack> = BTreeMap::new();
        let mut unfenced = 0;
        let usable: Vec<_> = image.brokers.values().filter(|it| has_room(it)).collect();
        for broker in &usable {
            let rack = racks.entry(broker.rack.clone()).or_default();
            if broker.fenced || broker.in_controlled_shutdown {
                rack.fenced.brokers.push(broker.broker_id);
            } else {
                unfenced += 1;
                rack.unfenced.brokers.push(broker.broker_id);
            }
        }
        let mut racks: Vec<Rack> = racks.into_values().collect();
        for rack in &mut racks {
            rack.fenced.start(random);
            rack.unfenced.start(random);
        }
        let offset = if racks.is_empty() { 0 } else { random.below(racks.len()) };
        Self { racks, brokers: usable.len(), unfenced, round: 0, offset }
    }

    /// Chooses the replicas of one partition, the leader first. The caller has checked that there
    /// are enough brokers and that one of them is not fenced.
    fn place(&mut self, replication_factor: usize, random: &mut Random) -> Vec<i32> {
        if self.round == self.unfenced && self.unfenced > 1 {
            random.shuffle(&mut self.racks);
            for rack in &mut self.racks {
                random.shuffle(&mut rack.fenced.brokers);
                random.shuffle(&mut rack.unfenced.brokers);
            }
            self.round = 0;
        }
        self.offset %= self.racks.len();
        let mut replicas = Vec::with_capacity(replication_factor);
        let mut leader_rack = self.offset;
        loop {
            if let Some(leader) = self.racks[leader_rack].unfenced.next(self.round) {
                replicas.push(leader);
                break;
            }
            leader_rack = (leader_rack + 1) % self.racks.len();
        }
        // The leader's rack is skipped once, because it already has a replica.
        let mut skip = Some(leader_rack);
        let mut rack = self.offset;
        while replicas.len() < replication_factor {
            if skip == Some(rack) {
                skip = None;
            } else if let Some(broker) = self.racks[rack].next(self.round) {
                replicas.push(broker);
            }
            rack = (rack + 1) % self.racks.len();
        }
        self.round += 1;
        self.offset += 1;
        replicas
    }
}

/// Whether the broker has a log directory that is not cordoned (KIP-1066).
fn has_room(broker: &BrokerImage) -> bool {
    let cordoned = broker.cordoned_log_dirs.as_deref().unwrap_or_default();
    broker.log_dirs.is_empty() || broker.log_dirs.iter().any(|dir| !cordoned.contains(dir))
}

/// Returns the replicas of each new partition, preferred leader first. Fails with
/// `InvalidReplicationFactor` if there are too few brokers or all of them are fenced.
pub fn place(
    image: &Image,
    partitions: usize,
    replication_factor: i16,
    random: &mut Random,
) -> Result<Vec<Vec<i32>>, ControllerError> {
    let refuse = |why: String| {
        Err(ControllerError::InvalidReplicationFactor(format!(
            "Unable to replicate the partition {replication_factor} time(s): {why}"
        )))
    };
    let mut racks = Racks::new(image, random);
    if racks.unfenced == 0 {
        return refuse("All brokers are currently fenced.".into());
    }
    if replication_factor as usize > racks.brokers {
        return refuse(format!(
            "The target replication factor of {replication_factor} cannot be reached because only \
             {} broker(s) are registered or some brokers have all their log directories cordoned.",
            racks.brokers
        ));
    }
    Ok((0..partitions).map(|_| racks.place(replication_factor as usize, random)).collect())
}
