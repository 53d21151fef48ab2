//! Raft messages to other controllers. A quorum of one has no others; a larger one is refused at
//! start until messages can travel.

use openraft::{
    RaftNetwork, RaftNetworkFactory,
    error::{InstallSnapshotError, RPCError, RaftError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest,
        InstallSnapshotResponse, VoteRequest, VoteResponse,
    },
};

use super::types::TypeConfig;

/// Reaches nobody.
#[derive(Clone, Copy)]
pub struct NoPeers;

type Failure<E> = RPCError<i32, (), RaftError<i32, E>>;

fn unreachable<E: std::error::Error>() -> Failure<E> {
    RPCError::Unreachable(Unreachable::new(&std::io::Error::other("no such controller")))
}

impl RaftNetworkFactory<TypeConfig> for NoPeers {
    type Network = Self;

    async fn new_client(&mut self, _: i32, _: &()) -> Self {
        *self
    }
}

impl RaftNetwork<TypeConfig> for NoPeers {
    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<i32>, RPCError<i32, (), RaftError<i32>>> {
        Err(unreachable())
    }

    async fn install_snapshot(
        &mut self,
        _: InstallSnapshotRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<InstallSnapshotResponse<i32>, Failure<InstallSnapshotError>> {
        Err(unreachable())
    }

    async fn vote(
        &mut self,
        _: VoteRequest<i32>,
        _: RPCOption,
    ) -> Result<VoteResponse<i32>, RPCError<i32, (), RaftError<i32>>> {
        Err(unreachable())
    }
}
