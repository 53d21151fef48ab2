//! BrokerHeartbeat (KIP-631): a broker reports that it is alive, and whether it wants to be
//! unfenced, fenced or shut down.

use kafka_protocol::messages::ApiKey;

use super::{Context, Handler, Reply, error_counts::error_codes, errors};
use crate::{
    broker::HeartbeatConnection,
    controller::Heartbeat,
    protocol::{
        checks::CLUSTER_ACTION,
        messages::{BrokerHeartbeatRequest, BrokerHeartbeatResponse},
    },
};

pub struct BrokerHeartbeat;

impl Handler for BrokerHeartbeat {
    const API: ApiKey = ApiKey::BrokerHeartbeat;
    type Request = BrokerHeartbeatRequest;
    type Response = BrokerHeartbeatResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: BrokerHeartbeatRequest,
    ) -> Reply<BrokerHeartbeatResponse> {
        if let Err(code) = cx.check_on_cluster(CLUSTER_ACTION) {
            return Reply::Now(BrokerHeartbeatResponse {
                error_code: code.code(),
                ..Default::default()
            });
        }
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
        // The end of this connection may mean that the broker has ended. Register the connection
        // before the controller decides, because the decision may wait for a slow metadata disk.
        let known = cx.session.presence.as_ref().is_some_and(|it| it.is_of(id, epoch));
        if !known && id != cx.broker.node.id {
            let fencing = &cx.broker.membership.disconnect_fencing;
            cx.session.presence = Some(HeartbeatConnection::new(fencing, id, epoch));
        }
        let answer = match cx.broker.controller.heartbeat(heartbeat).await {
            Ok(heard) => {
                // If the broker is this node, it applies the metadata behind the decision first, so
                // that it never serves clients with older metadata. The responses to other brokers
                // do not wait for this node, which may have much metadata to apply.
                if id == cx.broker.node.id {
                    cx.broker.node.applied(heard.offset).await;
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

error_codes!(BrokerHeartbeatResponse: |it| [it.error_code]);
