//! One file per Kafka API, and the table of all APIs. The table drives dispatch, ApiVersions and
//! metric names. `docs/compatibility.md` lists the same APIs; a test compares it with the table.
//!
//! A handler runs to its ordering point before its connection reads the next request. This is the
//! back-pressure. The handler may leave the rest of its work as a future. Responses leave in the
//! order of the requests. Handlers hold no state. `errors` maps the errors of the layers below to
//! Kafka's error codes; errors that only one API has are mapped in the file of that API.

mod acks;
pub mod auto_topics;
mod brokers;
mod client;
mod config_resources;
pub mod context;
mod conversions;
mod error_counts;
pub mod errors;
mod forward;
mod own_channel;
mod partitions;
mod raft_voters;
pub mod reply;

use std::{future::Future, sync::Arc};

use bytes::Bytes;
use futures_core::future::BoxFuture;
use kafka_protocol::{messages::ApiKey, protocol::Decodable};
use tokio::time::timeout_at;

use self::error_counts::ErrorCodes;
use crate::{
    broker::Broker,
    protocol::{
        Api,
        api::{self, Scope},
        frame::{self, DecodeError, Incoming, RequestHeader},
    },
    telemetry::Metrics,
};

pub use client::{Authorizer, Client};
pub use context::{ConnectionContext, Context, Forwarding};
pub use errors::ErrorCode;
pub use fetch::reply as fetch_reply;
pub use own_channel::OwnChannel;
pub use reply::{Part, Reply, ReplyBuffer, WireReply};

/// The handler of one Kafka API. [`TABLE`] has one entry for each. The API table has the versions
/// that it serves. The request decodes and the response encodes in each of them.
pub trait Handler: 'static {
    const API: ApiKey;
    type Request: Decodable + Send + 'static;
    type Response: WireReply + ErrorCodes;

    /// Handles a decoded request. The connection waits for this future before it reads the next
    /// request. A wait for replicas, other nodes or a timeout therefore belongs in
    /// [`Reply::Later`], unless the next request may depend on it, as in transactions. The
    /// connection polls that future once all earlier responses have left, so
    /// the future must hold no lock and no permit until then. Both futures are dropped if the
    /// connection ends. An error is a code in the response, or [`Reply::Close`].
    fn handle(
        cx: &mut Context<'_>,
        request: Self::Request,
    ) -> impl Future<Output = Reply<Self::Response>> + Send;
}

/// The response to a request, encoded, once its handler has passed the ordering point.
pub enum Outcome {
    /// The response.
    Now(ReplyBuffer),
    /// The response once this future completes.
    Later(BoxFuture<'static, Result<ReplyBuffer, HandlerError>>),
    /// No response, because the protocol has none (Produce with acks=0).
    Silent,
}

/// Why a request gets no response. As in Kafka, the connection is then closed.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("response does not encode: {0}")]
    Encode(anyhow::Error),
    #[error("the connection is to be closed")]
    Close,
    /// This node is not the active controller any more. The caller sends the request to the next
    /// controller. Only requests with `Forwarding::ByBroker` fail with this error.
    #[error("this node is not the active controller any more")]
    NotController,
}

/// An entry of [`TABLE`]: how requests of one API are decoded and handled.
pub struct Entry {
    /// The row of the API table, with the name, the versions and the scope of the API.
    pub row: &'static Api,
    pub dispatch: for<'a> fn(Context<'a>, Bytes) -> BoxFuture<'a, Result<Outcome, HandlerError>>,
    /// Decodes the body of a request of this version as `dispatch` does, and drops it. Tests and
    /// fuzz targets call it.
    pub try_decode: fn(i16, Bytes) -> Result<(), DecodeError>,
}

const fn entry<H: Handler>() -> Entry {
    Entry { row: api::row(H::API), dispatch: dispatch::<H>, try_decode: try_decode::<H> }
}

fn decode<H: Handler>(version: i16, body: Bytes) -> Result<H::Request, DecodeError> {
    frame::decode_body(H::API, version, body)
}

fn try_decode<H: Handler>(version: i16, body: Bytes) -> Result<(), DecodeError> {
    decode::<H>(version, body).map(drop)
}

macro_rules! table {
    ($($module:ident::$first:ident $(+ $more:ident)*,)*) => {
        $(mod $module;)*

        /// Every API that this broker serves, by key.
        pub static TABLE: &[Entry] = &[
            $(entry::<$module::$first>(), $(entry::<$module::$more>(),)*)*
        ];
    };
}

table! {
    produce::Produce,
    fetch::Fetch,
    list_offsets::ListOffsets,
    api_versions::ApiVersions,
    init_producer_id::InitProducerId,
    metadata::Metadata,
    create_topics::CreateTopics,
    delete_topics::DeleteTopics,
    create_partitions::CreatePartitions,
    elect_leaders::ElectLeaders,
    alter_partition_reassignments::AlterPartitionReassignments,
    list_partition_reassignments::ListPartitionReassignments,
    describe_quorum::DescribeQuorum,
    fetch_snapshot::FetchSnapshot,
    add_raft_voter::AddRaftVoter,
    remove_raft_voter::RemoveRaftVoter,
    update_raft_voter::UpdateRaftVoter,
    alter_partition::AlterPartition,
    update_features::UpdateFeatures,
    envelope::Envelope,
    describe_cluster::DescribeCluster,
    unregister_broker::UnregisterBroker,
    describe_topic_partitions::DescribeTopicPartitions,
    describe_configs::DescribeConfigs,
    alter_configs::AlterConfigs,
    incremental_alter_configs::IncrementalAlterConfigs,
    list_config_resources::ListConfigResources,
    delete_records::DeleteRecords,
    offset_for_leader_epoch::OffsetForLeaderEpoch,
    alter_replica_log_dirs::AlterReplicaLogDirs,
    describe_log_dirs::DescribeLogDirs,
    describe_producers::DescribeProducers,
    broker_registration::BrokerRegistration,
    broker_heartbeat::BrokerHeartbeat,
    allocate_producer_ids::AllocateProducerIds,
    controller_registration::ControllerRegistration,
    assign_replicas_to_dirs::AssignReplicasToDirs,
    find_coordinator::FindCoordinator,
    join_group::JoinGroup,
    sync_group::SyncGroup,
    heartbeat::Heartbeat,
    leave_group::LeaveGroup,
    offset_commit::OffsetCommit,
    txn_offset_commit::TxnOffsetCommit,
    offset_fetch::OffsetFetch,
    offset_delete::OffsetDelete,
    describe_groups::DescribeGroups,
    list_groups::ListGroups,
    delete_groups::DeleteGroups,
    consumer_group_heartbeat::ConsumerGroupHeartbeat,
    consumer_group_describe::ConsumerGroupDescribe,
    acls::DescribeAcls + CreateAcls + DeleteAcls,
    delegation_tokens::CreateDelegationToken
        + RenewDelegationToken
        + ExpireDelegationToken
        + DescribeDelegationToken,
    describe_client_quotas::DescribeClientQuotas,
    describe_user_scram_credentials::DescribeUserScramCredentials,
    list_transactions::ListTransactions,
    describe_transactions::DescribeTransactions,
    add_partitions_to_txn::AddPartitionsToTxn,
    add_offsets_to_txn::AddOffsetsToTxn,
    end_txn::EndTxn,
    write_txn_markers::WriteTxnMarkers,
}

/// The entry of an API in [`TABLE`], or `None` if no handler serves the API.
pub fn find(api: ApiKey) -> Option<&'static Entry> {
    TABLE.iter().find(|entry| entry.row.key == api)
}

/// Answers a request that this node sends to itself, without a connection. `frame` is the whole
/// request without its size field. The returned frame has no size field either.
///
/// # Errors
/// The request is not well formed, is not served on the listener of `session`, or has no response.
pub async fn answer(
    broker: &Arc<Broker>,
    session: &mut ConnectionContext,
    mut frame: Bytes,
    forwarding: Forwarding,
) -> Result<Bytes, HandlerError> {
    match frame::parse_header(&mut frame)? {
        Incoming::Request(header) => {
            answer_parsed(broker, session, &header, frame, forwarding).await
        }
        Incoming::UnsupportedApiVersions { .. } | Incoming::Raft { .. } => Err(HandlerError::Close),
    }
}

/// Handles a request of a connection up to its ordering point. `whole` is the request's frame
/// without the size field; `body` is what follows the header in it.
///
/// If only the active controller decides the request and this node is not the active controller,
/// the request is forwarded. If another node becomes the active controller before this node has
/// decided, the request is forwarded, too. If no controller answers within `request.timeout.ms`,
/// the response has REQUEST_TIMED_OUT.
pub async fn handle(
    broker: &Arc<Broker>,
    session: &mut ConnectionContext,
    header: &RequestHeader,
    (whole, body): (Bytes, Bytes),
) -> Result<Outcome, HandlerError> {
    let entry = served(session, header)?;
    let is_forwarded = header.api.scope == Scope::Forwarded
        && !session.on_controller_listener
        // The handlers of these two check the changes first, and forward only the valid ones.
        && !matches!(header.api.key, ApiKey::AlterConfigs | ApiKey::IncrementalAlterConfigs);
    if !is_forwarded {
        return run(entry, broker, session, header, body, Forwarding::Direct).await;
    }
    let deadline = forward::deadline(broker);
    let client = session.client.clone();
    let forwarded = forward::forward(Arc::clone(broker), client.clone(), whole.clone(), deadline);
    if !broker.leads_quorum() {
        return Ok(Outcome::Later(Box::pin(forwarded)));
    }
    let timed_out = forward::timed_out(Arc::clone(broker), client, whole);
    let begun = run(entry, broker, session, header, body, Forwarding::ByBroker);
    match timeout_at(deadline, begun).await {
        Ok(Err(HandlerError::NotController)) => Ok(Outcome::Later(Box::pin(forwarded))),
        Ok(Ok(Outcome::Later(rest))) => Ok(Outcome::Later(Box::pin(async move {
            match timeout_at(deadline, rest).await {
                Ok(Err(HandlerError::NotController)) => forwarded.await,
                Ok(answered) => answered,
                Err(_) => timed_out.await,
            }
        }))),
        Ok(answered) => answered,
        Err(_) => Ok(Outcome::Later(Box::pin(timed_out))),
    }
}

/// The entry of the request's API. An API that the session's listener does not serve is unknown.
fn served(
    session: &ConnectionContext,
    header: &RequestHeader,
) -> Result<&'static Entry, DecodeError> {
    find(header.api.key)
        .filter(|_| header.api.scope.is_served(session.on_controller_listener))
        .ok_or(DecodeError::UnknownApi(header.api.key as i16))
}

async fn run(
    entry: &Entry,
    broker: &Arc<Broker>,
    session: &mut ConnectionContext,
    header: &RequestHeader,
    body: Bytes,
    forwarding: Forwarding,
) -> Result<Outcome, HandlerError> {
    let cx = Context {
        broker,
        session,
        version: header.version,
        correlation_id: header.correlation_id,
        client_id: header.client_id.as_deref(),
        forwarding,
    };
    (entry.dispatch)(cx, body).await
}

/// Answers a request whose header has been parsed, like [`answer`]. A response with pieces of files
/// (Fetch with records of a topic) is an error, because no caller in this process requests one.
async fn answer_parsed(
    broker: &Arc<Broker>,
    session: &mut ConnectionContext,
    header: &RequestHeader,
    body: Bytes,
    forwarding: Forwarding,
) -> Result<Bytes, HandlerError> {
    let entry = served(session, header)?;
    let reply = match run(entry, broker, session, header, body, forwarding).await? {
        Outcome::Now(reply) => reply,
        Outcome::Later(rest) => rest.await?,
        Outcome::Silent => return Err(HandlerError::Close),
    };
    reply.into_frame().ok_or(HandlerError::Close)
}

fn dispatch<H: Handler>(
    mut cx: Context<'_>,
    body: Bytes,
) -> BoxFuture<'_, Result<Outcome, HandlerError>> {
    Box::pin(async move {
        let (version, correlation_id) = (cx.version, cx.correlation_id);
        let is_sent_again = cx.forwarding == Forwarding::ByBroker;
        let request = decode::<H>(version, body)?;
        let finish = move |response: H::Response, metrics: &Metrics| {
            if is_sent_again && is_not_controller::<H>(&response) {
                return Err(HandlerError::NotController);
            }
            count_errors::<H>(&response, metrics);
            ReplyBuffer::encode(response, version, correlation_id).map_err(HandlerError::Encode)
        };
        match H::handle(&mut cx, request).await {
            Reply::Now(response) => Ok(Outcome::Now(finish(response, &cx.broker.metrics)?)),
            Reply::Later(rest) => {
                let metrics = Arc::clone(&cx.broker.metrics);
                Ok(Outcome::Later(Box::pin(async move { finish(rest.await, &metrics) })))
            }
            Reply::None => Ok(Outcome::Silent),
            Reply::Close(unsent) => {
                count_errors::<H>(&unsent, &cx.broker.metrics);
                Err(HandlerError::Close)
            }
        }
    })
}

/// Whether the response says that this node is not the active controller. APIs of the quorum say so
/// with NOT_LEADER_OR_FOLLOWER, all others with NOT_CONTROLLER. As in Kafka, one such code anywhere
/// in the response is enough.
fn is_not_controller<H: Handler>(response: &H::Response) -> bool {
    let code = match H::API {
        ApiKey::DescribeQuorum | ApiKey::AddRaftVoter | ApiKey::RemoveRaftVoter => {
            ErrorCode::NotLeaderOrFollower
        }
        _ => ErrorCode::NotController,
    };
    response.error_codes().any(|it| it == code.code())
}

fn count_errors<H: Handler>(response: &H::Response, metrics: &Metrics) {
    for code in response.error_codes().filter(|code| *code != errors::NONE) {
        metrics.api(H::API as i16).error(code);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::api::APIS;

    #[test]
    fn every_api_has_one_handler_at_most() {
        for (at, entry) in TABLE.iter().enumerate() {
            let api = entry.row.key;
            assert!(TABLE[..at].iter().all(|other| other.row.key != api), "{api:?}");
        }
    }

    #[test]
    fn served_apis_are_documented() {
        let page = include_str!("../../docs/compatibility.md");
        let documented = page.lines().filter_map(|line| {
            let mut cells = line.strip_prefix("| ")?.split(" | ");
            let [api, versions, listeners] = [cells.next()?, cells.next()?, cells.next()?];
            versions.starts_with(|first: char| first.is_ascii_digit()).then(|| {
                let listeners = listeners.trim_end_matches(" |");
                (api.to_owned(), versions.to_owned(), listeners.to_owned())
            })
        });
        let served = APIS.iter().filter(|api| find(api.key).is_some()).map(|api| {
            let versions = match (api.min, api.max) {
                (min, max) if min == max => min.to_string(),
                (min, max) => format!("{min}-{max}"),
            };
            let listeners = match api.scope {
                Scope::Broker => "broker",
                Scope::Controller => "controller",
                Scope::Both => "both",
                Scope::Forwarded => "both, forwarded",
            };
            (api.name.to_owned(), versions, listeners.to_owned())
        });
        assert_eq!(documented.collect::<Vec<_>>(), served.collect::<Vec<_>>());
    }
}
