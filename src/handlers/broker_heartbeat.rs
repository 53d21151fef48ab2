//! BrokerHeartbeat (KIP-631): a broker lives, wants to serve, or wants to stop.

use std::ops::RangeInclusive;

use kafka_protocol::messages::{ApiKey, BrokerHeartbeatRequest, BrokerHeartbeatResponse};

use super::{Context, Handler, Reply, errors};
use crate::{broker::Presence, controller::Heartbeat};

pub struct BrokerHeartbeat;

impl Handler for BrokerHeartbeat {
    const API: ApiKey = ApiKey::BrokerHeartbeat;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    type Request = BrokerHeartbeatRequest;
    type Response = BrokerHeartbeatResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: BrokerHeartbeatRequest,
    ) -> Reply<BrokerHeartbeatResponse> {
        let (id, epoch) = (request.broker_id.0, request.broker_epoch);
        let heartbeat = Heartbeat {
            broker_id: id,
            broker_epoch: epoch,
            current_metadata_offset: request.current_metadata_offset,
            want_fence: request.want_fence,
            want_shut_down: request.want_shut_down,
            offline_log_dirs: request.offline_log_dirs,
            cordoned_log_dirs: None,
        };
        let answer = match cx.broker.controller.heartbeat(heartbeat).await {
            Ok(heard) => {
                // The end of the connection by which they come may be the end of the broker.
                let known = cx.session.presence.as_ref().is_some_and(|it| it.is_of(id, epoch));
                if !known && id != cx.broker.node_id {
                    cx.session.presence = Some(Presence::new(cx.broker, id, epoch));
                }
                // What the answer rests on is applied here before the broker hears it, so that a
                // node that is both never answers clients by older metadata.
                cx.broker.applied(heard.offset).await;
                BrokerHeartbeatResponse::default()
                    .with_is_caught_up(heard.value.is_caught_up)
                    .with_is_fenced(heard.value.is_fenced)
                    .with_should_shut_down(heard.value.should_shut_down)
            }
            Err(error) => BrokerHeartbeatResponse::default()
                .with_error_code(errors::controller(&error).code())
                .with_is_fenced(true),
        };
        Reply::Now(answer)
    }
}
