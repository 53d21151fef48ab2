//! Requests that the active controller decides, come to another node: they go there in an envelope
//! (KIP-590, Kafka's `ForwardingManager`).

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{DefaultPrincipalData, EnvelopeRequest},
    protocol::{Encodable, Request, StrBytes},
};
use tokio::time::{Instant, sleep};

use super::{ErrorCode, HandlerError, ReplyBuffer, Session, answer};
use crate::{broker::Broker, peers};

/// How long a request rests while no controller takes it.
const BACKOFF: Duration = Duration::from_millis(50);

/// Has the active controller answer a whole request frame. When none does in time, this node
/// answers for itself, that it is not the controller.
pub async fn forward(
    broker: Arc<Broker>,
    mut session: Session,
    frame: Bytes,
) -> Result<ReplyBuffer, HandlerError> {
    let patience =
        Duration::from_millis(broker.settings().cluster.request_timeout_ms.max(0) as u64);
    let deadline = Instant::now() + patience;
    let envelope = envelope(frame.clone(), session.peer.ip());
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if broker.leads_quorum() || left.is_zero() {
            session = broker.controller_session(session.peer);
            return Ok(sized(&answer(&broker, &mut session, frame).await?));
        }
        match broker.send_to_controller(0, &envelope, left).await {
            Ok(response) if response.error_code == 0 => {
                return Ok(sized(&response.response_data.ok_or(HandlerError::Close)?));
            }
            Ok(response) if response.error_code == ErrorCode::NotController.code() => {}
            // The controller does not understand what this node took for a request.
            Ok(_) => return Err(HandlerError::Close),
            Err(error) => tracing::debug!(%error, "a request is not handed on yet"),
        }
        sleep(BACKOFF.min(left)).await;
    }
}

/// Has the active controller answer a request of this node's own making, in a client's name.
pub async fn ask<R: Request>(
    broker: Arc<Broker>,
    session: Session,
    version: i16,
    request: R,
) -> Option<R::Response> {
    let frame = peers::encode(version, &request).ok()?;
    let answered = forward(broker, session, frame).await.ok()?;
    peers::decode::<R>(version, answered.into_frame()?).ok()
}

fn envelope(frame: Bytes, client: IpAddr) -> EnvelopeRequest {
    let host = match client {
        IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
    };
    EnvelopeRequest::default()
        .with_request_data(frame)
        .with_request_principal(Some(anonymous()))
        .with_client_host_address(host)
}

/// Who everybody is without authentication, as Kafka's `DefaultKafkaPrincipalBuilder` writes it.
fn anonymous() -> Bytes {
    const VERSION: i16 = 0;
    let principal = DefaultPrincipalData::default()
        .with_type(StrBytes::from_static_str("User"))
        .with_name(StrBytes::from_static_str("ANONYMOUS"));
    let mut out = BytesMut::new();
    out.put_i16(VERSION);
    principal.encode(&mut out, VERSION).expect("a principal of two short names is encoded");
    out.freeze()
}

fn sized(response: &[u8]) -> ReplyBuffer {
    let mut frame = BytesMut::with_capacity(4 + response.len());
    frame.put_u32(response.len() as u32);
    frame.put_slice(response);
    ReplyBuffer::from_frame(frame)
}
