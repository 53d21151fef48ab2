//! AddOffsetsToTxn: adds a group's partition of `__consumer_offsets` to the open transaction of a
//! producer, or begins one with it. From transaction version 2 on, clients do not send it, because
//! TxnOffsetCommit adds the partition.

use kafka_protocol::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, ApiKey};

use super::{Context, Handler, Reply, conversions::text, error_counts::error_codes, errors};
use crate::{
    base::TopicPartition,
    coordinator::{OFFSETS_TOPIC, txn::messages::AddRequest},
    protocol::checks::{GROUP_READ, TRANSACTIONAL_ID_WRITE},
    records::{Producer, TransactionVersion},
};

pub struct AddOffsetsToTxn;

/// The first version whose clients know PRODUCER_FENCED (KIP-588).
const PRODUCER_FENCED_SINCE: i16 = 2;

impl Handler for AddOffsetsToTxn {
    const API: ApiKey = ApiKey::AddOffsetsToTxn;
    type Request = AddOffsetsToTxnRequest;
    type Response = AddOffsetsToTxnResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: AddOffsetsToTxnRequest,
    ) -> Reply<AddOffsetsToTxnResponse> {
        let may_add = cx.check(TRANSACTIONAL_ID_WRITE, &request.transactional_id);
        if let Err(code) = may_add.and_then(|()| cx.check(GROUP_READ, &request.group_id)) {
            return Reply::Now(response(code.code()));
        }
        // As in Kafka, the topic need not exist. The marker of a partition that does not exist is
        // dropped.
        let index = cx.broker.coordinators.groups.partition_of(&request.group_id);
        let add = AddRequest {
            id: text(&request.transactional_id),
            producer: Producer { id: request.producer_id.0, epoch: request.producer_epoch },
            partitions: vec![TopicPartition::new(OFFSETS_TOPIC, index)],
            version: TransactionVersion::V0,
        };
        // The response comes before the next request of the connection is handled, because a
        // TxnOffsetCommit request needs the partition.
        let added = cx.broker.coordinators.transactions.add(add).await;
        let is_old = cx.version < PRODUCER_FENCED_SINCE;
        Reply::Now(response(added.map_or_else(
            |error| errors::fenced(errors::transaction(error), is_old).code(),
            |()| errors::NONE,
        )))
    }
}

error_codes!(AddOffsetsToTxnResponse: |it| [it.error_code]);

fn response(code: i16) -> AddOffsetsToTxnResponse {
    AddOffsetsToTxnResponse::default().with_error_code(code)
}
