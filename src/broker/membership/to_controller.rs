//! Requests to the active controller. If this node is the active controller, the requests go over
//! the channel to itself, without a socket.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use kafka_protocol::protocol::Request;
use parking_lot::Mutex;
use tokio::runtime::{self, Handle};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::Node;
use crate::{
    peers::{self, Address, Channel, Network, PeerError},
    protocol::ErrorCode,
    quorum::{Leadership, Quorum},
};

/// The pause before a request is sent again after a transient error.
const BACKOFF: Duration = Duration::from_millis(50);
/// How long a request waits for the answer of a controller that has been replaced.
const LATE_ANSWER_MAX: Duration = Duration::from_secs(1);

/// The reason why the active controller has not answered a request.
#[derive(Debug, thiserror::Error)]
pub enum ToControllerError {
    #[error("the quorum has no known leader")]
    NoController,
    #[error("no known address for controller {0}")]
    NoAddress(i32),
    #[error("node {0:?} is not the active controller")]
    NotController(Option<i32>),
    #[error("controller {0:?} was replaced before it answered")]
    Replaced(Option<i32>),
    #[error(transparent)]
    Peer(#[from] PeerError),
}

/// Sends requests to the active controller (Kafka's `NodeToControllerChannelManager`).
pub struct ToController {
    node: Arc<Node>,
    quorum: Quorum,
    /// The channel over which this node sends requests to its own controller.
    own_channel: Arc<dyn Channel>,
    idle: Idle,
}

/// Idle connections to the active controller.
#[derive(Default)]
struct Idle {
    channels: Mutex<Vec<IdleChannel>>,
}

struct IdleChannel {
    to: Address,
    /// The runtime that opened the connection. The connection needs it to make progress.
    runtime: runtime::Id,
    channel: Arc<dyn Channel>,
}

impl ToControllerError {
    /// Whether the same request can succeed at the next active controller.
    fn is_transient(&self) -> bool {
        match self {
            Self::NoController | Self::NoAddress(_) => true,
            Self::NotController(_) | Self::Replaced(_) => true,
            Self::Peer(error) => {
                use PeerError::{Decode, Encode, NotHandled};
                !matches!(error, Encode(_) | Decode(_) | NotHandled(_))
            }
        }
    }
}

impl Idle {
    fn take(&self, network: &dyn Network, to: &Address) -> Arc<dyn Channel> {
        let mut channels = self.channels.lock();
        // Connections to previous controllers are closed.
        channels.retain(|idle| idle.to == *to);
        let here = Handle::current().id();
        match channels.iter().rposition(|idle| idle.runtime == here) {
            Some(at) => channels.swap_remove(at).channel,
            None => network.channel(to),
        }
    }

    fn put_back(&self, to: Address, channel: Arc<dyn Channel>) {
        let mut channels = self.channels.lock();
        channels.push(IdleChannel { to, runtime: Handle::current().id(), channel });
    }
}

impl ToController {
    pub fn new(node: Arc<Node>, quorum: Quorum, own_channel: Arc<dyn Channel>) -> Self {
        Self { node, quorum, own_channel, idle: Idle::default() }
    }

    /// Sends a request to the active controller once. The caller decides whether to send it again.
    ///
    /// # Errors
    /// If no controller is known, or if it does not answer within `timeout`. The controller may
    /// then still have handled the request. An error code in the response is not an error here.
    pub async fn send<R: Request>(
        &self,
        version: i16,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Response, ToControllerError> {
        self.send_to(self.quorum.leader(), version, request, timeout).await
    }

    async fn send_to<R: Request>(
        &self,
        leader: Option<i32>,
        version: i16,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Response, ToControllerError> {
        let leader = leader.ok_or(ToControllerError::NoController)?;
        let frame = peers::encode(version, request)?;
        let response = self.call(leader, frame, timeout).await?;
        Ok(peers::decode::<R>(version, response)?)
    }

    /// Sends a request to the active controller, and to its successors, until a controller has
    /// answered it or `timeout` has passed (Kafka's `NodeToControllerRequestThread`). The request
    /// is sent again if no controller is active, if the answer is NOT_CONTROLLER, if the connection
    /// breaks, or if another controller becomes active before the answer arrives. As in Kafka, a
    /// request whose answer was lost may therefore be handled twice. `error_code` returns the
    /// top-level error code of a response.
    pub async fn ask<R: Request>(
        &self,
        version: i16,
        request: &R,
        timeout: Duration,
        error_code: impl Fn(&R::Response) -> i16,
    ) -> Result<R::Response, ToControllerError> {
        let deadline = Instant::now() + timeout;
        let error_code = &error_code;
        let send = |leader, left| async move {
            let answer = self.send_to(leader, version, request, left).await?;
            match error_code(&answer) == ErrorCode::NotController.code() {
                true => Err(ToControllerError::NotController(leader)),
                false => Ok(answer),
            }
        };
        ask_each_leader(self.quorum.leadership(), deadline, send).await
    }

    async fn call(
        &self,
        leader: i32,
        frame: Bytes,
        within: Duration,
    ) -> Result<Bytes, ToControllerError> {
        if leader == self.node.id {
            return Ok(self.own_channel.call(frame, within).await?);
        }
        let to = self.address_of(leader).ok_or(ToControllerError::NoAddress(leader))?;
        let channel = self.idle.take(&*self.node.network, &to);
        let response = channel.call(frame, within).await?;
        self.idle.put_back(to, channel);
        Ok(response)
    }

    /// The address of a controller: from `controller.quorum.voters`, or from its registration, or
    /// from the quorum. Controllers of Apache Kafka before 3.7 do not register.
    fn address_of(&self, id: i32) -> Option<Address> {
        let settings = self.node.settings();
        let voters = &settings.cluster.controller_quorum_voters;
        if let Some(voter) = voters.iter().find(|voter| voter.id == id) {
            return Some(Address { host: voter.host.clone(), port: voter.port });
        }
        let image = self.node.metadata();
        let registered = image.controllers.get(&id).and_then(|it| it.end_points.first());
        if let Some(at) = registered {
            return Some(Address { host: at.host.clone(), port: at.port });
        }
        self.quorum.endpoint(id).map(|at| Address { host: at.host, port: at.port })
    }
}

/// Calls `send` with the leader of the quorum and the remaining time, and again for each new leader
/// or after a transient error, until a leader has answered or the deadline has passed.
async fn ask_each_leader<T, F: Future<Output = Result<T, ToControllerError>>>(
    mut leadership: watch::Receiver<Leadership>,
    deadline: Instant,
    mut send: impl FnMut(Option<i32>, Duration) -> F,
) -> Result<T, ToControllerError> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let leader = leadership.borrow_and_update().leader;
        let error = tokio::select! {
            biased;
            answered = send(leader, left) => match answered {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            },
            () = is_replaced(&mut leadership, leader) => ToControllerError::Replaced(leader),
        };
        if Instant::now() >= deadline || !error.is_transient() {
            return Err(error);
        }
        tracing::debug!(%error, "no controller has taken the request yet");
        sleep(BACKOFF.min(left)).await;
    }
}

/// Waits until another node leads the quorum, and then [`LATE_ANSWER_MAX`] for a late answer of
/// `leader`.
async fn is_replaced(leadership: &mut watch::Receiver<Leadership>, leader: Option<i32>) {
    let replaced = leadership.wait_for(|it| it.leader.is_some() && it.leader != leader).await;
    match replaced.map(drop) {
        Ok(()) => sleep(LATE_ANSWER_MAX).await,
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn led_by(leader: i32) -> Leadership {
        Leadership { leader: Some(leader), ..Leadership::default() }
    }

    /// The leader changes just before the request is sent.
    #[tokio::test(start_paused = true)]
    async fn a_request_is_sent_once_to_each_leader() {
        let (leadership, _) = watch::channel(led_by(1));
        let mut sent_to = Vec::new();
        let answered =
            ask_each_leader(leadership.subscribe(), Instant::now() + TIMEOUT, |to, _| {
                sent_to.push(to);
                let is_last = to == Some(3);
                if !is_last {
                    leadership.send_replace(led_by(to.map_or(0, |id| id + 1)));
                }
                async move { if is_last { Ok("answer") } else { pending().await } }
            });
        assert_eq!(answered.await.unwrap(), "answer");
        assert_eq!(sent_to, [Some(1), Some(2), Some(3)]);
    }

    /// A request that is sent after the deadline could be handled twice.
    #[tokio::test(start_paused = true)]
    async fn nothing_is_sent_after_the_deadline() {
        let (leadership, _) = watch::channel(led_by(1));
        let mut sent = 0;
        let answered =
            ask_each_leader(leadership.subscribe(), Instant::now() + TIMEOUT, |_, left| {
                sent += 1;
                async move {
                    sleep(left).await;
                    Err::<(), _>(ToControllerError::from(PeerError::OwnTimedOut(left)))
                }
            });
        let answered = answered.await;
        assert!(
            matches!(answered, Err(ToControllerError::Peer(PeerError::OwnTimedOut(TIMEOUT)))),
            "{answered:?}"
        );
        assert_eq!(sent, 1);
    }
}
