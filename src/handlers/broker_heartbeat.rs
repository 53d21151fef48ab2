//! BrokerHeartbeat (KIP-631): a broker lives, wants to serve, or wants to stop.

use std::ops::RangeInclusive;

use kafka_protocol::messages::ApiKey;

use super::{Context, Handler, Reply, errors};
use crate::{
    broker::Presence,
    controller::Heartbeat,
    protocol::messages::{BrokerHeartbeatRequest, BrokerHeartbeatResponse},
};

pub struct BrokerHeartbeat;

impl Handler for BrokerHeartbeat {
    const API: ApiKey = ApiKey::BrokerHeartbeat;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    type Request = BrokerHeartbeatRequest;
    type Response = BrokerHeartbeatResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: BrokerHeartbeatRequest,
    ) -> Reply<BrokerHeartbeatResponse> {
        let (id, epoch) = (request.broker_id, request.broker_epoch);
        let heartbeat = Heartbeat {
            broker_id: id,
            broker_epoch: epoch,
            current_metadata_offset: request.current_metadata_offset,
            want_fence: request.want_fence,
            want_shut_down: request.want_shut_down,
            offline_log_dirs: request.offline_log_dirs,
            cordoned_log_dirs: request.cordoned_log_dirs,
        };
        // The connection counts from the heartbeat's arrival on, because the answer may wait for a
        // slow metadata disk. The end of the connection may be the end of the broker.
        let known = cx.session.presence.as_ref().is_some_and(|it| it.is_of(id, epoch));
        if !known && id != cx.broker.node_id {
            cx.session.presence = Some(Presence::new(cx.broker, id, epoch));
        }
        let answer = match cx.broker.controller.heartbeat(heartbeat).await {
            Ok(heard) => {
                // A node that is both broker and controller applies what the answer rests on before
                // its broker continues, so that it never answers clients by older metadata. Other
                // brokers do not wait for this one, which may be busy applying much.
                if id == cx.broker.node_id {
                    cx.broker.applied(heard.offset).await;
                }
                BrokerHeartbeatResponse {
                    is_caught_up: heard.value.is_caught_up,
                    is_fenced: heard.value.is_fenced,
                    should_shut_down: heard.value.should_shut_down,
                    ..Default::default()
                }
            }
            Err(error) => BrokerHeartbeatResponse {
                error_code: errors::controller(&error).code(),
                ..Default::default()
            },
        };
        Reply::Now(answer)
    }
}
