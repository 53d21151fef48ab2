//! Forwards requests to the active controller, which decides them, in an Envelope (KIP-590, Kafka's
//! `ForwardingManager`).

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{messages::EnvelopeRequest, protocol::Request};
use tokio::time::Instant;

use super::{Client, ConnectionContext, Forwarding, HandlerError, ReplyBuffer, answer};
use crate::{broker::Broker, peers};

/// The time by which a request that arrives now must be answered (`request.timeout.ms`).
pub fn deadline(broker: &Broker) -> Instant {
    let timeout_ms = broker.settings().cluster.request_timeout_ms.max(0) as u64;
    Instant::now() + Duration::from_millis(timeout_ms)
}

/// Sends a whole request frame to the active controller, which may be this node, and returns the
/// response. If that controller does not answer, the request is sent to the next one. After the
/// deadline, this node builds the response, with REQUEST_TIMED_OUT.
pub async fn forward(
    broker: Arc<Broker>,
    client: Client,
    frame: Bytes,
    deadline: Instant,
) -> Result<ReplyBuffer, HandlerError> {
    let envelope = envelope(frame.clone(), &client);
    let left = deadline.saturating_duration_since(Instant::now());
    match broker.membership.to_controller.ask(0, &envelope, left, |it| it.error_code).await {
        Ok(answer) if answer.error_code == 0 => {
            Ok(sized(&answer.response_data.ok_or(HandlerError::Close)?))
        }
        // The controller refused the envelope, although this node could parse the request.
        Ok(_) => Err(HandlerError::Close),
        Err(error) => {
            tracing::debug!(%error, "no controller has answered a request in time");
            timed_out(broker, client, frame).await
        }
    }
}

/// Builds the response with REQUEST_TIMED_OUT to a whole request frame. Nothing is authorised,
/// because nothing is done.
pub async fn timed_out(
    broker: Arc<Broker>,
    client: Client,
    frame: Bytes,
) -> Result<ReplyBuffer, HandlerError> {
    let client = Client { authorizer: None, ..client };
    let mut session = ConnectionContext::of_controller_listener(&broker.settings(), client);
    Ok(sized(&answer(&broker, &mut session, frame, Forwarding::TimedOut).await?))
}

/// Adds the size field to a response frame.
fn sized(response: &[u8]) -> ReplyBuffer {
    let mut sized = BytesMut::with_capacity(4 + response.len());
    sized.put_u32(response.len() as u32);
    sized.put_slice(response);
    ReplyBuffer::from_frame(sized)
}

/// Sends a request that this node makes on behalf of `client` to the active controller.
pub async fn ask<R: Request>(
    broker: Arc<Broker>,
    client: Client,
    version: i16,
    request: R,
    deadline: Instant,
) -> Result<R::Response, HandlerError> {
    let frame = peers::encode(version, &request).map_err(|_| HandlerError::Close)?;
    let answered = forward(broker, client, frame, deadline).await?;
    let frame = answered.into_frame().ok_or(HandlerError::Close)?;
    peers::decode::<R>(version, frame).map_err(|_| HandlerError::Close)
}

fn envelope(frame: Bytes, client: &Client) -> EnvelopeRequest {
    let host = match client.address.ip() {
        IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
    };
    EnvelopeRequest::default()
        .with_request_data(frame)
        .with_request_principal(Some(client.principal.serialize()))
        .with_client_host_address(host)
}
