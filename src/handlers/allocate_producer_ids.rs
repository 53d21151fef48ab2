//! AllocateProducerIds (KIP-730): a block of producer ids for a broker.

use kafka_protocol::messages::{
    AllocateProducerIdsRequest, AllocateProducerIdsResponse, ApiKey, ProducerId,
};

use super::{Context, Handler, Reply, error_counts::error_codes, errors};
use crate::{controller::PRODUCER_ID_BLOCK, protocol::checks::CLUSTER_ACTION};

pub struct AllocateProducerIds;

impl Handler for AllocateProducerIds {
    const API: ApiKey = ApiKey::AllocateProducerIds;
    type Request = AllocateProducerIdsRequest;
    type Response = AllocateProducerIdsResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: AllocateProducerIdsRequest,
    ) -> Reply<AllocateProducerIdsResponse> {
        if let Err(code) = cx.check_on_cluster(CLUSTER_ACTION) {
            return Reply::Now(AllocateProducerIdsResponse::default().with_error_code(code.code()));
        }
        let (id, epoch) = (request.broker_id.0, request.broker_epoch);
        let answer = AllocateProducerIdsResponse::default();
        Reply::Now(match cx.broker.controller.allocate_producer_ids(id, epoch).await {
            Ok(first) => answer
                .with_producer_id_start(ProducerId(first.value))
                .with_producer_id_len(PRODUCER_ID_BLOCK as i32),
            Err(error) => answer.with_error_code(errors::controller(&error).code()),
        })
    }
}

error_codes!(AllocateProducerIdsResponse: |it| [it.error_code]);
