//! The voters, as KRaft's control records and as openraft's membership. A change is written as
//! Kafka's VotersRecord with the voters after the change. Tagged fields, which Kafka skips, hold
//! what openraft needs besides: the sets of a joint configuration, and the learners.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use super::format::{Control, FormatError};
use crate::{protocol::schema::WireMessage, records::ControlRecordType, wire};

pub(super) type Membership = openraft::Membership<i32, Voter>;
pub(super) type StoredMembership = openraft::StoredMembership<i32, Voter>;

/// An endpoint at which a voter listens for other controllers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Endpoint {
    /// The listener's name.
    pub name: String,
    pub host: String,
    pub port: u16,
}

/// A voter of the quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    pub id: i32,
    /// Nil if the voters are configured (`kraft.version` 0).
    pub directory_id: Uuid,
    pub endpoints: Vec<Endpoint>,
    /// The lowest and the highest `kraft.version` that it supports.
    pub kraft_versions: (i16, i16),
}

impl Default for Voter {
    fn default() -> Self {
        Self { id: -1, directory_id: Uuid::nil(), endpoints: vec![], kraft_versions: (0, 1) }
    }
}

impl Voter {
    /// A voter with one endpoint.
    pub fn new(id: i32, directory_id: Uuid, endpoint: Endpoint) -> Self {
        Self { id, directory_id, endpoints: vec![endpoint], ..Self::default() }
    }
}

wire! {
    /// KRaft's feature level (KIP-853).
    pub struct KRaftVersionRecord (flexible 0..) {
        version: i16, in 0..;
        kraft_version: i16, in 0..;
    }
    /// The voters after a change. The tagged fields are openraft's: the sets of voters of a joint
    /// configuration, and the nodes that are not among `voters`.
    pub struct VotersRecord (flexible 0..) {
        version: i16, in 0..;
        voters: Vec<VoterData>, in 0..;
        configs: Vec<VoterIds>, in 0.., tag 10000;
        others: Vec<VoterData>, in 0.., tag 10001;
    }
    /// One set of voters of a joint configuration.
    pub struct VoterIds (flexible 0..) {
        ids: Vec<i32>, in 0..;
    }
    /// A voter in a VotersRecord.
    pub struct VoterData (flexible 0..) {
        voter_id: i32, in 0..;
        voter_directory_id: Uuid, in 0..;
        endpoints: Vec<EndpointData>, in 0..;
        k_raft_version_feature: VersionRange, in 0..;
    }
    /// Where a voter listens.
    pub struct EndpointData (flexible 0..) {
        name: String, in 0..;
        host: String, in 0..;
        port: u16, in 0..;
    }
    /// The versions of a feature that a node supports.
    pub struct VersionRange (flexible 0..) {
        min_supported_version: i16, in 0..;
        max_supported_version: i16, in 0..;
    }
}

impl From<&Voter> for VoterData {
    fn from(voter: &Voter) -> Self {
        let endpoint = |it: &Endpoint| EndpointData {
            name: it.name.clone(),
            host: it.host.clone(),
            port: it.port,
        };
        let (min_supported_version, max_supported_version) = voter.kraft_versions;
        Self {
            voter_id: voter.id,
            voter_directory_id: voter.directory_id,
            endpoints: voter.endpoints.iter().map(endpoint).collect(),
            k_raft_version_feature: VersionRange { min_supported_version, max_supported_version },
        }
    }
}

impl From<VoterData> for Voter {
    fn from(data: VoterData) -> Self {
        let endpoint = |it: EndpointData| Endpoint { name: it.name, host: it.host, port: it.port };
        let range = data.k_raft_version_feature;
        Self {
            id: data.voter_id,
            directory_id: data.voter_directory_id,
            endpoints: data.endpoints.into_iter().map(endpoint).collect(),
            kraft_versions: (range.min_supported_version, range.max_supported_version),
        }
    }
}

/// A membership of exactly these voters.
pub fn of_voters(voters: &[Voter]) -> Membership {
    let ids: BTreeSet<i32> = voters.iter().map(|voter| voter.id).collect();
    let nodes: BTreeMap<i32, Voter> = voters.iter().map(|it| (it.id, it.clone())).collect();
    let configs = if ids.is_empty() { vec![] } else { vec![ids] };
    Membership::new(configs, nodes)
}

/// The voters whose majority decides, given a committed membership. During a change these are the
/// voters before it: the quorum needs a majority of them until the change is complete.
pub fn deciding(committed: &Membership) -> Vec<Voter> {
    nodes_of(committed, committed.get_joint_config().first())
}

/// The voters after the change that is in progress, or else the current voters.
pub fn voters(membership: &Membership) -> Vec<Voter> {
    nodes_of(membership, membership.get_joint_config().last())
}

fn nodes_of(membership: &Membership, ids: Option<&BTreeSet<i32>>) -> Vec<Voter> {
    let found = ids.into_iter().flatten().map(|id| membership.get_node(id).cloned());
    found.map(Option::unwrap_or_default).collect()
}

/// Whether the node is the only voter.
pub fn is_alone(membership: &Membership, node_id: i32) -> bool {
    let mut ids = membership.voter_ids();
    ids.next() == Some(node_id) && ids.next().is_none()
}

/// Encodes a membership as the value of a VotersRecord.
pub fn encode(membership: &Membership) -> Bytes {
    let configs = membership.get_joint_config();
    let goal = configs.last().cloned().unwrap_or_default();
    let (voters, others): (Vec<_>, Vec<_>) =
        membership.nodes().partition(|(id, _)| goal.contains(id));
    let data = |nodes: Vec<(&i32, &Voter)>| nodes.into_iter().map(|(_, it)| it.into()).collect();
    let is_joint = configs.len() > 1;
    let config = |ids: &BTreeSet<i32>| VoterIds { ids: ids.iter().copied().collect() };
    let record = VotersRecord {
        version: 0,
        voters: data(voters),
        configs: if is_joint { configs.iter().map(config).collect() } else { vec![] },
        others: data(others),
    };
    let mut value = BytesMut::new();
    record.encode(&mut value, 0);
    value.freeze()
}

/// Decodes the value of a VotersRecord.
pub fn decode(value: Bytes) -> Result<Membership, FormatError> {
    let record = VotersRecord::decode(value, 0)?;
    let goal: BTreeSet<i32> = record.voters.iter().map(|voter| voter.voter_id).collect();
    let nodes = record.voters.into_iter().chain(record.others);
    let nodes: BTreeMap<i32, Voter> = nodes.map(|data| (data.voter_id, data.into())).collect();
    let joint: Vec<BTreeSet<i32>> =
        record.configs.into_iter().map(|config| config.ids.into_iter().collect()).collect();
    let configs = match (joint.is_empty(), goal.is_empty()) {
        (false, _) => joint,
        (true, true) => vec![],
        (true, false) => vec![goal],
    };
    Ok(Membership::new(configs, nodes))
}

/// The last membership among control records.
pub fn last_of(controls: &[Control]) -> Result<Option<Membership>, FormatError> {
    let last = controls.iter().rev().find(|control| control.kind == ControlRecordType::KraftVoters);
    last.map(|control| decode(control.value.clone())).transpose()
}

/// The last feature level among control records.
pub fn kraft_version_of(controls: &[Control]) -> Result<Option<i16>, FormatError> {
    let last =
        controls.iter().rev().find(|control| control.kind == ControlRecordType::KraftVersion);
    let decode = |control: &Control| KRaftVersionRecord::decode(control.value.clone(), 0);
    Ok(last.map(decode).transpose()?.map(|record| record.kraft_version))
}

pub fn kraft_version(level: i16) -> Control {
    let mut value = BytesMut::new();
    KRaftVersionRecord { version: 0, kraft_version: level }.encode(&mut value, 0);
    Control { kind: ControlRecordType::KraftVersion, value: value.freeze() }
}
