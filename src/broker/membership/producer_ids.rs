//! Producer ids for idempotent and transactional producers, from blocks that the controller allocates
//! (AllocateProducerIds, `ProducerIdsRecord`).

use std::{ops::Range, sync::Arc, time::Duration};

use futures_core::future::BoxFuture;
use kafka_protocol::messages::{AllocateProducerIdsRequest, BrokerId};
use tokio::sync::Mutex;

use super::{Node, ToController, ToControllerError};
use crate::coordinator::ProducerIdSource;

/// The longest time that a producer waits for a new block.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum ProducerIdError {
    #[error(transparent)]
    ToController(#[from] ToControllerError),
    #[error("the controller refuses with error code {0}")]
    Refused(i16),
}

pub struct ProducerIds {
    node: Arc<Node>,
    to_controller: Arc<ToController>,
    /// The unused ids of the current block. This is an async mutex: one caller requests the next
    /// block while the others wait.
    block: Mutex<Range<i64>>,
}

impl ProducerIds {
    pub fn new(node: Arc<Node>, to_controller: Arc<ToController>) -> Self {
        Self { node, to_controller, block: Mutex::default() }
    }

    /// Returns a producer id that is unique in the cluster. Requests a new block if necessary.
    pub async fn next(&self) -> Result<i64, ProducerIdError> {
        let mut block = self.block.lock().await;
        if block.is_empty() {
            let request = AllocateProducerIdsRequest::default()
                .with_broker_id(BrokerId(self.node.id))
                .with_broker_epoch(self.node.epoch());
            let asked = self.to_controller.ask(0, &request, PATIENCE, |it| it.error_code);
            let answer = asked.await?;
            if answer.error_code != 0 {
                return Err(ProducerIdError::Refused(answer.error_code));
            }
            let first = answer.producer_id_start.0;
            *block = first..first + i64::from(answer.producer_id_len);
        }
        let id = block.start;
        block.start += 1;
        Ok(id)
    }
}

impl ProducerIdSource for ProducerIds {
    fn next(&self) -> BoxFuture<'_, Result<i64, ()>> {
        let next = self.next();
        Box::pin(async move {
            next.await.map_err(|error| {
                tracing::warn!(%error, "no producer ids from the controller");
            })
        })
    }
}
